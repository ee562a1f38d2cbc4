"""`agentk mcp serve`, driven by the official client as an editor would; `agentk import` of an editor's file."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mcp
from mcp.client.stdio import StdioServerParameters

from agentk.api import kinds
from agentk.cli import version
from tests.flows import household
from tests.flows.household import Space, manifest, shell
from tests.flows.test_mcp_clients import INSPECTOR, got_by_npm
from tests.flows.test_mcp_servers import server
from tests.flows.test_tasks import BEGIN, shape, tasks
from tests.flows.test_tools import agents

pytestmark = household.needs


def ended(space: Space) -> dict[str, str]:
    return {
        one["metadata"]["name"].rpartition("-")[0]: one["status"].get("phase", "") for one in tasks(space)
    }


def program(space: Space, *options: str) -> StdioServerParameters:
    args = ["-m", "agentk.cli.main", "mcp", "serve", "-n", space.name, *options]
    return StdioServerParameters(command=sys.executable, args=args, env=dict(space.home.environment))


def editor(space: Space, work: Any, *options: str) -> None:
    async def whole() -> None:
        async with asyncio.timeout(300), mcp.Client(program(space, *options)) as client:
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
        assert client.server_info is not None and client.server_info.version == version.ours()
        assert {"get", "apply", "run", "logs", "call_tool", "delete", "explain"} <= names
        wrong, text = await said(client, "apply", manifests=household.text(shell("a", "echo hello")))
        assert not wrong and "agent.agentk.dev/a created" in text
        await asyncio.to_thread(space.phase, "a", "Succeeded")
        assert "hello" in (await said(client, "logs", agent="a"))[1]
        louder = household.text(shell("a", "echo LOUDER"))
        for manifests, differs in ((louder, True), (household.text(shell("a", "echo hello")), False)):
            wrong, text = await said(client, "diff", manifests=manifests)
            assert not wrong and ("LOUDER" in text) is differs, text
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
        host = {"name": "h", "hostPath": {"path": "/"}}
        key = {"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
        text = {"name": "x", "path": "/etc/hostname"}
        for more in ({"source": {"path": "/etc"}}, {"volumes": [host]}, {"env": [key]}, {"context": [text]}):
            wrong, text = await said(client, "apply", manifests=household.text(shell("c", "true", **more)))
            assert wrong and "a person" in text
        for wrongly, why in (("kind: Agent\nfoo: 1", "agentk.dev/v1alpha1"), ("kind: Pod", "unknown kind")):
            wrong, told = await said(client, "apply", manifests=wrongly)
            assert wrong and why in told
        loose = manifest("Policy", "loose", spec={"level": "privileged"})
        assert "every namespace" in (await said(client, "apply", manifests=household.text(loose)))[1]
        assert "every namespace" in (await said(client, "delete", kind="namespace", name="default"))[1]

    editor(space, work)


def test_an_editor_gives_work_is_told_of_progress_and_takes_it_back(space: Space) -> None:
    double = (
        BEGIN + 'print("at work", flush=True)\nagent.exit(result={"twice": task["n"] * 2})\ntime.sleep(1000)'
    )
    space.apply(
        shape("double", double), shape("slow", 'import time\nprint("begun", flush=True)\ntime.sleep(1000)')
    )

    async def work(client: mcp.Client) -> None:
        heard: list[str] = []

        async def progress(done: float, total: float | None, text: str | None) -> None:
            heard.append(text or "")

        told = await client.call_tool(
            "run_task", {"agent": "double", "input": {"n": 3}}, progress_callback=progress
        )
        assert json.loads(told.content[0].text)["result"] == {"twice": 6}, told  # type: ignore[union-attr]
        assert not told.is_error and "at work" in heard
        wrong, text = await said(client, "run_task", agent="none", input="x")
        assert wrong and "none" in text
        begun = asyncio.Event()

        async def hears(done: float, total: float | None, text: str | None) -> None:
            if text == "begun":
                begun.set()

        call = asyncio.create_task(
            client.call_tool("run_task", {"agent": "slow"}, progress_callback=hears), name="a call"
        )
        await begun.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        sleeper = household.text(shell("once", "sleep 1000", terminationGracePeriodSeconds=1))
        run = asyncio.create_task(client.call_tool("run", {"agent": sleeper}), name="a run")
        there = "the run is there", lambda: "once" in agents(space)
        await asyncio.to_thread(household.until, *there)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        gone = "the run is gone", lambda: "once" not in agents(space)
        await asyncio.to_thread(household.until, *gone)
        phases = (
            "the one is done, the other given up",
            lambda: ended(space) == {"double": "Succeeded", "slow": "Cancelled"},
        )
        await asyncio.to_thread(household.until, *phases)

    editor(space, work)


def test_an_editor_that_goes_away_leaves_no_work_behind(space: Space) -> None:
    space.apply(shape("slow", 'import time\nprint("begun", flush=True)\ntime.sleep(1000)'))

    async def whole() -> None:
        begun = asyncio.Event()

        async def hears(done: float, total: float | None, text: str | None) -> None:
            if text == "begun":
                begun.set()

        async with asyncio.timeout(300), mcp.Client(program(space)) as client:
            call = client.call_tool("run_task", {"agent": "slow"}, progress_callback=hears)
            waiting = asyncio.create_task(call, name="a call nobody takes back")
            await begun.wait()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(whole())
    household.until("its work is given up", lambda: ended(space) == {"slow": "Cancelled"})


def test_the_inspector_of_npm_gives_work_too(space: Space) -> None:
    got_by_npm(INSPECTOR)
    space.apply(shape("quick", BEGIN + "agent.exit(result=task + 1)\ntime.sleep(1000)"))
    told = [f"{name}={space.home.environment[name]}" for name in ("AGENTK_STATE_DIR", "AGENTK_RUN_DIR")]
    server = ["env", *told, sys.executable, "-m", "agentk.cli.main", "mcp", "serve", "-n", space.name]
    inspect = [
        "npm",
        "exec",
        "--yes",
        "--ignore-scripts",
        f"--package={INSPECTOR}",
        "--",
        "mcp-inspector",
        "--cli",
    ]
    call = [
        "--method",
        "tools/call",
        "--tool-name",
        "run_task",
        "--tool-arg",
        "agent=quick",
        "--tool-arg",
        "input=41",
    ]
    done = subprocess.run(
        [*inspect, *server, *call], env=space.home.environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (block,) = json.loads(done.stdout)["content"]
    assert json.loads(block["text"])["result"] == 42


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
