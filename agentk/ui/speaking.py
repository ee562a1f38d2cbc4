"""Tells the agent's program what is typed, over the same WebSocket as `agentk attach -i`, opened with the first line.

What comes back over it is let go of: the log tells the same, and the past too. Nothing here waits for the agent: what
it does not read is kept up to a bound, and more is refused.
"""

import contextlib
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from agentk.api import channels, errors, kinds
from agentk.client import lines

LINE_BYTES = 32 * 1024
_WAITING = 64  # lines


class Speaking:
    def __init__(self, socket: Path, namespace: str, name: str, fails: Callable[[str], None]) -> None:
        """`fails` is told why what was typed did not arrive."""
        self._socket, self._path, self._fails = socket, kinds.AGENT.path(namespace, name, "attach"), fails
        self._typed: deque[bytes] = deque()
        self._told, self._tells = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread: threading.Thread | None = None
        self._closed = False

    def say(self, text: str) -> None:
        """One line. Raises TooManyRequests and TooLarge."""
        data = text.encode("utf-8", "replace") + b"\n"
        if len(data) > LINE_BYTES:
            raise errors.TooLarge(f"a line has at most {LINE_BYTES:,} bytes")
        if len(self._typed) >= _WAITING:
            raise errors.TooManyRequests(f"{_WAITING} lines wait: it does not read what is typed")
        self._typed.append(data)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="what is typed", daemon=True)
            self._thread.start()
        self._wake()

    def close(self) -> None:
        """Hang up. Repeatable."""
        if self._closed:
            return
        self._closed = True
        self._wake()
        if self._thread is not None:
            self._thread.join(5)
        for fd in (self._told, self._tells):
            os.close(fd)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._tells, b"t")

    def _run(self) -> None:
        """One visit after the other, each for as long as the attempt lives."""
        while not self._closed:
            if not self._typed:
                select.select([self._told], [], [])
                self._heard()
                continue
            try:
                with lines.Line(self._socket, self._path, [("stdin", "true"), ("stdout", "true")]) as line:
                    self._visit(line)
            except (errors.AgentkError, OSError) as error:
                self._typed.clear()
                self._fails(error.message if isinstance(error, errors.AgentkError) else str(error))

    def _visit(self, line: lines.Line) -> None:
        while not line.ended and not self._closed:
            while self._typed and line.has_room:
                line.say(channels.STDIN, self._typed.popleft())
            wire = line.fileno()
            ready, _, _ = select.select([wire, self._told], [wire] if line.wants_to_write else [], [])
            self._heard()
            line.flush()
            if wire in ready:
                line.hear()

    def _heard(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._told, 4096)
