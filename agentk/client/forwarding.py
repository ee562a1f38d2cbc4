"""Ports of our loopback that lead into a box: a thread and a WebSocket for each connection."""

import contextlib
import json
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from agentk.api import channels, errors
from agentk.client import lines

_BACKLOG = 64
_MOST = 60  # connections at once: the daemon has room for few more visits
_CHUNK_BYTES = 32 * 1024
_DATA, _ERROR = 0, 1
_PORT_BYTES = 2  # what each channel says first is its port
_WHY_MAX_BYTES = 4096


class Forwarder:
    """`say` is told of what cannot be forwarded."""

    def __init__(self, daemon: Path, path: str, say: Callable[[str], None]) -> None:
        self._daemon, self._path, self._say = daemon, path, say
        self._listeners: dict[int, tuple[socket.socket, int]] = {}
        self._room = threading.Semaphore(_MOST)

    def __enter__(self) -> "Forwarder":
        return self

    def __exit__(self, *_: object) -> None:
        for listener, _port in self._listeners.values():
            listener.close()

    def listen(self, host: str, local: int, port: int) -> int:
        """The port that leads to the box's `port` now: `local`, or a free one for 0. Raises Conflict."""
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, local))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise errors.Conflict(
                f"cannot listen on port {local}: {error.strerror}", hint=f"choose another: :{port}"
            ) from None
        self._listeners[listener.fileno()] = (listener, port)
        return int(listener.getsockname()[1])

    def run(self) -> None:
        """Until interrupted."""
        poll = select.poll()
        for fd in self._listeners:
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                listener, port = self._listeners[fd]
                with contextlib.suppress(OSError):
                    caller, _address = listener.accept()
                    self._room.acquire()
                    thread = threading.Thread(
                        target=self._serve, args=(caller, port), name=f"port {port}", daemon=True
                    )
                    thread.start()

    def _serve(self, caller: socket.socket, port: int) -> None:
        try:
            with caller, lines.Line(self._daemon, self._path, [("ports", str(port))]) as line:
                if why := join(caller, line):
                    self._say(f"port {port}: {why}")
        except errors.AgentkError as error:
            self._say(f"port {port}: {error.message}")
        finally:
            self._room.release()


def join(caller: socket.socket, line: lines.Line) -> str:
    """Both ways until both have ended. Why it could not be, as the daemon says; "" when it could."""
    caller.setblocking(False)
    joined = _Joined(caller, line)
    poll = select.poll()
    while not line.ended and not joined.is_over:
        poll.register(line, joined.line_events)
        if joined.caller_events:
            poll.register(caller, joined.caller_events)
        ready = dict(poll.poll())
        if joined.caller_events:
            poll.unregister(caller)
        if caller.fileno() in ready:
            joined.from_caller(ready[caller.fileno()])
        if line.fileno() in ready:
            line.flush()
            if ready[line.fileno()] & ~select.POLLOUT:
                joined.from_box()
    joined.finish()
    return _words(joined.why)


class _Joined:
    def __init__(self, caller: socket.socket, line: lines.Line) -> None:
        self._caller, self._line = caller, line
        self._unsent = bytearray()
        self._skip = {_DATA: _PORT_BYTES, _ERROR: _PORT_BYTES}
        self._said_all = self._heard_all = False  # the caller; the box
        self._gone = False  # the caller reads no more
        self.why = b""

    @property
    def is_over(self) -> bool:
        return self._gone or (self._said_all and self._heard_all and not self._unsent)

    @property
    def line_events(self) -> int:
        reads = len(self._unsent) < lines.UNSENT_BYTES
        return (select.POLLIN if reads else 0) | (select.POLLOUT if self._line.wants_to_write else 0)

    @property
    def caller_events(self) -> int:
        reads = not self._said_all and self._line.has_room
        return (select.POLLIN if reads else 0) | (select.POLLOUT if self._unsent else 0)

    def from_caller(self, events: int) -> None:
        self.flush()
        if self._said_all or not events & ~select.POLLOUT or not self._line.has_room:
            return
        try:
            data = self._caller.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._gone = True
            return
        if data:
            self._line.say(_DATA, data)
        else:
            self._said_all = True
            self._line.close_channel(_DATA)

    def from_box(self) -> None:
        for channel, data in self._line.hear():
            skipped = min(self._skip.get(channel, 0), len(data))
            if skipped:
                self._skip[channel] -= skipped
                data = data[skipped:]
            if channel == _DATA:
                self._unsent += data
            elif channel == _ERROR:
                self.why = (self.why + data)[:_WHY_MAX_BYTES]
            elif channel == channels.CLOSE and data[:1] == bytes((_DATA,)):
                self._heard_all = True
        self.flush()

    def flush(self) -> None:
        while self._unsent:
            try:
                del self._unsent[: self._caller.send(self._unsent[:_CHUNK_BYTES])]
            except BlockingIOError:
                return
            except OSError:
                self._gone = True
                self._unsent.clear()
                return
        if self._heard_all:
            with contextlib.suppress(OSError):
                self._caller.shutdown(socket.SHUT_WR)

    def finish(self) -> None:
        """What the box said last is still to be sent."""
        self._caller.setblocking(True)
        with contextlib.suppress(OSError):
            self._caller.sendall(self._unsent)
        self._line.end()


def _words(why: bytes) -> str:
    with contextlib.suppress(ValueError):
        told = json.loads(why)
        if isinstance(told, dict) and told.get("kind") == "Status":
            return errors.from_status(told).message
    return why.decode("utf-8", "replace")
