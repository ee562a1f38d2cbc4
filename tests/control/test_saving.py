"""When an automatic Checkpoint is due, which go, and when the next process begins with one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentk.control import plans, saving
from agentk.runtime import box
from tests.control import cases
from tests.control.cases import Story

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def text(seconds: float) -> str:
    return (T0 + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def agent(phase: str = "Running", began: float = 0) -> dict[str, Any]:
    metadata = {"name": "a", "namespace": "n", "uid": "u"}
    return {"metadata": metadata, "spec": {}, "status": {"phase": phase, "startedAt": text(began)}}


def one(number: int, at: float | None = None, phase: str = "Ready") -> dict[str, Any]:
    status = {"phase": phase, "takenAt": text(at)} if at is not None else {}
    return {"metadata": {"name": f"a-auto-{number}"}, "status": status}


def planned(
    wish: saving.Wanted, at: float, *own: dict[str, Any], steps: int = 0, **of: Any
) -> tuple[int | None, list[str], float | None]:
    made = saving.plan(wish, agent(**of), own, steps, T0 + timedelta(seconds=at))
    return made.make, [str(gone["metadata"]["name"]) for gone in made.forget], made.again


EVERY = saving.Wanted(None, 60.0, 2)
STEPS = saving.Wanted(5, None, 2)


def test_time_counts_from_the_start_and_from_the_end_of_the_last() -> None:
    assert planned(EVERY, 10) == (None, [], 50)
    assert planned(EVERY, 60) == (1, [], None)
    assert planned(EVERY, 100, one(1, 70)) == (None, [], 30)
    assert planned(EVERY, 100, one(1, 70), began=90) == (None, [], 50)
    assert planned(EVERY, 10, one(7, 5000)) == (None, [], 60), "somebody set the clock"


def test_steps_count_alone_and_beside_time() -> None:
    assert planned(STEPS, 10, steps=4) == (None, [], None)
    assert planned(STEPS, 10, steps=5) == (1, [], None)
    assert planned(STEPS, 10.75, one(1, 10), steps=99) == (None, [], 0.25), "at most one a second"
    assert planned(saving.Wanted(5, 60.0, 2), 10, steps=4) == (None, [], 50)
    assert planned(saving.Wanted(5, 60.0, 2), 10, steps=9) == (1, [], None)


def test_one_is_under_way_at_a_time() -> None:
    assert planned(EVERY, 1000, one(1, 70), one(2)) == (None, [], None)
    assert planned(EVERY, 1000, one(1, 70), one(2, 70, "Pending"), steps=99) == (None, [], None)


@pytest.mark.parametrize("phase", ["Suspended", "Starting", "Pending", "Succeeded", "Failed", "Terminating"])
def test_nothing_is_taken_of_what_does_not_run(phase: str) -> None:
    assert planned(EVERY, 1000, one(1, 0), phase=phase) == (None, [], None)


def test_as_many_stay_as_are_to_be_kept() -> None:
    assert planned(EVERY, 50, one(1, 1), one(10, 40), one(9, 30))[1] == ["a-auto-1"]
    assert planned(EVERY, 50, one(1, 1), one(2, 40), one(3), phase="Failed")[1] == []


def test_one_that_failed_is_tried_again_later_and_told_of_until_then() -> None:
    own = one(1, 10), one(2, 20, "Failed"), one(3, 100, "Failed")
    assert planned(STEPS, 110, *own, steps=99) == (None, ["a-auto-2"], 50)
    assert planned(STEPS, 160, *own, steps=99) == (4, ["a-auto-2"], None)
    assert planned(STEPS, 170, *own, one(4, 165)) == (None, ["a-auto-2", "a-auto-3"], None)


def test_a_long_name_is_cut_and_stays_its_own() -> None:
    first, second = ({"metadata": {"name": "a" * 240 + end, "namespace": "n", "uid": "u"}} for end in "bc")
    names = {saving.made(obj, 3)["metadata"]["name"] for obj in (first, second)}
    assert len(names) == 2 and max(map(len, names)) <= 253


# what the next process begins with

BACK = {"checkpoint": {"steps": 1, "restore": "OnFailure"}, "restartBackoff": {"initialSeconds": 0}}


def begins(story: Story, *boxes: box.Seen) -> bool:
    story.step(5, *boxes)
    return bool(cases.first(story.step(6), plans.Start).brings_back)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (BACK, True),
        (BACK | {"checkpoint": {"steps": 1, "restore": "Never"}}, False),
        (BACK | {"checkpoint": {"steps": 1}}, False),
    ],
)
def test_after_a_failure_it_begins_with_a_checkpoint_when_its_spec_says_so(
    spec: dict[str, Any], wanted: bool
) -> None:
    story = Story(**spec)
    assert not cases.first(story.step(0), plans.Start).brings_back, "nothing has failed"
    story.step(1, story.box())
    assert begins(story, cases.ended(story.box(), 1)) is wanted


def test_after_a_reboot_it_begins_with_a_checkpoint() -> None:
    story = Story(**BACK)
    story.step(0)
    story.step(1, story.box())
    assert begins(story, cases.lost(story.box()))


@pytest.mark.parametrize("reason", ["Killed", "Preempted"])
def test_what_was_no_failure_brings_nothing_back(reason: str) -> None:
    story = Story(**BACK, restartPolicy="Always")
    story.step(0)
    story.step(1, story.box())
    assert not begins(story, cases.ended(story.box(), None, signal=15, intent=box.Intent(reason, "")))


def test_a_new_run_begins_with_what_is_there() -> None:
    story = Story(**BACK)
    story.step(0)
    cases.crash(story, 1, 2)
    story.annotate(restartedAt="now")
    assert not cases.first(story.step(3), plans.Start).brings_back


def test_what_it_began_with_is_told_once() -> None:
    story = Story(**BACK)
    story.step(0)
    seen = story.box(annotations={"token": "", "restoredFrom": "a-auto-1"})
    told = cases.reasons(story.step(1, seen, kept={"name": "a-auto-2", "takenAt": text(1)}))
    assert "Restored" in told
    assert story.status["restoredFrom"] == {"name": "a-auto-1", "attempt": 1}
    assert story.status["lastCheckpoint"] == {"name": "a-auto-2", "takenAt": text(1)}
    assert "Restored" not in cases.reasons(story.step(2, seen))
    assert "lastCheckpoint" not in story.status
