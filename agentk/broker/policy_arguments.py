"""Arguments of a tool's call as rules compare them: by a dotted name, each value as text. Pure.

A value is bounded before it is compared: one that is longer than a glob can mean fits no glob that allows, and every
glob that refuses.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agentk.broker import policy_globs as globbing

MAX_VALUE = 16 * 1024  # letters
_MAX_VALUES = 1000
TOO_LONG = "\0"  # in place of a value that is not compared: no argument is that

Listed = Sequence[tuple[str, globbing.Globs]]


def values(arguments: Mapping[str, Any] | None, name: str) -> list[str]:
    """Every value that `a.b` means; none when it is not given. What holds for a list holds for each of its items, and
    an argument that is itself named `a.b` is meant too."""
    found: list[Any] = [arguments or {}]
    whole: list[Any] = []
    steps = name.split(".")
    for at, step in enumerate(steps):
        below: list[Any] = []
        for one in _flat(found):
            if isinstance(one, Mapping):
                below += [one[step]] if one.get(step) is not None else []
                rest = ".".join(steps[at:])
                whole += [one[rest]] if rest != step and one.get(rest) is not None else []
        found = below
    flat = _flat([*found, *whole])
    return [TOO_LONG] if len(flat) > _MAX_VALUES else [text(one) for one in flat]


def fit(listed: Listed, arguments: Mapping[str, Any] | None, allows: bool) -> bool:
    """Whether a rule's arguments match. One that refuses must not be passed by by one value among others."""
    for name, globs in listed:
        fits = [matches(globs, one, not allows) for one in values(arguments, name)]
        if not (fits and (all(fits) if allows else any(fits))):
            return False
    return True


def matches(globs: globbing.Globs, value: str, refuses: bool) -> bool:
    if value == TOO_LONG:
        return refuses and bool(globs)
    return globs.match(value) or (not value and any(one.matches("") for one in globs.patterns))


def text(value: Any) -> str:
    """As globs see it: text as it is, anything else as JSON. 5.0 is 5: it is to whoever gets it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str):
        told = value
    else:
        told = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return told if len(told) <= MAX_VALUE else TOO_LONG


def told(listed: Listed) -> str:
    return "; ".join(f"{name}: {globs}" for name, globs in listed) or "none"


def _flat(found: Iterable[Any]) -> list[Any]:
    """Without lists, however deep in each other."""
    flat: list[Any] = []
    waiting = list(found)[::-1]
    while waiting and len(flat) <= _MAX_VALUES:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one[::-1]
        else:
            flat.append(one)
    return flat
