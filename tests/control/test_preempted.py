"""What is decided about agents that make room for others."""

from agentk.control import plans
from agentk.runtime import box
from tests.control import cases
from tests.control.cases import Story

FREEZE = plans.Preempted("Freeze", "Preempted", ("default", "high"), 9)
END = plans.Preempted("End", "Preempted", ("default", "high"), 9)
SLICE = plans.Preempted("Freeze", "TimeSliced", ("default", "other"), 0)
FULL = plans.Problem("NodeFull", "no room to go on: this machine takes at most 1 agents at once")


def running(**spec: object) -> tuple[Story, box.Seen]:
    story = Story(**spec)
    one = story.box()
    story.step(0, one)
    return story, one


def test_it_is_frozen_and_says_for_whom() -> None:
    story, one = running()
    decision = story.step(1, one, preempted=FREEZE)
    assert cases.kinds(decision) == ["Freeze"] and cases.reasons(decision) == ["Preempted"]
    assert "default/high, of priority 9" in decision.events[0].message
    assert cases.reasons(story.step(2, one, preempted=FREEZE)) == [], "told once"
    frozen = story.box(frozen=True)
    story.step(2, frozen, admission=FULL)
    assert (story.status["phase"], story.status["reason"]) == ("Suspended", "Preempted")
    assert story.condition("Suspended") == "True/Preempted"
    assert story.condition("Reconciling").startswith("False")
    assert "high" not in str(story.status), "guests may read a status"


def test_it_goes_on_when_there_is_room() -> None:
    story, one = running()
    story.step(1, one, preempted=FREEZE)
    frozen = story.box(frozen=True)
    story.step(1, frozen, admission=FULL)
    decision = story.step(2, frozen)
    assert cases.kinds(decision) == ["Thaw"] and cases.reasons(decision) == ["Resumed"]
    story.step(2, one)
    assert story.status["phase"] == "Running" and "yielded" not in story.status["run"]


def test_a_turn_that_is_over_has_its_own_reason() -> None:
    story, one = running()
    assert cases.reasons(story.step(1, one, preempted=SLICE)) == ["TimeSliced"]
    story.step(1, story.box(frozen=True), admission=FULL)
    assert story.condition("Suspended") == "True/TimeSliced"


def test_one_that_was_resumed_without_room_waits_frozen() -> None:
    story, _ = running()
    story.change(suspend=True)
    frozen = story.box(frozen=True)
    story.step(1, frozen)
    story.change(suspend=False)
    assert cases.reasons(story.step(2, frozen, admission=FULL)) == ["NodeFull"]
    assert story.condition("Suspended") == "True/NodeFull"
    assert cases.kinds(story.last) == []  # type: ignore[arg-type]


def test_one_that_ends_for_others_starts_again_by_itself() -> None:
    story, one = running()
    decision = story.step(1, one, preempted=END)
    assert cases.kinds(decision) == ["Signal"]
    intent = cases.first(decision, plans.Signal).intent
    assert intent.reason == "Preempted" and "Preempted" in cases.reasons(decision)
    assert cases.kinds(story.step(2, one, preempted=END)) == [], "asked once"
    gone = cases.ended(one, 143, 3, intent=intent)
    story.step(3, gone)
    assert story.status["lastTermination"]["reason"] == "Preempted"
    decision = story.step(4, admission=FULL)
    assert (story.status["phase"], story.status["reason"]) == ("Pending", "NodeFull")
    decision = story.step(5)
    assert cases.kinds(decision) == ["Start"] and "Admitted" in cases.reasons(decision)
    assert story.status["run"].get("failures", 0) == 0, "it is no failure of its own"


def test_one_that_never_restarts_has_failed() -> None:
    story, one = running(restartPolicy="Never")
    intent = cases.first(story.step(1, one, preempted=END), plans.Signal).intent
    story.step(3, cases.ended(one, 143, 3, intent=intent))
    assert (story.status["phase"], story.status["reason"]) == ("Failed", "Preempted")


def test_what_ends_already_goes_on_ending() -> None:
    story, one = running()
    story.annotate(kill=cases.kill(1))
    story.step(1, one)
    assert cases.kinds(story.step(2, one, preempted=END)) == []
    assert story.status["reason"] == "Killed"


def test_a_kill_is_heard_while_it_is_frozen_for_others() -> None:
    story, one = running()
    story.step(1, one, preempted=FREEZE)
    frozen = story.box(frozen=True)
    story.step(1, frozen, admission=FULL)
    story.annotate(kill=cases.kill(1))
    assert cases.kinds(story.step(2, frozen, admission=FULL)) == ["Thaw", "Signal"]


def test_one_that_others_make_room_for_says_so() -> None:
    story = Story()
    problem = plans.Problem("Preempting", "others make room for it", usual=True)
    assert cases.reasons(story.step(0, admission=problem)) == [], "that is told with their names"
    assert (story.status["phase"], story.status["reason"]) == ("Pending", "Preempting")
    assert story.condition("Ready") == "False/Preempting"
    assert cases.reasons(story.step(1, admission=problem)) == []
    assert "Admitted" in cases.reasons(story.step(2))
