"""What is decided about agents, case by case."""

from dataclasses import replace
from typing import Any

import pytest

from agentk.control import clock, decide, plans
from agentk.runtime import box
from tests.control import cases
from tests.control.cases import Story


def crash(story: Story, attempt: int, at: float, code: int = 1) -> plans.Decision:
    """The attempt starts a second before `at`, and ends then."""
    one = story.box(attempt, at - 1)
    story.step(at - 1, one)
    return story.step(at, cases.ended(one, code, at))


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
    decision = crash(story, 1, 5, code)
    assert (story.status["phase"], story.status["reason"]) == (phase, reason)
    assert story.status["exitCode"] == code
    assert cases.kinds(decision) == ["Remove"], "only what is stored may go"
    assert decision.again == 0
    assert not isinstance(decision.actions, list) and plans.Start not in map(type, decision.actions)


def test_a_finished_agent_stays_finished() -> None:
    story = Story(restartPolicy="Never")
    crash(story, 1, 5, 0)
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
        crash(story, attempt, at)
        waits.append(story.step(at).again)
        at += (waits[-1] or 0) + 1
    assert waits == [10, 20, 40, 60, 60]


def test_it_starts_when_the_back_off_is_over() -> None:
    story = Story()
    crash(story, 1, 5)
    assert cases.kinds(story.step(14.9)) == []
    assert story.status["nextRetryAt"] == cases.now(15).wall
    decision = story.step(15)
    assert cases.first(decision, plans.Start).attempt == 2
    assert "nextRetryAt" not in story.status
    story.step(15, story.box(2, 15))
    assert story.status["restartCount"] == 1


def test_a_long_run_forgives_earlier_failures() -> None:
    story = Story(restartBackoff={"initialSeconds": 10, "maxSeconds": 300, "resetAfterSeconds": 600})
    crash(story, 1, 5)
    crash(story, 2, 20)
    long = story.box(3, 100)
    story.step(100, long)
    story.step(701, cases.ended(long, 1, 701))
    assert story.step(701).again == 10


def test_beyond_backoff_limit_it_is_failed_and_stalled() -> None:
    story = Story(backoffLimit=1)
    crash(story, 1, 5)
    decision = crash(story, 2, 20)
    assert (story.status["phase"], story.status["reason"]) == ("Failed", "Error")
    assert story.condition("Stalled") == "True/BackoffLimitExceeded"
    assert "Stalled" in cases.reasons(decision)
    assert cases.kinds(story.step(1000)) == []


def test_backoff_limit_is_not_for_always() -> None:
    story = Story(restartPolicy="Always", backoffLimit=0)
    crash(story, 1, 5)
    assert story.status["phase"] == "Pending"


def test_too_many_restarts_in_the_window_stall_it() -> None:
    story = Story(restartPolicy="Always", maxRestarts=2, restartWindow="10m")
    crash(story, 1, 5)
    crash(story, 2, 50)
    crash(story, 3, 100)
    assert story.status["phase"] == "Failed"
    assert story.condition("Stalled") == "True/MaxRestartsExceeded"
    assert cases.kinds(story.step(5000)) == []


def test_restarts_outside_the_window_do_not_stall_it() -> None:
    story = Story(restartPolicy="Always", maxRestarts=1, restartWindow="1m")
    crash(story, 1, 5)
    crash(story, 2, 100)
    assert story.status["reason"] == "CrashLoopBackOff"


def test_a_stalled_agent_goes_on_when_its_spec_changes() -> None:
    story = Story(restartPolicy="Always", maxRestarts=1)
    crash(story, 1, 5)
    crash(story, 2, 20)
    assert cases.kinds(story.step(30)) == []
    story.change(maxRestarts=5)
    assert cases.first(story.step(31), plans.Start).attempt == 3
    story.step(31, story.box(3, 31))
    assert story.condition("Stalled").startswith("False")
    assert story.status["restartCount"] == 0


def test_a_changed_ttl_does_not_run_a_finished_agent_again() -> None:
    story = Story(restartPolicy="Never")
    crash(story, 1, 5, 0)
    story.step(5)
    story.change(ttlSecondsAfterFinished=60)
    assert cases.kinds(story.step(6)) == []


def test_ttl_deletes_the_object() -> None:
    story = Story(restartPolicy="Never", ttlSecondsAfterFinished=60)
    crash(story, 1, 5, 0)
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


# kill and restart


def test_kill_asks_first_and_makes_it_after_the_grace() -> None:
    story = Story(terminationGracePeriodSeconds=10)
    story.step(0, story.box())
    story.annotate(kill=cases.kill(1))
    decision = story.step(1, story.box())
    signal = cases.first(decision, plans.Signal)
    assert (signal.signal, signal.intent.reason) == (15, "Killed")
    assert decision.again == 10
    assert cases.kinds(story.step(5, story.box())) == [], "asked once"
    assert cases.kinds(story.step(11, story.box())) == ["Kill"]
    assert story.status["phase"] == "Terminating"


def test_kill_is_final() -> None:
    story = Story()
    story.step(0, story.box())
    story.annotate(kill=cases.kill(1))
    story.step(1, story.box())
    story.step(2, cases.ended(story.box(), 143, 2, intent=box.Intent("Killed", "asked")))
    assert (story.status["phase"], story.status["reason"]) == ("Failed", "Killed")
    assert cases.kinds(story.step(3)) == []


def test_kill_with_always_starts_a_new_attempt_at_once() -> None:
    story = Story(restartPolicy="Always")
    story.step(0, story.box())
    story.annotate(kill=cases.kill(1))
    story.step(1, story.box())
    story.step(2, cases.ended(story.box(), 143, 2, intent=box.Intent("Killed", "asked")))
    assert cases.first(story.step(2), plans.Start).attempt == 2
    assert cases.kinds(story.step(3, story.box(2, 3))) == [], "acted upon once"


@pytest.mark.parametrize("fields", [{"grace": 0}, {"signal": "KILL"}, {"signal": 9}])
def test_kill_at_once(fields: dict[str, Any]) -> None:
    story = Story()
    story.step(0, story.box())
    story.annotate(kill=cases.kill(1, **fields))
    assert cases.kinds(story.step(1, story.box())) == ["Kill"]


def test_kill_with_another_signal_and_grace() -> None:
    story = Story()
    story.step(0, story.box())
    story.annotate(kill=cases.kill(1, signal="SIGINT", grace=3))
    decision = story.step(1, story.box())
    assert cases.first(decision, plans.Signal).signal == 2
    assert decision.again == 3


def test_kill_ends_a_back_off() -> None:
    story = Story()
    crash(story, 1, 5)
    story.annotate(kill=cases.kill(1))
    story.step(6)
    assert (story.status["phase"], story.status["reason"]) == ("Failed", "Killed")
    assert cases.kinds(story.step(100)) == []


def test_kill_of_an_agent_that_waits_for_room() -> None:
    story = Story()
    story.step(0, admission=plans.Problem("QuotaExceeded", "no room"))
    story.annotate(kill=cases.kill(0))
    story.step(1)
    assert story.status["phase"] == "Failed"


def test_a_kill_that_came_with_a_copied_manifest_is_ignored() -> None:
    story = Story()
    story.annotate(kill=cases.kill(3))
    assert cases.kinds(story.step(0)) == ["Start"]
    assert cases.kinds(story.step(1, story.box())) == []


@pytest.mark.parametrize("text", ["", "x", "[]", "{}x", '{"attempt": "many"}', '{"signal": "NOPE"}'])
def test_an_unreadable_kill_is_no_kill(text: str) -> None:
    story = Story()
    story.step(0, story.box())
    story.annotate(kill=text)
    assert cases.kinds(story.step(1, story.box())) == []


def test_a_killed_agent_runs_again_when_a_restart_is_asked_for() -> None:
    story = Story()
    crash(story, 1, 5)
    story.annotate(kill=cases.kill(1))
    story.step(6)
    story.annotate(kill=cases.kill(1), restartedAt="2026-01-01T00:00:10Z")
    assert cases.first(story.step(11), plans.Start).attempt == 2


def test_restart_replaces_a_running_box_without_counting() -> None:
    story = Story(backoffLimit=0)
    old = story.box()
    story.step(0, old)
    story.annotate(restartedAt="2026-01-01T00:00:10Z")
    assert cases.kinds(story.step(10, old)) == ["Signal"]
    story.step(11, cases.ended(old, 143, 11, intent=box.Intent("Killed", "")))
    assert cases.first(story.step(11), plans.Start).attempt == 2
    story.step(12, story.box(2, 12))
    assert (story.status["phase"], story.status["restartCount"]) == ("Running", 0)


# spec changes


def test_a_box_made_from_an_older_spec_is_replaced() -> None:
    story = Story(terminationGracePeriodSeconds=10)
    old = story.box()
    story.step(0, old)
    story.change(command=["python", "other.py"])
    decision = story.step(1, old)
    assert cases.kinds(decision) == ["Signal"] and decision.again == 10
    assert story.status["observedGeneration"] == 2
    decision = story.step(2, cases.ended(old, 143, 2, intent=box.Intent("Killed", "")))
    assert cases.kinds(decision) == ["Remove"], "the old box goes before the new one comes"
    assert cases.kinds(story.step(2)) == ["Start"]


@pytest.mark.parametrize(
    "around",
    [
        {"restartPolicy": "Always"},
        {"backoffLimit": 9},
        {"activeDeadlineSeconds": 900},
        {"ttlSecondsAfterFinished": 5},
        {"terminationGracePeriodSeconds": 1},
        {"priority": 7},
    ],
)
def test_what_is_around_the_box_needs_no_new_one(around: dict[str, Any]) -> None:
    story = Story()
    old = story.box()
    story.step(0, old)
    story.change(**around)
    assert cases.kinds(story.step(1, old)) == []
    assert story.status["observedGeneration"] == 2


def test_a_finished_agent_runs_again_when_what_it_is_made_from_changes() -> None:
    story = Story(restartPolicy="Never")
    crash(story, 1, 5, 0)
    story.step(5)
    story.change(command=["python", "other.py"])
    assert cases.first(story.step(6), plans.Start).attempt == 2


def test_a_spec_changed_and_changed_back_counts_no_failure() -> None:
    story = Story(backoffLimit=0)
    old = story.box()
    story.step(0, old)
    story.change(command=["other"])
    story.step(1, old)
    story.change(command=list(cases.SPEC["command"]))
    story.step(2, cases.ended(old, 143, 2, intent=box.Intent("Killed", "")))
    assert cases.kinds(story.step(2)) == ["Start"]


def test_a_kill_after_a_change_is_final() -> None:
    story = Story()
    old = story.box()
    story.step(0, old)
    story.change(command=["other"])
    story.step(1, old)
    story.annotate(kill=cases.kill(1))
    story.step(2, old)
    story.step(3, cases.ended(old, 143, 3, intent=box.Intent("Killed", "")))
    assert cases.kinds(story.step(4)) == []
    assert story.status["phase"] == "Failed"


def test_a_change_after_a_kill_runs() -> None:
    story = Story()
    old = story.box()
    story.step(0, old)
    story.annotate(kill=cases.kill(1))
    story.step(1, old)
    story.change(command=["other"])
    story.step(2, old)
    story.step(3, cases.ended(old, 143, 3, intent=box.Intent("Killed", "")))
    assert cases.kinds(story.step(4)) == ["Start"]


# deadline


def test_the_deadline_ends_it_for_good() -> None:
    story = Story(activeDeadlineSeconds=60, restartPolicy="Always")
    assert story.step(0, story.box()).again == 60
    decision = story.step(60, story.box())
    assert cases.first(decision, plans.Signal).intent.reason == "DeadlineExceeded"
    end = cases.ended(story.box(), 143, 61, intent=cases.first(decision, plans.Signal).intent)
    story.step(61, end)
    assert (story.status["phase"], story.status["reason"]) == ("Failed", "DeadlineExceeded")
    assert cases.kinds(story.step(62)) == []


def test_the_deadline_counts_over_restarts_and_back_off() -> None:
    story = Story(activeDeadlineSeconds=8)
    crash(story, 1, 5)
    assert story.step(6).again == 6
    story.step(12)
    assert story.status["reason"] == "DeadlineExceeded"


def test_the_deadline_is_not_moved_by_the_wall_clock() -> None:
    story = Story(activeDeadlineSeconds=60)
    story.step(0, story.box())
    assert cases.kinds(story.step(0, story.box(), when=cases.now(10, wall=99999))) == []
    assert cases.kinds(story.step(0, story.box(), when=cases.now(60, wall=-500))) == ["Signal"]


def test_after_a_reboot_the_wall_clock_counts_the_deadline() -> None:
    story = Story(activeDeadlineSeconds=60)
    story.step(0, story.box())
    after = clock.Now(cases.now(50).wall, 3.0, "boot-2")
    story.step(0, cases.lost(story.box()), when=after)
    assert story.status["phase"] == "Starting"
    story.step(0, when=clock.Now(cases.now(61).wall, 14.0, "boot-2"))
    assert story.status["reason"] == "DeadlineExceeded"


def test_a_new_run_has_a_new_deadline() -> None:
    story = Story(activeDeadlineSeconds=60)
    old = story.box()
    story.step(0, old)
    story.change(command=["other"])
    story.step(50, old)
    story.step(51, cases.ended(old, 143, 51, intent=box.Intent("Killed", "")))
    story.step(51)
    assert story.step(52, story.box(2, 52)).again == 60


# suspend


def test_a_suspended_agent_is_not_started() -> None:
    story = Story(suspend=True)
    assert cases.kinds(story.step(0)) == []
    assert story.status["phase"] == "Suspended"
    assert story.condition("Suspended") == "True/NotStarted"
    story.change(suspend=False)
    assert cases.kinds(story.step(1)) == ["Start"]


def test_a_running_agent_is_frozen_and_thawed() -> None:
    story = Story()
    story.step(0, story.box())
    story.change(suspend=True)
    assert cases.kinds(story.step(1, story.box())) == ["Freeze"]
    assert (story.status["phase"], story.condition("Suspended")) == ("Running", "False/Suspending")
    assert cases.reasons(story.step(1, story.box(frozen=True))) == ["Suspended"]
    assert story.condition("Suspended") == "True/Frozen"
    assert story.condition("Ready").startswith("False")
    story.change(suspend=False)
    decision = story.step(2, story.box(frozen=True))
    assert cases.kinds(decision) == ["Thaw"] and cases.reasons(decision) == ["Resumed"]
    assert story.status["phase"] == "Running"


def test_a_frozen_agent_hears_its_kill() -> None:
    story = Story(suspend=True)
    frozen = story.box(frozen=True)
    story.step(0, frozen)
    story.annotate(kill=cases.kill(1))
    assert cases.kinds(story.step(1, frozen)) == ["Thaw", "Signal"]
    assert cases.kinds(story.step(2, story.box())) == [], "it is not frozen again while it ends"


def test_the_deadline_counts_while_suspended() -> None:
    story = Story(suspend=True, activeDeadlineSeconds=30)
    story.step(0, story.box(frozen=True))
    story.step(30, story.box(frozen=True))
    assert story.status["reason"] == "DeadlineExceeded"


# probes


def test_a_dead_agent_is_ended_and_counted() -> None:
    story = Story(livenessProbe={"exec": {"command": ["true"]}})
    assert cases.kinds(story.step(0, story.box())) == ["RunProbe"]
    health = plans.Health(1, live=False, message="exit code 1")
    decision = story.step(9, story.box(), health=health)
    assert cases.first(decision, plans.Signal).intent.reason == "Error"
    end = cases.ended(story.box(), 143, 10, intent=cases.first(decision, plans.Signal).intent)
    story.step(10, end)
    assert story.status["reason"] == "CrashLoopBackOff"
    assert "liveness" in story.status["lastTermination"]["message"]


def test_what_a_probe_said_of_an_older_box_does_not_count() -> None:
    story = Story(livenessProbe={"exec": {"command": ["true"]}})
    story.step(0, story.box(2))
    health = plans.Health(1, live=False, message="old")
    assert cases.kinds(story.step(1, story.box(2), health=health)) == ["RunProbe"]


@pytest.mark.parametrize(("ready", "condition"), [(None, "False"), (False, "False"), (True, "True")])
def test_ready_waits_for_the_readiness_probe(ready: bool | None, condition: str) -> None:
    story = Story(readinessProbe={"exec": {"command": ["true"]}})
    story.step(0, story.box(), health=plans.Health(1, ready=ready))
    assert story.condition("Ready").startswith(condition)
    assert story.condition("Reconciling").startswith("False" if ready else "True")


# limits


def test_limits_that_do_not_hold_are_told() -> None:
    story = Story()
    decision = story.step(0, story.box(unenforced=["memory: no cgroup"]))
    assert story.condition("LimitsEnforced") == "False/LimitsNotEnforced"
    assert "LimitsNotEnforced" in cases.reasons(decision)
    assert story.status["limits"] == {"unenforced": ["memory: no cgroup"]}


def test_throttling_is_told_and_not_every_tick_is_written() -> None:
    story = Story()
    story.step(0, story.box(), counters=box.Counters(cpu_usec=1))
    first = story.status
    story.step(1, story.box(), counters=box.Counters(cpu_usec=2))
    assert story.status == first
    story.step(2, story.box(), counters=box.Counters(cpu_usec=3, throttled_periods=4))
    assert story.status["counters"]["throttledPeriods"] == 4
    limits = next(c for c in story.status["conditions"] if c["type"] == "LimitsEnforced")
    assert "throttled" in limits["message"]


# deletion


def test_deletion_ends_the_box_then_releases_then_lets_go() -> None:
    story = Story(terminationGracePeriodSeconds=5)
    story.step(0, story.box())
    story.delete()
    decision = story.step(1, story.box())
    assert cases.kinds(decision) == ["Signal"] and decision.again == 5
    assert story.status["phase"] == "Terminating"
    assert cases.kinds(story.step(6, story.box())) == ["Kill"]
    decision = story.step(7, cases.ended(story.box(), 137, 7))
    assert cases.kinds(decision)[:2] == ["Release", "RemoveFinalizer"]


def test_deletion_of_what_never_ran() -> None:
    story = Story()
    story.delete()
    assert cases.kinds(story.step(0)) == ["Release", "RemoveFinalizer"]


def test_what_was_let_go_is_left_alone() -> None:
    story = Story()
    story.delete()
    story.agent["metadata"]["finalizers"] = ["example.com/other"]
    assert cases.kinds(story.step(0)) == []


def test_deletion_during_a_long_grace_shortens_it() -> None:
    story = Story(terminationGracePeriodSeconds=300)
    story.step(0, story.box())
    story.change(command=["other"])
    old = replace(story.box(), annotations={"token": "old"})
    story.step(1, old)
    story.delete()
    story.agent["metadata"]["deletionGracePeriodSeconds"] = 5
    assert story.step(2, old).again == 5


def test_deletion_at_once() -> None:
    story = Story(terminationGracePeriodSeconds=300)
    story.step(0, story.box())
    story.delete()
    story.agent["metadata"]["deletionGracePeriodSeconds"] = 0
    assert cases.kinds(story.step(1, story.box())) == ["Kill"]


def test_a_deadline_during_a_replacement_is_still_the_deadline() -> None:
    story = Story(activeDeadlineSeconds=10, terminationGracePeriodSeconds=60)
    old = story.box()
    story.step(0, old)
    story.annotate(restartedAt="now")
    story.step(9, old)
    story.step(10, old)
    story.agent["metadata"]["annotations"] = {}
    story.step(11, cases.ended(old, 143, 11, intent=box.Intent("Killed", "replaced")))
    assert story.status["reason"] == "DeadlineExceeded"


# adoption and crashes


def test_a_box_started_before_the_status_was_written_is_taken_over() -> None:
    story = Story()
    decision = story.step(3, story.box())
    assert cases.kinds(decision) == []
    assert (story.status["phase"], story.status["attempt"]) == ("Running", 1)


def test_a_second_box_is_ended() -> None:
    story = Story()
    decision = story.step(0, story.box(1), story.box(2))
    assert cases.first(decision, plans.Kill).box.endswith("-1")
    assert story.status["attempt"] == 2


def test_an_attempt_number_is_never_used_again() -> None:
    story = Story()
    crash(story, 1, 5)
    story.step(6, story.box(7, 6))
    story.step(8, cases.ended(story.box(7, 6), 1, 8))
    assert cases.first(story.step(40), plans.Start).attempt == 8


def test_conditions_keep_their_transition_times() -> None:
    story = Story()
    story.step(0, story.box())
    times = {c["type"]: c["lastTransitionTime"] for c in story.status["conditions"]}
    story.step(50, story.box())
    assert {c["type"]: c["lastTransitionTime"] for c in story.status["conditions"]} == times


def test_deciding_twice_changes_nothing() -> None:
    story = Story()
    story.step(0, story.box())
    before = story.status
    story.step(1, story.box())
    assert story.status == before
