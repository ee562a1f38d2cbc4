"""What to do about one agent. Pure: object, what was seen and the time in; actions, status, events and when again out.

It decides from what is there, never from what happened, so it may be called at any moment and any number of times.
The two rules that everything rests on:

* An agent is started only when none of its boxes is there any more, ended ones included. A box goes only after the
  status that tells how it ended is stored. So no crash between two steps can start an agent twice or lose an end.
* What ends a box is written into its intent before the signal, and into `status.run.ending` after it.

`kill` is final (phase Failed, reason Killed) except with restartPolicy Always, which starts a new attempt at once.
The deadline counts from the first start of a run, over restarts and sleep of the machine, and over suspension unless
the agent says that it stops. A box lost to a reboot is no failure. `deciding.py` holds what the two halves below share.
"""

from collections.abc import Mapping
from typing import Any

from agentk.broker import lives
from agentk.control import deciding, judging, plans, prepared, standing
from agentk.control.clock import Now
from agentk.control.run import Cause
from agentk.runtime import box as boxes

FINALIZER = "agentk.dev/box"
# A runtime that did not answer wakes us when it comes back; this is for one that comes back silently.
_BLIND_SECONDS = 5.0
_SIGKILL = 9
# What could not be frozen is tried again.
_FREEZE_SECONDS = 5.0


def decide(agent: Mapping[str, Any], observed: plans.Observed, now: Now) -> plans.Decision:
    """See the module's text. `agent` is a stored Agent; its status is what was decided last time."""
    case = deciding.Case(agent, observed, now)
    if observed.boxes is None:
        return _blind(case)
    seen = sorted(observed.boxes, key=lambda one: one.attempt)
    live = [one for one in seen if one.phase in ("Starting", "Running")]
    ended = [one for one in seen if one.phase in ("Exited", "Lost")]
    judging.record_ends(case, ended, live)
    case.afterwards += [plans.Remove(one.id) for one in ended]
    for older in live[:-1]:  # cannot be, and must not stay
        case.actions.append(plans.Kill(older.id, boxes.Intent("Killed", "a newer box of this agent runs")))
    if case.deleting:
        _deleting(case, live[-1] if live else None)
    elif live:
        judging.renew(case, live[-1])
        _living(case, live[-1])
    else:
        _resting(case, free=not ended)
    if ended:
        case.wake(0)
    return _done(case, live[-1] if live else None)


def _blind(case: deciding.Case) -> plans.Decision:
    """Nothing is known, so nothing is done."""
    if not case.status.get("phase"):
        case.phase("Pending", "SandboxUnavailable", case.observed.blind)
    case.wake(_BLIND_SECONDS)
    return _done(case, None)


def _deleting(case: deciding.Case, live: boxes.Seen | None) -> None:
    if FINALIZER not in (case.metadata.get("finalizers") or ()):
        case.phase("Terminating", "Deleted", "others still hold the object")
        return
    if live is not None:
        _note_box(case, live)
        asked = case.metadata.get("deletionGracePeriodSeconds")
        grace = case.policy.grace_seconds if asked is None else float(asked)
        _end(case, live, "delete", "Killed", "the agent is being deleted", grace)
        return
    case.phase("Terminating", "Deleted", "its files are being removed")
    case.actions += [plans.Release(case.uid), plans.RemoveFinalizer()]


def _living(case: deciding.Case, live: boxes.Seen) -> None:
    _note_box(case, live)
    token = judging.token_of(case, live)
    kill, left = case.kill(), case.deadline_left()
    health, said = case.observed.health, case.said(live.attempt)
    overdrawn = case.observed.overdrawn
    ending = case.run.ending if case.run.ending and case.run.ending.attempt == live.attempt else None
    if kill is not None and case.policy.restart == "Always" and (kill.attempt or live.attempt) < live.attempt:
        case.change(kill_handled=kill.text)  # it meant a process that is gone
        kill = None
    if kill is not None:
        grace = case.policy.grace_seconds if kill.grace_seconds is None else kill.grace_seconds
        _end(case, live, "kill", "Killed", "kill was asked for", grace, kill.signal)
    elif said is not None:
        _end(case, live, "exit", said.reason, said.message or "it called exit", case.policy.grace_seconds)
    elif left is not None and left <= 0:
        message = f"it was active for longer than {case.policy.deadline_seconds} s"
        _end(case, live, "deadline", "DeadlineExceeded", message, case.policy.grace_seconds)
    elif token != case.token:
        _end(case, live, "replace", "Killed", "what it is made from changed", case.policy.grace_seconds)
    elif overdrawn is not None and case.policy.on_exceeded == "Kill":
        _end(case, live, "budget", deciding.BUDGET_EXCEEDED, overdrawn.message, case.policy.grace_seconds)
    elif case.policy.liveness and health.attempt == live.attempt and health.live is False:
        message = f"liveness probe failed: {health.message}"
        _end(case, live, "liveness", "Error", message, case.policy.grace_seconds)
    elif ending is not None:
        _end(case, live, ending.cause, ending.reason, ending.message, ending.grace_seconds)
    elif case.observed.preempted is not None and case.observed.preempted.how == "End":
        _end_for(case, live, case.observed.preempted)
    else:
        _keep(case, live)
        _wake_at_deadline(case, left)


def _wake_at_deadline(case: deciding.Case, left: float | None) -> None:
    stands = case.status.get("phase") == "Suspended"
    if left is not None and not (stands and case.policy.deadline_stops):
        case.wake(left)


def _keep(case: deciding.Case, live: boxes.Seen) -> None:
    """It may go on: suspended or not, starting or running, with probes."""
    was = case.status.get("phase")
    if case.policy.suspend or case.observed.overdrawn is not None:
        _hold(case, live)
        return
    if not live.frozen and live.phase == "Running" and case.observed.preempted is not None:
        _yield(case, live, case.observed.preempted)
        return
    if live.frozen and case.observed.admission is not None:
        _stay(case, case.observed.admission)
        return
    case.change(yielded="")
    if live.frozen:
        case.actions.append(plans.Thaw(live.id))
        case.event("Normal", "Resumed", "running on")
    if live.phase == "Starting":
        case.phase("Starting", "", "")
        return
    if was in (None, "Pending", "Starting") or case.attempt_before != live.attempt:
        case.event("Normal", "Started", f"attempt {live.attempt} is running")
    case.phase("Running", "", "")
    if case.policy.liveness:
        case.actions.append(plans.RunProbe("liveness", live.id))
    if case.policy.readiness:
        case.actions.append(plans.RunProbe("readiness", live.id))
        health = case.observed.health
        if health.attempt == live.attempt and health.ready is False and case.status.get("ready"):
            case.event("Warning", "Unhealthy", f"readiness probe failed: {health.message}")


def _hold(case: deciding.Case, live: boxes.Seen) -> None:
    """It may not go on now: frozen where it is, until spec.suspend is false and its budget has something left."""
    overdrawn = case.observed.overdrawn
    if not live.frozen:
        if live.phase == "Running":
            case.actions.append(plans.Freeze(live.id))
            case.wake(_FREEZE_SECONDS)
        case.phase(live.phase, "Suspending", "it is to be frozen")
    elif case.policy.suspend:
        if case.status.get("phase") != "Suspended":
            case.event("Normal", "Suspended", "frozen where it was")
        deadline = "stands still too" if case.policy.deadline_stops else "goes on counting"
        told = "spec.suspend is true"
        told += f"; its deadline {deadline}" if case.policy.deadline_seconds is not None else ""
        case.phase("Suspended", "Suspended", told)
    elif overdrawn is not None:
        _pause(case, overdrawn)


def _yield(case: deciding.Case, live: boxes.Seen, preempted: plans.Preempted) -> None:
    """Others need its room: it is frozen, and goes on when there is room again."""
    case.actions.append(plans.Freeze(live.id))
    case.wake(_FREEZE_SECONDS)
    if case.run.yielded != preempted.why:
        needs = f"{'/'.join(preempted.by)}, of priority {preempted.priority}, needs its room"
        turn = "others of its priority have their turn"
        case.event("Normal", preempted.why, needs if preempted.why == deciding.PREEMPTED else turn)
    case.change(yielded=preempted.why)
    case.phase(live.phase, "Suspending", "it is to be frozen")


def _stay(case: deciding.Case, problem: plans.Problem) -> None:
    """Frozen, without room to go on."""
    reason = case.run.yielded
    if not reason and case.status.get("phase") != "Suspended":
        reason = deciding.PREEMPTED  # frozen for others, and nobody lived to write down why
        case.event("Normal", reason, problem.message)
        case.change(yielded=reason)
    elif not reason:  # a person or its budget froze it, and lets it go on
        reason = deciding.NODE_FULL
        if case.status.get("reason") != reason:
            case.event("Normal", reason, problem.message)
    case.phase("Suspended", reason, problem.message)


def _end_for(case: deciding.Case, live: boxes.Seen, preempted: plans.Preempted) -> None:
    case.event(
        "Normal",
        deciding.PREEMPTED,
        f"{'/'.join(preempted.by)}, of priority {preempted.priority}, needs its room",
    )
    message = f"an agent of priority {preempted.priority} needs its room"
    _end(case, live, "preempt", deciding.PREEMPTED, message, case.policy.grace_seconds)


def _pause(case: deciding.Case, overdrawn: lives.Overdrawn) -> None:
    if case.status.get("reason") != deciding.BUDGET_EXCEEDED:
        case.event("Warning", deciding.BUDGET_EXCEEDED, overdrawn.message)
    case.phase("Suspended", deciding.BUDGET_EXCEEDED, overdrawn.message)
    if overdrawn.resets_in is not None:
        case.wake(overdrawn.resets_in)


def _end(
    case: deciding.Case,
    live: boxes.Seen,
    cause: Cause,
    reason: str,
    message: str,
    grace_seconds: float,
    signal: int = 15,
) -> None:
    """Ask the box to end, and make it when the grace is over. Repeatable."""
    ending = case.run.ending if case.run.ending and case.run.ending.attempt == live.attempt else None
    intent = boxes.Intent(reason, message)
    if ending is None or case.outranks(cause, ending.cause):
        if ending is not None:  # a later reason may only shorten what is left
            grace_seconds = min(grace_seconds, ending.grace_seconds - ending.since.elapsed(case.now))
        case.begin_ending(live.attempt, cause, reason, message, max(0.0, grace_seconds))
        what = "Exiting" if cause == "exit" else "Killing"  # what it asked for itself is nobody's doing
        case.event("Warning" if cause == "liveness" else "Normal", what, message)
        if live.frozen:
            case.actions.append(plans.Thaw(live.id))  # a frozen process cannot hear a signal
        if grace_seconds > 0 and signal != _SIGKILL:
            case.actions.append(plans.Signal(live.id, signal, intent))
        ending = case.run.ending
    assert ending is not None
    left = ending.grace_seconds - ending.since.elapsed(case.now)
    if left <= 0 or signal == _SIGKILL:
        case.actions.append(plans.Kill(live.id, boxes.Intent(ending.reason, ending.message)))
    else:
        case.wake(left)
    case.phase("Terminating", ending.reason, ending.message)


def _note_box(case: deciding.Case, live: boxes.Seen) -> None:
    """What is known of the box goes into the status."""
    status = case.status
    if live.attempt != status.get("attempt") or status.get("boxID") != live.id:
        for stale in ("finishedAt", "exitCode", "signal", "nextRetryAt", "counters", "result"):
            status.pop(stale, None)
    status["attempt"], status["boxID"] = live.attempt, live.id
    status.pop("nextRetryAt", None)
    if case.observed.host_uid >= 0:
        status["hostUID"] = case.observed.host_uid
    for key, value in (("startedAt", live.started_at), ("logPath", live.log_path)):
        if value:
            status[key] = value
    made_of = prepared.image_of(live.annotations)
    if made_of:
        status["image"] = made_of
    else:
        status.pop("image", None)
    status["limits"] = {"unenforced": list(live.unenforced)}
    if live.workspace:
        status["workspace"] = {"medium": live.workspace}
    if case.run.started is None:
        case.change(started=judging.started_at(case, live))
    if case.run.refusals or case.run.retry:
        case.change(refusals=0, retry=None)
    standing.note_start(case, live)
    standing.note_restored(case, live)
    if live.unenforced:
        case.event_once("LimitsNotEnforced", "Warning", "; ".join(live.unenforced))
    status["restartCount"] = max(0, live.attempt - case.run.first_attempt)


def _resting(case: deciding.Case, *, free: bool) -> None:
    """No box lives. `free`: none is left at all, so a new one may be started."""
    judging.kill_at_rest(case)
    judging.renew(case, None)
    left, overdrawn = case.deadline_left(), case.observed.overdrawn
    if case.run.outcome:
        judging.rest_finished(case)
    elif left is not None and left <= 0:
        message = f"it was active for longer than {case.policy.deadline_seconds} s"
        judging.finish(case, "Failed", "DeadlineExceeded", message)
    elif case.policy.suspend:
        case.phase("Suspended", "Suspended", "spec.suspend is true")
    elif overdrawn is not None and case.policy.on_exceeded == "Kill":
        reason = deciding.BUDGET_EXCEEDED
        judging.finish(case, "Failed", reason, overdrawn.message, stalled=reason)
    elif overdrawn is not None:
        _pause(case, overdrawn)
    elif not judging.still_waits(case) and not _blocked(case):
        _start(case, free)
    if not case.run.outcome:
        _wake_at_deadline(case, left)


def _blocked(case: deciding.Case) -> bool:
    """Whether something outside the agent keeps it from starting; the phase then says what."""
    observed = case.observed
    blockers = (
        *observed.references[:1],
        observed.source,
        observed.environment,
        observed.image,
        observed.runtime,
        observed.admission,
    )
    problem = next((blocker for blocker in blockers if blocker is not None), None)
    if problem is None:
        return False
    changed = case.status.get("reason") != problem.reason
    changed = changed or (not problem.usual and case.status.get("message") != problem.message)
    if changed and problem.reason not in (deciding.PROBING, deciding.PREEMPTING):  # that is told with names
        case.event("Normal" if problem.usual else "Warning", problem.reason, problem.message)
    case.phase("Pending", problem.reason, problem.message)
    return True


def _start(case: deciding.Case, free: bool) -> None:
    attempt = case.next_attempt
    if case.status.get("reason") in deciding.MAKES_ROOM:
        case.event("Normal", "Admitted", "there is room for it now")
    case.phase("Starting", "", "")
    case.status.pop("nextRetryAt", None)
    if not free:
        return
    if FINALIZER not in (case.metadata.get("finalizers") or ()):
        case.actions.append(plans.AddFinalizer())
    case.actions.append(plans.Start(attempt, case.token, judging.brings_back(case)))
    if case.observed.pulled:
        case.event("Normal", "Pulled", case.observed.pulled)
    case.event("Normal", "Starting", f"attempt {attempt}")


def _done(case: deciding.Case, live: boxes.Seen | None) -> plans.Decision:
    status = case.status
    status["observedGeneration"] = case.generation
    ready = live is not None and live.phase == "Running" and status.get("phase") == "Running"
    if ready and case.policy.readiness:
        health = case.observed.health
        ready = health.attempt == (live.attempt if live else 0) and health.ready is True
    status["ready"] = ready
    if live is not None and case.observed.counters is not None:
        standing.note_counters(status, case.observed.counters)
    overdrawn = case.observed.overdrawn
    case.change(refused=tuple(overdrawn.refused) if overdrawn else ())
    if case.observed.usage is not None:
        standing.note_usage(status, case.observed.usage, live)
    standing.note_packages(case)
    standing.note_ports(case)
    standing.note_kept(case)
    case.run = case.run.noted(status.get("phase") == "Suspended", case.now)
    status["run"] = case.run.to_dict()
    status["conditions"] = standing.conditions(case, live)
    return plans.Decision(tuple(case.actions), status, tuple(case.events), case.again, tuple(case.afterwards))
