"""What calls used, for people: tokens, money, time. Pure."""

from typing import Any

from agentk.api import quantities

NONE = "-"


def number(value: Any) -> str:
    return NONE if value is None else str(value)


def usd(text: Any) -> str:
    """A decimal text of dollars, as the API tells it."""
    return NONE if text is None else f"${text}"


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    if value < 1:
        return f"{value * 1000:.1f}ms" if value < 0.1 else f"{value * 1000:.0f}ms"
    return f"{value:.2f}s" if value < 60 else quantities.format_duration(round(value))
