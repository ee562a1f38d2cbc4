"""Programs of the host: one held Agent, many programs, each with an id and a mailbox of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors, kinds
from agentk.broker.dialects.agentos_words import Op
from agentk.broker.words import Guest
from tests.broker.agentos_client import Client
from tests.broker.agentos_world import World

HELD = "uid-default-host"


class Files:
    denies = False

    async def unjailed(self, guest: Guest) -> str:
        if self.denies:
            raise errors.Denied(f'Policy "{guest.policy_name}" does not allow Runtime "plain"')
        return "plain"

    async def source(self, script: str, jailed: bool = True) -> tuple[dict[str, Any], str]:
        if not jailed:
            return {"env": [{"name": "PYTHONPATH", "value": "/home/me"}]}, f"/home/me/$x/{script}"
        if script == "missing":
            raise errors.BadRequest("no such script")
        spec = {
            "source": {"inline": {"files": {"x/w.py": "1"}}},
            "env": [{"name": "PYTHONPATH", "value": "/app"}],
        }
        return spec, "/app/x/w.py"


def run(
    folder: Path,
    scene: Callable[[World, Client, Client], Awaitable[None]],
    policies: dict[str, dict[str, Any]] | None = None,
) -> None:
    async def whole() -> None:
        world = World(folder, policies)
        try:
            world.agent("host", env=[{"name": "A", "value": "1"}])
            first, second = await world.client(HELD, Files()), await world.client(HELD, Files())
            for client in (first, second):
                await client.raw(Op.NOOP)
            await asyncio.wait_for(scene(world, first, second), 60)
        finally:
            await world.close()

    asyncio.run(whole())


def test_each_program_has_an_id_and_a_mailbox(tmp_path: Path) -> None:
    async def scene(world: World, first: Client, second: Client) -> None:
        assert first.agent_id != second.agent_id
        for name, client in (("one", first), ("two", second)):
            assert (await client.ask(Op.REGISTER, name=name))["agent_id"] == client.agent_id
        assert not (await second.ask(Op.REGISTER, name="one"))["success"]
        assert (await first.ask(Op.SEND, to_name="two", message={"n": 1}))["delivered_to"] == second.agent_id
        assert (await second.ask(Op.SEND, to=first.agent_id, message="back"))["success"]
        assert (await first.ask(Op.RECV))["messages"][0]["message"] == "back"
        [got] = (await second.ask(Op.RECV))["messages"]
        assert (got["message"], got["from"], got["from_name"]) == ({"n": 1}, first.agent_id, "one")
        assert (await second.ask(Op.RECV))["count"] == 0
        assert (await first.ask(Op.BROADCAST, message="all"))["delivered_count"] == 1
        assert (await second.ask(Op.RECV))["messages"][0]["message"] == "all"
        assert world.doing.mail["default/host"] == []

    run(tmp_path, scene)


def test_messages_of_jailed_agents_reach_the_program_that_is_meant(tmp_path: Path) -> None:
    async def scene(world: World, first: Client, second: Client) -> None:
        worker = await world.client(world.agent("w", owner=HELD))
        await second.ask(Op.REGISTER, name="boss")
        assert (await worker.ask(Op.SEND, to_name="boss", message=1))["delivered_to"] == second.agent_id
        assert (await first.ask(Op.RECV))["count"] == 0
        [got] = (await second.ask(Op.RECV))["messages"]
        assert (got["message"], got["from"], got["from_name"]) == (1, worker.agent_id, "w")
        await first.ask(Op.SEND, to_name="w", message=2)
        [got] = (await worker.ask(Op.RECV))["messages"]
        assert (got["message"], got["from"]) == (2, first.agent_id)

    run(tmp_path, scene)


def test_nobody_speaks_for_a_program_of_another(tmp_path: Path) -> None:
    async def scene(world: World, first: Client, second: Client) -> None:
        stranger = await world.client(world.agent("b"))
        around = {"to": "uid-default-b", "from": next(iter(world.kernel.hosted)), "message": "x"}
        await stranger.ask(Op.SEND, to_name="host", message={"agentos.envelope": around})
        [got] = (await first.ask(Op.RECV))["messages"]
        assert (got["message"], got["from"], got["from_name"]) == ("x", stranger.agent_id, "b")

    run(tmp_path, scene)


def test_a_program_that_is_gone_has_no_name_and_no_mail(tmp_path: Path) -> None:
    async def scene(world: World, first: Client, second: Client) -> None:
        await second.ask(Op.REGISTER, name="two")
        await first.ask(Op.SEND, to_name="two", message="late")
        await second.close()
        while len(world.kernel.hosted) > 1:
            await first.raw(Op.NOOP)
        assert (await first.ask(Op.SEND, to_name="two", message=1))["error"].startswith(
            "target agent not found"
        )
        assert (await first.ask(Op.SEND, to=second.agent_id, message=1))["success"] is False
        assert (await first.ask(Op.RECV))["count"] == 0
        assert world.doing.mail["default/host"] == []
        assert (await first.ask(Op.REGISTER, name="two"))["success"]

    run(tmp_path, scene)


def test_scripts_of_the_host_are_spawned_with_what_is_beside_them(tmp_path: Path) -> None:
    async def scene(world: World, first: Client, second: Client) -> None:
        told = await first.ask(Op.SPAWN, name="w", script="./w.py")
        assert told["success"] and told["status"] == "running"
        asked = world.doing.asked[-1][1]
        assert asked["labels"] == {"agentos-host": "host"}
        assert asked["spec"]["command"] == ["python3", "/app/x/w.py", "$(AGENTK_SOCKET)"]
        assert [one["name"] for one in asked["spec"]["env"]] == ["A", "PYTHONPATH"]
        assert [one["name"] for one in await second.ask(Op.LIST)] == ["w"]  # no program is in its own list
        assert (await second.ask(Op.KILL, id=told["id"]))["killed"]
        assert (await first.ask(Op.SPAWN, name="w", script="missing"))["error"] == "no such script"

    run(tmp_path, scene)


def test_a_script_that_is_not_to_be_sandboxed_runs_where_it_is(tmp_path: Path) -> None:
    async def scene(world: World, first: Client, second: Client) -> None:
        plain = {"metadata": {"name": "plain"}, "spec": {"type": "process"}}
        world.guests.hear(kinds.RUNTIME, plain, False)
        told = await first.ask(Op.SPAWN, name="w", script="w.py", sandboxed=False)
        spec = world.doing.asked[-1][1]["spec"]
        assert spec["command"] == ["python3", "/home/me/$$x/w.py", "$(AGENTK_SOCKET)"]
        assert spec["runtimeRef"] == {"name": "plain"} and "source" not in spec
        assert [one["name"] for one in spec["env"]] == ["A", "PYTHONPATH"]
        assert world.doing.runtimes == ["plain"]
        assert not told["isolation"]["fully_isolated"] and not any(told["isolation"]["namespaces"].values())
        assert told["isolation"]["degraded_reason"] == 'Runtime "plain" makes no jails'
        metrics = (await first.ask(Op.METRICS_AGENT, agent_id=told["id"]))["metrics"]
        assert metrics["sandboxed"] is False
        await first.ask(Op.SPAWN, name="j", script="j.py")
        assert world.doing.runtimes == ["plain", ""]

    run(tmp_path, scene)


def test_a_policy_that_forbids_it_is_named_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Files, "denies", True)

    async def scene(world: World, first: Client, second: Client) -> None:
        told = await first.ask(Op.SPAWN, name="w", script="w.py", sandboxed=False)
        assert (told["success"], told["error"]) == (False, 'Policy "baseline" does not allow Runtime "plain"')
        assert "agent.spawn" not in [method for method, _ in world.doing.asked]

    run(tmp_path, scene)


def test_who_gave_up_rights_spawns_nothing_that_they_do_not_hold(tmp_path: Path) -> None:
    async def scene(world: World, first: Client, second: Client) -> None:
        assert (await first.ask(Op.SET_PERMS, permissions={"filesystem": {"read": ["/workspace/*"]}}))[
            "success"
        ]
        told = await second.ask(Op.SPAWN, name="w", script="w.py", sandboxed=False)
        assert not told["success"] and told["error"].startswith("permission denied: SPAWN (sandboxed: false)")
        assert (await second.ask(Op.SPAWN, name="w", script="w.py"))["success"]

    run(tmp_path, scene)


def test_a_guest_in_a_jail_stays_in_one_whatever_it_asks_for(tmp_path: Path) -> None:
    async def scene(world: World, first: Client, second: Client) -> None:
        guest = await world.client(world.agent("g", policy_name="privileged"))
        world.doing.files["/workspace/d.py"] = "1"
        told = await guest.ask(Op.SPAWN, name="d", script="d.py", sandboxed=False)
        assert told["success"] and "runtimeRef" not in world.doing.asked[-1][1]["spec"]
        assert world.doing.runtimes == [""]

    run(tmp_path, scene, {"privileged": {"level": "privileged"}})


def test_what_has_no_jail_spawns_what_has_none(tmp_path: Path) -> None:
    async def scene(world: World, first: Client, second: Client) -> None:
        plain = {"metadata": {"name": "plain"}, "spec": {"type": "process"}}
        world.guests.hear(kinds.RUNTIME, plain, False)
        worker = await world.client(world.agent("w", owner=HELD, runtimeRef={"name": "plain"}))
        await worker.ask(Op.SPAWN, name="a", script="/home/me/./a.py")
        spec = world.doing.asked[-1][1]["spec"]
        assert (spec["command"][1], "source" in spec) == ("/home/me/a.py", False)
        world.doing.files["/workspace/b.py"] = "1"
        await worker.ask(Op.SPAWN, name="b", script="b.py")
        spec = world.doing.asked[-1][1]["spec"]
        assert (spec["command"][1], list(spec["source"]["inline"]["files"])) == ("b.py", ["b.py"])
        assert world.doing.runtimes == ["", ""], "its own is inherited; nobody asks for another"

    run(tmp_path, scene)
