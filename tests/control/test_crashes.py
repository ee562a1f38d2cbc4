"""The steward dies at every named point, and the story ends the same: no box twice, no end lost, nothing left."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from agentk.api import kinds
from agentk.control import crash
from agentk.runtime import box
from tests.control import cases, stories


class Died(BaseException):
    """As near to SIGKILL as a task can come: nothing catches it."""


@pytest.fixture(autouse=True)
def disarm() -> Iterator[None]:
    yield
    crash.arm("")


def die() -> None:
    crash.arm("")
    raise Died


async def keep_going(house: stories.House, deaths: list[str], name: str) -> None:
    """Build the steward again when it has died."""
    while True:
        await house.over()
        deaths.append(name)
        await house.end()
        house.begin()


async def at_rest(house: stories.House) -> None:
    """The steward that lives now has nothing to do; one that died while it was asked never says so."""
    while True:
        asked = house.steward
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asked.idle(), 5)
            if asked is house.steward:
                return


async def whole_life(point: str) -> list[str]:
    """Start, crash, restart, suspend, replace, kill, restart, expire; and another that is deleted while it runs."""
    deaths: list[str] = []
    async with stories.house(begin=False) as house:
        house.runtime.deaf = point.startswith("kill")
        ghost = box.Box("ghost-1", "ghost", "default", 1, ["sleep"], annotations={"name": "ghost"})
        await house.runtime.start(ghost)
        crash.arm(point, die)
        house.begin()
        keeper = asyncio.create_task(keep_going(house, deaths, point))
        clock = asyncio.create_task(house.run_clock())
        try:
            await house.agent("a", restartPolicy="OnFailure", ttlSecondsAfterFinished=60)
            await house.agent("b", terminationGracePeriodSeconds=1)
            await house.until("a", phase="Running", attempt=1)
            await house.until("b", phase="Running")
            house.runtime.end(
                next(one.id for one in house.runtime.live() if one.annotations["name"] == "a"), 1
            )
            status = await house.until("a", phase="Running", attempt=2)
            assert status["lastTermination"]["exitCode"] == 1
            await house.edit("a", suspend=True)
            await house.until("a", phase="Suspended")
            await house.edit("a", suspend=False)
            await house.until("a", phase="Running")
            await house.edit("a", command=["other"])
            await house.until("a", phase="Running", attempt=3)
            await house.annotate("a", kill=cases.kill(3))
            await house.until("a", phase="Failed", reason="Killed")
            await house.make("pool", "p", {"size": 1, "template": {}, "runtimeRef": {"name": "nsjail"}})
            await house.until("p", "pool", ready=1)
            limits = {"open-files": 1024}
            await house.agent("c", poolRef={"name": "p"}, resources={"limits": limits})
            await house.until("c", phase="Running")
            await house.store.delete(kinds.POOL, "default", "p")
            await house.gone("p", "pool")
            for name in ("b", "c"):
                await house.store.delete(kinds.AGENT, "default", name)
                await house.gone(name)
            await house.gone("a")
            await at_rest(house)
        finally:
            keeper.cancel()
            clock.cancel()
            await asyncio.gather(keeper, clock, return_exceptions=True)
        assert not house.runtime.boxes and not house.host_uids
        made = sorted((one.annotations["name"], one.attempt) for one in house.runtime.made if not one.waits)
        assert made == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1), ("ghost", 1)]
    return deaths


@pytest.mark.parametrize("point", crash.POINTS)
def test_a_death_at_any_point_changes_nothing_of_the_story(point: str) -> None:
    deaths = asyncio.run(asyncio.wait_for(whole_life(point), 100))
    assert deaths == [point], "the story must reach the point"
