"""What is decided about a Schedule: what is due after sleep, restarts and set clocks, who waits, what is kept."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from agentk.control import clock, scheduling

Object = dict[str, Any]
MADE = "2026-01-01T00:30:00Z"


def now(at: str) -> clock.Now:
    moment = datetime.fromisoformat(at)
    return clock.Now(clock.stamp(moment), moment.timestamp(), "boot-1")


def schedule(expression: str = "0 * * * *", last: str = "", **spec: Any) -> Object:
    metadata = {"name": "s", "namespace": "default", "uid": "u", "generation": 1, "creationTimestamp": MADE}
    obj: Object = {"apiVersion": "agentk.dev/v1alpha1", "kind": "Schedule", "metadata": metadata}
    obj["spec"] = {"schedule": expression, "timeZone": "UTC", "taskTemplate": {"spec": {}}, **spec}
    if last:
        obj["status"] = {"lastScheduleTime": last}
    return obj


def task(name: str, phase: str = "Running", done: str = "", **spec: Any) -> Object:
    status = {"phase": phase, **({"completionTime": done} if done else {})}
    return {"kind": "Task", "metadata": {"name": name, "uid": name}, "spec": spec, "status": status}


def made(decision: scheduling.Decision) -> list[str]:
    return [scheduling.exact(one.at) for one in decision.actions if isinstance(one, scheduling.Make)]


def look(of: Object, at: str, *tasks: Object) -> scheduling.Decision:
    decision = scheduling.decide_schedule(of, tasks, now(at))
    of["status"] = decision.status
    return decision


def test_it_waits_for_its_time_and_serves_it_once() -> None:
    one = schedule()
    early = look(one, "2026-01-01T00:30:01Z")
    assert not made(early) and early.status["nextScheduleTime"] == "2026-01-01T01:00:00Z"
    assert early.again == pytest.approx(29 * 60 + 59, abs=0.1)
    assert made(look(one, "2026-01-01T01:00:00.01Z")) == ["2026-01-01T01:00:00Z"]
    assert one["status"]["lastScheduleTime"] == "2026-01-01T01:00:00Z"
    assert not made(look(one, "2026-01-01T01:00:00.02Z"))
    assert made(look(one, "2026-01-01T02:00:00Z")) == ["2026-01-01T02:00:00Z"]


@pytest.mark.parametrize(
    ("last", "at", "deadline", "due"),
    [
        ("", "2026-01-01T09:30:00Z", None, ["2026-01-01T09:00:00Z"]),  # the last of nine
        ("2026-01-01T01:00:00Z", "2027-06-01T09:30:00Z", None, ["2027-06-01T09:00:00Z"]),  # of thousands
        ("", "2026-01-01T09:30:00Z", 3600, ["2026-01-01T09:00:00Z"]),
        ("", "2026-01-01T09:30:00Z", 1799, []),
        ("", "2026-01-01T09:00:00Z", 0, ["2026-01-01T09:00:00Z"]),
        # The clock was set back: what was served is not served again, and the next is when it is later than that.
        ("2026-01-01T09:00:00Z", "2026-01-01T05:30:00Z", None, []),
        ("2026-01-01T09:00:00Z", "2026-01-01T10:00:00Z", None, ["2026-01-01T10:00:00Z"]),
    ],
)
def test_what_was_missed(last: str, at: str, deadline: int | None, due: list[str]) -> None:
    spec = {} if deadline is None else {"startingDeadlineSeconds": deadline}
    assert made(look(schedule(last=last, **spec), at)) == due


def test_what_is_too_late_is_told_once() -> None:
    one = schedule(startingDeadlineSeconds=60)
    assert [event.reason for event in look(one, "2026-01-01T09:30:00Z").events] == ["MissSchedule"]
    assert not look(one, "2026-01-01T09:30:01Z").events


def test_suspended_it_makes_nothing_and_afterwards_what_was_missed_last() -> None:
    one = schedule(suspend=True)
    decision = look(one, "2026-01-01T09:30:00Z")
    assert not decision.actions and decision.again is None and "nextScheduleTime" not in decision.status
    one["spec"]["suspend"] = False
    assert made(look(one, "2026-01-01T09:40:00Z")) == ["2026-01-01T09:00:00Z"]


def test_allow_runs_beside_and_forbid_waits_for_the_end() -> None:
    assert made(look(schedule(), "2026-01-01T01:00:00Z", task("s-1")))
    one = schedule(concurrencyPolicy="Forbid", startingDeadlineSeconds=600)
    waits = look(one, "2026-01-01T01:00:00Z", task("s-1"))
    assert not waits.actions and [event.reason for event in waits.events] == ["TaskAlreadyActive"]
    assert waits.again == pytest.approx(600, abs=0.1), "then it is too late"
    assert not look(one, "2026-01-01T01:02:00Z", task("s-1")).events, "told once"
    ended = task("s-1", "Failed", "2026-01-01T01:05:00Z")
    assert made(look(one, "2026-01-01T01:05:00Z", ended)) == ["2026-01-01T01:00:00Z"]


def test_replace_cancels_and_begins_when_the_other_has_ended() -> None:
    one = schedule(concurrencyPolicy="Replace")
    running = task("s-1")
    assert look(one, "2026-01-01T01:00:00Z", running).actions == (scheduling.Cancel(running),)
    assert not look(one, "2026-01-01T01:00:01Z", task("s-1", cancel=True)).actions
    ended = task("s-1", "Cancelled", "2026-01-01T01:00:02Z")
    assert made(look(one, "2026-01-01T01:00:02Z", ended)) == ["2026-01-01T01:00:00Z"]


def test_old_ends_are_forgotten_by_kind_and_the_latest_kept() -> None:
    done = [task(f"g{n}", "Succeeded", f"2026-01-01T00:{30 + n}:00Z") for n in range(4)]
    bad = [task(f"b{n}", "Failed", f"2026-01-01T00:{30 + n}:00Z") for n in range(2)]
    bad.append(task("c", "Cancelled", "2026-01-01T00:29:00Z"))
    one = schedule(successfulTasksHistoryLimit=2)
    decision = look(one, "2026-01-01T00:40:00Z", *done, *bad, task("goes-on"))
    forgotten = [
        act.task["metadata"]["name"] for act in decision.actions if isinstance(act, scheduling.Forget)
    ]
    assert sorted(forgotten) == ["b0", "c", "g0", "g1"]
    assert decision.status["lastSuccessfulTime"] == "2026-01-01T00:33:00Z"
    assert decision.status["active"] == [{"name": "goes-on", "uid": "goes-on"}]


def test_a_time_zone_that_is_here_no_more_is_told_and_nothing_is_made() -> None:
    one = schedule(timeZone="Not/Here")
    decision = look(one, "2026-01-01T09:30:00Z")
    assert not decision.actions and [event.reason for event in decision.events] == ["Invalid"]
    assert {one["type"]: one["status"] for one in decision.status["conditions"]}["Stalled"] == "True"


def walked(expression: str, zone: str, begin: str, hours: int, step_minutes: float) -> list[str]:
    """Every Task that is made when it is looked at as often as it asks for, or as the step says."""
    one = schedule(expression, timeZone=zone)
    one["metadata"]["creationTimestamp"] = begin
    at = datetime.fromisoformat(begin)
    end, found = at + timedelta(hours=hours), []
    while at < end:
        decision = look(one, at.isoformat())
        found += made(decision)
        asked = timedelta(seconds=decision.again or 0)
        at += timedelta(minutes=step_minutes) if step_minutes else asked
    return found


@pytest.mark.parametrize("step_minutes", (0, 7, 0.5))
def test_a_night_of_changed_clocks_has_each_time_once(step_minutes: float) -> None:
    spring = walked("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00+00:00", 60, step_minutes)
    assert spring == ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
    autumn = walked("30 2 * * *", "Europe/Berlin", "2026-10-24T00:00:00+00:00", 60, step_minutes)
    assert autumn == ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
    hourly = walked("@hourly", "Europe/Berlin", "2026-10-24T22:00:00+00:00", 6, step_minutes)
    assert hourly == ["2026-10-24T23:00:00Z", *(f"2026-10-25T0{n}:00:00Z" for n in range(4))]


def test_a_task_is_named_after_its_time() -> None:
    at = datetime.fromisoformat("2026-01-01T01:00:00Z")
    assert scheduling.task_name(schedule(), at) == f"s-{int(at.timestamp()) // 60}"
    obj = scheduling.made(schedule(), at)
    assert obj["metadata"]["annotations"] == {"agentk.dev/scheduled-at": "2026-01-01T01:00:00Z"}
    assert obj["metadata"]["labels"] == {"agentk.dev/schedule": "s"}
