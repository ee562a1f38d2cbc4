"""What follows from the end of a box: restart, wait, or an outcome for good. Pure; part of `decide`."""

from collections.abc import Sequence

from agentk.broker.exits import FINAL
from agentk.control import deciding, exits, plans, restart
from agentk.control.clock import Moment, parse_stamp
from agentk.control.run import Outcome, Run
from agentk.runtime import box as boxes

# status.run.restarts stays small whatever maxRestarts says.
_RESTARTS_KEPT = 1000
# A refused start is tried again at least this often: what mends it (a package, a sysctl) tells nobody.
_REFUSED_SECONDS = 60.0
# Ends that are no failure of the agent's own, or after which its policy starts nothing.
_NO_FAILURES = ("Completed", "Killed", deciding.PREEMPTED, "DeadlineExceeded", deciding.BUDGET_EXCEEDED)


def record_ends(case: deciding.Case, ended: Sequence[boxes.Seen], live: Sequence[boxes.Seen]) -> None:
    """Every end that the status does not tell yet, oldest first; only the newest decides what is next."""
    ends = [one for one in ended if one.attempt > case.run.recorded]
    vanished = _vanished(case, [*ended, *live])
    if vanished is not None:
        ends.append(vanished)
    for one in ends:
        newest = not live and one is ends[-1]
        _record(case, one, newest)


def _vanished(case: deciding.Case, seen: Sequence[boxes.Seen]) -> boxes.Seen | None:
    """The box the status names, when the runtime knows nothing of it and its end was never seen."""
    attempt = int(case.status.get("attempt", 0))
    if attempt <= case.run.recorded or any(one.attempt >= attempt for one in seen):
        return None
    namespace = str(case.metadata.get("namespace", ""))
    started = str(case.status.get("startedAt", ""))
    box_id = str(case.status.get("boxID", ""))
    return boxes.Seen(box_id, case.uid, namespace, attempt, "box", "Lost", started_at=started)


def token_of(case: deciding.Case, seen: boxes.Seen) -> str:
    """What the box was made of."""
    return seen.annotations.get("token") or case.run.token or case.token


def started_at(case: deciding.Case, seen: boxes.Seen) -> Moment:
    """When the box started; now, when its runtime does not say."""
    boot = seen.process.boot_id if seen.process else ""
    if seen.started_at and seen.started_boottime and boot:
        return Moment(seen.started_at, seen.started_boottime, boot).rebased(case.now)
    return case.now.after(0)


def renew(case: deciding.Case, seen: boxes.Seen | None) -> None:
    """Begin a new run when the agent asks for something else than the last one; `seen`: its box, if it has one."""
    mended = bool(case.run.stalled) and case.generation > case.run.generation
    if case.run.token == case.token and not mended:
        return
    if seen is not None and token_of(case, seen) != case.token:
        return  # the old box has to end first
    case.run = Run(
        token=case.token,
        first_attempt=seen.attempt if seen else case.next_attempt,
        recorded=case.run.recorded,
        kill_handled=case.run.kill_handled,
    )
    case.status["restartCount"] = 0
    case.status.pop("nextRetryAt", None)


def _record(case: deciding.Case, seen: boxes.Seen, newest: bool) -> None:
    renew(case, seen)
    if case.run.started is None:
        case.change(started=started_at(case, seen))
    said = case.said(seen.attempt)
    end = exits.termination(seen, case.now.wall, said)
    lost_before = (case.status.get("lastTermination") or {}).get("reason") == "Lost"
    status = case.status
    status["attempt"], status["boxID"], status["lastTermination"] = seen.attempt, seen.id, end.to_dict()
    status["finishedAt"] = end.finished_at
    for key, value in (("exitCode", end.code), ("signal", end.signal), ("startedAt", end.started_at or None)):
        if value is None:
            status.pop(key, None)
        else:
            status[key] = value
    status.pop("result", None)
    status.pop("steps", None)
    status.update(said.for_status if said else {})
    if "steps" not in status and newest and case.observed.answered is not None:
        status["steps"] = case.observed.answered
    if seen.exit is not None:
        status["counters"] = exits.counters(seen.exit.counters)
    if seen.log_path:
        status["logPath"] = seen.log_path
    status["restartCount"] = max(0, seen.attempt - case.run.first_attempt)
    reason = end.reason if end.reason in ("OOMKilled", "Lost") else "Exited"
    fine = end.reason == "Completed" or end.intended
    told = f"{end.reason}: {end.message}" if end.message else end.reason
    case.event("Normal" if fine else "Warning", reason, told)
    case.change(recorded=seen.attempt, refusals=0)
    if newest and not case.deleting:
        _judge(case, seen, end, _ran_seconds(end), lost_before)
    case.change(ending=None)


def _ran_seconds(end: exits.Termination) -> float:
    """By the runtime's two stamps: the end may be long past when we see it."""
    if not (end.started_at and end.finished_at):
        return 0.0
    return (parse_stamp(end.finished_at) - parse_stamp(end.started_at)).total_seconds()


def _judge(
    case: deciding.Case, seen: boxes.Seen, end: exits.Termination, ran_seconds: float, lost_before: bool
) -> None:
    ending = case.run.ending if case.run.ending and case.run.ending.attempt == end.attempt else None
    asked_token = ending.token if ending else case.token
    kill = case.kill()
    if kill is not None:
        case.change(kill_handled=kill.text)
        if asked_token == case.token:
            case.change(token=case.token)  # a change before the kill is not a reason to run again
            _judge_killed(case, end)
            return
    if token_of(case, seen) != case.token or asked_token != case.token:
        return  # its end counts for a run that is over
    late = ending is not None and ending.cause == "deadline"
    if late or (end.intended and end.reason == "DeadlineExceeded"):
        finish(case, "Failed", "DeadlineExceeded", end.message)
    elif end.reason == deciding.BUDGET_EXCEEDED:
        finish(case, "Failed", end.reason, end.message, stalled=end.reason)  # more of a budget mends it
    elif end.reason in FINAL:
        finish(case, "Failed", end.reason, end.message)
    elif ending is not None and ending.cause == "replace":
        pass  # what it was made from changed and changed back
    elif end.reason == "Lost":
        if case.policy.restart == "Never":
            finish(case, "Failed", end.reason, end.message)
        else:
            # Not its own failure; but a box that is lost at once again must not be started in a loop.
            wait = case.policy.initial_seconds if lost_before else 0.0
            _again(case, end, wait)
    elif end.reason == "Completed" and case.policy.restart != "Always":
        finish(case, "Succeeded", end.reason, end.message)
    elif ending is not None and ending.cause == "preempt" and case.policy.restart != "Never":
        pass  # no failure of its own: it starts again when there is room
    else:
        _judge_failed(case, end, ran_seconds)


def _judge_killed(case: deciding.Case, end: exits.Termination) -> None:
    if case.policy.restart == "Always":
        return
    if end.reason == "Completed":  # it was done before the kill came
        finish(case, "Succeeded", end.reason, end.message)
    else:
        finish(case, "Failed", "Killed", end.message or "kill was asked for")


def _judge_failed(case: deciding.Case, end: exits.Termination, ran_seconds: float) -> None:
    policy = case.policy
    failures = restart.streak(case.run.failures, ran_seconds, policy.reset_after_seconds)
    case.change(failures=failures)
    if policy.restart == "Never":
        finish(case, "Failed", end.reason, end.message)
    elif policy.restart == "OnFailure" and failures > policy.backoff_limit:
        message = (
            f"failed {failures} times in a row, backoffLimit is {policy.backoff_limit}; last: {end.message}"
        )
        finish(case, "Failed", end.reason, message, stalled="BackoffLimitExceeded")
    else:
        _again(case, end, restart.delay(failures, policy.initial_seconds, policy.max_seconds))


def _again(case: deciding.Case, end: exits.Termination, wait_seconds: float) -> None:
    """Start it again by itself after `wait_seconds`, unless that happens too often."""
    policy = case.policy
    if policy.max_restarts is not None:
        most = min(policy.max_restarts, _RESTARTS_KEPT)
        recent = restart.within(case.run.restarts, policy.window_seconds, case.now)
        if len(recent) >= most:
            message = f"restarted {len(recent)} times within {policy.window_seconds:g} s; last: {end.message}"
            finish(case, "Failed", end.reason, message, stalled="MaxRestartsExceeded")
            return
        case.change(restarts=(*recent, case.now.after(0)))
    if wait_seconds > 0:
        case.change(retry=case.now.after(wait_seconds))
        reason = "CrashLoopBackOff" if case.run.failures > 1 else "BackOff"
        case.event("Warning", reason, f"back-off before restarting after {end.reason}")


def finish(case: deciding.Case, outcome: Outcome, reason: str, message: str, *, stalled: str = "") -> None:
    """The run is over for good: until the spec changes or a restart is asked for."""
    case.change(
        outcome=outcome, finished=case.now.after(0), generation=case.generation, retry=None, stalled=stalled
    )
    case.status.setdefault("finishedAt", case.now.wall)
    case.status.pop("nextRetryAt", None)
    case.phase(outcome, reason, message)
    if stalled:
        case.event("Warning", "Stalled", message)
    elif outcome == "Failed":
        case.event("Warning", "Failed", f"{reason}: {message}" if message else reason)
    else:
        case.event("Normal", "Succeeded", "it ended by itself with exit code 0")


def brings_back(case: deciding.Case) -> bool:
    """Whether its next process begins with a Checkpoint: the one before it, of the same run, failed or was lost."""
    last = case.status.get("lastTermination") or {}
    of_this_run = case.run.first_attempt <= int(last.get("attempt", 0)) == case.run.recorded
    return case.policy.brings_back and of_this_run and last.get("reason") not in _NO_FAILURES


def kill_at_rest(case: deciding.Case) -> None:
    """A kill of an agent that has no box now."""
    kill = case.kill()
    if kill is None:
        return
    case.change(kill_handled=kill.text)
    # An annotation older than everything we know came with a copied manifest.
    if case.run.outcome or not case.run.token:
        return
    if case.policy.restart == "Always":
        case.change(retry=None)
    else:
        finish(case, "Failed", "Killed", "kill was asked for while it was not running")


def rest_finished(case: deciding.Case) -> None:
    """Succeeded or Failed: only its time to live is left."""
    ttl = case.policy.ttl_seconds
    if ttl is None or case.run.finished is None:
        return
    left = ttl - case.run.finished.elapsed(case.now)
    if left <= 0:
        case.event("Normal", "Expired", "ttlSecondsAfterFinished is over")
        case.actions.append(plans.DeleteObject())
    else:
        case.wake(left)


def still_waits(case: deciding.Case) -> bool:
    """Whether a back-off keeps it from starting; the phase then says which."""
    refusal = case.observed.refusal
    if refusal is not None and refusal.attempt == case.next_attempt:
        refusals = case.run.refusals + 1
        most = min(case.policy.max_seconds, _REFUSED_SECONDS)
        wait = max(1.0, restart.delay(refusals, case.policy.initial_seconds, most))
        case.change(refusals=refusals, retry=case.now.after(wait))
        case.status["limits"] = {"unenforced": list(refusal.unenforced)}
        case.event("Warning", "SandboxUnavailable", refusal.message)
        if refusal.unenforced:
            case.event("Warning", "LimitsNotEnforced", "; ".join(refusal.unenforced))
        case.phase("Pending", "SandboxUnavailable", refusal.message)
    retry = case.run.retry
    if retry is None:
        return False
    left = -retry.elapsed(case.now)
    if left <= 0:
        case.change(retry=None)
        case.status.pop("nextRetryAt", None)
        return False
    case.wake(left)
    case.status["nextRetryAt"] = retry.wall
    last = case.status.get("lastTermination") or {}
    if case.run.refusals:
        case.phase("Pending", "SandboxUnavailable", str(case.status.get("message", "")))
    elif last.get("reason") == "Lost":
        case.phase("Pending", "Lost", str(last.get("message", "")))
    else:
        told = f"back-off after {last.get('reason', 'Error')}; failures in a row: {case.run.failures}"
        case.phase("Pending", "CrashLoopBackOff", told)
    return True
