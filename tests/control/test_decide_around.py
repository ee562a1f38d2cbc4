"""What is decided around a box: deadlines, suspension, probes, limits, deletion, adoption."""

from dataclasses import replace
from typing import Any

import pytest

from agentk.control import clock, plans
from agentk.runtime import box
from tests.control import cases
from tests.control.cases import Story

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
    cases.crash(story, 1, 5)
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


@pytest.mark.parametrize(
    ("change", "done"),
    [
        ({"modelRef": {"name": "other"}}, []),
        ({"policyRef": {"name": "other"}}, ["Signal"]),
        ({"network": {"egress": {"default": "Allow"}}}, ["Signal"]),
        (
            {"secrets": [{"name": "s", "key": "k", "inject": {"host": "a.example", "header": "X-Key"}}]},
            ["Signal"],
        ),
    ],
)
def test_what_the_gate_alone_reads_changes_in_place(change: dict[str, Any], done: list[str]) -> None:
    story = Story()
    old = story.box()
    story.step(0, old)
    story.change(**change)
    assert cases.kinds(story.step(1, old)) == done


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


def test_a_deadline_that_stops_leaves_out_the_time_it_was_suspended() -> None:
    story = Story(activeDeadlineSeconds=30, deadlineWhileSuspended="Stops")
    story.step(0, story.box())
    story.change(suspend=True)
    story.step(10, story.box())
    decision = story.step(10, story.box(frozen=True))
    assert decision.again is None, "nothing comes due while it stands still"
    story.step(500, story.box(frozen=True))
    assert story.status["phase"] == "Suspended"
    story.change(suspend=False)
    story.step(510, story.box(frozen=True))
    decision = story.step(515, story.box())
    assert story.status["phase"] == "Running" and decision.again == 15
    story.step(530, story.box())
    assert story.status["reason"] == "DeadlineExceeded"


def test_a_deadline_that_stops_does_so_over_a_reboot_and_between_boxes() -> None:
    story = Story(activeDeadlineSeconds=30, deadlineWhileSuspended="Stops")
    story.step(0, story.box())
    story.change(suspend=True)
    story.step(10, story.box(frozen=True))
    lost = cases.lost(story.box(frozen=True), 20)
    story.step(100, lost, when=cases.now(5, boot="boot-2", wall=100))
    story.step(0, when=cases.now(6, boot="boot-2", wall=200))
    assert story.status["phase"] == "Suspended"
    story.change(suspend=False)
    assert cases.kinds(story.step(0, when=cases.now(7, boot="boot-2", wall=210))) == ["Start"]
    assert story.last is not None and story.last.again == 20


def test_nothing_counts_as_suspended_before_the_first_start() -> None:
    story = Story(suspend=True, activeDeadlineSeconds=30, deadlineWhileSuspended="Stops")
    story.step(0)
    story.change(suspend=False)
    story.step(100)
    story.step(100, story.box(at=100))
    story.step(129, story.box(at=100))
    assert story.status["phase"] == "Running"
    story.step(130, story.box(at=100))
    assert story.status["reason"] == "DeadlineExceeded"


def test_a_new_run_forgets_how_long_the_last_was_suspended() -> None:
    story = Story(activeDeadlineSeconds=30, deadlineWhileSuspended="Stops", suspend=True)
    story.step(0, story.box(frozen=True))
    story.change(suspend=False)
    story.step(100, story.box(frozen=True))
    story.change(command=["other"])
    old = story.box(annotations={"token": "old"})
    story.step(100, cases.ended(old, 0, 101))
    assert story.agent["status"]["run"].get("stoodSeconds") is None


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
    cases.crash(story, 1, 5)
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
