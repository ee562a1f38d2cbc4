"""Every opcode of the AgentOS dialect, through a real door, a real gate and a real journal."""

import base64
import json
from typing import Any

import pytest

from agentk.api import errors
from agentk.broker.dialects.agentos_words import Op
from tests.broker.agentos_client import Client
from tests.broker.agentos_world import World


def test_noop_gives_the_same_bytes_back(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        for payload in (b"", b"hello", b"\xff\0{", bytes(2**20)):
            assert await client.raw(Op.NOOP, payload) == payload
        assert client.agent_id == world.kernel.ids.of("uid-default-a") != 0

    play(scene)


def test_hello_and_exit(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        told = await client.ask(Op.HELLO, {})
        assert told["success"] and told["protocol_version"] == 1 and told["kernel_version"] == "agentk 1.2.3"
        assert told["features"]["spawn"] and not told["features"]["worlds"]
        assert await client.raw(Op.EXIT) == b"goodbye"

    play(scene)


@pytest.mark.parametrize("payload", [b"what is 6*7?", b'{"prompt": "what is 6*7?"}'])
def test_think_in_both_spellings(play: Any, payload: bytes) -> None:
    async def scene(world: World, client: Client) -> None:
        told = json.loads(await client.raw(Op.THINK, payload))
        assert told["success"] and told["content"] == "42" and told["tokens"] == 7 and told["error"] is None
        assert world.doing.asked[0][1]["prompt"] == "what is 6*7?"
        assert ("a", "think", "ok") in world.records()

    play(scene)


def test_think_with_everything(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        call = {"id": "c", "function": {"name": "add", "arguments": '{"x": 1}'}}
        world.doing.think_answer = {"text": "", "toolCalls": [call]}
        image = {"data": base64.b64encode(b"png").decode(), "mime_type": "image/png"}
        told = await client.ask(
            Op.THINK,
            prompt="look",
            image=image,
            system_instruction="be brief",
            thinking_level="LOW",
            temperature=0.5,
            model="m",
            max_tokens=9,
            tools=[{"name": "add", "parameters": {}}, {"function_declarations": [{"name": "sub"}]}],
        )
        assert told["function_calls"] == [{"id": "c", "name": "add", "args": {"x": 1}, "arguments": {"x": 1}}]
        asked = world.doing.asked[0][1]
        assert [part["type"] for part in asked["messages"][0]["content"]] == ["text", "image_url"]
        assert asked["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
        assert (asked["system"], asked["reasoningEffort"], asked["maxTokens"]) == ("be brief", "low", 9)
        assert [tool["function"]["name"] for tool in asked["tools"]] == ["add", "sub"]

    play(scene)


def test_think_without_a_route_says_so_in_that_kernels_words(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        world.doing.think_answer = errors.NotFound("no ModelRoute")
        told = await client.ask(Op.THINK, prompt="x")
        assert (
            told["error"].startswith("LLM not configured") and told["content"] == "" and not told["success"]
        )

    play(scene)


def test_exec(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        world.doing.exec_answer = {"exitCode": 3, "stdout": "out", "stderr": "err", "reason": "Error"}
        told = await client.ask(Op.EXEC, command="x | y", timeout=5, cwd="sub")
        assert told == {"success": False, "stdout": "out", "stderr": "err", "exit_code": 3}
        asked = world.doing.asked[0][1]
        assert (asked["code"], asked["language"], asked["timeoutSeconds"]) == ("x | y", "shell", 5)
        assert asked["workingDir"] == "sub"
        world.doing.exec_answer = {"exitCode": 124, "reason": "DeadlineExceeded"}
        assert "timed out" in (await client.ask(Op.EXEC, command="sleep 9"))["error"]
        assert (await client.ask(Op.EXEC))["error"] == "command required"

    play(scene)


def test_an_output_beyond_a_frame_is_cut_and_says_so(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        world.doing.exec_answer = {"stdout": "\x01" * 262_144, "stderr": "e" * 1000}
        told = await client.ask(Op.EXEC, command="noise")
        assert told["truncated"] and told["stderr"] == "e" * 1000 and 100_000 < len(told["stdout"]) < 262_144

    play(scene)


def test_read_and_write(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        assert await client.ask(Op.WRITE, path="-n", content="hä") == {"success": True, "bytes_written": 3}
        assert (await client.ask(Op.WRITE, path="-n", content="!", mode="append"))["success"]
        assert await client.ask(Op.READ, path="-n") == {"success": True, "content": "hä!", "size": 4}
        told = await client.ask(Op.READ, path="/nowhere")
        assert told["error"] == "/nowhere: No such file or directory" and told["content"] == ""
        assert not (await client.ask(Op.WRITE, path="x", content="", mode="chmod"))["success"]
        world.doing.exec_answer = {"stdoutTruncated": True}
        assert "more than" in (await client.ask(Op.READ, path="-n"))["error"]

    play(scene)


def test_http(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        told = await client.ask(Op.HTTP, url="https://example.com/", method="post", body={"a": 1}, timeout=3)
        assert told["success"] and told["status_code"] == 200 and told["body"] == "hi"
        asked = world.doing.asked[0][1]
        assert (asked["method"], asked["body"], asked["timeoutSeconds"]) == ("POST", '{"a": 1}', 3)
        assert not (await client.ask(Op.HTTP, url="gopher://x"))["success"]

    play(scene)


def test_spawn_list_kill(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        world.doing.files["/workspace/w.py"] = "print(1)"
        told = await client.ask(
            Op.SPAWN,
            name="Worker_1",
            script="w.py",
            limits={"memory": 64 * 2**20, "max_pids": 9, "cpu_quota": 50000},
            restart_policy="on-failure",
        )
        assert told["success"] and told["status"] == "running" and told["name"] == "Worker_1"
        assert told["restart_policy"] == "on-failure" and set(told["isolation"]["namespaces"]) == {
            "pid",
            "net",
            "mnt",
            "uts",
        }
        spec = next(params for name, params in world.doing.asked if name == "agent.spawn")["spec"]
        assert spec["command"] == ["python3", "/app/w.py", "$(AGENTK_SOCKET)"]
        assert spec["source"] == {"inline": {"files": {"w.py": "print(1)"}}}
        assert spec["resources"]["limits"] == {"memory": str(64 * 2**20), "pids": 9, "cpu": "500m"}
        assert (spec["restartPolicy"], spec["maxRestarts"], spec["restartWindow"]) == ("OnFailure", 5, "600s")
        child = await world.client("uid-default-worker-1")
        await child.raw(Op.NOOP)
        assert child.agent_id == told["id"]  # one id space
        listed = await client.ask(Op.LIST)
        assert [one["name"] for one in listed] == ["a", "Worker_1"]
        assert listed[1] == {
            "id": told["id"],
            "name": "Worker_1",
            "pid": 0,
            "state": "RUNNING",
            "status": "running",
            "running": True,
        }
        assert (await client.ask(Op.PAUSE, name="Worker_1")) == {
            "success": True,
            "paused": True,
            "agent_id": told["id"],
        }
        assert (await client.ask(Op.RESUME, id=told["id"]))["resumed"]
        assert (await client.ask(Op.PAUSE, name="nobody"))["paused"] is False
        assert "already" in (await client.ask(Op.SPAWN, name="Worker_1", script="w.py"))["error"]
        killed = await client.ask(Op.KILL, name="Worker_1")
        assert killed == {"success": True, "killed": True, "agent_id": told["id"]}
        assert len(await client.ask(Op.LIST)) == 1
        assert (await client.ask(Op.KILL, id=told["id"]))["killed"] is False

    play(scene)


def test_spawn_asks_for_no_more_than_its_parent_has(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        source = {"path": "x", "digest": "sha256:0"}
        small = {"limits": {"cpu": "250m", "memory": "64Mi", "pids": 8}}
        world.agent(
            "small", source=source, resources=small, env=[{"name": "PYTHONPATH", "value": "/app/lib"}]
        )
        parent = await world.client("uid-default-small")
        assert (await parent.ask(Op.SPAWN, name="c", script="sub/c.py"))["success"]
        spec = world.doing.asked[-1][1]["spec"]
        assert spec["resources"]["limits"] == {"cpu": "250m", "memory": str(64 * 2**20), "pids": 8}
        assert spec["source"] == source and spec["command"][1] == "/app/sub/c.py"
        assert spec["env"] == [{"name": "PYTHONPATH", "value": "/app/lib"}]
        assert (await parent.ask(Op.SPAWN, name="d"))["error"] == "script path required"
        assert (await parent.ask(Op.SPAWN, name="d", script="d.py", sandboxed=False))["success"]
        assert (
            "runtimeRef" not in world.doing.asked[-1][1]["spec"]
        )  # less than its parent's jail is not given

    play(scene)


def test_nobody_else_can_be_killed_or_seen(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        for uid in (world.agent("b"), world.agent("c", namespace="other")):
            number, name = world.kernel.ids.of(uid), uid.rpartition("-")[2]
            for asked in ({"name": name}, {"id": number}):
                assert (await client.ask(Op.KILL, asked))["killed"] is False
            assert not (await client.ask(Op.METRICS_AGENT, agent_id=number))["success"]
            assert not (await client.ask(Op.SET_PERMS, agent_id=number, level="minimal"))["success"]
            assert (await client.ask(Op.GET_AUDIT_LOG, agent_id=number))["count"] == 0
        assert (await client.ask(Op.METRICS_ALL_AGENTS))["count"] == 1
        assert (await client.ask(Op.SEND, to=world.kernel.ids.of("uid-other-c"), message=1))[
            "error"
        ].startswith("target agent not found")

    play(scene)


def test_messages_between_registered_agents(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        other = await world.client(world.agent("b"))
        registered = await client.ask(Op.REGISTER, name="boss")
        assert registered == {"success": True, "agent_id": client.agent_id, "name": "boss"}
        assert (await other.ask(Op.REGISTER, name="boss"))["error"].startswith("name already registered")
        assert (await other.ask(Op.REGISTER, name="a"))["error"].startswith("name already registered")
        sent = await other.ask(Op.SEND, to_name="boss", message={"n": 1})
        assert sent == {"success": True, "delivered_to": client.agent_id}
        assert (await other.ask(Op.SEND, to=client.agent_id, message="two"))["success"]
        got = await client.ask(Op.RECV, max=10)
        assert got["count"] == 2 and [one["message"] for one in got["messages"]] == [{"n": 1}, "two"]
        assert got["messages"][0]["from"] == got["messages"][0]["from_id"] == other.agent_id
        assert got["messages"][0]["from_name"] == "b" and got["messages"][0]["age_ms"] >= 0
        assert (await client.ask(Op.RECV))["messages"] == []
        assert (await client.ask(Op.SEND, to_name="X", message=1))["error"].startswith(
            "target agent not found: X"
        )

    play(scene)


def test_broadcast_reaches_who_registered(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        clients = {name: await world.client(world.agent(name)) for name in "bcd"}
        for name in "bc":
            await clients[name].ask(Op.REGISTER, name=f"name-{name}")
        await client.ask(Op.REGISTER, name="me")
        assert (await client.ask(Op.BROADCAST, message="hi"))["delivered_count"] == 2
        assert (await client.ask(Op.BROADCAST, message="hi", include_self=True))["delivered_count"] == 3
        assert (await clients["d"].ask(Op.RECV))["count"] == 0
        assert (await clients["b"].ask(Op.RECV))["count"] == 2

    play(scene)


def test_messages_that_do_not_fit_one_frame_come_in_the_next(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        boss = await world.client(world.agent("b"))
        for n in range(6):
            assert (await boss.ask(Op.SEND, to_name="a", message=f"{n}" + "x" * 250_000))["success"]
        first, second = await client.ask(Op.RECV, max=6), await client.ask(Op.RECV, max=6)
        told = [one["message"][0] for one in first["messages"] + second["messages"]]
        assert told == list("012345") and 0 < first["count"] < 6

    play(scene)


def test_state(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        for scope in ("global", "agent", "session"):
            told = await client.ask(Op.STORE, key=f"k-{scope}", value={"s": scope}, scope=scope, ttl=60)
            assert told == {"success": True, "key": f"k-{scope}"}
            assert world.doing.asked[-1][1]["ttlSeconds"] == 60
        got = await client.ask(Op.FETCH, key="k-agent")
        assert got["success"] and got["exists"] and got["value"] == {"s": "agent"} and got["scope"] == "agent"
        assert (await client.ask(Op.FETCH, key="nothing"))["exists"] is False
        assert (await client.ask(Op.KEYS, prefix="k-")) == {
            "success": True,
            "keys": ["k-session", "k-agent", "k-global"],
            "count": 3,
        }
        assert (await client.ask(Op.DELETE, key="k-agent"))["deleted"] is True
        assert (await client.ask(Op.DELETE, key="k-agent"))["deleted"] is False
        assert (await client.ask(Op.STORE, key="n", value=None))["success"]
        assert not (await client.ask(Op.STORE, key="n"))["success"]
        assert not (await client.ask(Op.STORE, key="n", value=1, scope="world"))["success"]

    play(scene)
