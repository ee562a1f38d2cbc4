"""Calls and tokens a minute, as token buckets: refilled evenly, holding one minute's worth at most."""

from dataclasses import dataclass

_MINUTE_SECONDS = 60.0
_CLOSE_ENOUGH = 1e-6  # of one call or token: a timer that fires on time must find its bucket full enough


@dataclass(eq=False, slots=True)
class Bucket:
    """May go below zero, by a truth above what was expected; then everybody waits until it is made good."""

    per_minute: float
    level: float
    at: float  # when `level` was true

    @classmethod
    def full(cls, per_minute: float, now: float) -> "Bucket":
        if per_minute <= 0:
            raise ValueError(f"a rate is above 0: {per_minute}")
        return cls(per_minute, per_minute, now)

    def wait_seconds(self, amount: float, now: float) -> float:
        """0 when `amount` may go now. More than the bucket can ever hold goes when it is full."""
        self._refill(now)
        lacking = min(amount, self.per_minute) - self.level
        return lacking * _MINUTE_SECONDS / self.per_minute if lacking > _CLOSE_ENOUGH else 0.0

    def take(self, amount: float, now: float) -> None:
        """A negative amount gives back."""
        self._refill(now)
        self.level = min(self.per_minute, self.level - amount)

    def change(self, per_minute: float, now: float) -> None:
        """Another rate; what was taken stays taken, in proportion."""
        self._refill(now)
        self.level *= per_minute / self.per_minute
        self.per_minute = per_minute

    def _refill(self, now: float) -> None:
        passed = max(0.0, now - self.at)
        self.level = min(self.per_minute, self.level + passed * self.per_minute / _MINUTE_SECONDS)
        self.at = max(self.at, now)


def bucket_of(before: Bucket | None, per_minute: float | None, now: float) -> Bucket | None:
    """The bucket of a rate, full when there was none; None without a rate."""
    if per_minute is None:
        return None
    if before is None:
        return Bucket.full(per_minute, now)
    before.change(per_minute, now)
    return before
