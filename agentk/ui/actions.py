"""Calls of an agent as its journal tells them: a stream in the order they began, and the tree they make.

Fed with what the control API answers. The newest are kept; one that has not ended is asked for again until it has.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agentk.ui import plain

KEPT = 400
DEPTH = 8

_TIME = re.compile(r"\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d)[0-9.:+Z-]{0,30}")


@dataclass(frozen=True)
class Call:
    effect: str
    parent: str
    record: int
    method: str
    about: str
    status: str
    time: str  # as the journal has it
    seconds: float | None  # None while it goes on, and of what takes none: an exit, what people did
    tokens: int
    cost: str
    why: str

    @property
    def clock(self) -> str:
        found = _TIME.fullmatch(self.time)
        return found[1] if found else "--:--:--"

    @property
    def name(self) -> str:
        return f"{self.method} {self.about}".rstrip()

    @property
    def goes_on(self) -> bool:
        return self.seconds is None and self.status == "running"

    def took(self, now: float) -> float | None:
        """Seconds until its end, or so far; None of what takes none."""
        if not self.goes_on:
            return self.seconds
        try:
            return max(0.0, now - datetime.fromisoformat(self.time).timestamp())
        except ValueError:
            return 0.0


@dataclass
class Actions:
    _calls: dict[str, Call] = field(default_factory=dict)

    def take(self, items: Sequence[Mapping[str, Any]]) -> bool:
        """Whether anything of it is new."""
        changed = False
        for item in items:
            call = _call(item)
            if self._calls.get(call.effect) != call:
                self._calls[call.effect] = call
                changed = True
        if len(self._calls) > KEPT:
            kept = sorted(self._calls.values(), key=lambda one: one.record)[-KEPT:]
            self._calls = {one.effect: one for one in kept}
        return changed

    @property
    def since(self) -> str:
        """From when on there may be news; "" at first."""
        calls = self.stream()
        going = [one.time for one in calls if one.goes_on]
        return going[0] if going else calls[-1].time if calls else ""

    def stream(self) -> list[Call]:
        """In the order they began."""
        return sorted(self._calls.values(), key=lambda one: one.record)

    def tree(self) -> Iterator[tuple[int, Call]]:
        """Depth and call, each below the one it was part of."""
        below: dict[str, list[Call]] = {}
        for one in self.stream():
            before = self._calls.get(one.parent)
            key = one.parent if before is not None and before.record < one.record else ""
            below.setdefault(key, []).append(one)
        waiting = [(0, one) for one in reversed(below.get("", []))]
        while waiting:
            depth, call = waiting.pop()
            yield depth, call
            waiting += [(min(depth + 1, DEPTH), one) for one in reversed(below.get(call.effect, []))]


def _call(item: Mapping[str, Any]) -> Call:
    used = item.get("used")
    used = used if isinstance(used, Mapping) else {}
    took = item.get("durationSeconds")
    cost = plain.word(used.get("costUsd") or "")
    return Call(
        effect=str(item.get("effect", "")),
        parent=str(item.get("parent") or ""),
        record=plain.number(item.get("record")),
        method=plain.word(item.get("method", "")),
        about=plain.line(item.get("about") or "", 120),
        status=plain.word(item.get("status", "")),
        time=str(item.get("time", "")),
        seconds=float(took) if isinstance(took, (int, float)) else None,
        tokens=plain.number(used.get("tokens")),
        cost="" if cost == "0.00" else cost,
        why=plain.line(item.get("why") or "", 200),
    )
