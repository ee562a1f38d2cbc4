"""Conditions as Kubernetes writes them. Pure: a transition time moves only when the status does."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Condition:
    type: str
    status: Truth
    reason: str  # CamelCase, never empty
    message: str = ""


def truth(value: bool) -> Truth:
    return "True" if value else "False"


def merge(
    old: Sequence[Mapping[str, Any]], new: Iterable[Condition], generation: int, now: str
) -> list[dict[str, Any]]:
    """`new` as stored objects, in order. One that keeps its status keeps its lastTransitionTime."""
    before = {str(condition.get("type")): condition for condition in old}
    merged = []
    for condition in new:
        was = before.get(condition.type)
        kept = was is not None and was.get("status") == condition.status
        merged.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message,
                "lastTransitionTime": was["lastTransitionTime"] if kept and was is not None else now,
                "observedGeneration": generation,
            }
        )
    return merged


def find(conditions: Sequence[Mapping[str, Any]] | None, kind: str) -> Mapping[str, Any] | None:
    """The condition of that type, if there is one."""
    return next((c for c in conditions or () if c.get("type") == kind), None)
