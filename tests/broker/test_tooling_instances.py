"""Boxes of tools: made once, shared as the Tool says, named after what they are made of, and let go of."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from agentk.api import admit, errors, kinds
from agentk.broker.tooling import instances
from agentk.broker.words import Guest
from tests.broker.spawning_world import World, told

Object = dict[str, Any]


class Rig:
    def __init__(self, made: World) -> None:
        self.world, self.tools, self.now = made, dict[str, Object](), 0.0
        self.told: list[Any] = []
        self.boxes = instances.Instances(
            made.store, made.guests, self.tools.values, self.tell, lambda: self.now
        )

    async def tell(self, tool: Any, status: dict[str, Any]) -> None:
        self.told.append(status)
        self.tools["t"] = {**self.tools["t"], "status": status}

    async def tool(self, **spec: Any) -> Object:
        metadata = {"name": "t", "namespace": "default"}
        obj = {"apiVersion": kinds.API_VERSION, "kind": "Tool", "metadata": metadata}
        wanted = admit.admit({**obj, "spec": {"command": {"argv": ["true"]}, "jail": {}, **spec}})

        def change(old: Object | None) -> Object:
            return wanted if old is None else {**old, "spec": wanted["spec"]}

        made = await self.world.store.modify(kinds.TOOL, "default", "t", change)
        self.tools["t"] = made
        return made

    async def names(self) -> list[str]:
        listed = (await self.world.store.list(kinds.AGENT)).items
        return [one["metadata"]["name"] for one in listed if one["metadata"]["name"].startswith("tool-")]

    @contextlib.asynccontextmanager
    async def used(self, tool: Object, guest: Guest | None = None) -> Any:
        """The box, once somebody (who is not here) has started it."""
        name = instances.name(tool, guest)

        async def start() -> None:
            await self.world.known(await made(self.world, name))
            await self.world.status(name, phase="Running", boxID=f"{name}-1")

        starting = asyncio.create_task(start())
        async with self.boxes.box(tool, guest, 30) as agent:
            yield agent
        await starting


async def made(world: World, name: str) -> str:
    """Its uid, once there is an agent of that name."""
    async for change in world.store.watch(kinds.AGENT, "default", ""):
        if change.obj.get("metadata", {}).get("name") == name:
            return str(change.obj["metadata"]["uid"])
    raise AssertionError("the store was closed")


def guest(uid: str) -> Guest:
    return Guest(uid, "default", uid, 1, f"{uid}-1", f"{uid}-1")


@told
async def test_many_who_ask_at_once_share_one_box(world: World) -> None:
    rig = Rig(world)
    tool = await rig.tool()

    async def use(who: str) -> str:
        async with rig.used(tool, guest(who)) as agent:
            return str(agent["metadata"]["name"])

    names = set(await asyncio.gather(*(use(f"a{n}") for n in range(5))))
    assert len(names) == 1 and await rig.names() == list(names)
    made = await world.get(names.pop())
    assert made["spec"]["policyRef"] == {"name": "tool"} and made["metadata"]["labels"] == {
        instances.TOOL: "t"
    }
    assert made["metadata"]["ownerReferences"][0]["kind"] == "Tool"


@told
async def test_a_box_for_each_agent_goes_with_it(world: World) -> None:
    rig = Rig(world)
    tool = await rig.tool(sharing="PerAgent", idleSeconds=1000)
    uids = [(await world.make(name))["metadata"]["uid"] for name in ("a", "b")]
    for uid in uids:
        async with rig.used(tool, guest(uid)):
            pass
    assert len(await rig.names()) == 2
    await world.store.delete(kinds.AGENT, "default", "a")
    with world.guests.listening(uids[0]) as bell:
        if world.guests.of(uids[0]) is not None:
            await bell.wait()
    await rig.boxes.sweep()
    assert await rig.names() == [instances.name(tool, guest(uids[1]))]


@told
async def test_a_family_takes_no_more_than_its_part_of_the_boxes(world: World) -> None:
    rig = Rig(world)
    tool = await rig.tool(sharing="PerAgent")
    before, instances.FAMILY_MOST = instances.FAMILY_MOST, 1
    try:
        async with rig.used(tool, guest("a")):
            child = Guest("b", "default", "b", 1, "b-1", "b-1", parents=("a",))
            with pytest.raises(errors.TooManyRequests, match="for this agent and those"):
                async with rig.boxes.box(tool, child, 30):
                    raise AssertionError("a family has more than its part")
            async with rig.used(tool, guest("c")):
                assert len(await rig.names()) == 2
    finally:
        instances.FAMILY_MOST = before


@told
async def test_an_idle_box_goes_and_one_in_use_stays(world: World) -> None:
    rig = Rig(world)
    tool = await rig.tool(idleSeconds=10)
    async with rig.used(tool):
        rig.now = 100.0
        await rig.boxes.sweep()
        assert len(await rig.names()) == 1
        assert rig.told == [{"instances": await rig.names()}]
    rig.now = 105.0
    await rig.boxes.sweep()
    assert len(await rig.names()) == 1
    rig.now = 111.0
    await rig.boxes.sweep()
    assert await rig.names() == []


@told
async def test_a_changed_tool_has_another_box_and_the_old_one_goes(world: World) -> None:
    rig = Rig(world)
    tool = await rig.tool()
    async with rig.used(tool):
        pass
    changed = await rig.tool(jail={"env": [{"name": "A", "value": "1"}]})
    assert instances.name(tool, None) != instances.name(changed, None)
    await rig.boxes.sweep()
    assert await rig.names() == []


@told
async def test_a_box_that_cannot_run_says_why(world: World) -> None:
    rig = Rig(world)
    tool = await rig.tool()
    name = instances.name(tool, None)

    async def stall() -> None:
        await made(world, name)
        await world.status(
            name, conditions=[{"type": "Stalled", "status": "True", "message": "no such image"}]
        )

    stalling = asyncio.create_task(stall())
    with pytest.raises(errors.Unavailable, match="no such image"):
        async with rig.boxes.box(tool, None, 30):
            raise AssertionError("it cannot run")
    await stalling


@told
async def test_somebody_elses_agent_of_that_name_is_not_used(world: World) -> None:
    rig = Rig(world)
    tool = await rig.tool()
    await world.make(instances.name(tool, None))
    with pytest.raises(errors.Unavailable, match="in the way"):
        async with rig.boxes.box(tool, None, 30):
            raise AssertionError("it is not the tool's")


def test_names_fit_and_tell_what_they_are_of(tmp_path: Path) -> None:
    tool = {"metadata": {"name": "a.b" + "c" * 200, "uid": "u"}, "spec": {"jail": {}}}
    name = instances.name(tool, None)
    assert len(name) <= 63 and name.startswith("tool-a-bccc") and "." not in name
    assert instances.name({**tool, "metadata": {**tool["metadata"], "uid": "v"}}, None) != name
