"""Names in the AgentOS dialect: nobody gets another's mail, or speaks in its name, by what it calls its child."""

import asyncio
from pathlib import Path

from agentk.broker.dialects.agentos_words import Op
from tests.broker.agentos_world import World


def test_a_child_called_like_another_agent_is_not_taken_for_it(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        try:
            bob = await world.client(world.agent("bob"))
            victim = await world.client(world.agent("victim"))
            evil = await world.client(world.agent("evil", source={"inline": {"files": {"w.py": "1"}}}))
            for client in (bob, victim, evil):
                await client.raw(Op.NOOP)
            made = await evil.ask(Op.SPAWN, name="bob", script="w.py")
            assert made["success"] and made["id"] != bob.agent_id
            told = await victim.ask(Op.SEND, to_name="bob", message="for bob")
            assert told["delivered_to"] == bob.agent_id
            # Whose child it is, it is that to.
            assert (await evil.ask(Op.SEND, to_name="bob", message="mine"))["delivered_to"] == made["id"]
            impostor = await world.client(world.kernel.ids.uid(made["id"]))
            await impostor.ask(Op.SEND, to_name="victim", message="I am bob")
            [got] = (await victim.ask(Op.RECV))["messages"]
            assert got["from"] == made["id"] and got["from_name"] != "bob"
            assert (await evil.ask(Op.LIST))[-1]["name"] == "bob"
        finally:
            await world.close()

    asyncio.run(asyncio.wait_for(scene(), 60))


def test_a_name_that_was_registered_before_there_was_an_agent_of_it(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        try:
            victim = await world.client(world.agent("victim"))
            evil = await world.client(world.agent("evil", source={"inline": {"files": {"w.py": "1"}}}))
            assert (await evil.ask(Op.REGISTER, name="boss"))["success"]
            assert (await victim.ask(Op.SEND, to_name="boss", message=1))["delivered_to"] == evil.agent_id
            boss = await world.client(world.agent("boss"))
            await boss.raw(Op.NOOP)
            assert (await victim.ask(Op.SEND, to_name="boss", message=2))["delivered_to"] == boss.agent_id
        finally:
            await world.close()

    asyncio.run(asyncio.wait_for(scene(), 60))
