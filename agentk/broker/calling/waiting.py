"""Those who wait for something that another guest does: woken when it happened, never asking again and again.

Lines are for what one of many gets (a lock, an item): first come, first served, and only the first in line looks, so
that one item wakes one waiter. Bells are for what all who listen hear. Both live beside the tables, not in them: after
a restart guests ask again, and stand in line again.

Must never hold a transaction, or anything but a place, while it waits.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

# What a look found: the answer, or when (Unix seconds) it is worth looking again by itself, None for never.
Look = Callable[[], Awaitable[tuple[T | None, float | None]]]


class _Place:
    __slots__ = ("slept", "woken")

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.slept = False  # it looked and found nothing, so who comes later comes after it


class Waiting:
    """One for the gate."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self._lines: dict[Hashable, deque[_Place]] = {}
        self._bells: dict[str, set[asyncio.Event]] = {}
        self._writes: set[asyncio.Task[Any]] = set()

    # lines

    async def served(
        self, line: Hashable, seconds: float, look: Look[T], *, strict: bool = False
    ) -> T | None:
        """What `look` found within so long, or None. `strict`: nobody passes those who wait, not even in passing."""
        if not seconds and not (strict and self._anybody_waits(line)):
            return (await look())[0]
        if not seconds:
            return None
        with self._place(line) as (place, places):
            loop = asyncio.get_running_loop()
            deadline = loop.time() + seconds
            while True:
                place.woken.clear()
                again: float | None = None
                if places[0] is place:
                    found, again = await look()
                    if found is not None:
                        return found
                left = deadline - loop.time()
                if left <= 0:
                    return None
                if again is not None:
                    left = min(left, max(0.0, again - self.now()))
                place.slept = True
                timer = loop.call_later(left, place.woken.set)
                try:
                    await place.woken.wait()
                finally:
                    timer.cancel()

    def ring(self, line: Hashable) -> None:
        """Something is there now, or free: who is first looks."""
        places = self._lines.get(line)
        if places:
            places[0].woken.set()

    def _anybody_waits(self, line: Hashable) -> bool:
        return any(place.slept for place in self._lines.get(line, ()))

    @contextmanager
    def _place(self, line: Hashable) -> Iterator[tuple[_Place, deque[_Place]]]:
        place = _Place()
        places = self._lines.setdefault(line, deque())
        places.append(place)
        try:
            yield place, places
        finally:
            first = places[0] is place
            places.remove(place)
            if not places:
                del self._lines[line]
            elif first:
                places[0].woken.set()  # there may be more than this one took

    # bells

    @contextmanager
    def listening(self, name: str) -> Iterator[asyncio.Event]:
        """Set whenever the bell is rung; whoever listens clears it."""
        heard = asyncio.Event()
        self._bells.setdefault(name, set()).add(heard)
        try:
            yield heard
        finally:
            self._bells[name].discard(heard)
            if not self._bells[name]:
                del self._bells[name]

    def listeners(self, name: str) -> int:
        return len(self._bells.get(name, ()))

    def toll(self, names: Iterable[str]) -> None:
        for name in names:
            for heard in self._bells.get(name, ()):
                heard.set()

    # writes

    async def written(
        self,
        write: Coroutine[Any, Any, T],
        then: Callable[[T], None],
        unheard: Callable[[T], Coroutine[Any, Any, None]] | None = None,
    ) -> T:
        """A write whose end is told to `then` even if its caller is gone by then: a commit is not taken back, so who is
        cancelled waits for it.

        `unheard` undoes what is of no use when nobody was there to hear the answer.
        """
        task = self._own(write)
        task.add_done_callback(partial(_tell, then))
        cancelled = False
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                cancelled = True
        result = task.result()
        if cancelled:
            if unheard is not None:
                self._own(unheard(result))
            raise asyncio.CancelledError
        return result

    async def close(self) -> None:
        """Waits for what is being written. Repeatable."""
        while self._writes:
            await asyncio.gather(*self._writes, return_exceptions=True)

    def _own(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work, name="guest-state-write")
        self._writes.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._writes.discard(task)
        if not task.cancelled():
            task.exception()  # its caller hears of it, or is gone


def nothing_more(answer: object) -> None:
    """For a write that nobody waits for."""


def _tell(then: Callable[[T], None], task: asyncio.Task[T]) -> None:
    if not task.cancelled() and task.exception() is None:
        then(task.result())
