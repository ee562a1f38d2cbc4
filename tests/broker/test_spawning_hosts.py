"""Children without a jail: only of an Agent that stands for a host program, and only where that was allowed."""

import pytest

from agentk.api import errors, kinds
from agentk.broker.guests import HELD
from tests.broker.spawning_world import World, told

PLAIN = {"type": "process", "enforcement": "BestEffort"}


async def runtime(world: World) -> None:
    await world.store.create(
        {"apiVersion": kinds.API_VERSION, "kind": "Runtime", "metadata": {"name": "plain"}, "spec": PLAIN}
    )


@told
async def test_what_is_held_has_children_on_the_runtime_that_was_allowed(world: World) -> None:
    await runtime(world)
    await world.make("host", {HELD: "agentos"})
    made = await world.call("host", "agent.spawn", runtime="plain", spec={"command": ["true"]})
    spec = (await world.get(made["name"]))["spec"]
    assert spec["runtimeRef"] == {"name": "plain"}
    limits = spec["resources"]["limits"]
    assert (limits["memory"], limits["pids"]) == ("64Mi", 8), "its parent's"
    made = await world.call("host", "agent.spawn", spec={"command": ["true"]})
    assert (await world.get(made["name"]))["spec"]["runtimeRef"] == {"name": "nsjail"}


@told
async def test_no_other_runtime_and_no_other_bound_comes_with_it(world: World) -> None:
    await runtime(world)
    await world.make("host", {HELD: "agentos"})
    for spec in (
        {"runtimeRef": {"name": "nsjail"}},
        {"policyRef": {"name": "privileged"}},
        {"resources": {"limits": {"memory": "1Gi"}}},
        {"volumes": [{"name": "h", "hostPath": {"path": "/etc"}}]},
    ):
        with pytest.raises(errors.Invalid):
            await world.call("host", "agent.spawn", runtime="plain", spec={"command": ["true"], **spec})
    with pytest.raises(errors.Invalid, match="runtimeRef"):
        asked = {"command": ["true"], "runtimeRef": {"name": "plain"}}
        await world.call("host", "agent.spawn", spec=asked)
    assert len((await world.store.list(kinds.AGENT)).items) == 1


@told
async def test_an_agent_that_nobody_holds_has_none_of_it(world: World) -> None:
    await runtime(world)
    await world.make("host", {HELD: "agentos"})
    await world.make("boss")
    child = await world.call("host", "agent.spawn", spec={"command": ["true"]})
    for name in ("boss", child["name"]):
        with pytest.raises(errors.Forbidden, match="host program"):
            await world.call(name, "agent.spawn", runtime="plain", spec={"command": ["true"]})
