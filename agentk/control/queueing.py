"""A work queue of keys: what asks for work is merged, and one key is never worked on twice at once.

It must never lose a wake-up: a key added while its worker runs is worked on once more after it.
"""

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from agentk.control import clock as clocks
from agentk.control import restart

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Backoff:
    """How long a key whose work raised waits: doubles from `initial_seconds` to `max_seconds`."""

    initial_seconds: float = 0.5
    max_seconds: float = 60.0


class Queue(Generic[K]):
    """`work(key)` returns seconds until it wants to be called again, or None. What it raises goes to `failed`
    (key, error, failures in a row) and the key comes again after a back-off."""

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        clock: clocks.Clock,
        *,
        workers: int = 16,
        backoff: Backoff | None = None,
        failed: Callable[[K, Exception, int], None] | None = None,
        name: str = "queue",
    ) -> None:
        self._work, self._clock, self._workers, self._name = work, clock, workers, name
        self._backoff = backoff or Backoff()
        self._failed = failed
        self._ready: dict[K, None] = {}  # a dict is an ordered set
        self._running: set[K] = set()
        self._again: set[K] = set()  # asked for while running
        self._due: dict[K, float] = {}  # boottime seconds; the heap may hold stale entries
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._failures: dict[K, int] = {}
        self._work_came = asyncio.Event()
        self._timer_changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, key: K) -> None:
        """Work on `key` as soon as a worker is free."""
        self._forget_timer(key)
        if key in self._running:
            self._again.add(key)
            return
        self._ready[key] = None
        self._idle.clear()
        self._work_came.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Work on `key` in `seconds`, or earlier when something else asks for it earlier."""
        if seconds <= 0:
            self.add(key)
            return
        if key in self._ready or key in self._again:
            return
        due = self._clock.now().boottime + seconds
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, next(self._order), key))
            self._timer_changed.set()

    def forget(self, key: K) -> None:
        """Nothing is left to do for `key`: drop its timer and its back-off."""
        self._forget_timer(key)
        self._failures.pop(key, None)

    def __len__(self) -> int:
        return len(self._ready) + len(self._running)

    async def idle(self) -> None:
        """Returns when no key is ready or worked on; timers may still be pending."""
        await self._idle.wait()

    async def run(self) -> None:
        """Works until cancelled; then cancels its workers and waits for them."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._timers(), name=f"{self._name} timers")
            for number in range(self._workers):
                group.create_task(self._worker(), name=f"{self._name} worker {number}")

    async def _worker(self) -> None:
        while True:
            while not self._ready:
                self._work_came.clear()
                await self._work_came.wait()
            key = next(iter(self._ready))
            del self._ready[key]
            self._running.add(key)
            try:
                await self._once(key)
            finally:
                self._running.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
                if not self._ready and not self._running:
                    self._idle.set()

    async def _once(self, key: K) -> None:
        try:
            again = await self._work(key)
        except Exception as error:  # noqa: BLE001 - one key's fault must not stop the others
            count = self._failures.get(key, 0) + 1
            self._failures[key] = count
            self.add_after(
                key, restart.delay(count, self._backoff.initial_seconds, self._backoff.max_seconds)
            )
            if self._failed:
                self._failed(key, error, count)
        else:
            self._failures.pop(key, None)
            if again is not None and again <= 0:
                self._again.add(key)
            elif again is not None:
                self.add_after(key, again)

    async def _timers(self) -> None:
        while True:
            now = self._clock.now().boottime
            while self._heap and self._heap[0][0] <= now:
                due, _, key = heapq.heappop(self._heap)
                if self._due.get(key) == due:
                    self.add(key)
            self._timer_changed.clear()
            await self._wait(self._heap[0][0] - now if self._heap else None)

    async def _wait(self, seconds: float | None) -> None:
        if seconds is None:
            await self._timer_changed.wait()
            return
        sleep = asyncio.ensure_future(self._clock.sleep(seconds))
        changed = asyncio.ensure_future(self._timer_changed.wait())
        try:
            await asyncio.wait({sleep, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            changed.cancel()
            await asyncio.gather(sleep, changed, return_exceptions=True)

    def _forget_timer(self, key: K) -> None:
        self._due.pop(key, None)
