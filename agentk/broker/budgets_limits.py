"""What a budget allows, read from an Agent's spec.budget and from a Quota's spec.

Money is exact: a decimal text becomes whole millionths of a US dollar or is refused; no float ever holds it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from agentk.api import errors, quantities

Resource = Literal["tokens", "calls", "cost_micro_usd", "wall_seconds"]

_MICRO_DIGITS = 6
_USD = re.compile(r"(\d{1,12})(?:\.(\d+))?", re.ASCII)
_MIN_WINDOW_SECONDS = 1.0  # below it a budget is a rate limit: that is a ModelRoute's rpm and tpm


@dataclass(frozen=True)
class Limits:
    """None is no limit; 0 is nothing at all."""

    tokens: int | None = None
    calls: int | None = None
    cost_micro_usd: int | None = None
    wall_seconds: float | None = None
    per_seconds: float | None = None  # the window all of the above count in; None: for good
    tokens_per_request: int | None = None
    largest_share_percent: int | None = None  # of tokens, calls and cost, that one agent may use

    def of(self, resource: Resource) -> float | None:
        return _of(self, resource)


class Words(NamedTuple):
    """How a resource is told to people."""

    noun: str
    field: str  # in Standing.which, and what a condition names
    flag: str  # of `agentk budget add`


WORDS: dict[Resource, Words] = {
    "tokens": Words("tokens", "tokens", "--tokens"),
    "calls": Words("calls", "calls", "--calls"),
    "cost_micro_usd": Words("US dollars", "costUsd", "--cost-usd"),
    "wall_seconds": Words("wall time", "wallTime", "--wall-time"),
}


def of_agent(budget: Mapping[str, Any] | None) -> Limits:
    """From spec.budget. Raises errors.Invalid naming the field."""
    given, at = budget or {}, "spec.budget"
    return Limits(
        tokens=given.get("maxTokens"),
        calls=given.get("maxCalls"),
        cost_micro_usd=_usd(given.get("maxCostUsd"), f"{at}.maxCostUsd"),
        wall_seconds=_seconds(given.get("maxWallTime"), f"{at}.maxWallTime", 0.001),
        per_seconds=_seconds(given.get("per"), f"{at}.per", _MIN_WINDOW_SECONDS),
        tokens_per_request=given.get("maxTokensPerRequest"),
    )


def of_quota(spec: Mapping[str, Any]) -> Limits:
    """From a Quota's spec: hard, per, largestShare. Raises errors.Invalid naming the field."""
    hard = spec.get("hard") or {}
    return Limits(
        tokens=hard.get("tokens"),
        calls=hard.get("calls"),
        cost_micro_usd=_usd(hard.get("costUsd"), "spec.hard.costUsd"),
        per_seconds=_seconds(spec.get("per"), "spec.per", _MIN_WINDOW_SECONDS),
        largest_share_percent=spec.get("largestShare"),
    )


def parse_usd(text: object) -> int:
    """Millionths of a dollar, exactly: `2.50` is 2500000. Raises errors.Invalid."""
    found = _USD.fullmatch(text) if isinstance(text, str) else None
    if not found:
        hint = f'write it in quotes: "{text}"' if isinstance(text, int | float) else ""
        raise errors.Invalid(f'expected US dollars such as "2.50", found {str(text)[:64]!r}', hint=hint)
    fraction = (found[2] or "").rstrip("0")
    if len(fraction) > _MICRO_DIGITS:
        raise errors.Invalid(
            f"{found[0][:64]} is finer than a millionth of a dollar", hint="at most 6 decimals"
        )
    return int(found[1] + fraction.ljust(_MICRO_DIGITS, "0"))


def format_usd(micro: int) -> str:
    """Its inverse, with at least the cents: 2500000 is `2.50`, -1 is `-0.000001`."""
    whole, fraction = divmod(abs(micro), 10**_MICRO_DIGITS)
    decimals = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micro < 0 else ''}{whole}.{decimals}"


def shown(resource: Resource, value: float) -> str:
    """An amount for people, without its noun."""
    if resource == "cost_micro_usd":
        return format_usd(int(value))
    return quantities.format_duration(value) if resource == "wall_seconds" else str(int(value))


def share(limit: int, percent: int) -> int:
    """Whole percent of a limit, rounded down, but never so far that nobody could use any of it."""
    return max(limit * percent // 100, min(limit, 1))


def _of(limits: Limits, resource: Resource) -> float | None:
    match resource:
        case "tokens":
            return limits.tokens
        case "calls":
            return limits.calls
        case "cost_micro_usd":
            return limits.cost_micro_usd
        case "wall_seconds":
            return limits.wall_seconds


def _usd(text: str | None, field: str) -> int | None:
    if text is None:
        return None
    try:
        return parse_usd(text)
    except errors.Invalid as error:
        raise errors.Invalid(error.message, hint=error.hint, field=field) from None


def _seconds(text: str | None, field: str, least: float) -> float | None:
    if text is None:
        return None
    try:
        seconds = quantities.parse_duration(text)
    except errors.Invalid as error:
        raise errors.Invalid(error.message, hint=error.hint, field=field) from None
    if seconds < least:
        shortest = quantities.format_duration(least)
        raise errors.Invalid(f"{text} is too short: at least {shortest}", field=field)
    return seconds
