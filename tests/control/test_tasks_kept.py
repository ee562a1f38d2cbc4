"""Tasks and Schedules under the steward, on the real store; and its death at every named point on their way."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from agentk.api import kinds, objects
from agentk.control import clock, crash, tasking
from tests.control import stories, virtual
from tests.control.stories import story
from tests.control.test_crashes import at_rest, die, keep_going
from tests.control.test_pools_kept import ticking

Object = dict[str, Any]
TEMPLATE = {"spec": {"command": ["python"], "resources": {"limits": {"memory": "64Mi"}}}}


@pytest.fixture(autouse=True)
def disarm() -> Iterator[None]:
    yield
    crash.arm("")


async def task(house: stories.House, name: str, **spec: Any) -> Object:
    if "agentRef" not in spec:
        spec = {"template": TEMPLATE, **spec}
    return await house.make("task", name, spec)


async def agents(house: stories.House) -> list[Object]:
    return (await house.store.list(kinds.AGENT, "default")).items


def end(house: stories.ModelHouse, agent: str, code: int) -> None:
    house.runtime.end(
        next(one.id for one in house.runtime.live() if one.annotations["name"].startswith(agent)), code
    )


@story
async def test_a_task_makes_an_agent_and_keeps_what_came_of_it() -> None:
    async with ticking() as house:
        await task(house, "t", input={"n": 1}, timeout="2h", retries=1)
        await house.until("t", "task", phase="Running")
        (agent,) = await agents(house)
        spec = agent["spec"]
        assert (spec["task"], spec["activeDeadlineSeconds"]) == ({"n": 1}, 7200)
        assert (spec["restartPolicy"], spec["backoffLimit"], spec["logs"]["maxFiles"]) == ("OnFailure", 1, 3)
        assert agent["metadata"]["labels"] == {"agentk.dev/task": "t"}
        end(house, "t-", 1)
        await house.until("t", "task", phase="Running", attempts=2)
        end(house, "t-", 0)
        status = await house.until("t", "task", phase="Succeeded")
        assert (status["reason"], status["attempts"], status["agentName"]) == (
            "Completed",
            2,
            agent["metadata"]["name"],
        )
        assert sorted(await house.events("t")) == ["Started", "Succeeded"]
        await house.store.delete(kinds.AGENT, "default", agent["metadata"]["name"])
        await house.gone(agent["metadata"]["name"])
        await house.steward.idle()
        assert (await house.store.get(kinds.TASK, "default", "t"))["status"] == status
        assert len(house.runtime.made) == 2, "its agent was not made again"


@story
async def test_the_spec_of_an_agent_is_taken_once_it_is_there() -> None:
    async with ticking() as house:
        await task(house, "t", agentRef={"name": "shape"})
        await house.until("t", "task", reason="AgentNotFound")
        await house.agent("shape", suspend=True, task="sort", ttlSecondsAfterFinished=1)
        await house.until("t", "task", phase="Running")
        made = next(one for one in await agents(house) if one["metadata"]["name"] != "shape")
        assert (made["spec"]["task"], made["spec"]["suspend"]) == ("sort", False)
        assert "ttlSecondsAfterFinished" not in made["spec"]
        assert len(house.runtime.made) == 1, "what is only a shape never ran"
        await task(house, "never", agentRef={"name": "nobody"})
        await house.until("never", "task", reason="AgentNotFound")
        assert house.steward._work._duties[0]._waiting
        await house.store.delete(kinds.TASK, "default", "never")
        await house.gone("never", "task")
        await house.steward.idle()
        assert not house.steward._work._duties[0]._waiting, (
            "who names an agent that never comes is forgotten with its Task"
        )


@story
async def test_cancel_suspend_and_delete() -> None:
    async with ticking() as house:
        for name in ("stopped", "held", "deleted"):
            await task(house, name)
            await house.until(name, "task", phase="Running")
        await house.change("stopped", lambda obj: obj["spec"].update(cancel=True), "task")
        await house.until("stopped", "task", phase="Cancelled", reason="Cancelled")
        await house.change("held", lambda obj: obj["spec"].update(suspend=True), "task")
        await house.until("held", "task", reason="Suspended")
        assert [one.frozen for one in house.runtime.live() if one.annotations["name"].startswith("held")] == [
            True
        ]
        await house.change("held", lambda obj: obj["spec"].update(suspend=False), "task")
        await house.until("held", "task", phase="Running")
        whose = {tasking.owner(one)[0]: one["metadata"]["name"] for one in await agents(house)}
        await house.store.delete(kinds.TASK, "default", "deleted")
        await house.gone(whose["deleted"])
        assert whose["deleted"] not in {one.annotations["name"] for one in house.runtime.live()}


@story
async def test_a_name_that_is_taken_and_a_shape_that_is_wrong_end_it() -> None:
    async with ticking() as house:
        made = await house.store.create(
            {
                "apiVersion": kinds.API_VERSION,
                "kind": "Task",
                "metadata": {"name": "t", "namespace": "default"},
                "spec": {"agentRef": {"name": "later"}},
            }
        )
        await house.agent(tasking.agent_name(made))
        await house.agent("later")
        await house.until("t", "task", phase="Failed", reason="NameTaken")
        await task(house, "wrong", template={"spec": {"command": ["x"], "poolRef": {"name": "none"}}})
        status = await house.until("wrong", "task", phase="Failed", reason="Invalid")
        assert "Pool" in status["message"]


@story
async def test_many_at_once_each_end_once() -> None:
    async with ticking() as house:
        for number in range(40):
            await task(house, f"t{number}", ttlSecondsAfterFinished=3600)
        for number in range(40):
            await house.until(f"t{number}", "task", phase="Running")
        house.runtime.end_all(0)
        for number in range(40):
            await house.until(f"t{number}", "task", phase="Succeeded")
        assert len(house.runtime.made) == 40


# Deaths


async def a_tasks_life(house: stories.ModelHouse, deaths: list[str]) -> None:
    await task(house, "a", ttlSecondsAfterFinished=60)
    await house.until("a", "task", phase="Running")
    for suspend, phase in ((True, "Suspended"), (False, "Running")):
        await house.change("a", lambda obj, to=suspend: obj["spec"].update(suspend=to), "task")  # type: ignore[misc]
        while not any((one.get("status") or {}).get("phase") == phase for one in await agents(house)):
            await virtual.settle()
    end(house, "a-", 0)
    await house.until("a", "task", phase="Succeeded")
    await task(house, "b")
    await house.until("b", "task", phase="Running")
    await house.change("b", lambda obj: obj["spec"].update(cancel=True), "task")
    await house.until("b", "task", phase="Cancelled")
    await house.gone("a", "task")
    while len(await agents(house)) != 1 or not deaths:
        await virtual.settle()


@pytest.mark.parametrize("point", crash.TASKS)
def test_a_death_at_any_point_makes_no_second_agent_and_loses_no_end(point: str) -> None:
    async def play() -> list[str]:
        deaths: list[str] = []
        async with stories.house(begin=False) as house:
            crash.arm(point, die)
            house.begin()
            keeper = asyncio.create_task(keep_going(house, deaths, point))
            ticks = asyncio.create_task(house.run_clock())
            try:
                await a_tasks_life(house, deaths)
            finally:
                keeper.cancel()
                ticks.cancel()
                await asyncio.gather(keeper, ticks, return_exceptions=True)
            made = sorted(one.annotations["name"][:2] for one in house.runtime.made)
            assert made == ["a-", "b-"] and not house.runtime.live()
        return deaths

    assert asyncio.run(asyncio.wait_for(play(), 100)) == [point], "the story must reach the point"


async def a_schedules_life(house: stories.ModelHouse, deaths: list[str], point: str) -> None:
    """At minutes: made, replaced, ended, forgotten."""
    template = {"spec": {"template": {"spec": {**TEMPLATE["spec"], "terminationGracePeriodSeconds": 0}}}}
    limits = {"successfulTasksHistoryLimit": 0, "failedTasksHistoryLimit": 1}
    spec = {"schedule": "* * * * *", "timeZone": "UTC", "concurrencyPolicy": "Replace", **limits}
    begun = await house.store.create(
        {
            "apiVersion": kinds.API_VERSION,
            "kind": "Schedule",
            "metadata": {"name": "s", "namespace": "default"},
            "spec": {**spec, "taskTemplate": template},
        },
        now=house.clock.now().wall,
    )
    base = int(clock.parse_stamp(begun["metadata"]["creationTimestamp"]).timestamp()) // 60

    async def until(minute: int, phase: str) -> None:
        """Time stands still meanwhile."""
        while True:
            found = await house.store.find(kinds.TASK, "default", f"s-{base + minute}")
            if ((found or {}).get("status") or {}).get("phase", "") == phase and bool(found) == bool(phase):
                return
            await virtual.settle()

    async def a_minute() -> None:
        await at_rest(house)
        await house.clock.advance(61)

    await house.until("s", "schedule", observedGeneration=1)
    await a_minute()
    await until(1, "Running")
    await a_minute()
    await until(1, "Cancelled")
    await until(2, "Running")
    await house.change("s", lambda obj: obj["spec"].update(suspend=True), "schedule")
    house.runtime.end_all(0)
    await until(2, "")
    while point and not deaths:
        await virtual.settle()


@pytest.mark.parametrize("point", ["", *crash.SCHEDULES])
def test_a_death_at_any_point_makes_no_task_of_a_schedule_twice(point: str) -> None:
    async def play() -> list[str]:
        deaths: list[str] = []
        async with stories.house(begin=False) as house:
            crash.arm(point, die)
            house.begin()
            keeper = asyncio.create_task(keep_going(house, deaths, point))
            try:
                await a_schedules_life(house, deaths, point)
            finally:
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)
            assert len(house.runtime.made) == 2, "one agent for each time"
        return deaths

    assert asyncio.run(asyncio.wait_for(play(), 100)) == ([point] if point else [])


@story
async def test_a_clock_that_is_set_is_heard_of() -> None:
    async with stories.house() as house:
        spec = {"schedule": "0 5 * * *", "timeZone": "UTC", "taskTemplate": {"spec": {"template": TEMPLATE}}}
        await house.store.create(
            {"apiVersion": kinds.API_VERSION, "kind": "Schedule", "spec": spec}
            | {"metadata": {"name": "s", "namespace": "default"}},
            now=house.clock.now().wall,
        )
        await house.until("s", "schedule", nextScheduleTime="2026-01-01T05:00:00Z")
        await house.steward.idle()
        before = house.clock.now()
        house.clock._now = clock.Now("2026-01-01T05:00:30.000000Z", before.boottime, before.boot_id)
        house.clock.was_set.set()
        status = await house.until("s", "schedule", lastScheduleTime="2026-01-01T05:00:00Z")
        assert len(status["active"]) == 1 and status["nextScheduleTime"] == "2026-01-02T05:00:00Z"


def test_owner_references_are_as_kubernetes_has_them() -> None:
    owner = {"apiVersion": "a/v1", "kind": "Task", "metadata": {"name": "t", "uid": "u"}}
    reference = objects.owner_reference(owner)
    assert tasking.owner({"metadata": {"ownerReferences": [reference]}}) == ("t", "u")
    assert tasking.owner({"metadata": {}}) == ("", "")
