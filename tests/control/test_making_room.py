"""The steward on a machine that is too small for all: frozen, ended, thawed; over its own death too."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from agentk.api import kinds
from agentk.control import crash
from agentk.control.sharing import Node
from tests.control import stories, test_crashes
from tests.control.stories import story

ONE = Node(boxes=100, running=1)


def frozen(house: stories.ModelHouse) -> dict[str, bool]:
    return {of_box(house, one.id): one.frozen for one in house.runtime.live()}


def of_box(house: stories.ModelHouse, box_id: str) -> str:
    return next(one.annotations["name"] for one in house.runtime.made if one.id == box_id)


async def ran_for_a_while(house: stories.ModelHouse, *names: str) -> None:
    for name in names:
        await house.until(name, phase="Running")
    await house.steward.idle()
    await house.clock.advance(2)


def memory(size: str) -> dict[str, Any]:
    return {"resources": {"limits": {"memory": size}}}


@story
async def test_a_higher_priority_freezes_a_lower_one_which_goes_on_later() -> None:
    async with stories.house(node=ONE) as house:
        await house.agent("low")
        await ran_for_a_while(house, "low")
        await house.agent("high", priority=9, restartPolicy="Never")
        status = await house.until("low", phase="Suspended", reason="Preempted")
        await house.until("high", phase="Running")
        assert frozen(house) == {"low": True, "high": False}
        assert "high" not in status["message"]
        assert {"Preempting", "Admitted", "Started"} <= set(await house.events("high"))
        assert "Preempted" in await house.events("low")
        house.runtime.end(next(one.id for one in house.runtime.live() if not one.frozen), 0)
        status = await house.until("low", phase="Running")
        assert frozen(house) == {"low": False} and status["attempt"] == 1
        assert "Resumed" in await house.events("low")


@story
async def test_equal_priorities_wait_for_each_other() -> None:
    async with stories.house(node=ONE) as house:
        await house.agent("first")
        await ran_for_a_while(house, "first")
        await house.agent("second")
        await house.until("second", reason="NodeFull")
        await house.steward.idle()
        await house.clock.advance(100)
        await house.steward.idle()
        assert frozen(house) == {"first": False}


@story
async def test_one_that_has_just_begun_is_frozen_a_moment_later() -> None:
    async with stories.house(node=ONE) as house:
        await house.agent("low")
        await house.until("low", phase="Running")
        await house.agent("high", priority=1)
        await house.until("high", reason="NodeFull")
        await house.steward.idle()
        await house.clock.advance(2)
        await house.until("high", phase="Running")
        await house.until("low", phase="Suspended")


@story
async def test_shortage_of_memory_ends_one_which_starts_again_when_there_is_room() -> None:
    async with stories.house(node=Node(100, 100, None, 100 << 20)) as house:
        await house.agent("low", **memory("80Mi"))
        await ran_for_a_while(house, "low")
        await house.agent("high", priority=9, restartPolicy="Never", **memory("80Mi"))
        await house.until("high", phase="Running")
        status = await house.until("low", phase="Pending", reason="NodeFull")
        assert status["lastTermination"]["reason"] == "Preempted" and "80Mi" not in status["message"]
        house.runtime.end_all(0)
        assert (await house.until("low", phase="Running"))["attempt"] == 2


@story
async def test_one_that_asks_for_it_is_ended_instead_of_frozen() -> None:
    async with stories.house(node=ONE) as house:
        await house.agent("low", onPreempted="End", restartPolicy="Never")
        await ran_for_a_while(house, "low")
        await house.agent("high", priority=9)
        await house.until("high", phase="Running")
        await house.until("low", phase="Failed", reason="Preempted")


@story
async def test_suspending_by_hand_frees_a_place_and_resuming_waits_for_one() -> None:
    async with stories.house(node=ONE) as house:
        await house.agent("a", suspend=False)
        await ran_for_a_while(house, "a")
        await house.agent("b")
        await house.until("b", reason="NodeFull")
        await house.edit("a", suspend=True)
        await house.until("b", phase="Running")
        await house.edit("a", suspend=False)
        await house.until("a", phase="Suspended", reason="NodeFull")
        assert frozen(house) == {"a": True, "b": False}
        house.runtime.end(next(one.id for one in house.runtime.live() if not one.frozen), 1)
        await house.until("a", phase="Running")


@story
async def test_a_steward_that_comes_later_leaves_them_frozen() -> None:
    async with stories.house(node=ONE) as house:
        await house.agent("low")
        await ran_for_a_while(house, "low")
        await house.agent("high", priority=9)
        await house.until("low", phase="Suspended", reason="Preempted")
        await house.until("high", phase="Running")
        await house.end()
        house.begin()
        await house.steward.idle()
        assert frozen(house) == {"low": True, "high": False}
        assert (await house.status("low"))["reason"] == "Preempted"
        await house.store.delete(*_named("high"))
        await house.until("low", phase="Running")


@story
async def test_a_quota_is_not_crossed_by_those_that_come_back() -> None:
    async with stories.house(node=ONE) as house:
        await house.make("quota", "q", {"hard": {"agents": 2}})
        await house.agent("low")
        await ran_for_a_while(house, "low")
        await house.agent("high", priority=9)
        await house.until("high", phase="Running")
        await house.agent("third", priority=20)
        await house.until("third", reason="QuotaExceeded")
        await house.steward.idle()
        await house.clock.advance(1)
        await house.until("q", "quota", used={"agents": 2, "cpu": "0", "memory": "0"})
        assert frozen(house) == {"low": True, "high": False}


@story
async def test_equals_take_turns_when_there_are_time_slices() -> None:
    async with stories.house(node=Node(100, 1, slice_seconds=10)) as house:
        names = ("a", "b", "c")
        for name in names:
            await house.agent(name)
        await house.until("a", phase="Running")
        seen: list[str] = []
        for _ in range(60):
            await house.steward.idle()
            running = [name for name, still in frozen(house).items() if not still]
            assert len(running) <= 1
            if running and seen[-1:] != running:
                seen += running
            await house.clock.advance(1)
        assert seen[:3] == ["a", "b", "c"] and seen[3:] == ["a", "b", "c"][: len(seen) - 3]
        assert len(seen) >= 5 and len(house.runtime.made) == 3
        assert {one["reason"] for one in [await house.status(name) for name in names] if "reason" in one} == {
            "TimeSliced"
        }


def _named(name: str) -> tuple[Any, ...]:
    return kinds.AGENT, "default", name


@pytest.fixture(autouse=True)
def disarm() -> Iterator[None]:
    yield
    crash.arm("")


async def making_room(point: str) -> list[str]:
    """One makes room for another and goes on, and the steward dies once on the way."""
    deaths: list[str] = []
    async with stories.house(node=ONE) as house:
        await house.agent("low")
        await ran_for_a_while(house, "low")
        crash.arm(point, test_crashes.die)
        keeper = asyncio.create_task(test_crashes.keep_going(house, deaths, point))
        clock = asyncio.create_task(house.run_clock())
        try:
            await house.agent("high", priority=9, restartPolicy="Never")
            await house.until("low", phase="Suspended", reason="Preempted")
            await house.until("high", phase="Running")
            assert frozen(house) == {"low": True, "high": False}
            house.runtime.end(next(one.id for one in house.runtime.live() if not one.frozen), 0)
            await house.until("high", phase="Succeeded")
            await house.until("low", phase="Running", observedGeneration=1)
            await test_crashes.at_rest(house)
            assert frozen(house) == {"low": False}
        finally:
            keeper.cancel()
            clock.cancel()
            await asyncio.gather(keeper, clock, return_exceptions=True)
        assert sorted(one.annotations["name"] for one in house.runtime.made) == ["high", "low"]
    return deaths


@pytest.mark.parametrize("step", ["freeze", "thaw", "status", "start"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_death_while_room_is_made_changes_nothing(step: str, when: str) -> None:
    deaths = asyncio.run(asyncio.wait_for(making_room(f"{step}.{when}"), 100))
    assert deaths == [f"{step}.{when}"], "the story must reach the point"
