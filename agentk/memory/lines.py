"""Who waits for one worker: in turn by whose they are, and in order among those of one. Nobody waits for all that
another has asked for."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """Nobody may join any more."""


class Line(Generic[T]):
    """For threads."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}  # whose turn is next comes first
        self._changed = threading.Condition()
        self._closed = False

    def join(self, one: T, whose: str) -> None:
        """Raises Closed."""
        with self._changed:
            if self._closed:
                raise Closed
            self._waiting.setdefault(whose, deque()).append(one)
            self._changed.notify()

    def next(self) -> T | None:
        """Waits for one; None when the line is closed and empty."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            return self._take()

    def next_if(self, fits: Callable[[T], bool]) -> T | None:
        """Whose turn it is, if there is one who fits. Does not wait."""
        with self._changed:
            first = next(iter(self._waiting.values()), None)
            return self._take() if first and fits(first[0]) else None

    def close(self) -> None:
        """Those who wait are still served. Repeatable."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self) -> T:
        whose, several = next(iter(self._waiting.items()))
        del self._waiting[whose]
        one = several.popleft()
        if several:
            self._waiting[whose] = several  # behind all others
        return one
