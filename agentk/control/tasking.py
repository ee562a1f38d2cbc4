"""What to do about one Task. Pure: the Task, its agent as it is and the time in; actions, status and when again out.

It decides from what is there, never from what happened. Its agent is held by a finalizer from its making until the
Task's status tells how it ended: so an agent that is not there was never made, and no crash makes a second one.
"""

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentk.api import kinds, objects
from agentk.broker.exits import Exit
from agentk.control import conditions, decide, plans, policies
from agentk.control.clock import Moment, Now

FINALIZER = "agentk.dev/task"
_NAME_LETTERS = 48  # of the Task's, in its agent's
_USED = ("tokens", "calls", "costUsd")

Object = Mapping[str, Any]
Phase = Literal["Pending", "Running", "Succeeded", "Failed", "Cancelled"]


@dataclass(frozen=True)
class Seen:
    """All that is known of a Task besides its object."""

    agent: Object | None = None  # the one that it made
    said: Exit | None = None  # how that said that it ends
    usage: Object | None = None  # of that
    missing: plans.Problem | None = None  # why none can be made now
    refused: plans.Problem | None = None  # why none will ever be made


@dataclass(frozen=True)
class Make:
    """Its agent."""


@dataclass(frozen=True)
class Suspend:
    """Or let go on."""

    suspend: bool


@dataclass(frozen=True)
class Kill:
    """Its agent, by this annotation."""

    text: str


@dataclass(frozen=True)
class LetGo:
    """What holds its agent: its end is told."""


@dataclass(frozen=True)
class Delete:
    """The Task, which has outlived its ttl."""


Action = Make | Suspend | Kill | LetGo | Delete


@dataclass(frozen=True)
class Decision:
    """`actions` are done in order, then `status` is written, then `afterwards`."""

    actions: tuple[Action, ...]
    status: dict[str, Any]
    events: tuple[plans.Event, ...] = ()
    again: float | None = None
    afterwards: tuple[Action, ...] = ()


def agent_name(task: Object) -> str:
    """The same whenever it is asked for."""
    metadata = task["metadata"]
    short = str(metadata["name"])[:_NAME_LETTERS].rstrip("-.")
    return f"{short}-{hashlib.sha256(str(metadata['uid']).encode()).hexdigest()[:10]}"


def decide_task(task: Object, seen: Seen, now: Now) -> Decision:
    """See the module's text."""
    case = _Case(task, seen, now)
    if task["metadata"].get("deletionTimestamp"):
        case.let_go()
        return Decision((), case.status, afterwards=tuple(case.afterwards))
    if case.status.get("phase") not in kinds.ENDED_PHASES:
        if seen.agent is None:
            _without_agent(case)
        else:
            _with_agent(case, seen.agent)
    if case.status["phase"] in kinds.ENDED_PHASES:
        _ended(case)
    return case.done()


class _Case:
    def __init__(self, task: Object, seen: Seen, now: Now) -> None:
        self.spec: Object = task["spec"]
        self.seen, self.now = seen, now
        self.generation = int(task["metadata"].get("generation", 0))
        self.uid = str(task["metadata"]["uid"])
        self.status: dict[str, Any] = copy.deepcopy(dict(task.get("status") or {}))
        self.before = str(self.status.get("phase", ""))
        self.actions: list[Action] = []
        self.afterwards: list[Action] = []
        self.events: list[plans.Event] = []
        self.again: float | None = None

    @property
    def cancelled(self) -> bool:
        return bool(self.spec.get("cancel"))

    def phase(self, phase: Phase, reason: str, message: str) -> None:
        self.status["phase"] = phase
        for key, value in (("reason", reason), ("message", message)):
            if value:
                self.status[key] = value
            else:
                self.status.pop(key, None)

    def finish(self, phase: Phase, reason: str, message: str) -> None:
        self.phase(phase, reason, message)
        self.status["completionTime"] = self.now.wall
        self.status.setdefault("run", {})["finished"] = self.now.after(0).to_dict()
        told = f"{reason}: {message}" if message else reason
        self.events.append(plans.Event("Warning" if phase == "Failed" else "Normal", phase, told))

    def let_go(self) -> None:
        agent = self.seen.agent
        if agent is not None and FINALIZER in (agent["metadata"].get("finalizers") or ()):
            self.afterwards.append(LetGo())

    def done(self) -> Decision:
        self.status["observedGeneration"] = self.generation
        self.status["conditions"] = conditions.merge(
            self.status.get("conditions") or (), _conditions(self.status), self.generation, self.now.wall
        )
        return Decision(
            tuple(self.actions), self.status, tuple(self.events), self.again, tuple(self.afterwards)
        )


def _without_agent(case: _Case) -> None:
    refused, missing = case.seen.refused, case.seen.missing
    if (case.status.get("run") or {}).get("agentUID"):
        case.finish("Failed", "AgentGone", "its agent was taken away before its end could be told")
    elif case.cancelled:
        case.finish("Cancelled", "Cancelled", "it was cancelled before it began")
    elif refused is not None:
        case.finish("Failed", refused.reason, refused.message)
    elif case.spec.get("suspend"):
        case.phase("Pending", "Suspended", "spec.suspend is true")
    elif missing is not None:
        if case.status.get("reason") != missing.reason:
            case.events.append(plans.Event("Warning", missing.reason, missing.message))
        case.phase("Pending", missing.reason, missing.message)
    else:
        case.actions.append(Make())
        case.phase("Pending", "", "")


def _with_agent(case: _Case, agent: Object) -> None:
    metadata, status = agent["metadata"], agent.get("status") or {}
    case.status.setdefault("run", {})["agentUID"] = metadata["uid"]
    case.status["agentName"] = metadata["name"]
    attempts = int(status.get("attempt", 0))
    if attempts:
        case.status["attempts"] = attempts
    if status.get("startedAt"):
        case.status.setdefault("startTime", status["startedAt"])
    phase = str(status.get("phase", "Pending"))
    if phase in kinds.FINAL_PHASES:
        _judge(case, status)
    elif metadata.get("deletionTimestamp") and decide.FINALIZER not in (metadata.get("finalizers") or ()):
        _taken_away(case, status)
    else:
        _going_on(case, agent, phase)


def _judge(case: _Case, status: Object) -> None:
    """Its agent has ended for good."""
    _note_end(case, status)
    if "exitCode" in status:
        case.status["exitCode"] = status["exitCode"]
    reason, message = str(status.get("reason", "")), str(status.get("message", ""))
    if status["phase"] == "Succeeded":
        case.finish("Succeeded", reason or "Completed", message)
    elif case.cancelled and reason == "Killed":
        case.finish("Cancelled", "Cancelled", "it was cancelled")
    else:
        case.finish("Failed", reason or "Error", message)


def _taken_away(case: _Case, status: Object) -> None:
    """Somebody deleted its agent, whose box is gone by now."""
    _note_end(case, status)
    if case.cancelled:
        case.finish("Cancelled", "Cancelled", "it was cancelled")
    else:
        case.finish("Failed", "AgentDeleted", "its agent was deleted before it had ended")


def _note_end(case: _Case, status: Object) -> None:
    """What it gave, and what it cost: told once, for a status that changes with each call is written with each."""
    said, used = case.seen.said, case.seen.usage or status.get("usage") or {}
    if said is not None and said.result is not None:
        case.status["result"] = said.result.decode()
    steps = status.get("steps") if said is None or said.steps is None else said.steps
    if steps is not None:
        case.status["steps"] = steps
    if used:
        case.status["usage"] = {key: used[key] for key in _USED if key in used}


def _going_on(case: _Case, agent: Object, phase: str) -> None:
    status = agent.get("status") or {}
    begun = int(status.get("attempt", 0)) > 0
    case.phase(
        "Running" if begun else "Pending",
        "" if phase == "Running" else str(status.get("reason", "")),
        "" if phase == "Running" else str(status.get("message", "")),
    )
    if begun and case.before in ("", "Pending"):
        name = agent["metadata"]["name"]
        case.events.append(plans.Event("Normal", "Started", f'agent "{name}" works at it'))
    if bool(agent["spec"].get("suspend")) != bool(case.spec.get("suspend")) and not case.cancelled:
        case.actions.append(Suspend(bool(case.spec.get("suspend"))))
    # A kill that comes before the first look at an agent is taken for one of a copied manifest.
    known = ((agent.get("status") or {}).get("run") or {}).get("token")
    asked = (agent["metadata"].get("annotations") or {}).get(policies.KILL)
    text = json.dumps({"cancelled": case.uid})
    if case.cancelled and known and asked != text:
        case.actions.append(Kill(text))


def _ended(case: _Case) -> None:
    """Only its agent's finalizer and its time to live are left."""
    case.let_go()
    ttl = case.spec.get("ttlSecondsAfterFinished")
    finished = Moment.from_dict((case.status.get("run") or {}).get("finished"))
    if ttl is None or finished is None:
        return
    left = float(ttl) - finished.elapsed(case.now)
    if left <= 0:
        case.afterwards.append(Delete())
    else:
        case.again = left


def _conditions(status: Object) -> list[conditions.Condition]:
    phase = str(status["phase"])
    over = phase in kinds.ENDED_PHASES
    reason, message = str(status.get("reason") or phase), str(status.get("message", ""))
    went_well = conditions.truth(phase == "Succeeded") if over else "Unknown"
    failed = phase == "Failed"
    return [
        conditions.Condition("Finished", conditions.truth(over), reason, message),
        conditions.Condition("Succeeded", went_well, reason, message),
        conditions.Condition("Reconciling", conditions.truth(not over), reason, message),
        conditions.Condition("Stalled", conditions.truth(failed), reason, message if failed else ""),
    ]


def is_held(agent: Object) -> bool:
    return FINALIZER in (agent["metadata"].get("finalizers") or ())


def owner(agent: Object) -> tuple[str, str]:
    """Name and uid of the Task that an agent was made by; "" twice for none."""
    for reference in agent["metadata"].get("ownerReferences") or ():
        if reference.get("kind") == kinds.TASK.kind and reference.get("controller"):
            return str(reference.get("name")), str(reference.get("uid"))
    return "", ""


def made(task: Object, spec: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Its agent, not admitted yet."""
    metadata = task["metadata"]
    template = (task["spec"].get("template") or {}).get("metadata") or {}
    whose = {label: str(metadata["name"])[:63].rstrip("-.")}
    made: dict[str, Any] = {
        "apiVersion": kinds.AGENT.api_version,
        "kind": kinds.AGENT.kind,
        "metadata": {
            "name": agent_name(task),
            "namespace": metadata["namespace"],
            "labels": {**(template.get("labels") or {}), **whose},
            "finalizers": [FINALIZER],
            "ownerReferences": [objects.owner_reference(dict(task))],
        },
        "spec": dict(spec),
    }
    if template.get("annotations"):
        made["metadata"]["annotations"] = dict(template["annotations"])
    return made
