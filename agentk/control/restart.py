"""The arithmetic of restarts. Pure."""

from collections.abc import Iterable

from agentk.control import clock


def delay(failures: int, initial_seconds: float, max_seconds: float) -> float:
    """Seconds to wait after `failures` failures in a row (1, 2, …): doubles from initial to max."""
    if failures <= 0:
        return 0.0
    # 2**failures of a year-long crash loop is a very long integer.
    doublings = min(failures - 1, 32)
    return float(min(initial_seconds * 2**doublings, max_seconds))


def streak(failures: int, ran_seconds: float, reset_after_seconds: float) -> int:
    """Failures in a row, after one more run of `ran_seconds` has ended: a long run forgives the earlier ones."""
    return 1 if ran_seconds >= reset_after_seconds else failures + 1


def within(
    restarts: Iterable[clock.Moment], window_seconds: float, now: clock.Now
) -> tuple[clock.Moment, ...]:
    """Those of `restarts` that are at most `window_seconds` old."""
    return tuple(moment for moment in restarts if moment.elapsed(now) <= window_seconds)
