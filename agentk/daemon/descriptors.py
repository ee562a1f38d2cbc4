"""Pipes and terminals read and written from the loop, which never waits for them.

Descriptors here are ours and do not block. One task reads, one writes; cancelling either leaves the loop as it was.
"""

import asyncio
import errno
import fcntl
import os
import struct
import termios
from collections.abc import Callable

CHUNK_BYTES = 32 * 1024
_HELD_BYTES = 1024 * 1024  # the most that a pipe of an ordinary user's holds


class Reader:
    """Closes its descriptor with `close`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._hurries = asyncio.Event()
        self._left: int | None = None  # bytes that are still read; None: all that come
        os.set_blocking(fd, False)

    async def read(self) -> bytes:
        """Some of what came; b"" at the end."""
        while self._left is None or self._left > 0:
            try:
                data = os.read(self._fd, CHUNK_BYTES)
                if self._left is not None:
                    self._left -= len(data)
                return data
            except BlockingIOError:
                if self._hurries.is_set():
                    return b""
                await self._ready_or_hurried()
            except OSError as error:
                if error.errno == errno.EIO:  # a terminal that nobody has open any more
                    return b""
                raise
        return b""

    def hurry(self, seconds: float) -> None:
        """From then on the end is where nothing more is there, whoever could still write. Call it when nobody should:
        what is in the pipe by now is still read, and of somebody who writes all the same no more than that may be."""
        self._left = _HELD_BYTES
        asyncio.get_running_loop().call_later(seconds, self._hurries.set)

    async def _ready_or_hurried(self) -> None:
        ready = asyncio.ensure_future(_ready(self._fd, writing=False))
        hurried = asyncio.ensure_future(self._hurries.wait())
        try:
            await asyncio.wait({ready, hurried}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            hurried.cancel()
            await asyncio.wait({ready, hurried})

    def close(self) -> None:
        """Repeatable."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Writer:
    """Closes its descriptor with `close`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(fd, False)

    async def write(self, data: bytes) -> None:
        """All of it. Raises BrokenPipeError when nobody reads any more."""
        view = memoryview(data)
        while view:
            if self._fd < 0:
                raise BrokenPipeError
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await _ready(self._fd, writing=True)
            except OSError as error:
                raise BrokenPipeError(error.errno, error.strerror) from None

    def close(self) -> None:
        """Repeatable."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def resize(terminal: int, columns: int, rows: int) -> None:
    """Whoever has it as controlling terminal hears SIGWINCH."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


async def _ready(fd: int, *, writing: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    add: Callable[..., None] = loop.add_writer if writing else loop.add_reader
    add(fd, tell)
    try:
        await ready
    finally:
        (loop.remove_writer if writing else loop.remove_reader)(fd)
