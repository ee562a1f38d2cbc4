"""What the AgentOS dialect tells of agents: events, recordings, audit, metrics; and what it refuses."""

import asyncio
import json
from typing import Any

import pytest

from agentk.broker.dialects.agentos_words import Op
from tests.broker.agentos_client import Client
from tests.broker.agentos_world import World


def test_events(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        await client.ask(Op.EMIT, event_type="CUSTOM", data={"before": True})
        assert (await client.ask(Op.POLL_EVENTS))["count"] == 0
        told = await client.ask(Op.SUBSCRIBE, event_types=["CUSTOM", "AGENT_SPAWNED"])
        assert told == {"success": True, "subscribed": ["CUSTOM", "AGENT_SPAWNED"]}
        assert await client.ask(Op.EMIT, event="CUSTOM", data={"n": 1}) == {
            "success": True,
            "event": "CUSTOM",
        }
        world.doing.events.append(
            {
                "id": next(world.doing.ids),
                "type": "agent.spawned",
                "source": "default/a",
                "time": "2026-01-01T00:00:00Z",
            }
        )
        await client.ask(Op.EMIT, event_type="OTHER")
        got = await client.ask(Op.POLL_EVENTS, max=10)
        assert [(one["type"], one["data"]) for one in got["events"]] == [
            ("CUSTOM", {"n": 1}),
            ("AGENT_SPAWNED", None),
        ]
        assert got["events"][0]["source_agent_id"] == client.agent_id
        assert (await client.ask(Op.POLL_EVENTS))["count"] == 0
        assert (await client.ask(Op.UNSUBSCRIBE, event="CUSTOM"))["unsubscribed"] == ["CUSTOM"]
        await client.ask(Op.EMIT, data={"n": 2})
        assert (await client.ask(Op.POLL_EVENTS))["count"] == 0

    play(scene)


def test_async_requests_are_answered_at_once_and_polled(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        world.doing.hold.clear()
        accepted = await client.ask(Op.THINK, {"prompt": "x", "async": True, "request_id": 7})
        assert accepted == {"success": True, "async": True, "request_id": 7, "status": "accepted"}
        own = await client.ask(Op.EXEC, {"command": "x", "async": True})
        assert own["request_id"] == 1
        assert (await client.ask(Op.ASYNC_POLL))["count"] == 0
        world.doing.hold.set()
        got: list[Any] = []
        while len(got) < 2:
            got += (await client.ask(Op.ASYNC_POLL, max=1))["results"]
        by_id = {one["request_id"]: one for one in got}
        assert by_id[7]["opcode_name"] == "THINK" and json.loads(by_id[7]["payload"])["content"] == "42"
        assert by_id[1]["opcode"] == Op.EXEC and json.loads(by_id[1]["payload"])["success"]

    play(scene)


def test_async_requests_are_bounded_and_end_with_their_connection(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        world.doing.hold.clear()
        told = [await client.ask(Op.EXEC, {"command": "x", "async": True}) for _ in range(70)]
        assert [one["success"] for one in told] == [True] * 64 + [False] * 6
        for _ in range(64):
            await world.doing.held.get()
        await client.close()
        again = await world.client("uid-default-a")
        while [one for one in world.records() if one[2] == "cancelled"] != [("a", "exec", "cancelled")] * 64:
            await again.raw(Op.NOOP)

    play(scene)


def test_kill_of_one_does_not_delay_another(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        world.doing.hold.clear()
        slow = asyncio.create_task(client.ask(Op.EXEC, command="x"))
        await world.doing.held.get()
        other = await world.client("uid-default-a")
        assert await other.raw(Op.NOOP, b"x") == b"x"
        world.doing.hold.set()
        assert (await slow)["success"]

    play(scene)


def test_recordings(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        assert (await client.ask(Op.RECORD_STATUS))["state"] == "IDLE"
        assert (await client.ask(Op.RECORD_START, include_think=True, max_entries=100))["recording"] is True
        await client.ask(Op.STORE, key="k", value='1"')
        await client.ask(Op.THINK, prompt="x")
        await client.ask(Op.EXEC, command="x")  # not asked for
        status = await client.ask(Op.RECORD_STATUS, export=True)
        assert (status["state"], status["entry_count"], status["last_sequence_id"]) == ("RECORDING", 2, 2)
        entries = json.loads(status["recording"])
        assert [one["opcode_name"] for one in entries] == ["STORE", "THINK"]
        assert (await client.ask(Op.RECORD_STOP))["entries_recorded"] == 2
        world.doing.state.clear()
        assert (await client.ask(Op.REPLAY_START, recording=status["recording"]))["total_entries"] == 2
        while (told := await client.ask(Op.REPLAY_STATUS))["state"] == "RUNNING":
            pass
        assert (told["state"], told["entries_replayed"], told["entries_skipped"]) == ("COMPLETED", 1, 1)
        assert (await client.ask(Op.FETCH, key="k"))["value"] == '1"'
        assert not (await client.ask(Op.REPLAY_START, recording="nonsense"))["success"]
        assert (await client.ask(Op.REPLAY_START, recording_data=[]))["success"]

    play(scene)


def test_audit_tells_what_was_done_and_what_was_denied(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        await client.ask(Op.STORE, key="k", value=1)
        await client.ask(Op.EXEC, command="x")
        got = await client.ask(Op.GET_AUDIT_LOG, limit=50)
        assert got["success"] and {one["category"] for one in got["entries"]} == {"STATE_STORE", "SYSCALL"}
        entry = got["entries"][0]
        assert entry["agent_id"] == client.agent_id and entry["agent_name"] == "a" and entry["success"]
        later = await client.ask(Op.GET_AUDIT_LOG, since_id=got["entries"][-1]["id"])
        assert later["count"] == 0
        only = await client.ask(Op.GET_AUDIT_LOG, category="STATE_STORE", limit=1)
        assert [one["event_type"] for one in only["entries"]] == ["state.put"]
        world.agent("r", policy_name="restricted")
        denied = await world.client("uid-default-r")
        assert (await denied.ask(Op.EXEC, command="x"))["code"] == "PolicyDenied"
        told = (await denied.ask(Op.GET_AUDIT_LOG))["entries"]
        assert [(one["category"], one["event_type"]) for one in told] == [("SECURITY", "SYSCALL_BLOCKED")]
        assert (await client.ask(Op.SET_AUDIT_CONFIG, log_ipc=True))["config"]["log_ipc"]
        assert not (await client.ask(Op.SET_AUDIT_CONFIG, log_ipc=False))["success"]

    play(scene)


def test_metrics(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        world.agent("child", owner="uid-default-a")
        system = (await client.ask(Op.METRICS_SYSTEM))["metrics"]
        assert (
            system["memory"]["total"] == 2**30
            and system["memory"]["used"] == 1000
            and system["cpu"]["count"] == 2
        )
        own = (await client.ask(Op.METRICS_AGENT, agent_id=client.agent_id))["metrics"]
        assert own["name"] == "a" and own["cgroup"]["memory"]["peak"] == 2000 and own["sandboxed"]
        everyone = await client.ask(Op.METRICS_ALL_AGENTS)
        assert everyone["count"] == 2 and {one["name"] for one in everyone["agents"]} == {"a", "child"}
        group = (await client.ask(Op.METRICS_CGROUP))["metrics"]
        assert group["valid"] and group["cpu"]["quota_usec"] == 200_000 and group["pids"]["max"] == 100
        assert not (await client.ask(Op.METRICS_CGROUP, cgroup_path="/"))["success"]

    play(scene)


def test_a_report_of_tokens_changes_nothing(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        told = await client.ask(Op.LLM_REPORT, tokens=10**9, success=True)
        assert told == {"success": True, "tokens": 10**9, "quota_exceeded": False}
        assert world.records() == []

    play(scene)


@pytest.mark.parametrize("opcode", [0x05, 0x13, 0x51, 0x75, 0xA0, 0xA8, 0xB0, 0xB4, 0xEE])
def test_what_means_nothing_here_says_so(play: Any, opcode: int) -> None:
    async def scene(world: World, client: Client) -> None:
        told = await client.ask(opcode, {"name": "x"})
        assert told["success"] is False and told["error"]
        assert await client.raw(Op.NOOP, b"x") == b"x"

    play(scene)


@pytest.mark.parametrize(
    "payload", [b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}', b"9" * 5000, b"null"]
)
def test_payloads_that_are_no_object_are_told(play: Any, payload: bytes) -> None:
    async def scene(world: World, client: Client) -> None:
        for opcode in (op for op in Op if op not in (Op.NOOP, Op.THINK, Op.EXIT)):
            told = json.loads(await client.raw(opcode, payload))
            assert told["success"] is False and "payload" in told["error"]

    play(scene)


def test_of_an_agent_that_is_gone_every_call_is_refused(play: Any) -> None:
    async def scene(world: World, client: Client) -> None:
        assert await client.raw(Op.NOOP, b"x") == b"x"
        world.gone("uid-default-a")
        for opcode in (Op.NOOP, Op.THINK, Op.LIST, Op.HELLO):
            assert json.loads(await client.raw(opcode, b"{}"))["code"] == "Forbidden"

    play(scene)
