"""Amounts as Kubernetes writes them: `256Mi` of memory, `500m` of a CPU, `1h30m` of time.

Whole-number arithmetic throughout: a limit must not depend on how a float rounds. All raise errors.Invalid.
"""

import re

from agentk.api import errors

MAX = 2**63 - 1  # Kubernetes' own ceiling, and the kernel's
_MAX_TEXT = 64  # longer than any sane amount; bounds the arithmetic

_QUANTITY = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3}|[numkMGTPE]|[KMGTPE]i)?", re.ASCII)
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}

_DURATION = re.compile(r"(?:(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))", re.ASCII)
_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})(?:/([smh]))?", re.ASCII)
_MAX_RATE = 1000  # above it no machine makes anything
_UNIT_NANOS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def parse_quantity(text: str | int | float) -> int:
    """Whole units (bytes, counts), a fraction rounded up: `256Mi`, `1.5Gi`, `128974848`, `1e3`."""
    return _scaled(text, 0, "a quantity such as 256Mi, 1Gi or 1000")


def parse_cpu(text: str | int | float) -> int:
    """Thousandths of one CPU, a fraction rounded up: `500m`, `2`, `0.1`."""
    return _scaled(text, 3, "an amount of CPU such as 500m, 1 or 0.5")


def parse_duration(text: str) -> float:
    """Seconds: `30s`, `1h30m`, `1.5h`, `0`."""
    if text == "0":
        return 0.0
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        raise _bad(text, "a duration such as 30s, 5m or 1h30m")
    nanos, end = 0, 0
    while found := _DURATION.match(text, end):
        nanos += _times(found[1], _UNIT_NANOS[found[2]])
        end = found.end()
    if end == 0 or end != len(text):
        days = re.fullmatch(r"(\d{1,6})d", text)
        hint = f"days are not a unit: write {int(days[1]) * 24}h" if days else ""
        hint = f"write {text}s" if re.fullmatch(r"[0-9]{1,9}", text) else hint
        raise _bad(text, "a duration such as 30s, 5m or 1h30m", hint)
    if nanos > MAX:
        raise _bad(text, "a duration below 292 years")
    return nanos / 1e9


def parse_rate(text: str | int | float) -> float:
    """Times a second: `10/s`, `30/m`, `100/h`, `0.5`. More than nothing, and at most 1000."""
    found = _RATE.fullmatch(str(text)) if len(str(text)) <= _MAX_TEXT else None
    if not found or isinstance(text, bool):
        raise _bad(text, "a rate such as 10/s, 30/m or 0.5")
    per_second = float(found[1]) / (_UNIT_NANOS[found[2] or "s"] / 1e9)
    if not 0 < per_second <= _MAX_RATE:
        raise _bad(text, f"more than nothing and at most {_MAX_RATE}/s")
    return per_second


def format_quantity(value: int) -> str:
    """Bytes in the largest binary unit that says them exactly: 268435456 is `256Mi`, 1000 is `1000`."""
    for suffix, factor in reversed(_BINARY.items()):
        if value and value % factor == 0:
            return f"{value // factor}{suffix}"
    return str(value)


def format_cpu(millis: int) -> str:
    """2000 is `2`, 500 is `500m`."""
    return str(millis // 1000) if millis % 1000 == 0 else f"{millis}m"


def format_duration(seconds: float) -> str:
    """Exact to the millisecond and readable by `parse_duration`: 5400 is `1h30m`, 0.25 is `250ms`."""
    millis = round(seconds * 1000)
    if millis <= 0:
        return "0s"
    told = ""
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, millis = divmod(millis, size)
        told += f"{count}{unit}" if count else ""
    return told


def format_age(seconds: float) -> str:
    """As kubectl prints ages: `45s`, `3m12s`, `47m`, `5h3m`, `31h`, `3d4h`, `12d`, `2y15d`."""
    left = int(seconds)
    if left < -1:
        return "<invalid>"
    left = max(left, 0)
    if left < 120:
        return f"{left}s"
    minutes, hours, days = left // 60, left // 3600, left // 86400
    if minutes < 10:
        return _two(minutes, "m", left % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 2920:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big}{big_unit}{small}{small_unit}" if small else f"{big}{big_unit}"


def _scaled(text: str | int | float, power: int, expected: str) -> int:
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise _bad(text, expected)
    if isinstance(text, int) and not -MAX <= text <= MAX:
        raise _bad("a number of more than 64 bits", expected)
    if isinstance(text, float):
        text = repr(text)
    found = _QUANTITY.fullmatch(str(text)) if len(str(text)) <= _MAX_TEXT else None
    if not found:
        raise _bad(text, expected, _suffix_hint(str(text)))
    sign, number, suffix = found[1], found[2], found[3] or ""
    exponent, factor = power, 1
    if suffix in _BINARY:
        factor = _BINARY[suffix]
    elif suffix in _DECIMAL:
        exponent += _DECIMAL[suffix]
    elif suffix:
        exponent += int(suffix[1:])
    value = _times(number, factor * 10 ** max(exponent, 0), 10 ** max(-exponent, 0))
    if sign == "-" and value:
        raise _bad(text, "an amount that is not negative")
    if value > MAX:
        raise _bad(text, "an amount below 2^63")
    return value


def _times(number: str, factor: int, divisor: int = 1) -> int:
    """A decimal text times factor / divisor, rounded up."""
    whole, _, fraction = number.partition(".")
    digits = int((whole + fraction) or "0")
    return -(-digits * factor // (divisor * int(10 ** len(fraction))))


def _suffix_hint(text: str) -> str:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([A-Za-z]{1,3})", text)
    if not found:
        return ""
    number, unit = found[1], found[2].lower()
    known = {
        "b": "",
        "kb": "k",
        "mb": "M",
        "gb": "G",
        "tb": "T",
        "kib": "Ki",
        "mib": "Mi",
        "gib": "Gi",
        "tib": "Ti",
    }
    known |= {"ki": "Ki", "mi": "Mi", "gi": "Gi", "ti": "Ti", "g": "G", "t": "T", "k": "k"}
    return f"did you mean '{number}{known[unit]}'?" if unit in known else ""


def _bad(text: object, expected: str, hint: str = "") -> errors.Invalid:
    shown = text if isinstance(text, str) else repr(text)
    shown = shown if len(shown) <= _MAX_TEXT else shown[:_MAX_TEXT] + "…"
    return errors.Invalid(f'expected {expected}, found "{shown}"', hint=hint)
