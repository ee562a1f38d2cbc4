"""A person's end of a WebSocket that speaks Kubernetes' channels with the daemon. Never waits: whoever uses it polls.

What is to be sent is kept, and only so much of it is taken that there is room for; what comes is handed on at once.
"""

import base64
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

from agentk.api import channels
from agentk.client import upgrading, wire

UNSENT_BYTES = 256 * 1024
_READ_BYTES = 64 * 1024
_KEY_BYTES = 16


class Line:
    def __init__(
        self, daemon: Path, path: str, query: Sequence[tuple[str, str]], whole: Sequence[int] = ()
    ) -> None:
        """Connected. Raises what the daemon's Status stands for. `whole`: as of a Speaker, besides CLOSE."""
        headers = {
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(_KEY_BYTES)).decode(),
            "Sec-WebSocket-Protocol": channels.V5,
        }
        self._socket: socket.socket = upgrading.upgrade(
            daemon, f"{path}?{urlencode(query)}", "websocket", headers
        )
        self._socket.setblocking(False)
        self._speaker = channels.Speaker(client=True, protocol=channels.V5, whole=(channels.CLOSE, *whole))
        self._unsent = bytearray()
        self.ended = False

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def has_room(self) -> bool:
        """Whether more may be said."""
        return len(self._unsent) < UNSENT_BYTES

    @property
    def wants_to_write(self) -> bool:
        return bool(self._unsent)

    def say(self, channel: int, data: bytes) -> None:
        self._put(self._speaker.say(channel, data))

    def close_channel(self, channel: int) -> None:
        self._put(self._speaker.close_channel(channel))

    def end(self) -> None:
        """The last words; the daemon's own come after."""
        self._put(self._speaker.end())

    def hear(self) -> list[channels.Heard]:
        """What came, [] when nothing did or it is the end. Raises Cut when the daemon went away."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise wire.Cut(f"the connection to the daemon broke: {error.strerror}") from None
        if not data:
            self.ended = True
            return []
        heard = self._speaker.feed(data)
        self._put(self._speaker.answers())
        self.ended = self._speaker.ended
        return heard

    def flush(self) -> None:
        """Send what there is room for."""
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent[:_READ_BYTES])
            except BlockingIOError:
                return
            except OSError:  # it hung up: what it said before is still to be read
                self._unsent.clear()
                return
            del self._unsent[:sent]

    def close(self) -> None:
        """Hang up. Repeatable."""
        self._socket.close()

    def _put(self, data: bytes) -> None:
        self._unsent += data
        self.flush()
