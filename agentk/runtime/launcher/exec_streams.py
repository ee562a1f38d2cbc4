"""The three pipes of a command: what it is fed, and what it says. Nothing here waits, whatever the command does.

What a command does not read of what it was fed, and what is kept of what it said, is in our memory: how much that may
be for all commands of a box is bounded where they begin. One that talks faster than the daemon listens is held back by
its own full pipe: we stop reading it.
"""

import base64
import os
from collections.abc import Callable
from functools import partial

from agentk.runtime.ends import Ends
from agentk.runtime.launcher import loop, wire

_PIPE_BYTES = 64 * 1024
_LAST_MAX_BYTES = (
    2 * 1024 * 1024
)  # of a pipe whose writers are dead: more than any pipe an agent can make holds
WINDOW_BYTES = 512 * 1024  # sent ahead of what the daemon says it has taken
NAMES = ("out", "err")


def pipe(owner: int) -> tuple[int, int]:
    """A pipe that the box's uid may open again by its name in /proc/self/fd, as /dev/stdin and /dev/stdout are."""
    read, write = os.pipe2(os.O_CLOEXEC)
    if owner >= 0:
        os.fchown(read, owner, owner)
    return read, write


class Feed:
    """Our end of a command's standard input. Closed as soon as all is written, or nobody reads."""

    def __init__(self, looping: loop.Loop, write: int, data: bytes) -> None:
        """Takes `write` over."""
        self._loop, self._write, self._rest = looping, write, memoryview(data)
        os.set_blocking(write, False)
        looping.watch(write, loop.WRITE, lambda _: self._more())

    @property
    def waiting_bytes(self) -> int:
        return len(self._rest)

    def close(self) -> None:
        """Repeatable."""
        if self._write < 0:
            return
        self._loop.forget(self._write)
        os.close(self._write)
        self._write, self._rest = -1, memoryview(b"")

    def _more(self) -> None:
        try:
            sent = os.write(self._write, self._rest[:_PIPE_BYTES])
        except BlockingIOError:
            return
        except OSError:  # it closed its input, or ended
            self.close()
            return
        self._rest = self._rest[sent:]
        if not self._rest:
            self.close()


class Said:
    """Both outputs of a command: kept up to a bound, or sent on as they come."""

    def __init__(
        self, looping: loop.Loop, limit: int | None, send: Callable[[str, str], None] | None
    ) -> None:
        """`limit` of bytes a stream, None for none. `send`: told the stream's name and base64 text; without it the
        first and last of each are kept."""
        self._loop, self._limit, self._send = looping, limit, send
        self._reads: dict[str, int] = {}  # name → our end
        self._open: set[str] = set()  # those that have not ended
        self._held: set[str] = set()  # those that we do not read now, so that their writer waits
        self._taken = dict.fromkeys(NAMES, 0)
        self._kept = {name: Ends(0 if send or limit is None else limit) for name in NAMES}
        self._window = WINDOW_BYTES
        self.is_full: Callable[[], bool] = lambda: False

    def watch(self, name: str, read: int) -> None:
        """Takes `read` over."""
        os.set_blocking(read, False)
        self._reads[name] = read
        self._open.add(name)
        self._listen(name)

    def kept(self, name: str) -> bytes:
        """What was not sent on."""
        return self._kept[name].kept()

    def truncated(self, name: str) -> bool:
        """Whether there was more than the limit."""
        return self._limit is not None and self._taken[name] > self._limit

    def allow(self, more: int) -> None:
        """The daemon has taken so many bytes."""
        self._window += more
        self.resume()

    def resume(self) -> None:
        """Listen again where we had stopped. Repeatable."""
        held, self._held = self._held, set()
        for name in held & self._open:
            self._listen(name)

    def finish(self) -> None:
        """The command has ended: take what is left in its pipes, whoever has room for it."""
        for name in list(self._open):
            left = _LAST_MAX_BYTES
            while left > 0 and (size := self._take(name)) > 0:
                left -= size

    def close(self) -> None:
        """Repeatable."""
        for read in self._reads.values():
            self._loop.forget(read)
            os.close(read)
        self._reads, self._open = {}, set()

    def _listen(self, name: str) -> None:
        self._loop.watch(self._reads[name], loop.READ, partial(self._ready, name))

    def _ready(self, name: str, _: int) -> None:
        if self._send is not None and (self._window <= 0 or self.is_full()):
            self._loop.forget(self._reads[name])
            self._held.add(name)
            return
        self._take(name)

    def _take(self, name: str) -> int:
        """Bytes read; 0 when there is nothing now, or never will be."""
        read = self._reads.get(name)
        if read is None:
            return 0  # closed by what the last send led to
        try:
            data = os.read(read, _PIPE_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            self._open.discard(name)
            self._loop.forget(read)
            return 0
        room = len(data) if self._limit is None else max(0, self._limit - self._taken[name])
        self._taken[name] += len(data)
        if self._send is None:
            self._kept[name].add(data)
        elif room:
            self._window -= len(data[:room])
            self._send(name, base64.b64encode(data[:room]).decode())
        return len(data)


def note(box_id: str, exec_id: str, name: str, data: str) -> wire.Message:
    """What is sent of a command that streams."""
    return {"note": "output", "box_id": box_id, "exec_id": exec_id, "stream": name, "data": data}
