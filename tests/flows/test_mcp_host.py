"""`agentk mcp serve`, driven by the official client as an editor would; `agentk import` of an editor's file."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import mcp
from mcp.client.stdio import StdioServerParameters

from agentk.api import kinds
from tests.flows import household
from tests.flows.household import Space, manifest, shell
from tests.flows.test_mcp_servers import server

pytestmark = household.needs


def editor(space: Space, work: Any, *options: str) -> None:
    async def whole() -> None:
        args = ["-m", "agentk.cli.main", "mcp", "serve", "-n", space.name, *options]
        started = StdioServerParameters(command=sys.executable, args=args, env=dict(space.home.environment))
        async with asyncio.timeout(300), mcp.Client(started) as client:
            await work(client)

    asyncio.run(whole())


async def said(client: mcp.Client, verb: str, /, **arguments: Any) -> tuple[bool, str]:
    result = await client.call_tool(verb, arguments)
    return bool(result.is_error), result.content[0].text  # type: ignore[union-attr]


def test_an_editor_applies_runs_looks_and_calls_but_reads_no_secret(space: Space) -> None:
    space.apply(manifest("Secret", "s", stringData={"k": "editor-secret-value"}), server("tiny"))
    text = "---\nname: counting\ndescription: Counts.\n---\n# Count\n"
    source = {"inline": {"files": {"SKILL.md": text}}}
    space.apply(manifest("Skill", "counting", spec={"description": "Counts.", "source": source}))

    async def work(client: mcp.Client) -> None:
        names = {one.name for one in (await client.list_tools()).tools}
        assert {"get", "apply", "run", "logs", "call_tool", "delete", "explain"} <= names
        wrong, text = await said(client, "apply", manifests=household.text(shell("a", "echo hello")))
        assert not wrong and "agent.agentk.dev/a created" in text
        await asyncio.to_thread(space.phase, "a", "Succeeded")
        assert "hello" in (await said(client, "logs", agent="a"))[1]
        assert "phase: Succeeded" in (await said(client, "get", kind="agent", name="a"))[1]
        wrong, text = await said(client, "run", agent=household.text(shell("b", "echo ran; exit 3")))
        assert wrong and "ran" in text
        wrong, text = await said(client, "call_tool", tool="tiny/echo", arguments={"x": 1})
        assert not wrong and '{\\"x\\": 1}' in json.dumps(text), text
        wrong, text = await said(client, "read_skill", skill="counting")
        assert not wrong and "# Count" in text and "SKILL.md" in text
        for kind in ("secret", "secrets", "Secret", "approvals"):
            wrong, text = await said(client, "get", kind=kind, name="s")
            assert wrong and "for a person" in text
        for bad in ("--all-namespaces", "-A"):
            assert (await said(client, "get", kind=bad))[0]
        secret = household.text(manifest("Secret", "t", stringData={"k": "x"}))
        assert (await said(client, "apply", manifests=secret))[0]
        packed = shell("c", "true", source={"path": "/etc"})
        assert "inline" in (await said(client, "apply", manifests=household.text(packed)))[1]

    editor(space, work)


def test_one_that_only_looks_is_offered_nothing_else(space: Space) -> None:
    async def work(client: mcp.Client) -> None:
        tools = (await client.list_tools()).tools
        assert {one.name for one in tools}.isdisjoint({"apply", "delete", "run", "call_tool"})
        assert all(one.annotations and one.annotations.read_only_hint for one in tools)

    editor(space, work, "--read-only")


def test_an_editors_file_becomes_tools(space: Space, tmp_path: Path) -> None:
    file = tmp_path / ".mcp.json"
    far = {
        "type": "http",
        "url": "https://far.example/mcp",
        "headers": {"Authorization": "Bearer secret-of-far"},
    }
    near = {"command": "npx", "args": ["-y", "@a/b@1.2.3", "/workspace"], "env": {"LEVEL": "1"}}
    file.write_text(
        json.dumps({"mcpServers": {"far": far, "near": near, "old": {"type": "sse", "url": "x"}}})
    )
    ran = space.agentk("import", str(file), "--apply", "--with-secrets", code=1)
    assert ran.lines == [
        "secret/far created",
        "tool.agentk.dev/far created",
        "tool.agentk.dev/near created",
    ]
    assert "error: old: it speaks the older" in ran.err and "secret-of-far" not in ran.out + ran.err
    assert space.get("near", kinds.TOOL)["spec"]["mcp"]["stdio"]["package"] == {"npm": "@a/b@1.2.3"}
