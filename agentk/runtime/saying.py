"""Lines that agents write to their logs through the gate, on their way into the FIFO that the launcher drains.

A line is written whole, in its order, after the line before it: nobody else writes into that FIFO. When it is full,
because the agent says more than its share, the line waits, and whoever said it with it; nothing is dropped. A line
that has begun is finished even when nobody waits for it any more. The loop never waits on the pipe.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agentk.api import errors


@dataclass
class _Line:
    left: bytes
    written: "asyncio.Future[None]"
    begun: bool = False


class Sayings:
    """Of every box; keeps nothing for one that says nothing."""

    def __init__(self, descriptors: Callable[[str], Mapping[str, int]]) -> None:
        """`descriptors` of a box, as `Jails.descriptors`."""
        self._descriptors = descriptors
        self._pipes: dict[str, _Pipe] = {}

    async def write(self, box_id: str, line: bytes) -> None:
        """`line` without its end, which must not hold another. Returns when it is in the pipe. Raises Unavailable."""
        pipe = self._pipes.get(box_id)
        if pipe is None:
            fds = self._descriptors(box_id)
            fd = fds.get("said", fds.get("err"))  # a launcher of before there was one drains the other
            if fd is None:
                raise errors.Unavailable("this box has no log any more")
            pipe = self._pipes[box_id] = _Pipe(os.dup(fd))
        try:
            await pipe.write(line + b"\n")
        finally:
            if not pipe.lines and self._pipes.get(box_id) is pipe:
                self.forget(box_id)

    def forget(self, box_id: str) -> None:
        """The box ended, or has nothing more to say. Repeatable."""
        pipe = self._pipes.pop(box_id, None)
        if pipe is not None:
            pipe.close()


class _Pipe:
    def __init__(self, fd: int) -> None:
        """Takes the descriptor over."""
        self.lines: deque[_Line] = deque()
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._waiting = False

    async def write(self, data: bytes) -> None:
        line = _Line(data, self._loop.create_future())
        self.lines.append(line)
        if len(self.lines) == 1:
            self._go_on()
        try:
            await line.written
        finally:
            if not line.begun and line in self.lines:
                self.lines.remove(line)

    def close(self) -> None:
        """Repeatable."""
        if self._fd < 0:
            return
        self._wait(False)
        os.close(self._fd)
        self._fd = -1
        for line in self.lines:
            if not line.written.done():
                line.written.set_exception(errors.Unavailable("this box has no log any more"))
        self.lines.clear()

    def _go_on(self) -> None:
        while self.lines:
            line = self.lines[0]
            try:
                count = os.write(self._fd, line.left)
            except BlockingIOError:
                self._wait(True)
                return
            line.left, line.begun = line.left[count:], True
            if not line.left:
                self.lines.popleft()
                if not line.written.done():
                    line.written.set_result(None)
        self._wait(False)

    def _wait(self, wanted: bool) -> None:
        if wanted and not self._waiting:
            self._loop.add_writer(self._fd, self._go_on)
        elif self._waiting and not wanted:
            self._loop.remove_writer(self._fd)
        self._waiting = wanted
