"""Keeps the daemon's own log from being filled by whoever finds a way to make it say one thing again and again.

The first of each kind are written whole; of the rest only how many there were. It must never lose the first of a kind.
"""

import logging
import time
from collections.abc import Callable

_KINDS_MAX = 1000


class Flood(logging.Filter):
    """For a handler. Records are of one kind when the same line of the program wrote them."""

    def __init__(
        self, most: int = 20, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._most, self._seconds, self._clock = most, seconds, clock
        self._seen: dict[
            tuple[str, int], list[float]
        ] = {}  # since when, how many, and how many were left out

    def filter(self, record: logging.LogRecord) -> bool:
        kind, now = (record.pathname, record.lineno), self._clock()
        seen = self._seen.get(kind)
        if seen is None or now - seen[0] >= self._seconds:
            if len(self._seen) >= _KINDS_MAX:
                self._seen.clear()
            self._seen[kind] = [now, 1, 0]
            if seen is not None and seen[2]:
                record.msg, record.args = (
                    f"{record.getMessage()} ({seen[2]:.0f} more like it were left out)",
                    (),
                )
            return True
        seen[1] += 1
        if seen[1] > self._most:
            seen[2] += 1
            return False
        return True
