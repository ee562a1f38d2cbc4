"""agent.pause and agent.resume, through the real gate and the real store."""

import pytest

from agentk.api import errors, kinds
from agentk.broker.calling import pausing
from tests.broker.spawning_world import BASELINE, World, told


@told
async def test_a_child_is_paused_and_resumed(world: World) -> None:
    world.rules = BASELINE
    await world.make("boss")
    name = (await world.call("boss", "agent.spawn", spec={"command": ["true"]}))["name"]
    assert await world.call("boss", "agent.pause", name=name) == {"paused": True}
    assert await world.call("boss", "agent.pause", name=name) == {"paused": False}
    child = await world.get(name)
    assert child["spec"]["suspend"] is True
    assert child["metadata"]["annotations"][pausing.PAUSED_BY] == (await world.guest("boss")).uid
    assert await world.call("boss", "agent.resume", name=name) == {"resumed": True}
    assert await world.call("boss", "agent.resume", name=name) == {"resumed": False}
    child = await world.get(name)
    assert child["spec"]["suspend"] is False and pausing.PAUSED_BY not in child["metadata"]["annotations"]


@told
async def test_what_a_person_suspended_stays_so(world: World) -> None:
    await world.make("boss")
    name = (await world.call("boss", "agent.spawn", spec={"command": ["true"]}))["name"]
    await world.store.modify(
        kinds.AGENT,
        "default",
        name,
        lambda obj: {**(obj or {}), "spec": {**(obj or {})["spec"], "suspend": True}},
    )
    with pytest.raises(errors.Forbidden, match="a person"):
        await world.call("boss", "agent.resume", name=name)
    assert (await world.get(name))["spec"]["suspend"] is True


@told
async def test_only_descendants_are_there_to_be_paused(world: World) -> None:
    await world.make("boss")
    await world.make("sibling")
    child = (await world.call("boss", "agent.spawn", spec={"command": ["true"]}))["name"]
    for method in ("agent.pause", "agent.resume"):
        for who, name in (("boss", "sibling"), ("boss", "nobody"), (child, "boss"), ("sibling", child)):
            with pytest.raises(errors.NotFound, match="spawned"):
                await world.call(who, method, name=name)
        with pytest.raises(errors.BadRequest, match="itself"):
            await world.call("boss", method, name="boss")
    await world.status(child, phase="Succeeded")
    assert await world.call("boss", "agent.pause", name=child) == {"paused": False}
