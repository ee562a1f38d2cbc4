"""Calls of an agent that wait for a person, as their Approvals tell: what is asked, until when, and which is meant."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentk.ui import plain

KEPT = 20
_LINES = 80  # of what a call is given


@dataclass(frozen=True)
class Waiting:
    name: str
    method: str
    summary: str
    until: str
    asks: bool  # for words, not for a yes
    details: tuple[str, ...]  # what the call is given, line by line


def read(items: Sequence[Mapping[str, Any]]) -> tuple[Waiting, ...]:
    """Those that nobody answered yet, the oldest first."""
    pending = [one for one in items if _mapping(one.get("status")).get("phase", "Pending") == "Pending"]
    pending.sort(key=lambda one: str(_mapping(one.get("metadata")).get("creationTimestamp", "")))
    return tuple(_one(one) for one in pending[:KEPT])


def meant(waiting: Sequence[Waiting], words: str) -> tuple[Waiting, str]:
    """The one whose name has the first word in it, and the other words. Raises ValueError unless it is just one.

    A name is always asked for: what waits may be another call by the time that somebody has typed.
    """
    part, _, rest = words.strip().partition(" ")
    found = [one for one in waiting if one.name == part] or [
        one for one in waiting if part and part in one.name
    ]
    if len(found) != 1:
        names = ", ".join(one.name for one in found or waiting)
        raise ValueError(f"say which one: {names}" if names else "nothing waits for a person")
    return found[0], rest.strip()


def _one(obj: Mapping[str, Any]) -> Waiting:
    spec = _mapping(obj.get("spec"))
    question = _mapping(spec.get("question"))
    return _waiting(str(_mapping(obj.get("metadata")).get("name", "")), spec, question)


def _details(name: str, spec: Mapping[str, Any], question: Mapping[str, Any]) -> tuple[str, ...]:
    """What the call is given, and how much of that is left out here, or people approve what they did not see."""
    told = list[str]()
    if question:
        told += str(question.get("text", "")).splitlines()
        told += [f"choice: {one}" for one in question.get("choices") or ()]
    for key, value in _mapping(spec.get("arguments")).items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        told += [f"{key}: {line}" for line in text.splitlines() or [""]]
    told += str(spec.get("diff") or "").splitlines()
    more = len(told) - _LINES
    shown = [plain.line(one) for one in told[:_LINES]]
    hidden = plain.number(spec.get("hiddenBytes"))
    if more > 0 or hidden or any(len(one) > plain.LETTERS for one in told):
        left = f"{max(0, more):,} lines and {hidden:,} bytes more" if more > 0 or hidden else "lines are cut"
        shown.append(f"({left}: agentk describe approval {name})")
    return tuple(shown)


def _waiting(name: str, spec: Mapping[str, Any], question: Mapping[str, Any]) -> Waiting:
    return Waiting(
        name=plain.word(name),
        method=plain.word(spec.get("method", "")),
        summary=plain.line(question.get("text") or spec.get("summary") or "", 200),
        until=plain.word(spec.get("deadline", "")),
        asks=bool(question),
        details=_details(plain.word(name), spec, question),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
