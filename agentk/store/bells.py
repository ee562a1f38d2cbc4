"""Who waits for which kind to change, and the wake-up after each commit. No one polls.

Each waiting loop hears of a commit once. A bell remembers the first change it was rung for: whoever had read
everything before can go on from there, however far other kinds have moved the log meanwhile.
"""

import asyncio
import threading

from agentk.store import writer


class Bell:
    """One watcher's wake-up, used in its own loop only."""

    def __init__(self, shore: "_Shore", kind: str | None) -> None:
        self.kind = kind
        self.closed = False
        self._shore = shore
        self._event = asyncio.Event()
        self._first: int | None = None

    @property
    def seen(self) -> int:
        """The last change this loop has heard of. When the bell is silent, none up to it concerns its kind."""
        return self._shore.seen

    async def wait(self, seconds: float | None) -> bool:
        """Whether it rang within the time (None: no limit)."""
        if self._event.is_set():
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return self._event.is_set()
        return True

    def take(self) -> int:
        """The first change since the last take; 0 when it has not rung."""
        first, self._first = self._first, None
        self._event.clear()
        return first or 0

    def ring(self, first: int) -> None:
        if self._first is None:
            self._first = first
        self._event.set()

    def close(self) -> None:
        self.closed = True
        self._event.set()


class _Shore:
    """One event loop and the bells in it."""

    def __init__(self) -> None:
        self.seen = 0
        self.bells: set[Bell] = set()

    def heard(self, changed: list[tuple[str, int]]) -> None:
        self.seen = max(self.seen, changed[-1][1])
        first_of: dict[str, int] = {}
        for kind, change in changed:
            first_of.setdefault(kind, change)
        for bell in self.bells:
            first = changed[0][1] if bell.kind is None else first_of.get(bell.kind)
            if first is not None:
                bell.ring(first)

    def close(self) -> None:
        for bell in self.bells:
            bell.close()


class Bells:
    def __init__(self) -> None:
        self._shores: dict[asyncio.AbstractEventLoop, _Shore] = {}
        self._lock = threading.Lock()

    def hang(self, kind: str | None) -> Bell:
        """A bell for a kind (None: every kind), in the running loop."""
        with self._lock:
            shore = self._shores.setdefault(asyncio.get_running_loop(), _Shore())
            bell = Bell(shore, kind)
            shore.bells.add(bell)
            return bell

    def remove(self, bell: Bell) -> None:
        loop = asyncio.get_running_loop()
        with self._lock:
            shore = self._shores.get(loop)
            if shore:
                shore.bells.discard(bell)
                if not shore.bells:
                    del self._shores[loop]

    def ring(self, changed: list[tuple[str, int]]) -> None:
        """Called by the writer's thread after a commit."""
        with self._lock:
            shores = list(self._shores.items())
        for loop, shore in shores:
            writer.tell(loop, shore.heard, changed)

    def close(self) -> None:
        """End every watch."""
        with self._lock:
            shores = list(self._shores.items())
        for loop, shore in shores:
            writer.tell(loop, shore.close)
