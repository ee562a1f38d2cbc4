"""JSON that strangers wrote, as every wire of ours can say it again. Pure.

Programs write what JSON does not have (NaN is Python's), what no text can hold (half a letter), and nest without end. A
client that is told so breaks, in the middle of its other calls.
"""

import json
from typing import Any

from agentk.sdk import wire

_AROUND = 4  # levels that an answer has around a tool's


class TooMany(ValueError):
    """Taken apart it would be hundreds of megabytes, and nobody else would have a turn meanwhile."""


def parsed(text: str) -> Any:
    """null for what is no number, `?` for half a letter. ValueError for what is no JSON, or nested too deep; TooMany
    for more values than anybody may send."""
    if _is_too_much(text):
        raise TooMany(f"more than {wire.VALUES} values")
    try:
        made = json.loads(text, parse_constant=_none, parse_float=_number)
        told = json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        made = wire.decode(b"[" * _AROUND + told + b"]" * _AROUND)
    except wire.Refused as refused:
        raise ValueError(refused.message) from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    for _ in range(_AROUND):
        made = made[0]
    return made


def spoken(value: Any) -> Any:
    """The same of what was read already."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return parsed(text)


def _is_too_much(text: str) -> bool:
    if text.count(",") <= wire.VALUES // 2 and text.count("[") + text.count("{") <= wire.VALUES // 2:
        return False
    try:
        wire.bound(text.encode("utf-8", "replace"), wire.VALUES)
    except ValueError as error:
        return str(error).startswith("more than")  # else it is something else that is wrong with it
    return False


def _none(constant: str) -> None:
    """Infinity and NaN are nothing that JSON can hold."""


def _number(text: str) -> float | None:
    number = float(text)
    return number if abs(number) != float("inf") else None
