"""Wake-ups when something changes in a directory, so that followed logs cost nothing while nothing is written.

One kernel instance for the whole daemon (a user may have only 128), many directories, many waiters for each.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_MODIFY, _MOVED_TO, _CREATE, _DELETE_SELF = 0x2, 0x80, 0x100, 0x400
_ONLYDIR, _DONT_FOLLOW = 0x01000000, 0x02000000
_MASK = _MODIFY | _MOVED_TO | _CREATE | _DELETE_SELF | _ONLYDIR | _DONT_FOLLOW
_QUEUE_OVERFLOW, _IGNORED = 0x4000, 0x8000
_EVENT = struct.Struct("iIII")
_READ_BYTES = 64 * 1024


class Wakeups:
    """Directories and who waits for them. Belongs to one event loop."""

    def __init__(self) -> None:
        self._fd = -1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[int, list[asyncio.Event]] = {}

    @contextlib.contextmanager
    def on(self, directory: Path, event: asyncio.Event) -> Iterator[None]:
        """While entered, `event` is set whenever a file in `directory` is written, made or moved there.

        Raises OSError: FileNotFoundError, or ENOSPC and EMFILE when the kernel's limits are reached.
        """
        self._open()
        watch = _call("inotify_add_watch", self._fd, os.fsencode(directory), _MASK)
        self._waiting.setdefault(watch, []).append(event)
        try:
            yield
        finally:
            events = self._waiting.get(watch, [])
            with contextlib.suppress(ValueError):
                events.remove(event)
            if not events and self._waiting.pop(watch, None) is not None:
                with contextlib.suppress(OSError):  # the directory went first
                    _call("inotify_rm_watch", self._fd, watch)

    def close(self) -> None:
        """Repeatable."""
        if self._fd >= 0:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        if self._fd < 0:
            self._fd = _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        at = 0
        changed: set[int] = set()
        while at + _EVENT.size <= len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            if mask & _QUEUE_OVERFLOW:
                changed.update(self._waiting)
            changed.add(watch)
            if mask & _IGNORED:
                # The directory is gone and the kernel may give its number to another one.
                for event in self._waiting.pop(watch, []):
                    event.set()
        for watch in changed:
            for event in self._waiting.get(watch, []):
                event.set()


def _call(function: str, *arguments: int | bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, function, None)
    if call is None:
        raise OSError(errno.ENOSYS, f"{function}: not on this platform")
    answer = int(call(*arguments))
    if answer == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{function}: {os.strerror(code)}")
    return answer
