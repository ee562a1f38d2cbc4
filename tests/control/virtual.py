"""A clock that goes only when a test says so."""

import asyncio
import heapq
import itertools

from agentk.control import clock


class Clock:
    """`advance` wakes every sleeper on its way, in order, and lets them work in between."""

    def __init__(self) -> None:
        self._now = clock.Now("2026-01-01T00:00:00.000000Z", 1000.0, "boot-1")
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self.was_set = asyncio.Event()

    def now(self) -> clock.Now:
        return self._now

    async def set(self) -> None:
        """Nobody does, until a test says so."""
        await self.was_set.wait()
        self.was_set.clear()

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now.boottime + max(0.0, seconds), next(self._order), woken))
        if seconds <= 0:
            self._wake()
        await woken

    async def advance(self, seconds: float) -> None:
        end = self._now.boottime + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._move(self._sleepers[0][0])
            self._wake()
            await settle()
        self._move(end)

    def _move(self, boottime: float) -> None:
        moved = self._now.after(boottime - self._now.boottime)
        self._now = clock.Now(moved.wall, boottime, moved.boot_id)

    def _wake(self) -> None:
        while self._sleepers and self._sleepers[0][0] <= self._now.boottime:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)


async def settle(turns: int = 30) -> None:
    """Let everything that is ready run. Only for what does no I/O."""
    for _ in range(turns):
        await asyncio.sleep(0)
