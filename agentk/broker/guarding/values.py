"""The texts in a value of JSON, in order, and the same value with other texts. Pure.

Names of fields are texts too, and so are numbers as long as a card's: what is hidden in one is hidden no less.
"""

from collections.abc import Callable, Mapping
from typing import Any

from agentk.api import errors

DEPTH_MAX = 100
_LONG = 10**11  # no card has fewer digits

Change = Callable[[str, str], Any]  # (text, name of its field) → what is there instead


def texts(value: Any) -> list[str]:
    return [text for text, _ in fields(value)]


def fields(value: Any) -> list[tuple[str, str]]:
    """Each text with the field that it is in; "" when it is the name of one."""
    found: list[tuple[str, str]] = []

    def note(text: str, field: str) -> str:
        found.append((text, field))
        return text

    changed(value, note)
    return found


def replaced(value: Any, others: list[str]) -> Any:
    """The value with its texts, as `texts` told them, replaced by these."""
    left = iter(others)
    return changed(value, lambda text, field: next(left))


def changed(value: Any, change: Change, field: str = "", depth: int = 0) -> Any:
    """Raises Denied for what is nested too deep to be looked through."""
    if depth > DEPTH_MAX:
        raise errors.Denied("guardrails: it is nested too deep to be looked through")
    if isinstance(value, str):
        return change(value, field)
    if isinstance(value, Mapping):
        return {change(str(key), ""): changed(one, change, str(key), depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [changed(one, change, field, depth + 1) for one in value]
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) > _LONG:
        told = change(str(value), field)
        return value if told == str(value) else told
    return value


def size(value: Any) -> int:
    """Bytes of all its texts."""
    return sum(len(one.encode("utf-8", "surrogatepass")) for one in texts(value))
