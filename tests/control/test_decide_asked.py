"""What is decided when a person asks for something else: kills, restarts, other specs."""

from typing import Any

import pytest

from agentk.control import plans
from agentk.runtime import box
from tests.control import cases
from tests.control.cases import Story

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
    cases.crash(story, 1, 5)
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
    cases.crash(story, 1, 5)
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
    cases.crash(story, 1, 5, 0)
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
