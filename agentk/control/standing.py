"""How an agent stands: its conditions, from what was decided. Pure.

`Ready`, `Reconciling` and `Stalled` are kstatus': a Failed agent is Stalled, one on its way is Reconciling. An agent
that has Succeeded has no Ready condition: it is done, and kstatus counts that as current.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from agentk.control import deciding, exits, pool_boxes
from agentk.control.conditions import Condition, find, merge, truth
from agentk.runtime import box as boxes

# A counter that begins to count is worth a write; one that counts on is not.
_TELLING = ("oomKills", "pidsDenied", "throttledPeriods", "logHeldBackUsec")
_TAKEN = "PortUnavailable"
RESTORED = "restoredFrom"  # annotation of a box: the Checkpoint that it began with
_AWAITING = "AwaitingApproval"
_TOLD_MAX = 5  # calls that wait for a person
_AS_IS = ("oomKills", "pidsDenied")


def note_counters(status: dict[str, Any], counted: boxes.Counters) -> None:
    """Into the status when they tell something new; every tick of CPU time is not worth a durable write."""
    new, old = exits.counters(counted), status.get("counters")
    if old is None:
        status["counters"] = new
        return
    began = any(bool(new.get(key)) != bool(old.get(key)) for key in _TELLING)
    if began or any(new.get(key) != old.get(key) for key in _AS_IS):
        status["counters"] = new


def note_usage(status: dict[str, Any], usage: Mapping[str, Any], live: boxes.Seen | None) -> None:
    """As counters: time that goes on is told with the next thing that is worth a write."""
    new, old = dict(usage), status.get("usage") or {}
    moves = live is not None and not live.frozen
    if not (moves and {**new, "wallTime": ""} == {**old, "wallTime": ""}):
        status["usage"] = new


def note_packages(case: deciding.Case) -> None:
    """What its box is made with, as far as it is known."""
    told = case.observed.packages
    if not case.spec.get("environment"):
        case.status.pop("environment", None)
    elif told:
        case.status["environment"] = dict(told)


def note_start(case: deciding.Case, live: boxes.Seen) -> None:
    """Whether it came into a box of its Pool that waited, or why not; told once an attempt."""
    how, told = live.annotations.get(pool_boxes.START), live.annotations.get(pool_boxes.START_TOLD, "")
    if not how:
        case.status.pop("start", None)
        return
    case.status["start"] = {"type": how, "message": told}
    case.event_once(f"Started{how}", "Normal", told)


def note_restored(case: deciding.Case, live: boxes.Seen) -> None:
    """Which Checkpoint it began with; told once an attempt."""
    name = live.annotations.get(RESTORED)
    if name:
        case.status["restoredFrom"] = {"name": name, "attempt": live.attempt}
        case.event_once("Restored", "Normal", f"attempt {live.attempt} begins with Checkpoint {name}")


def note_kept(case: deciding.Case) -> None:
    """The newest Checkpoint there is of it."""
    if case.observed.kept:
        case.status["lastCheckpoint"] = dict(case.observed.kept)
    else:
        case.status.pop("lastCheckpoint", None)


def note_ports(case: deciding.Case) -> None:
    """Where its declared ports are found on this host."""
    told = case.observed.ports
    if not case.spec.get("ports"):
        case.status.pop("ports", None)
        return
    if told is None:
        return
    before = {one.get("name"): one.get("message") for one in case.status.get("ports") or ()}
    for one in told:
        if one.get("message") and one["message"] != before.get(one["name"]):
            case.event("Warning", _TAKEN, f"port {one['name']}: {one['message']}")
    case.status["ports"] = [dict(one) for one in told]


def conditions(case: deciding.Case, live: boxes.Seen | None) -> list[dict[str, Any]]:
    """All of them, as stored objects."""
    old = case.status.get("conditions") or []
    new = [
        *_kstatus(case),
        _accepted(case),
        *_environment(case, live, find(old, "EnvironmentReady")),
        _sandbox(case, live),
        _limits(case, live, find(old, "LimitsEnforced")),
        _finished(case),
        _suspended(case, live),
        *_ports(case),
        *_budget(case, find(old, deciding.BUDGET_EXCEEDED)),
        *_awaiting(case, find(old, _AWAITING)),
    ]
    return merge(old, new, case.generation, case.now.wall)


def _kstatus(case: deciding.Case) -> Iterator[Condition]:
    status = case.status
    phase, reason = status["phase"], status.get("reason") or status["phase"]
    message = str(status.get("message", ""))
    ready = bool(status["ready"])
    if phase != "Succeeded":
        waiting = reason
        if phase == "Running" and not ready:
            waiting, message = "ReadinessProbe", case.observed.health.message or "not ready yet"
        yield Condition("Ready", truth(ready), "Running" if ready else waiting, "" if ready else message)
    moving = phase in ("Pending", "Starting", "Terminating") or (phase == "Running" and not ready)
    moving = moving or reason == "Suspending"
    yield Condition("Reconciling", truth(moving), reason, message if moving else "")
    stalled = phase == "Failed"
    yield Condition(
        "Stalled",
        truth(stalled),
        (case.run.stalled or reason) if stalled else reason,
        message if stalled else "",
    )


def _accepted(case: deciding.Case) -> Condition:
    problem = next(iter(case.observed.references), None)
    if problem is None:
        return Condition("Accepted", "True", "Accepted")
    return Condition("Accepted", "False", problem.reason, problem.message)


def _environment(case: deciding.Case, live: boxes.Seen | None, old: Any) -> Iterator[Condition]:
    if not case.spec.get("environment"):
        return
    problem = case.observed.environment
    if problem is not None:
        yield Condition("EnvironmentReady", "False", problem.reason, problem.message)
    elif live is not None or case.observed.packages:
        yield Condition("EnvironmentReady", "True", "Ready")
    elif old is not None:  # not looked at: it has ended
        yield Condition("EnvironmentReady", old["status"], old["reason"], old["message"])


def _sandbox(case: deciding.Case, live: boxes.Seen | None) -> Condition:
    if case.observed.boxes is None:
        return Condition("SandboxReady", "Unknown", "SandboxUnavailable", case.observed.blind)
    if live is not None and live.phase == "Running":
        return Condition("SandboxReady", "True", "Running")
    if case.observed.runtime is not None:
        problem = case.observed.runtime
        if problem.reason == deciding.PROBING:
            return Condition("SandboxReady", "Unknown", problem.reason, problem.message)
        return Condition("SandboxReady", "False", problem.reason, problem.message)
    if case.run.refusals:
        return Condition("SandboxReady", "False", "SandboxUnavailable", str(case.status.get("message", "")))
    return Condition("SandboxReady", "False", "Starting" if live else "NoBox")


def _limits(case: deciding.Case, live: boxes.Seen | None, old: Any) -> Condition:
    unenforced = (case.status.get("limits") or {}).get("unenforced") or ()
    if unenforced:
        return Condition("LimitsEnforced", "False", "LimitsNotEnforced", "; ".join(unenforced))
    if live is not None or (old is not None and old["status"] == "True"):
        return Condition(
            "LimitsEnforced", "True", "LimitsEnforced", _bitten(case.status.get("counters") or {})
        )
    return Condition("LimitsEnforced", "Unknown", "NoBox", "nothing has been started yet")


def _bitten(counters: dict[str, int]) -> str:
    """Which limits the kernel had to use, by its own counters."""
    told = [
        words
        for key, words in (
            ("throttledPeriods", "CPU was throttled"),
            ("oomKills", "processes ran out of memory"),
            ("pidsDenied", "forks were denied"),
            ("logHeldBackUsec", "output was held back"),
        )
        if counters.get(key)
    ]
    return "; ".join(told)


def _finished(case: deciding.Case) -> Condition:
    if not case.run.outcome:
        return Condition("Finished", "False", case.status["phase"])
    reason = case.run.stalled or str(case.status.get("reason") or case.run.outcome)
    return Condition("Finished", "True", reason, str(case.status.get("message", "")))


def _suspended(case: deciding.Case, live: boxes.Seen | None) -> Condition:
    if case.status.get("reason") == "Suspending":
        return Condition("Suspended", "False", "Suspending", str(case.status.get("message", "")))
    if case.status["phase"] != "Suspended":
        return Condition("Suspended", "False", "NotSuspended")
    if case.status.get("reason") == deciding.BUDGET_EXCEEDED:
        return Condition("Suspended", "True", deciding.BUDGET_EXCEEDED, str(case.status.get("message", "")))
    if case.status.get("reason") in deciding.YIELDED:
        return Condition("Suspended", "True", str(case.status["reason"]), str(case.status.get("message", "")))
    if live is None:
        return Condition("Suspended", "True", "NotStarted", "it is started when spec.suspend is false")
    return Condition("Suspended", "True", "Frozen", "frozen where it was")


def _ports(case: deciding.Case) -> Iterator[Condition]:
    """Only of an agent that declares some."""
    if not case.spec.get("ports"):
        return
    told = case.status.get("ports") or ()
    problems = [f"{one['name']}: {one['message']}" for one in told if one.get("message")]
    if problems:
        yield Condition("PortsOpen", "False", _TAKEN, "; ".join(problems))
    elif told:
        yield Condition("PortsOpen", "True", "Listening")
    else:
        yield Condition("PortsOpen", "False", "NotListening", "nothing listens for an agent that has ended")


def _budget(case: deciding.Case, old: Any) -> Iterator[Condition]:
    """Only of an agent that a budget has stopped at some time."""
    overdrawn = case.observed.overdrawn
    if overdrawn is not None:
        yield Condition(deciding.BUDGET_EXCEEDED, "True", deciding.BUDGET_EXCEEDED, overdrawn.message)
    elif old is not None:
        yield Condition(deciding.BUDGET_EXCEEDED, "False", "WithinBudget")


def _awaiting(case: deciding.Case, old: Any) -> Iterator[Condition]:
    """Only of an agent that has had a person asked at some time."""
    told = list(case.observed.awaited)
    if told:
        more = [f"and {len(told) - _TOLD_MAX} more"] if len(told) > _TOLD_MAX else []
        yield Condition(_AWAITING, "True", _AWAITING, "; ".join([*told[:_TOLD_MAX], *more]))
    elif old is not None:
        yield Condition(_AWAITING, "False", "NothingAwaited")
