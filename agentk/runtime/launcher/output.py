"""Out of the FIFOs of boxes, into their logs; nothing lost and nothing doubled if we are killed on the way.

A batch is moved from the FIFO into one small file in one system call (splice), with a header written before that
says for which log and at which length of it. After a death the next launcher cuts that log back to the length and
writes the batch once. A guest that writes more than its share is not read for a while: its pipe fills, it waits, and
the time is counted.
"""

import errno
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agentk.runtime import box as words
from agentk.runtime import logs
from agentk.runtime.launcher import loop as loops
from agentk.runtime.launcher.crash import crashpoint

_HEADER_BYTES = 4096
_BATCH_BYTES = logs.CONTENT_MAX_BYTES
_RETRY_SECONDS = 1.0  # when the disk is full
STDIN = "stdin"
_PIPE_MAX_BYTES = 1 << 20  # a guest may enlarge its pipe to this


class Drain:
    """The file through which every batch goes. One for the launcher: batches are never at the same time."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._recover()
        os.ftruncate(self._fd, _HEADER_BYTES)

    def close(self) -> None:
        """At the launcher's end."""
        os.close(self._fd)

    def move(self, fifo: int, log: Path, offset: int, stream: str) -> bytes:
        """Take a batch out of a FIFO (b"" when it is empty); `settle` once it is in the log."""
        header = json.dumps({"log": str(log), "offset": offset, "stream": stream}).encode()
        os.pwrite(self._fd, header.ljust(_HEADER_BYTES), 0)
        crashpoint("drain.after-header")
        try:
            count = os.splice(fifo, self._fd, _BATCH_BYTES, offset_dst=_HEADER_BYTES)
        except BlockingIOError:
            return b""
        crashpoint("drain.after-move")
        return os.pread(self._fd, count, _HEADER_BYTES)

    def settle(self) -> None:
        """The batch is in its log."""
        crashpoint("drain.after-log")
        os.ftruncate(self._fd, _HEADER_BYTES)

    def _recover(self) -> None:
        size = os.fstat(self._fd).st_size
        if size <= _HEADER_BYTES:
            return
        data = os.pread(self._fd, size - _HEADER_BYTES, _HEADER_BYTES)
        try:
            header = json.loads(os.pread(self._fd, _HEADER_BYTES, 0))
            log = os.open(header["log"], os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (OSError, ValueError):
            return  # its agent was forgotten
        try:
            os.ftruncate(log, header["offset"])
            os.lseek(log, 0, os.SEEK_END)
            write_all(log, logs.records(header["stream"], data, logs.stamp(time.time_ns())))
        finally:
            os.close(log)


def write_all(fd: int, data: bytes) -> None:
    """write(2) until nothing is left."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@dataclass
class Share:
    """A token bucket over bytes of log: one second's worth may come at once."""

    bytes_per_second: int
    tokens: float
    at: float

    def wait_seconds(self, now: float) -> float:
        """0 when something may be written now."""
        self.tokens = min(self.bytes_per_second, self.tokens + (now - self.at) * self.bytes_per_second)
        self.at = now
        return 0.0 if self.tokens > 0 else -self.tokens / self.bytes_per_second + 0.005


class Output:
    """Every stream of one box."""

    def __init__(
        self,
        loop: loops.Loop,
        drain: Drain,
        log: Path,
        limits: words.LogLimits,
        fifos: dict[str, int],
        *,
        group: int = -1,
        counts: tuple[int, int] = (0, 0),
        on_rotate: Callable[["Output"], None] | None = None,
    ) -> None:
        """Takes the FIFOs over. `group`: the gid that may read the log; -1 leaves it as it is."""
        self.path = log
        self.stdin = fifos.pop(STDIN, -1)  # only kept, so that what is in it outlives whoever wrote it
        self.fifos = fifos
        self.log_bytes, self.held_back_usec = counts
        self._loop, self._drain, self._limits, self._group = loop, drain, limits, group
        self._share = Share(limits.bytes_per_second, float(limits.bytes_per_second), time.monotonic())
        self._timer: loops.Timer | None = None
        self._held_since = 0.0
        self._pending: tuple[str, bytes] | None = None
        self._on_rotate = on_rotate
        self._fd, self._size = self._open_log()
        self._watch()

    def finish(self) -> None:
        """The box has ended: take what is left, without holding back, and close everything."""
        self._resume()
        for stream in list(self.fifos):
            taken = 0
            while taken < _PIPE_MAX_BYTES and (count := self._batch(stream)):
                taken += count
        self.close()

    def close(self) -> None:
        """Repeatable. What is in the FIFOs stays there while somebody else has them open."""
        if self._timer:
            self._timer.cancel()
        for fd in self.fifos.values():
            self._loop.forget(fd)
            os.close(fd)
        self.fifos = {}
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def let_go(self) -> dict[str, int]:
        """Its FIFOs, which go on to another log. Nothing else is left of it."""
        fifos, self.fifos = self.fifos, {}
        for fd in fifos.values():
            self._loop.forget(fd)
        self.close()
        return fifos

    def _watch(self) -> None:
        for stream, fd in self.fifos.items():
            self._loop.watch(fd, loops.READ, partial(self._ready, stream))

    def _ready(self, stream: str, events: int) -> None:
        wait = self._share.wait_seconds(time.monotonic())
        if wait:
            self._hold_back(wait)
        else:
            self._batch(stream)

    def _hold_back(self, seconds: float) -> None:
        for fd in self.fifos.values():
            self._loop.forget(fd)
        self._held_since = time.monotonic()
        self._timer = self._loop.after(seconds, self._go_on)

    def _go_on(self) -> None:
        self._resume()
        if self._pending is not None:
            stream, data = self._pending
            if not self._write(stream, data):
                self._hold_back(_RETRY_SECONDS)
                return
            self._pending = None
        self._watch()

    def _resume(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
            self.held_back_usec += int((time.monotonic() - self._held_since) * 1_000_000)

    def _batch(self, stream: str) -> int:
        if self._size >= self._limits.max_bytes:
            self._rotate()
        data = self._drain.move(self.fifos[stream], self.path, self._size, stream)
        if data and not self._write(stream, data):
            self._pending = (stream, data)
            self._hold_back(_RETRY_SECONDS)
        if data:
            self._drain.settle()
        return len(data)

    def _write(self, stream: str, data: bytes) -> bool:
        lines = logs.records(stream, data, logs.stamp(time.time_ns()))
        try:
            write_all(self._fd, lines)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            os.ftruncate(self._fd, self._size)  # half a batch must not stay
            os.lseek(self._fd, 0, os.SEEK_END)
            return False
        self._size += len(lines)
        self.log_bytes += len(lines)
        self._share.tokens -= len(lines)
        return True

    def _rotate(self) -> None:
        os.close(self._fd)
        logs.rotate(self.path, self._limits.max_files)
        self._fd, self._size = self._open_log()
        if self._on_rotate:
            self._on_rotate(self)

    def _open_log(self) -> tuple[int, int]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path, flags, 0o640)
        os.fchmod(fd, 0o640)
        if self._group >= 0:
            os.fchown(fd, -1, self._group)
        return fd, os.fstat(fd).st_size


def open_fifos(folder: Path, host_uid: int, shown: Path | None = None, stdin: bool = False) -> dict[str, int]:
    """Those of one box, by the stream of the log they become. Into `said` the daemon writes, and nobody else can: what
    the box says through its gate is not torn by what it prints. `shown`: where the box opens the others by name.
    `stdin`: also the one that its program reads, which becomes no log."""
    read = {STDIN: open_fifo((shown or folder) / "in", host_uid)} if stdin else {}
    return read | {
        "stdout": open_fifo((shown or folder) / "out", host_uid),
        "stderr": open_fifo((shown or folder) / "err", host_uid),
        "log": open_fifo(folder / "said", -1),
    }


def open_fifo(path: Path, host_uid: int) -> int:
    """Make it if it is not there, and open our end: read and write, so that no death breaks the pipe."""
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        pass
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    if host_uid >= 0:
        os.fchown(fd, host_uid, host_uid)  # so that /dev/stdout can be opened in the box
    return fd
