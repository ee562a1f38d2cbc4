"""SET_PERMS: rights go down and never up, and what is spawned is bound by them too."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors
from agentk.broker import policy
from agentk.broker.dialects.agentos_rights import CUTS_MAX, FLAGS, Rights
from agentk.broker.dialects.agentos_words import Asked, Op
from agentk.broker.words import Guest
from tests.broker.agentos_client import Client
from tests.broker.agentos_world import World

LEVELS = ("unrestricted", "standard", "sandboxed", "readonly", "minimal")
BASELINE = policy.read("baseline", {"level": "baseline"})
GUEST = Guest("u", "default", "a", 1, "u-1", "u-1", parents=("p",))
PARENT = Guest("p", "default", "p", 1, "p-1", "p-1")


def rights() -> Rights:
    return Rights(lambda guest: BASELINE, lambda uid: True)


def run(
    folder: Path, scene: Callable[[World, Client], Awaitable[None]], policy_name: str = "baseline"
) -> None:
    async def whole() -> None:
        world = World(folder)
        try:
            world.agent("a", policy_name=policy_name)
            await asyncio.wait_for(scene(world, await world.client("uid-default-a")), 60)
        finally:
            await world.close()

    asyncio.run(whole())


def test_what_the_policy_allows_is_what_there_is_at_first(tmp_path: Path) -> None:
    async def scene(world: World, client: Client) -> None:
        told = (await client.ask(Op.GET_PERMS, {}))["permissions"]
        assert all(told[flag] for flag in FLAGS)
        assert told["llm"] == {"max_tokens": 0, "max_calls": 0, "tokens_used": 0, "calls_made": 0}

    run(tmp_path, scene)


def test_a_policy_is_not_widened(tmp_path: Path) -> None:
    async def scene(world: World, client: Client) -> None:
        told = (await client.ask(Op.GET_PERMS, {}))["permissions"]
        assert [flag for flag in FLAGS if told[flag]] == ["can_think"]
        for asked in ({"level": "standard"}, {"permissions": {"can_exec": True}}):
            refused = await client.ask(Op.SET_PERMS, asked)
            assert refused["success"] is False and "only be lowered" in refused["error"]
        assert (await client.ask(Op.EXEC, command="x"))["success"] is False

    run(tmp_path, scene, "restricted")


def test_what_was_given_up_is_gone_also_on_another_connection(tmp_path: Path) -> None:
    async def scene(world: World, client: Client) -> None:
        world.doing.files["/f"] = "text"
        assert (await client.ask(Op.SET_PERMS, level="readonly"))["agent_id"] == client.agent_id
        again = await world.client("uid-default-a")
        for one in (client, again):
            assert (await one.ask(Op.READ, path="/f"))["content"] == "text"
            for opcode, asked in (
                (Op.EXEC, {"command": "x"}),
                (Op.WRITE, {"path": "/f", "content": ""}),
                (Op.HTTP, {"url": "https://example.com"}),
                (Op.SPAWN, {"name": "c", "script": "/f"}),
            ):
                told = await one.ask(opcode, asked)
                assert told["success"] is False and "permission denied" in told["error"]
        assert (await again.ask(Op.SET_PERMS, level="standard"))["success"] is False
        assert (await again.ask(Op.SET_PERMS, permissions={"can_exec": True}))["success"] is False

    run(tmp_path, scene)


def test_a_parent_lowers_its_child_and_its_child_inherits(tmp_path: Path) -> None:
    async def scene(world: World, client: Client) -> None:
        child = await world.client(world.agent("c", owner="uid-default-a"))
        await child.raw(Op.NOOP)
        told = await client.ask(Op.SET_PERMS, agent_id=child.agent_id, permissions={"can_exec": False})
        assert told["success"] and told["agent_id"] == child.agent_id
        assert (await child.ask(Op.EXEC, command="x"))["success"] is False
        assert (await client.ask(Op.EXEC, command="x"))["success"] is True
        assert (await child.ask(Op.SET_PERMS, agent_id=client.agent_id, level="minimal"))["success"] is False
        await client.ask(Op.SET_PERMS, level="minimal")
        assert (await child.ask(Op.HTTP, url="https://example.com"))["success"] is False

    run(tmp_path, scene)


def test_the_budget_of_a_lowered_model_use_is_held(tmp_path: Path) -> None:
    async def scene(world: World, client: Client) -> None:
        await client.ask(Op.SET_PERMS, permissions={"llm": {"max_tokens": 10, "max_calls": 5}})
        assert (await client.ask(Op.THINK, prompt="x"))["tokens"] == 7
        assert (await client.ask(Op.THINK, prompt="x"))["success"]
        assert world.doing.asked[-1][1]["maxTokens"] == 3
        assert "max_tokens" in (await client.ask(Op.THINK, prompt="x"))["error"]
        told = (await client.ask(Op.GET_PERMS, {}))["permissions"]["llm"]
        assert told == {"max_tokens": 10, "max_calls": 5, "tokens_used": 14, "calls_made": 2}
        await client.ask(Op.SET_PERMS, permissions={"max_exec_time_ms": 500})
        await client.ask(Op.EXEC, command="x", timeout=9)
        assert world.doing.asked[-1][1]["timeoutSeconds"] == 0.5

    run(tmp_path, scene)


@pytest.mark.parametrize(
    ("permissions", "opcode", "asked", "allowed"),
    [
        ({"filesystem": {"read": ["/workspace/*"]}}, Op.READ, {"path": "a"}, True),
        ({"filesystem": {"read": ["/workspace/*"]}}, Op.READ, {"path": "../etc/passwd"}, False),
        ({"filesystem": {"write": []}}, Op.WRITE, {"path": "a"}, False),
        ({"filesystem": {"blocked": ["/workspace/.git/*"]}}, Op.WRITE, {"path": "x/../.git/config"}, False),
        ({"blocked_commands": ["rm -rf"]}, Op.EXEC, {"command": "cd / && rm -rf ."}, False),
        ({"blocked_commands": ["rm -rf"]}, Op.EXEC, {"command": "ls"}, True),
        ({"exec": ["ls", "cat"]}, Op.EXEC, {"command": "ls -l '/a b'"}, True),
        ({"exec": ["ls"]}, Op.EXEC, {"command": "ls; id"}, False),
        ({"exec": ["ls"]}, Op.EXEC, {"command": "ls $(id)"}, False),
        ({"exec": ["*"]}, Op.EXEC, {"command": "id"}, True),
        ({"network": ["*.example.com"]}, Op.HTTP, {"url": "https://a.example.com/x"}, True),
        ({"network": ["*.example.com"]}, Op.HTTP, {"url": "https://evil-example.com"}, False),
        ({"network": []}, Op.HTTP, {"url": "https://a.example.com"}, False),
        ({"http_methods": ["get"]}, Op.HTTP, {"url": "https://a.b", "method": "POST"}, False),
        ({"http_methods": ["get"]}, Op.HTTP, {"url": "https://a.b"}, True),
    ],
)
def test_lists(permissions: Any, opcode: int, asked: Any, allowed: bool) -> None:
    held = rights()
    held.lower(GUEST, Asked({"permissions": permissions}))
    if allowed:
        held.check(GUEST, opcode, Asked(asked))
    else:
        with pytest.raises(errors.Denied):
            held.check(GUEST, opcode, Asked(asked))


REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "level": st.sampled_from(LEVELS),
        "permissions": st.dictionaries(st.sampled_from(FLAGS), st.booleans()),
    },
)


@given(st.lists(st.tuples(st.sampled_from([GUEST, PARENT]), REQUESTS), max_size=12))
def test_nothing_that_is_asked_ever_widens(asked: list[tuple[Guest, dict[str, Any]]]) -> None:
    held = rights()
    left, above = held.left(GUEST), held.left(PARENT)
    for guest, request in asked:
        try:
            held.lower(guest, Asked(request))
        except errors.AgentkError:
            assert held.left(GUEST) == left
        assert held.left(GUEST) <= left and held.left(PARENT) <= above
        assert held.left(GUEST) <= held.left(PARENT)
        left, above = held.left(GUEST), held.left(PARENT)


def test_cuts_are_bounded_and_those_of_another_attempt_are_over() -> None:
    held = rights()
    for n in range(CUTS_MAX):
        held.lower(GUEST, Asked({"permissions": {"max_exec_time_ms": n + 1}}))
    with pytest.raises(errors.TooManyRequests):
        held.lower(GUEST, Asked({"permissions": {"max_exec_time_ms": 999}}))
    with pytest.raises(errors.TooManyRequests):
        rights().lower(GUEST, Asked({"permissions": {"network": ["a"] * 150, "exec": ["b"] * 150}}))
    again = Guest("u", "default", "a", 2, "u-1", "u-2", parents=("p",))
    held.lower(PARENT, Asked({"level": "minimal"}))
    assert held.left(again) == frozenset({"can_think"})
    assert held.limits(again) == (None, None, None)


def test_a_policy_may_name_the_files_that_are_read_and_written(play: Any) -> None:
    rules = [
        {"name": "notes", "effect": "Allow", "methods": ["exec"], "files": ["/workspace/notes/*", "/tmp/*"]},
        {"name": "not-this", "effect": "Deny", "methods": ["exec"], "files": ["/workspace/notes/key"]},
        {"name": "itself", "effect": "Allow", "methods": ["hello", "noop"]},
    ]

    async def scene(world: World, client: Client) -> None:
        allowed = ["/workspace/notes/a", "notes/a", "/workspace/x/../notes/b", "/tmp/mine"]
        for path in allowed:
            assert (await client.ask(Op.WRITE, path=path, content="text"))["success"], path
        refused = ["/workspace/notes/key", "notes/./key", "/workspace/notes/../secret", "/etc/passwd", "key"]
        for path in refused:
            told = await client.ask(Op.READ, path=path)
            assert not told["success"] and 'Policy "files"' in told["error"], (path, told)
        told = await client.ask(Op.EXEC, command="cat /workspace/notes/a")
        assert not told["success"], "a rule about files says nothing about code"

    play(scene, files={"level": "baseline", "rules": rules})
