"""Whether what a guest wants to create is no wider than itself, over the whole spec of an Agent. Pure.

Must never pass over a field: one that is not in a table here refuses, in the child and in the parent (it may be a bound
that the child lacks). Every problem names the field, what the parent has and what was asked.

Both specs are taken with the schema's defaults. A bound that is not given then is no bound at all, so a child that
leaves out what its parent is held to is wider; `inherit` gives it the parent's. What is handed out rather than bounded
(hosts, Secrets, volumes, tools, environments) is not inherited: a child gets what it asks for and its parent has.

Numbers alone do not keep a family of children within its parent's bounds: budgets are a tree (`budgets`), and cgroups
and Quotas add up.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, kinds, quantities, schemas, shaping
from agentk.api.problems import Path, Problem, shown
from agentk.broker import budgets_limits, narrowing_checkpoint, narrowing_memory, skilling
from agentk.broker import narrowing_grants as grants

Spec = Mapping[str, Any]
_REASON = "FieldValueForbidden"


def whole(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int):
        raise errors.Invalid("expected a whole number")
    return value


@dataclass(frozen=True)
class Bound:
    """A number of the spec. `least`: the smaller one is the wider, as with a pause."""

    path: tuple[str, ...]
    read: Callable[[Any], float]
    least: bool = False
    usual: int | None = None  # what it is when not given, where that bounds too


_LIMITS = ("resources", "limits")
BOUNDS = (
    Bound((*_LIMITS, "cpu"), quantities.parse_cpu),
    Bound((*_LIMITS, "memory"), quantities.parse_quantity),
    Bound((*_LIMITS, "pids"), whole),
    Bound((*_LIMITS, "ephemeral-storage"), quantities.parse_quantity),
    Bound((*_LIMITS, "open-files"), whole),
    Bound(("resources", "weight"), whole, usual=100),
    Bound(("logs", "maxSize"), quantities.parse_quantity),
    Bound(("logs", "maxFiles"), whole),
    Bound(("logs", "maxRate"), quantities.parse_quantity),
    Bound(("priority",), whole),
    Bound(("backoffLimit",), whole),
    Bound(("restartBackoff", "initialSeconds"), whole, least=True),
    Bound(("restartBackoff", "maxSeconds"), whole, least=True),
    Bound(("restartBackoff", "resetAfterSeconds"), whole, least=True),  # forgets failures sooner
    Bound(("maxRestarts",), whole),
    Bound(("restartWindow",), quantities.parse_duration, least=True),  # of maxRestarts
    Bound(("activeDeadlineSeconds",), whole),
    Bound(("ttlSecondsAfterFinished",), whole),
    Bound(("terminationGracePeriodSeconds",), whole),
    Bound(("depth",), whole),
    Bound(("budget", "maxCostUsd"), budgets_limits.parse_usd),
    Bound(("budget", "maxTokens"), whole),
    Bound(("budget", "maxCalls"), whole),
    Bound(("budget", "maxWallTime"), quantities.parse_duration),
    Bound(("budget", "maxTokensPerRequest"), whole),
    Bound(("budget", "per"), quantities.parse_duration, least=True),  # none: the budget never starts anew
)
# No Policy, Runtime, ModelRoute or image can be told narrower than another by its name; and to ask a registry of its
# own choice would be a way out for what a guest knows.
SAME = (
    ("runtimeRef", "name"),
    ("policyRef", "name"),
    ("modelRef", "name"),
    ("image",),
    ("imagePullPolicy",),
    ("imagePullSecrets",),
)
# From narrow to wide.
RANKS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("restartPolicy",): ("Never", "OnFailure", "Always"),
    ("deadlineWhileSuspended",): ("Runs", "Stops"),
    ("preemptionPolicy",): ("Never", "PreemptLowerPriority"),
    ("onPreempted",): ("End", "Freeze"),
    ("budget", "onExceeded"): ("Kill", "Pause"),
}
# What happens within the box, whoever wrote it: the box is what bounds it.
FREE = frozenset(
    {"command", "args", "workingDir", "hostname", "suspend", "stdin", "livenessProbe", "readinessProbe"}
    | {"program", "instructions", "role", "goal", "backstory", "task", "output", "steps", "burst"}
)
_KNOWN: dict[str, frozenset[str]] = {}  # fields of a group; of what has none: nothing
for _path in (*(bound.path for bound in BOUNDS), *SAME, *RANKS):
    for _at, _step in enumerate(_path):
        _group = ".".join(_path[:_at])
        _KNOWN[_group] = _KNOWN.get(_group, frozenset()) | {_step}
_KNOWN[""] |= FREE | grants.FIELDS | {"skills", "memory", "checkpoint"}


def narrower(child: Spec, parent: Spec) -> list[Problem]:
    """Why the child is not as narrow as its parent; empty when it is. Never raises, whatever the specs hold."""
    try:
        unknown = [*_unknown(child, "was asked for"), *_unknown(parent, "is what its parent has")]
        if unknown:
            return list(dict.fromkeys(unknown))
        child, parent = _filled(child), _filled(parent)
        return [
            *_bounds(child, parent),
            *_same(child, parent),
            *_ranks(child, parent),
            *grants.problems(child, parent),
            *skilling.wider(child.get("skills"), parent.get("skills")),
            *narrowing_memory.problems(child.get("memory"), parent.get("memory")),
            *narrowing_checkpoint.problems(child.get("checkpoint"), parent.get("checkpoint")),
        ]
    except errors.Invalid as error:
        what = f"{error.field}: {error.message}" if error.field else error.message
        return [_problem((), f"cannot be compared with the parent's: {what}")]


def inherit(child: Spec, parent: Spec) -> dict[str, Any]:
    """A copy of the child's spec with every bound that it leaves out taken from the parent. Widens nothing given."""
    made, whole_parent = copy.deepcopy(dict(child)), _filled(parent)
    for path in (*(bound.path for bound in BOUNDS), *SAME, *RANKS):
        value = _at_path(whole_parent, path)
        if value is not None:
            _put(made, path, value)
    return made


def _unknown(spec: Spec, where: str) -> Iterator[Problem]:
    for group, known in _KNOWN.items():
        held = _at_path(spec, tuple(group.split("."))) if group else spec
        for field in held if isinstance(held, Mapping) else ():
            if field not in known:
                path = (*(group.split(".") if group else ()), str(field))
                yield _problem(
                    path, f"{where}, and is not known to be narrow: no agent that is spawned has it"
                )


def _bounds(child: Spec, parent: Spec) -> Iterator[Problem]:
    for bound in BOUNDS:
        asked, had = _at_path(child, bound.path), _at_path(parent, bound.path)
        if bound.usual is not None:
            asked = bound.usual if asked is None else asked
            had = bound.usual if had is None else had
        if had is None and not (bound.least and asked is not None):
            continue
        most = "at least" if bound.least else "at most"
        if had is None:
            yield _problem(bound.path, f"its parent has none, asked for {shown(asked)}")
        elif asked is None and not bound.least:
            yield _problem(bound.path, f"expected {most} {shown(had)}, which its parent has; it is not given")
        elif asked is not None:
            new, old = _read(bound, asked), _read(bound, had)
            if new < old if bound.least else new > old:
                told = f"expected {most} {shown(had)}, which its parent has; asked for {shown(asked)}"
                yield _problem(bound.path, told)


def _read(bound: Bound, value: Any) -> float:
    try:
        return bound.read(value)
    except errors.Invalid as error:
        raise errors.Invalid(error.message, field=".".join(bound.path)) from None


def _same(child: Spec, parent: Spec) -> Iterator[Problem]:
    for path in SAME:
        asked, had = _at_path(child, path), _at_path(parent, path)
        if asked != had:
            yield _problem(path, f"expected {shown(had)}, which its parent has; asked for {shown(asked)}")


def _ranks(child: Spec, parent: Spec) -> Iterator[Problem]:
    for path, order in RANKS.items():
        asked, had = (_at_path(spec, path) or order[-1] for spec in (child, parent))
        known = asked in order and had in order
        if asked != had and not (known and order.index(asked) <= order.index(had)):
            yield _problem(path, f"its parent has {shown(had)}, asked for {shown(asked)}")


def _filled(spec: Spec) -> dict[str, Any]:
    """A copy with the schema's defaults."""
    schema = schemas.child(schemas.of(kinds.AGENT), "spec")
    made: dict[str, Any] = shaping.filled(copy.deepcopy(dict(spec)), schema or {})
    return made


def _at_path(spec: Spec, path: tuple[str, ...]) -> Any:
    """The value; None when it is not given. Raises Invalid where a group is no group."""
    value: Any = spec
    for at, step in enumerate(path):
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise errors.Invalid("expected an object", field=".".join(path[:at]))
        value = value.get(step)
    return value


def _put(spec: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Where nothing is given. A group that is no group stays as it is, for `narrower` to refuse."""
    for step in path[:-1]:
        if spec.get(step) is None:
            spec[step] = {}
        if not isinstance(spec[step], dict):
            return
        spec = spec[step]
    if spec.get(path[-1]) is None:
        spec[path[-1]] = copy.deepcopy(value)


def _problem(path: Path, message: str) -> Problem:
    return Problem(("spec", *path), message, reason=_REASON)
