"""What to do about one Schedule. Pure: the Schedule, its Tasks and the time in; Tasks to make and to end, status out.

What is due is asked of the clock at every look, and never counted along: so a machine that slept, a daemon that did not
run and a clock that was set all come to the same, the last time that has passed and was not served. A Task is named
after the time it is for, so that one time makes one.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agentk.api import crons, errors, kinds, objects, taskspecs
from agentk.control import conditions, plans
from agentk.control.clock import Now, parse_stamp, stamp

_NAME_LETTERS = 52  # of the Schedule's, in those of its Tasks, as Kubernetes has it
# The wall clock and the one that timers go by drift apart: a wake-up is this much late rather than early.
_LATE_SECONDS = 0.01

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Make:
    """A Task for this time."""

    at: datetime


@dataclass(frozen=True)
class Cancel:
    """A Task that another takes the place of."""

    task: Object


@dataclass(frozen=True)
class Forget:
    """A Task that has ended, and others have since."""

    task: Object


Action = Make | Cancel | Forget


@dataclass(frozen=True)
class Decision:
    """`actions` are done in order, then `status` is written."""

    actions: tuple[Action, ...]
    status: dict[str, Any]
    events: tuple[plans.Event, ...] = ()
    again: float | None = None


def task_name(schedule: Object, at: datetime) -> str:
    """The same for the same time."""
    short = str(schedule["metadata"]["name"])[:_NAME_LETTERS].rstrip("-.")
    return f"{short}-{int(at.timestamp()) // 60}"


def decide_schedule(schedule: Object, tasks: Sequence[Object], now: Now) -> Decision:
    """See the module's text. `tasks`: those it owns."""
    case = _Case(schedule, now)
    active = [one for one in tasks if not _over(one) and not one["metadata"].get("deletionTimestamp")]
    case.note(active, [one for one in tasks if _phase(one) == "Succeeded"])
    _history(case, tasks)
    try:
        cron = crons.parse(str(case.spec["schedule"]), crons.zone(str(case.spec.get("timeZone", ""))))
    except errors.Invalid as error:  # it was right when it was written: a time zone that is here no more, say
        return case.done(wrong=error.message)
    if case.spec.get("suspend"):
        return case.done()
    case.next(cron)
    due = _due(case, cron)
    if due is not None:
        _serve(case, due, active)
    return case.done()


class _Case:
    def __init__(self, schedule: Object, now: Now) -> None:
        self.spec: Object = schedule["spec"]
        self.metadata: Object = schedule["metadata"]
        self.now, self.wall = now, parse_stamp(now.wall)
        self.before: Object = schedule.get("status") or {}
        self.status: dict[str, Any] = copy.deepcopy(dict(self.before))
        self.status.pop("nextScheduleTime", None)
        self.actions: list[Action] = []
        self.events: list[plans.Event] = []
        self.again: float | None = None

    def note(self, active: Sequence[Object], succeeded: Sequence[Object]) -> None:
        self.status["active"] = [
            {"name": one["metadata"]["name"], "uid": one["metadata"]["uid"]} for one in active
        ]
        times = [str((one["status"]).get("completionTime", "")) for one in succeeded]
        latest = max([*times, str(self.status.get("lastSuccessfulTime", ""))])
        if latest:
            self.status["lastSuccessfulTime"] = latest

    def next(self, cron: crons.Cron) -> None:
        following = cron.after(self.wall)
        if following is not None:
            self.status["nextScheduleTime"] = exact(following)
            self.wake((following - self.wall).total_seconds() + _LATE_SECONDS)

    def wake(self, seconds: float) -> None:
        self.again = seconds if self.again is None else min(self.again, seconds)

    def once(self, reason: str, message: str) -> None:
        """Told once, not at every look."""
        if self._ready().get("reason") != reason:
            self.events.append(plans.Event("Warning", reason, message))
        self.status["_waits"] = (reason, message)

    def _ready(self) -> Object:
        return conditions.find(self.before.get("conditions"), "Ready") or {}

    def done(self, wrong: str = "") -> Decision:
        generation = int(self.metadata.get("generation", 0))
        reason, message = self.status.pop("_waits", ("Scheduled", ""))
        if wrong:
            reason, message = "Invalid", wrong
        elif self.spec.get("suspend"):
            reason, message = "Suspended", "spec.suspend is true"
        if wrong and self._ready().get("reason") != reason:
            self.events.append(plans.Event("Warning", reason, message))
        ready = conditions.truth(not wrong and not self.spec.get("suspend"))
        told = [
            conditions.Condition("Ready", ready, reason, message),
            conditions.Condition("Reconciling", "False", reason),
            conditions.Condition("Stalled", conditions.truth(bool(wrong)), reason, wrong),
        ]
        self.status["observedGeneration"] = generation
        before = self.before.get("conditions") or ()
        self.status["conditions"] = conditions.merge(before, told, generation, self.now.wall)
        return Decision(tuple(self.actions), self.status, tuple(self.events), self.again)


def _due(case: _Case, cron: crons.Cron) -> datetime | None:
    """The last time that has passed since it was last served, or was made, and is not too late."""
    last = str(case.before.get("lastScheduleTime", ""))
    since = parse_stamp(last or str(case.metadata["creationTimestamp"]))
    passed = cron.until(case.wall)
    if passed is None or passed <= since:
        return None
    deadline = case.spec.get("startingDeadlineSeconds")
    if deadline is not None and case.wall - passed > timedelta(seconds=int(deadline)):
        case.once("MissSchedule", f"the Task of {exact(passed)} was missed, and is too late now")
        return None
    return passed


def _serve(case: _Case, due: datetime, active: Sequence[Object]) -> None:
    policy = case.spec.get("concurrencyPolicy", "Allow")
    others = [one for one in active if one["metadata"]["name"] != task_name({"metadata": case.metadata}, due)]
    if policy != "Allow" and others:
        names = ", ".join(str(one["metadata"]["name"]) for one in others)
        deadline = case.spec.get("startingDeadlineSeconds")
        if deadline is not None:
            case.wake((due - case.wall).total_seconds() + int(deadline) + _LATE_SECONDS)
        if policy == "Forbid":
            case.once("TaskAlreadyActive", f"the Task of {exact(due)} waits for the end of {names}")
            return
        case.actions += [Cancel(one) for one in others if not one["spec"].get("cancel")]
        case.once("Replacing", f"the Task of {exact(due)} takes the place of {names}")
        return
    case.actions.append(Make(due))
    case.status["lastScheduleTime"] = exact(due)


def _history(case: _Case, tasks: Sequence[Object]) -> None:
    ended = [one for one in tasks if _over(one) and not one["metadata"].get("deletionTimestamp")]
    ended.sort(key=lambda one: str(one["status"].get("completionTime", "")), reverse=True)
    succeeded = [one for one in ended if _phase(one) == "Succeeded"]
    failed = [one for one in ended if _phase(one) != "Succeeded"]
    keep = int(case.spec.get("successfulTasksHistoryLimit", 3))
    case.actions += [Forget(one) for one in succeeded[keep:]]
    case.actions += [Forget(one) for one in failed[int(case.spec.get("failedTasksHistoryLimit", 1)) :]]


def made(schedule: Object, at: datetime) -> dict[str, Any]:
    """The Task for a time, not admitted yet."""
    metadata, template = schedule["metadata"], schedule["spec"]["taskTemplate"]
    about = template.get("metadata") or {}
    whose = {taskspecs.SCHEDULE: str(metadata["name"])[:63].rstrip("-.")}
    return {
        "apiVersion": kinds.TASK.api_version,
        "kind": kinds.TASK.kind,
        "metadata": {
            "name": task_name(schedule, at),
            "namespace": metadata["namespace"],
            "labels": {**(about.get("labels") or {}), **whose},
            "annotations": {**(about.get("annotations") or {}), taskspecs.SCHEDULED_AT: exact(at)},
            "ownerReferences": [objects.owner_reference(dict(schedule))],
        },
        "spec": copy.deepcopy(template["spec"]),
    }


def exact(moment: datetime) -> str:
    """RFC 3339, UTC, whole seconds."""
    return stamp(moment).partition(".")[0] + "Z"


def _phase(task: Object) -> str:
    return str((task.get("status") or {}).get("phase", ""))


def _over(task: Object) -> bool:
    return _phase(task) in kinds.ENDED_PHASES
