"""Time as the steward counts it: wall time for people, CLOCK_BOOTTIME for deadlines.

A deadline must go on counting while the machine sleeps and must not move when somebody sets the clock, so every
moment that is compared later is kept as boot id + CLOCK_BOOTTIME seconds. Across a reboot only the wall clock is left.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_SETTIME = 1 | 2  # an absolute time, and to be told when somebody sets the clock
_FAR_SECONDS = 2**40  # Unix seconds that no clock will show
# A wake-up this much too early would only be put off again.
_ROUND_UP_SECONDS = 0.001


def stamp(moment: datetime) -> str:
    """RFC 3339, UTC, microseconds, `Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_stamp(text: str) -> datetime:
    """Raises ValueError when `text` is not an RFC 3339 time."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Now:
    wall: str  # RFC 3339, UTC
    boottime: float  # CLOCK_BOOTTIME seconds
    boot_id: str

    def after(self, seconds: float) -> "Moment":
        """The moment `seconds` from now (negative: ago)."""
        wall = stamp(parse_stamp(self.wall) + timedelta(seconds=seconds))
        return Moment(wall, self.boottime + seconds, self.boot_id)


@dataclass(frozen=True)
class Moment:
    """One point in time that can be compared with any later `Now`, also after a reboot."""

    wall: str
    boottime: float
    boot_id: str

    def elapsed(self, now: Now) -> float:
        """Seconds from this moment to `now`; negative when it is still to come."""
        if self.boot_id == now.boot_id:
            return now.boottime - self.boottime
        return (parse_stamp(now.wall) - parse_stamp(self.wall)).total_seconds()

    def rebased(self, now: Now) -> "Moment":
        """The same moment in the counting of this boot, so that a later jump of the wall clock cannot move it."""
        if self.boot_id == now.boot_id:
            return self
        return Moment(self.wall, now.boottime - self.elapsed(now), now.boot_id)

    def to_dict(self) -> dict[str, Any]:
        return {"wall": self.wall, "boottime": round(self.boottime, 6), "bootID": self.boot_id}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any] | None) -> "Moment | None":
        if not stored:
            return None
        return cls(str(stored["wall"]), float(stored["boottime"]), str(stored["bootID"]))


class Clock(Protocol):
    def now(self) -> Now: ...
    async def sleep(self, seconds: float) -> None:
        """Waits in CLOCK_BOOTTIME: a sleep that ended while the machine slept returns when it wakes."""
        ...

    async def set(self) -> None:
        """Returns when somebody has set the wall clock."""
        ...


class BootClock:
    """The machine's own clock."""

    def __init__(self) -> None:
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._libc = ctypes.CDLL(None, use_errno=True)

    def now(self) -> Now:
        return Now(stamp(datetime.now(UTC)), time.clock_gettime(time.CLOCK_BOOTTIME), self._boot_id)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        # asyncio's own timers count CLOCK_MONOTONIC, which stands still while the machine sleeps.
        await self._fired(self._timer(time.CLOCK_BOOTTIME, seconds + _ROUND_UP_SECONDS, 0))

    async def set(self) -> None:
        await self._fired(self._timer(time.CLOCK_REALTIME, _FAR_SECONDS, _TFD_SETTIME))

    @staticmethod
    async def _fired(timer: int) -> None:
        loop = asyncio.get_running_loop()
        fired = asyncio.Event()
        try:
            loop.add_reader(timer, fired.set)
            await fired.wait()
        finally:
            loop.remove_reader(timer)
            os.close(timer)

    def _timer(self, clock: int, seconds: float, flags: int) -> int:
        descriptor = int(self._libc.timerfd_create(clock, _TFD_FLAGS))
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        whole = int(seconds)
        spec = (ctypes.c_long * 4)(0, 0, whole, int((seconds - whole) * 1e9))
        if self._libc.timerfd_settime(descriptor, flags, ctypes.byref(spec), None) != 0:
            error = ctypes.get_errno()
            os.close(descriptor)
            raise OSError(error, "timerfd_settime")
        return descriptor
