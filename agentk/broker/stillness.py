"""Which agents stand still: frozen where they are, as the steward sees it. What they asked for goes on without them.

An answer that comes meanwhile is kept until they can read it, and whoever waits on their behalf, for a turn or for
them to read, must neither hold up others nor lose its time. Who needs to know listens here.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

Hear = Callable[[str, bool], None]


@dataclass
class Deadline:
    """By the loop's clock; known once it is no longer waited for."""

    at: float


class Stillness:
    def __init__(self) -> None:
        self._still: set[str] = set()
        self._heard: list[Hear] = []
        self._clocks: dict[str, set[Callable[[bool], None]]] = {}  # by uid: timeouts that stand still with it

    def stands(self, uid: str) -> bool:
        return uid in self._still

    def tell(self, uid: str, still: bool) -> None:
        """Safe to repeat."""
        if still == (uid in self._still):
            return
        (self._still.add if still else self._still.discard)(uid)
        for clock in tuple(self._clocks.get(uid, ())):
            clock(still)
        for hear in self._heard:
            hear(uid, still)

    def listen(self, hear: Hear) -> None:
        """Called with each change. It must not wait."""
        self._heard.append(hear)

    @contextlib.asynccontextmanager
    async def timeout_at(self, uid: str, deadline: float) -> AsyncIterator[Deadline]:
        """As asyncio's, but no time passes while the agent stands still. What is yielded tells in the end by how much
        the deadline has moved."""
        loop, told = asyncio.get_running_loop(), Deadline(deadline)
        async with asyncio.timeout_at(deadline) as limit:
            left = 0.0

            def clock(still: bool) -> None:
                nonlocal left
                if still:
                    left = told.at - loop.time()
                    limit.reschedule(None)
                else:
                    told.at = loop.time() + left
                    limit.reschedule(told.at)

            clocks = self._clocks.setdefault(uid, set())
            clocks.add(clock)
            if self.stands(uid):
                clock(True)
            try:
                yield told
            finally:
                if self.stands(uid):
                    told.at = loop.time() + left
                clocks.discard(clock)
                if not clocks:
                    self._clocks.pop(uid, None)
