"""What may be written in a Task and a Schedule, what a Task makes of a spec, and the times a cron expression says."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentk.api import admit, crons, errors, kinds, parts, taskspecs

AGENT = {"command": ["python", "main.py"], "resources": {"limits": {"memory": "64Mi"}}}


def task(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": kinds.API_VERSION, "kind": "Task", "metadata": {"name": "t"}, "spec": spec}


def schedule(**spec: Any) -> dict[str, Any]:
    whole = {"schedule": "@daily", "taskTemplate": {"spec": {"agentRef": {"name": "a"}}}, **spec}
    return {"apiVersion": kinds.API_VERSION, "kind": "Schedule", "metadata": {"name": "s"}, "spec": whole}


def fields(obj: dict[str, Any]) -> list[str]:
    with pytest.raises(errors.Invalid) as refused:
        admit.admit(obj)
    return [cause.field for cause in refused.value.causes] or [refused.value.field]


def test_a_template_stays_as_short_as_it_was_written() -> None:
    made = admit.admit(task(template={"spec": AGENT}, input={"day": None}))
    assert made["spec"] == {
        "template": {"spec": AGENT},
        "input": {"day": None},
        "retries": 0,
        "suspend": False,
        "cancel": False,
    }


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec"),
        ({"agentRef": {"name": "a"}, "template": {"spec": AGENT}}, "spec"),
        ({"template": {"spec": {}}}, "spec.template.spec"),
        ({"template": {"spec": {**AGENT, "comand": 1}}}, "spec.template.spec.comand"),
        ({"template": {"spec": {**AGENT, "workingDir": "/a/../b"}}}, "spec.template.spec.workingDir"),
        ({"template": {"spec": {**AGENT, "restartPolicy": "Always"}}}, "spec.template.spec.restartPolicy"),
        (
            {"template": {"metadata": {"labels": {"a b": "c"}}, "spec": AGENT}},
            "spec.template.metadata.labels[a b]",
        ),
        ({"agentRef": {"name": "a"}, "timeout": "0s"}, "spec.timeout"),
        ({"agentRef": {"name": "a"}, "timeout": "soon"}, "spec.timeout"),
        ({"agentRef": {"name": "a"}, "retries": -1}, "spec.retries"),
        ({"agentRef": {"name": "a"}, "input": "x" * 262144}, "spec.input"),
    ],
)
def test_what_is_wrong_with_a_task_is_told_at_its_place(spec: dict[str, Any], field: str) -> None:
    assert field in fields(task(**spec))


def test_an_agents_own_task_is_bounded_too() -> None:
    obj = {"apiVersion": kinds.API_VERSION, "kind": "Agent", "metadata": {"name": "a"}}
    assert fields({**obj, "spec": {**AGENT, "task": ["x" * 262144]}}) == ["spec.task"]
    assert admit.admit({**obj, "spec": {**AGENT, "task": ["x"]}})["spec"]["task"] == ["x"]


def test_what_was_asked_cannot_be_changed() -> None:
    before = admit.admit(task(agentRef={"name": "a"}, input=[1], timeout="1m"))
    for field, value in (("agentRef", {"name": "b"}), ("input", [2]), ("timeout", "2m"), ("retries", 1)):
        with pytest.raises(errors.Invalid, match="cannot be changed"):
            admit.admit_update(before, {**before, "spec": {**before["spec"], field: value}})
    admit.admit_update(before, {**before, "spec": {**before["spec"], "cancel": True, "suspend": True}})


def test_a_schedules_template_can_be_changed() -> None:
    before = admit.admit(schedule())
    template = {"spec": {"agentRef": {"name": "b"}, "input": "other"}}
    admit.admit_update(before, admit.admit(schedule(taskTemplate=template)))


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"schedule": "* * * *"}, "spec.schedule"),
        ({"schedule": "0 * * * * *"}, "spec.schedule"),
        ({"schedule": "61 * * * *"}, "spec.schedule"),
        ({"schedule": "0 0 30 2 *"}, "spec.schedule"),
        ({"schedule": "@sometimes"}, "spec.schedule"),
        ({"schedule": "$(id) * * * *"}, "spec.schedule"),
        ({"timeZone": "Mars/Olympus"}, "spec.timeZone"),
        ({"timeZone": "../../etc/passwd"}, "spec.timeZone"),
        ({"timeZone": "/etc/localtime"}, "spec.timeZone"),
        ({"taskTemplate": {"spec": {}}}, "spec.taskTemplate.spec"),
        (
            {"taskTemplate": {"spec": {"template": {"spec": {**AGENT, "task": "x"}}}}},
            "spec.taskTemplate.spec.template.spec.task",
        ),
    ],
)
def test_what_is_wrong_with_a_schedule_is_told_at_its_place(spec: dict[str, Any], field: str) -> None:
    assert field in fields(schedule(**spec))


def test_the_agent_has_the_tasks_own_fields_and_all_else_of_its_spec() -> None:
    base = {**AGENT, "task": "old", "suspend": True, "restartPolicy": "Always", "ttlSecondsAfterFinished": 1}
    assert taskspecs.agent_spec({}, base) == {**AGENT, "task": "old", "restartPolicy": "Never"}
    asked = {"input": None, "retries": 2, "timeout": "1500ms", "suspend": True}
    assert taskspecs.agent_spec(asked, base) == {
        **AGENT,
        "task": None,
        "restartPolicy": "OnFailure",
        "backoffLimit": 2,
        "activeDeadlineSeconds": 2,
        "suspend": True,
    }


def test_sources_are_found_and_packed_in_templates() -> None:
    source = {"path": "./app"}
    obj = schedule(taskTemplate={"spec": {"template": {"spec": {**AGENT, "source": source}}}})
    assert parts.of(kinds.SCHEDULE, obj)["source"] == source
    made = parts.put(kinds.SCHEDULE, obj, {"command": ["x"]})
    assert made["spec"]["taskTemplate"]["spec"]["template"]["spec"] == {"command": ["x"]}
    assert obj["spec"]["taskTemplate"]["spec"]["template"]["spec"]["source"] == source
    assert parts.field(kinds.TASK) == "spec.template.spec"
    assert parts.of(kinds.TASK, task(agentRef={"name": "a"})) is None
    for kind in kinds.KINDS:
        assert parts.field(kind).startswith("spec"), kind.kind
    assert parts.of(kinds.NAMESPACE, {"metadata": {"name": "n"}}) is None


# Times: what Debian's cron does when clocks are changed.

SPRING, AUTUMN = "2026-03-29", "2026-10-25"  # Europe/Berlin: 02:00 becomes 03:00; 03:00 becomes 02:00


@pytest.mark.parametrize(
    ("expression", "zone", "after", "times"),
    [
        ("@daily", "UTC", "2026-01-31T23:00Z", ["2026-02-01T00:00Z", "2026-02-02T00:00Z"]),
        ("0 6 * * MON-FRI", "UTC", "2026-01-02T07:00Z", ["2026-01-05T06:00Z", "2026-01-06T06:00Z"]),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00Z", ["2028-02-29T00:00Z", "2032-02-29T00:00Z"]),
        ("0 0 13 * 5", "UTC", "2026-01-10T00:00Z", ["2026-01-13T00:00Z", "2026-01-16T00:00Z"]),
        # In winter and in summer at the same time of the day.
        ("30 6 * * *", "Europe/Berlin", "2026-03-28T00:00Z", ["2026-03-28T05:30Z", "2026-03-29T04:30Z"]),
        # Passed over in spring: at the end of the gap, once. Twice in autumn: the first.
        ("30 2 * * *", "Europe/Berlin", f"{SPRING}T00:00Z", [f"{SPRING}T01:00Z", "2026-03-30T00:30Z"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", [f"{AUTUMN}T00:30Z", "2026-10-26T01:30Z"]),
        ("30 1 * * *", "America/New_York", "2026-11-01T00:00Z", ["2026-11-01T05:30Z", "2026-11-02T06:30Z"]),
        # What comes every hour goes by real time.
        ("30 * * * *", "Europe/Berlin", f"{SPRING}T00:00Z", [f"{SPRING}T00:30Z", f"{SPRING}T01:30Z"]),
        ("30 * * * *", "Europe/Berlin", f"{AUTUMN}T00:00Z", [f"{AUTUMN}T00:30Z", f"{AUTUMN}T01:30Z"]),
        # Half an hour of daylight saving, and half an hour beside the others.
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T12:00Z",
            ["2026-10-03T15:30Z", "2026-10-04T15:15Z"],
        ),
        ("0 9 * * *", "Asia/Kolkata", "2026-01-01T00:00Z", ["2026-01-01T03:30Z", "2026-01-02T03:30Z"]),
    ],
)
def test_times_by_zone_and_when_clocks_are_changed(
    expression: str, zone: str, after: str, times: list[str]
) -> None:
    cron, moment = crons.parse(expression, crons.zone(zone)), datetime.fromisoformat(after)
    for time in map(datetime.fromisoformat, times):
        found = cron.after(moment)
        assert found == time and found.utcoffset() == timedelta(0)
        assert cron.until(time) == time and cron.until(time + timedelta(minutes=1)) == time
        moment = found


def test_the_last_time_is_the_one_that_counting_forward_finds() -> None:
    for zone in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"):
        for expression in ("30 2 * * *", "*/20 * * * *", "15 1-3 * * *", "*/30 2 * * *", "0 3 * * 0"):
            cron = crons.parse(expression, crons.zone(zone))
            for day in ("2026-03-28", "2026-04-04", "2026-10-03", "2026-10-24", "2026-10-31"):
                at = datetime.fromisoformat(f"{day}T00:07Z")
                for _ in range(12):
                    last, following = cron.until(at), cron.after(at)
                    assert last is not None and following is not None and last <= at < following
                    assert cron.after(last) == following, (zone, expression, at)
                    at = at + timedelta(hours=5, minutes=7)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Europe/Lisboa", "Europe/Lisbon"),
        ("lisbon", "Europe/Lisbon"),
        ("new york", "America/New_York"),
        ("utc0", "UTC"),
    ],
)
def test_a_zone_that_is_none_says_which_was_meant(name: str, meant: str) -> None:
    with pytest.raises(errors.Invalid) as told:
        crons.zone(name)
    assert meant in told.value.hint


def test_a_bad_field_says_what_it_may_be() -> None:
    with pytest.raises(errors.Invalid) as told:
        crons.parse("61 * * * *")
    assert "minute 0-59" in told.value.hint


def test_a_machine_has_a_time_zone_of_its_own() -> None:
    assert datetime(2026, 1, 1, tzinfo=crons.zone("")).astimezone(UTC).year in (2025, 2026)
