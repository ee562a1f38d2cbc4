"""What is decided about agents, case by case."""

from typing import Any

import pytest

from agentk.control import decide, plans
from agentk.runtime import box
from tests.control import cases
from tests.control.cases import Story

# starting


def test_a_new_agent_is_started() -> None:
    story = Story()
    decision = story.step(0)
    assert cases.kinds(decision) == ["Start"]
    assert cases.first(decision, plans.Start).attempt == 1
    assert story.status["phase"] == "Starting"


def test_the_finalizer_comes_before_the_first_start() -> None:
    story = Story()
    del story.agent["metadata"]["finalizers"]
    assert cases.kinds(story.step(0)) == ["AddFinalizer", "Start"]


@pytest.mark.parametrize(
    ("blocker", "reason"),
    [
        ({"references": [plans.Problem("ConfigError", "no Secret")]}, "ConfigError"),
        ({"source": plans.Problem("SourceUnavailable", "not sent")}, "SourceUnavailable"),
        ({"runtime": plans.Problem("SandboxUnavailable", "no nsjail")}, "SandboxUnavailable"),
        ({"admission": plans.Problem("QuotaExceeded", "no room")}, "QuotaExceeded"),
    ],
)
def test_what_keeps_it_from_starting_is_its_reason(blocker: dict[str, Any], reason: str) -> None:
    story = Story()
    decision = story.step(0, **blocker)
    assert cases.kinds(decision) == []
    assert (story.status["phase"], story.status["reason"]) == ("Pending", reason)
    assert story.condition("Ready") == f"False/{reason}"
    assert cases.reasons(decision) == [reason]
    assert cases.reasons(story.step(1, **blocker)) == [], "told once"
    assert cases.kinds(story.step(2)) == ["Start"]


def test_room_after_waiting_is_told() -> None:
    story = Story()
    story.step(0, admission=plans.Problem("QuotaExceeded", "no room"))
    assert cases.reasons(story.step(1)) == ["Admitted", "Starting"]


def test_running_is_told_once_and_ready() -> None:
    story = Story()
    story.step(0)
    assert cases.reasons(story.step(0, story.box())) == ["Started"]
    assert cases.reasons(story.step(1, story.box())) == []
    assert story.status["ready"] is True
    assert story.condition("Ready") == "True/Running"
    assert story.condition("Reconciling") == "False/Running"
    assert story.status["observedGeneration"] == 1


def test_a_box_that_starts_is_not_ready() -> None:
    story = Story()
    story.step(0, story.box(phase="Starting"))
    assert (story.status["phase"], story.status["ready"]) == ("Starting", False)


def test_nothing_is_done_when_the_runtime_does_not_answer() -> None:
    story = Story()
    story.step(0, story.box())
    observed = plans.Observed(boxes=None, blind="launcher is away")
    decision = decide.decide(story.agent, observed, cases.now(2))
    assert cases.kinds(decision) == [] and decision.again is not None
    assert decision.status["phase"] == story.status["phase"]


def test_a_refused_start_waits_and_says_why() -> None:
    story = Story()
    refusal = plans.Refusal(1, "memory cannot be limited", ["memory: no cgroup"])
    decision = story.step(0, refusal=refusal)
    assert cases.kinds(decision) == [] and decision.again == 10
    assert (story.status["phase"], story.status["reason"]) == ("Pending", "SandboxUnavailable")
    assert story.condition("LimitsEnforced") == "False/LimitsNotEnforced"
    assert cases.first(story.step(10), plans.Start).attempt == 1
    assert story.status["run"].get("failures", 0) == 0


# ending by itself


@pytest.mark.parametrize(
    ("policy", "code", "phase", "reason"),
    [
        ("Never", 0, "Succeeded", "Completed"),
        ("Never", 1, "Failed", "Error"),
        ("OnFailure", 0, "Succeeded", "Completed"),
        ("OnFailure", 1, "Pending", "CrashLoopBackOff"),
        ("Always", 0, "Pending", "CrashLoopBackOff"),
        ("Always", 1, "Pending", "CrashLoopBackOff"),
    ],
)
def test_restart_policy(policy: str, code: int, phase: str, reason: str) -> None:
    story = Story(restartPolicy=policy)
    decision = cases.crash(story, 1, 5, code)
    assert (story.status["phase"], story.status["reason"]) == (phase, reason)
    assert story.status["exitCode"] == code
    assert cases.kinds(decision) == ["Remove"], "only what is stored may go"
    assert decision.again == 0
    assert not isinstance(decision.actions, list) and plans.Start not in map(type, decision.actions)


def test_a_finished_agent_stays_finished() -> None:
    story = Story(restartPolicy="Never")
    cases.crash(story, 1, 5, 0)
    decision = story.step(6)
    assert cases.kinds(decision) == [] and decision.again is None
    assert story.condition("Finished") == "True/Completed"
    assert story.condition("Ready") == "absent"


def test_back_off_doubles_up_to_the_most() -> None:
    story, at, waits = (
        Story(backoffLimit=100, restartBackoff={"initialSeconds": 10, "maxSeconds": 60}),
        1.0,
        [],
    )
    for attempt in range(1, 6):
        cases.crash(story, attempt, at)
        waits.append(story.step(at).again)
        at += (waits[-1] or 0) + 1
    assert waits == [10, 20, 40, 60, 60]


def test_it_starts_when_the_back_off_is_over() -> None:
    story = Story()
    cases.crash(story, 1, 5)
    assert cases.kinds(story.step(14.9)) == []
    assert story.status["nextRetryAt"] == cases.now(15).wall
    decision = story.step(15)
    assert cases.first(decision, plans.Start).attempt == 2
    assert "nextRetryAt" not in story.status
    story.step(15, story.box(2, 15))
    assert story.status["restartCount"] == 1


def test_a_long_run_forgives_earlier_failures() -> None:
    story = Story(restartBackoff={"initialSeconds": 10, "maxSeconds": 300, "resetAfterSeconds": 600})
    cases.crash(story, 1, 5)
    cases.crash(story, 2, 20)
    long = story.box(3, 100)
    story.step(100, long)
    story.step(701, cases.ended(long, 1, 701))
    assert story.step(701).again == 10


def test_beyond_backoff_limit_it_is_failed_and_stalled() -> None:
    story = Story(backoffLimit=1)
    cases.crash(story, 1, 5)
    decision = cases.crash(story, 2, 20)
    assert (story.status["phase"], story.status["reason"]) == ("Failed", "Error")
    assert story.condition("Stalled") == "True/BackoffLimitExceeded"
    assert "Stalled" in cases.reasons(decision)
    assert cases.kinds(story.step(1000)) == []


def test_backoff_limit_is_not_for_always() -> None:
    story = Story(restartPolicy="Always", backoffLimit=0)
    cases.crash(story, 1, 5)
    assert story.status["phase"] == "Pending"


def test_too_many_restarts_in_the_window_stall_it() -> None:
    story = Story(restartPolicy="Always", maxRestarts=2, restartWindow="10m")
    cases.crash(story, 1, 5)
    cases.crash(story, 2, 50)
    cases.crash(story, 3, 100)
    assert story.status["phase"] == "Failed"
    assert story.condition("Stalled") == "True/MaxRestartsExceeded"
    assert cases.kinds(story.step(5000)) == []


def test_restarts_outside_the_window_do_not_stall_it() -> None:
    story = Story(restartPolicy="Always", maxRestarts=1, restartWindow="1m")
    cases.crash(story, 1, 5)
    cases.crash(story, 2, 100)
    assert story.status["reason"] == "CrashLoopBackOff"


def test_a_stalled_agent_goes_on_when_its_spec_changes() -> None:
    story = Story(restartPolicy="Always", maxRestarts=1)
    cases.crash(story, 1, 5)
    cases.crash(story, 2, 20)
    assert cases.kinds(story.step(30)) == []
    story.change(maxRestarts=5)
    assert cases.first(story.step(31), plans.Start).attempt == 3
    story.step(31, story.box(3, 31))
    assert story.condition("Stalled").startswith("False")
    assert story.status["restartCount"] == 0


def test_a_changed_ttl_does_not_run_a_finished_agent_again() -> None:
    story = Story(restartPolicy="Never")
    cases.crash(story, 1, 5, 0)
    story.step(5)
    story.change(ttlSecondsAfterFinished=60)
    assert cases.kinds(story.step(6)) == []


def test_ttl_deletes_the_object() -> None:
    story = Story(restartPolicy="Never", ttlSecondsAfterFinished=60)
    cases.crash(story, 1, 5, 0)
    assert story.step(10).again == 55
    assert cases.kinds(story.step(65)) == ["DeleteObject"]


# reasons


@pytest.mark.parametrize(
    ("end", "reason", "words"),
    [
        ({"code": 0}, "Completed", ""),
        ({"code": 3}, "Error", "exit code 3"),
        ({"code": 137}, "Error", "SIGKILL"),
        ({"code": None, "signal": 11}, "Error", "SIGSEGV"),
        ({"code": 137, "counters": box.Counters(oom_kills=1)}, "OOMKilled", "1 out-of-memory"),
        ({"code": 1, "counters": box.Counters(oom_kills=2)}, "OOMKilled", "exit code 1"),
        ({"code": 0, "counters": box.Counters(oom_kills=1)}, "Completed", "ran out of memory"),
        ({"code": 1, "counters": box.Counters(pids_denied=7)}, "Error", "denied 7 forks"),
        ({"code": 255, "message": "cannot mount"}, "Error", "cannot mount"),
        ({"code": 137, "intent": box.Intent("DeadlineExceeded", "late")}, "DeadlineExceeded", "late"),
        ({"code": None, "source": "none"}, "Lost", "not known"),
    ],
)
def test_every_reason_is_backed_by_what_was_read(end: dict[str, Any], reason: str, words: str) -> None:
    story = Story(restartPolicy="Never")
    story.step(0, story.box())
    story.step(5, cases.ended(story.box(), **end))
    assert story.status["lastTermination"]["reason"] == reason
    assert words in story.status["lastTermination"].get("message", "")


def test_counters_of_the_end_are_kept() -> None:
    story = Story(restartPolicy="Never")
    story.step(0, story.box())
    story.step(5, cases.ended(story.box(), 1, counters=box.Counters(cpu_usec=7, pids_denied=3)))
    assert story.status["counters"] == {"cpuUsec": 7, "pidsDenied": 3, "logBytes": 0, "logHeldBackUsec": 0}


def test_an_end_between_start_and_first_look_is_still_told() -> None:
    story = Story(restartPolicy="Never")
    story.step(0)
    decision = story.step(1, cases.ended(story.box(), 4, at=0.5))
    assert story.status["exitCode"] == 4
    assert "Exited" in cases.reasons(decision)


# lost


def test_a_box_lost_to_a_reboot_is_no_failure_and_starts_again() -> None:
    story = Story(backoffLimit=0)
    story.step(0, story.box())
    assert "Lost" in cases.reasons(story.step(5, cases.lost(story.box())))
    assert cases.first(story.step(6), plans.Start).attempt == 2


def test_lost_with_never_is_failed() -> None:
    story = Story(restartPolicy="Never")
    story.step(0, story.box())
    story.step(5, cases.lost(story.box()))
    assert (story.status["phase"], story.status["reason"]) == ("Failed", "Lost")


def test_a_box_the_runtime_has_forgotten_is_lost() -> None:
    story = Story()
    story.step(0, story.box())
    decision = story.step(5)
    assert story.status["lastTermination"]["reason"] == "Lost"
    assert cases.first(decision, plans.Start).attempt == 2


def test_lost_again_at_once_waits() -> None:
    story = Story()
    story.step(0, story.box())
    story.step(1, cases.lost(story.box()))
    story.step(2, story.box(2, 2))
    story.step(3, cases.lost(story.box(2, 2), 3))
    assert story.step(3).again == 10
    assert story.status["reason"] == "Lost"
