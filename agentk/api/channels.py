"""Kubernetes' channel protocols for exec, attach and port-forward: WebSocket messages whose first byte names a channel.

Both ends speak through a `Speaker`: bytes in, what was said out. No I/O, and nothing is collected but the few short
messages that mean something as a whole: data is handed on in the pieces in which it came, so that neither end can make
the other hold much.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from wsproto import connection, events
from wsproto.utilities import LocalProtocolError

from agentk.api import errors

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
CLOSE = 255  # v5: what follows is the number of the channel that says nothing more
V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
PROTOCOLS = (V5, V4)  # the better one first
TIMED_OUT = 124  # the exit code of a command that ran out of the time it was given

_SHORT_BYTES = 4096  # of a message that is read as a whole
_EXIT = ("NonZeroExitCode", "ExitCode")  # the reason of a Status, and of its cause that has the code
_NORMAL, _PROTOCOL_ERROR, _TOO_BIG = 1000, 1002, 1009


class Heard(NamedTuple):
    """A piece of what a channel said."""

    channel: int
    data: bytes


class Speaker:
    """One end of one connection, after the handshake."""

    def __init__(self, *, client: bool, protocol: str, whole: Sequence[int] = (RESIZE, CLOSE)) -> None:
        """`whole`: channels whose messages are short and heard at once."""
        kind = connection.ConnectionType.CLIENT if client else connection.ConnectionType.SERVER
        self._socket = connection.Connection(kind)
        self.closes_channels = protocol == V5
        self._whole = frozenset(whole)
        self._channel = -1  # of the message that is being heard
        self._short = bytearray()
        self._answers = bytearray()
        self.ended = False  # the other end says nothing more, and hears nothing

    def feed(self, data: bytes) -> list[Heard]:
        """What came from the other end. Afterwards send what `answers` has, and look at `ended`."""
        heard: list[Heard] = []
        for event in self._events(data):
            if isinstance(event, events.Ping):
                self._answer(event.response())
            elif isinstance(event, events.CloseConnection):
                self._close(event)
            elif isinstance(event, events.TextMessage | events.BytesMessage):
                piece = event.data.encode() if isinstance(event, events.TextMessage) else bytes(event.data)
                heard += self._message(piece, event.message_finished)
        return heard

    def _events(self, data: bytes) -> Iterator[events.Event]:
        if not self.ended:
            self._socket.receive_data(data)
        for event in () if self.ended else self._socket.events():
            yield event
            if self.ended:
                return

    def answers(self) -> bytes:
        """What the protocol itself has to say: send it before anything else."""
        said, self._answers = bytes(self._answers), bytearray()
        return said

    def say(self, channel: int, data: bytes) -> bytes:
        """A message of one channel; b"" when nobody hears it any more."""
        return self._send(events.BytesMessage(bytes((channel,)) + data))

    def close_channel(self, channel: int) -> bytes:
        """That a channel says nothing more. Before v5 there are no words for it, and it is b""."""
        return self._send(events.BytesMessage(bytes((CLOSE, channel)))) if self.closes_channels else b""

    def ping(self) -> bytes:
        return self._send(events.Ping())

    def end(self, code: int = _NORMAL, reason: str = "") -> bytes:
        """The last words. Repeatable."""
        return self._send(events.CloseConnection(code, reason or None))

    def _message(self, piece: bytes, finished: bool) -> Iterator[Heard]:
        if self._channel < 0 and piece:
            self._channel, piece = piece[0], piece[1:]
        channel = self._channel
        if finished:
            self._channel = -1
        if channel not in self._whole:
            if piece and channel >= 0:
                yield Heard(channel, piece)
            return
        self._short += piece
        if len(self._short) > _SHORT_BYTES:
            self._answer(events.CloseConnection(_TOO_BIG, "too long for this channel"))
            self.ended = True
        elif finished:
            said, self._short = bytes(self._short), bytearray()
            yield Heard(channel, said)

    def _close(self, event: events.CloseConnection) -> None:
        self.ended = True
        if self._socket.state is connection.ConnectionState.REMOTE_CLOSING:
            self._answer(event.response())
        elif self._socket.state is connection.ConnectionState.OPEN:  # what came is no WebSocket
            self._answer(events.CloseConnection(event.code or _PROTOCOL_ERROR))

    def _answer(self, event: events.Event) -> None:
        self._answers += self._send(event)

    def _send(self, event: events.Event) -> bytes:
        try:
            return self._socket.send(event)
        except LocalProtocolError:  # one of the two has said its last
            return b""


def choose(offered: Sequence[str]) -> str:
    """The subprotocol to speak. Raises BadRequest when none of ours is offered."""
    found = next((one for one in PROTOCOLS if one in offered), None)
    if found is None:
        raise errors.BadRequest(
            "none of the offered subprotocols is spoken here", hint=f"offer {' or '.join(PROTOCOLS)}"
        )
    return found


def exited(code: int) -> dict[str, Any]:
    """The Status of a command that has ended, as channel 3 tells it."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {code}",
        "reason": _EXIT[0],
        "details": {"causes": [{"reason": _EXIT[1], "message": str(code)}]},
    }


def exit_code(status: Mapping[str, Any]) -> int:
    """The code that a Status tells. Raises the error that it stands for when no command has ended."""
    if status.get("status") == "Success":
        return 0
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, Mapping) else None
    for cause in causes if isinstance(causes, list) else ():
        text = str(cause.get("message")) if isinstance(cause, Mapping) else ""
        if status.get("reason") == _EXIT[0] and text.isascii() and text.isdigit() and int(text[:4]) < 256:
            return int(text)
    raise errors.from_status(status)


def size(data: bytes) -> tuple[int, int] | None:
    """Columns and rows of a message on the resize channel; None for one that means nothing."""
    try:
        told = json.loads(data)
        columns, rows = told["Width"], told["Height"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    good = all(
        isinstance(one, int) and not isinstance(one, bool) and 0 < one < 1 << 16 for one in (columns, rows)
    )
    return (columns, rows) if good else None


def sized(columns: int, rows: int) -> bytes:
    return json.dumps({"Width": columns, "Height": rows}).encode()
