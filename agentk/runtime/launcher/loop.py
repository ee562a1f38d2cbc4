"""The launcher's one loop: descriptors, timers, nothing else. No callback may wait.

An exception in a callback ends neither the loop nor other boxes: it is printed and the loop goes on.
"""

import heapq
import itertools
import select
import sys
import time
import traceback
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANG_UP = select.EPOLLHUP | select.EPOLLERR


class Timer:
    """A call that is due at a moment of CLOCK_MONOTONIC."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Repeatable; a timer that fired may be cancelled too."""
        self.call = None


class Loop:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self.stopped = False

    def watch(self, fd: int, events: int, call: Callable[[int], None]) -> None:
        """Call `call(events)` whenever `fd` is ready. Watching again changes both."""
        if fd in self._calls:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._calls[fd] = call

    def forget(self, fd: int) -> None:
        """Stop watching; must come before the descriptor is closed. Repeatable."""
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once, `seconds` from now."""
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def stop(self) -> None:
        """Leave `run` after the callback that is running."""
        self.stopped = True

    def run(self) -> None:
        """Until `stop`."""
        while not self.stopped:
            self.once(None)

    def once(self, timeout: float | None) -> None:
        """Wait for something, at most `timeout` seconds, and do it."""
        for fd, events in self._epoll.poll(self._patience(timeout)):
            call = self._calls.get(fd)
            if call is not None:  # an earlier callback of this round may have forgotten it
                _guarded(call, events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            due = heapq.heappop(self._timers)[2].call
            if due is not None:
                _guarded(due)

    def _patience(self, timeout: float | None) -> float:
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        waits = [] if timeout is None else [timeout]
        if self._timers:
            waits.append(max(0.0, self._timers[0][0] - time.monotonic()))
        return min(waits) if waits else -1


def _guarded(call: Callable[..., None], *arguments: int) -> None:
    try:
        call(*arguments)
    except Exception:  # noqa: BLE001 (one box's surprise must not end the keeper of a thousand)
        traceback.print_exc(file=sys.stderr)
