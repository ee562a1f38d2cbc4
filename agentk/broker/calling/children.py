"""What a spawned agent is: from the spec a guest asks for to an object that may be stored.

The order is the safety: what is left out is taken from the parent, then it is admitted like any other object, and what
comes out, defaults and all, must be no wider than the parent. Pure.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentk.api import admit, errors, kinds, objects, pools, problems, shaping
from agentk.broker import admitting, guests, narrowing

Object = dict[str, Any]

CALL = "agentk.dev/spawnedByCall"  # effect id of the call: a child is found again by it after a crash
DEPTH = "agentk.dev/spawnDepth"  # also of one whose parents are gone
_OURS = "agentk.dev/"
_NAME_MAX = 63
_TAIL = 10  # letters of a generated name: enough that no two calls of an agent share them


@dataclass(frozen=True)
class Wish:
    """What agent.spawn was asked for."""

    spec: Mapping[str, Any]
    name: str = ""
    labels: Mapping[str, str] | None = None
    detached: bool = False


def child(
    wish: Wish,
    parent: Mapping[str, Any],
    effect: str,
    defaults: Mapping[str, Any] | None,
    runtime: str = "",
    pool: Mapping[str, Any] | None = None,
) -> Object:
    """The admitted object. Raises Invalid naming every field that is wrong, or wider than the parent's; Forbidden when
    its depth is used up.

    `effect`: the call's, so that the same call never makes a second one. `defaults`: of the child's Runtime, which is
    the parent's or, when the parent stands for a host program that may have it so, `runtime`: that one and no other.
    `pool`: the spec of the Pool it names, which fills what neither it nor its parent's bounds say.
    """
    metadata, bounds = parent["metadata"], dict(parent["spec"])
    if "depth" in bounds:
        if not bounds["depth"]:
            raise errors.Forbidden("spec.depth of this agent is 0: there are none below it")
        bounds["depth"] = int(bounds["depth"]) - 1
    if runtime:
        bounds["runtimeRef"] = {"name": runtime}
    for label in wish.labels or {}:
        if label.partition("/")[0].endswith(_OURS.rstrip("/")):
            raise errors.Invalid(f"labels of {_OURS} are agentk's own", field="labels")
    made: Object = {
        "apiVersion": kinds.AGENT.api_version,
        "kind": kinds.AGENT.kind,
        "metadata": {
            "name": wish.name or generated_name(metadata["name"], effect),
            "namespace": metadata["namespace"],
            "labels": dict(wish.labels or {}),
            "annotations": {
                guests.SPAWNED_BY: metadata["uid"],
                CALL: effect,
                DEPTH: str(depth(parent) + 1),
            },
        },
        "spec": narrowing.inherit(wish.spec, bounds),
    }
    if pool is not None:
        shaping.under(made["spec"], pools.given(made["spec"], pool))
    if not wish.detached:
        made["metadata"]["ownerReferences"] = [objects.owner_reference(dict(parent))]
    admitted = admit.admit(made, defaults=defaults)
    admitting.check(kinds.AGENT, admitted)
    wider = narrowing.narrower(admitted["spec"], bounds)
    problems.raise_all(wider, kinds.AGENT.kind, made["metadata"]["name"], None)
    return admitted


def generated_name(parent: str, effect: str) -> str:
    tail = hashlib.sha256(effect.encode()).hexdigest()[:_TAIL]
    return f"{parent[: _NAME_MAX - _TAIL - 1].rstrip('-.')}-{tail}"


def depth(agent: Mapping[str, Any]) -> int:
    """How many agents stand above it: 0 for one that a person made."""
    told = str((agent["metadata"].get("annotations") or {}).get(DEPTH, "0"))
    return int(told) if told.isdecimal() and len(told) < 4 else 0
