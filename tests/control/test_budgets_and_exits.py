"""What is decided about agents whose budget is used up, and about those who said how they end."""

from typing import Any

import pytest

from agentk.broker.exits import Exit
from agentk.broker.lives import Overdrawn
from agentk.control import plans
from agentk.runtime import box
from tests.control import cases
from tests.control.cases import Story

DRY = Overdrawn("the tokens of agent/a are used up", None, (10, 1, 0))
KILL = {"budget": {"onExceeded": "Kill"}}


def running(**spec: Any) -> tuple[Story, box.Seen]:
    story = Story(**spec)
    story.step(0)
    one = story.box()
    story.step(0, one)
    return story, one


# Pause


def test_an_agent_without_budget_is_frozen_and_says_so() -> None:
    story, one = running()
    decision = story.step(1, one, overdrawn=DRY)
    assert cases.kinds(decision) == ["Freeze"] and story.status["phase"] == "Running"
    decision = story.step(1, story.box(frozen=True), overdrawn=DRY)
    assert cases.kinds(decision) == [] and cases.reasons(decision) == ["BudgetExceeded"]
    assert (story.status["phase"], story.status["reason"]) == ("Suspended", "BudgetExceeded")
    assert story.status["message"] == DRY.message and story.status["ready"] is False
    assert story.condition("BudgetExceeded") == "True/BudgetExceeded"
    assert story.condition("Suspended") == "True/BudgetExceeded"
    assert story.condition("Ready") == "False/BudgetExceeded"
    assert cases.reasons(story.step(2, story.box(frozen=True), overdrawn=DRY)) == [], "told once"
    assert story.status["run"]["refused"] == [10, 1, 0], "known after a restart"


def test_it_goes_on_when_there_is_something_left() -> None:
    story, _ = running()
    story.step(1, story.box(frozen=True), overdrawn=DRY)
    decision = story.step(2, story.box(frozen=True))
    assert cases.kinds(decision) == ["Thaw"] and cases.reasons(decision) == ["Resumed"]
    story.step(2, story.box())
    assert story.status["phase"] == "Running" and "reason" not in story.status
    assert story.condition("BudgetExceeded") == "False/WithinBudget"
    assert "refused" not in story.status["run"]


def test_the_end_of_the_window_is_looked_at() -> None:
    story, _ = running()
    decision = story.step(1, story.box(frozen=True), overdrawn=Overdrawn("used up", 7.5))
    assert decision.again == 7.5


def test_both_suspended_and_without_budget_thaws_when_neither() -> None:
    story, _ = running(suspend=True)
    frozen = story.box(frozen=True)
    story.step(1, frozen, overdrawn=DRY)
    assert story.status["reason"] == "Suspended"
    story.change(suspend=False)
    story.step(2, frozen, overdrawn=DRY)
    assert story.status["reason"] == "BudgetExceeded"
    story.change(suspend=True)
    assert cases.kinds(story.step(3, frozen)) == []
    story.change(suspend=False)
    assert cases.kinds(story.step(4, frozen)) == ["Thaw"]


def test_a_kill_ends_what_is_frozen() -> None:
    story, _ = running()
    story.step(1, story.box(frozen=True), overdrawn=DRY)
    story.annotate(kill=cases.kill(1))
    assert cases.kinds(story.step(2, story.box(frozen=True), overdrawn=DRY)) == ["Thaw", "Signal"]


def test_nothing_is_started_without_budget() -> None:
    story = Story()
    assert cases.kinds(story.step(0, overdrawn=DRY)) == []
    assert (story.status["phase"], story.status["reason"]) == ("Suspended", "BudgetExceeded")
    assert cases.kinds(story.step(1)) == ["Start"]


def test_another_budget_needs_no_other_box() -> None:
    story, one = running(budget={"maxTokens": 5})
    story.change(budget={"maxTokens": 50})
    assert cases.kinds(story.step(1, one)) == []


# Kill


@pytest.mark.parametrize("policy", ["Never", "OnFailure", "Always"])
def test_kill_is_final_and_says_why(policy: str) -> None:
    story, one = running(restartPolicy=policy, **KILL)
    decision = story.step(1, one, overdrawn=DRY)
    assert cases.first(decision, plans.Signal).intent == box.Intent("BudgetExceeded", DRY.message)
    intent = box.Intent("BudgetExceeded", DRY.message)
    story.step(2, cases.ended(one, 143, 2, intent=intent), overdrawn=DRY)
    assert (story.status["phase"], story.status["reason"]) == ("Failed", "BudgetExceeded")
    assert DRY.message in story.status["message"] and story.status["exitCode"] == 143
    assert cases.kinds(story.step(3)) == [], "also when there is a new window"
    story.change(budget={"maxTokens": 100, "onExceeded": "Kill"})
    assert cases.kinds(story.step(4)) == ["Start"], "a changed spec is a new run"


def test_who_hears_no_signal_is_made_to_end() -> None:
    story, one = running(terminationGracePeriodSeconds=5, **KILL)
    assert story.step(1, one, overdrawn=DRY).again == 5
    assert cases.kinds(story.step(6, one, overdrawn=DRY)) == ["Kill"]


def test_what_rests_without_budget_fails() -> None:
    story = Story(**KILL)
    assert cases.kinds(story.step(0, overdrawn=DRY)) == []
    assert (story.status["phase"], story.status["reason"]) == ("Failed", "BudgetExceeded")


# exit


@pytest.mark.parametrize(
    ("policy", "code", "phase", "reason"),
    [
        ("Never", 0, "Succeeded", "Completed"),
        ("OnFailure", 0, "Succeeded", "Completed"),
        ("Never", 3, "Failed", "Error"),
        ("OnFailure", 3, "Pending", "CrashLoopBackOff"),
        ("Always", 0, "Pending", "CrashLoopBackOff"),
    ],
)
def test_what_it_said_is_how_it_ended(policy: str, code: int, phase: str, reason: str) -> None:
    story, one = running(restartPolicy=policy)
    said = Exit(1, code, "as I said", b'{"n":1}')
    decision = story.step(1, one, said=said)
    assert cases.kinds(decision) == ["Signal"] and story.status["phase"] == "Terminating"
    intent = cases.first(decision, plans.Signal).intent
    story.step(2, cases.ended(one, 143, 2, intent=intent), said=said)
    assert (story.status["phase"], story.status["reason"]) == (phase, reason)
    assert story.status["exitCode"] == code and "signal" not in story.status
    assert story.status["result"] == '{"n":1}'
    assert story.status["lastTermination"]["message"] == "as I said"


@pytest.mark.parametrize("code", [0, 1, 137])
def test_what_the_process_does_after_it_counts_no_more(code: int) -> None:
    story, one = running(restartPolicy="Never")
    story.step(2, cases.ended(one, code, 2), said=Exit(1, 7, "", None))
    assert (story.status["reason"], story.status["exitCode"]) == ("Error", 7)
    assert "result" not in story.status


def test_what_went_wrong_at_its_end_is_told_beside_what_it_said() -> None:
    story, one = running(restartPolicy="Never")
    story.step(2, cases.ended(one, 0, 2, message="output may be missing"), said=Exit(1, 0, "done", None))
    assert story.status["message"] == "done; output may be missing"


def test_it_is_found_again_when_the_box_was_lost() -> None:
    story, _ = running(restartPolicy="Never")
    story.step(9, said=Exit(1, 0, "done", None))
    assert (story.status["phase"], story.status["message"]) == ("Succeeded", "done")


def test_what_an_earlier_attempt_said_is_not_of_this_one() -> None:
    story, one = running()
    story.step(1, cases.ended(one, 0, 1), said=Exit(1, 1, "", b"1"))
    story.step(11)
    again = story.box(2, 11)
    assert cases.kinds(story.step(12, again, said=Exit(1, 1, "", b"1"))) == []
    assert "result" not in story.status


def test_a_large_result_is_not_in_the_status() -> None:
    assert Exit(1, 0, "", b"1" * 20_000).for_status == {}


# usage


def test_usage_is_written_when_it_changes() -> None:
    story, one = running()
    usage = {"tokens": 1, "calls": 1, "costUsd": "0.00", "wallTime": "1s"}
    story.step(1, one, usage=usage)
    assert story.status["usage"] == usage
    story.step(2, one, usage={**usage, "wallTime": "2s"})
    assert story.status["usage"] == usage, "time alone is not worth a write"
    story.step(3, story.box(frozen=True), usage={**usage, "wallTime": "3s"}, overdrawn=DRY)
    assert story.status["usage"]["wallTime"] == "3s"


@pytest.mark.parametrize(("why", "phase"), [("MaxSteps", "Failed"), ("LLMError", "Pending")])
def test_steps_are_told_and_an_end_that_would_come_again_is_final(why: str, phase: str) -> None:
    story, one = running(restartPolicy="Always")
    story.step(2, cases.ended(one, 1, 2), said=Exit(1, 1, "no answer", None, why, 7))
    assert (story.status["phase"], story.status["steps"]) == (phase, 7)
    assert story.status["lastTermination"]["reason"] == why
