"""Clients of MCP that nobody here wrote, in a jail, at the agent's own /mcp: the official ones, and the inspector.

They come from the indexes that this machine's own pip and npm know; a machine without them says so.
"""

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest

from tests.flows import household
from tests.flows.household import Space, agent, python
from tests.flows.test_tools import command, granted

pytestmark = household.needs

PYTHON_CLIENT = "mcp==2.3.0"
NODE_CLIENT = "@modelcontextprotocol/sdk@1.32.2"
INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}

IN_PYTHON = """
import asyncio, json, mcp
async def main(mode):
    async with mcp.Client("http://127.0.0.1:8700/mcp", mode=mode) as client:
        tools = [one.name for one in (await client.list_tools()).tools]
        said = await client.call_tool("echo", {"text": "hello"})
        refused = await client.call_tool("echo", {"text": "a secret"})
        print(json.dumps([client.protocol_version, tools, said.content[0].text.strip(), refused.is_error,
                          refused.content[0].text.split(":")[0]]), flush=True)
for mode in ("legacy", "auto"):
    asyncio.run(main(mode))
"""
IN_NODE = """
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
const client = new Client({ name: "test", version: "1" });
await client.connect(new StreamableHTTPClientTransport(new URL("http://127.0.0.1:8700/mcp")));
const tools = (await client.listTools()).tools.map((one) => one.name);
const said = await client.callTool({ name: "echo", arguments: { text: "hello" } });
const refused = await client.callTool({ name: "echo", arguments: { text: "a secret" } });
console.log(JSON.stringify([tools, said.content[0].text.trim(), refused.isError]));
await client.close();
"""
LISTENING = """
import json, urllib.request
url = "http://127.0.0.1:8700/mcp"
def ask(method, **params):
    told = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    request = urllib.request.Request(url, json.dumps(told).encode(), headers)
    return json.load(urllib.request.urlopen(request))["result"]
ask("tools/list")
(skill,) = ask("resources/list")["resources"]
print(ask("resources/read", uri=skill["uri"])["contents"][0]["text"].splitlines()[-1], flush=True)
with urllib.request.urlopen(urllib.request.Request(url, headers={"accept": "text/event-stream"})) as events:
    print("listening", flush=True)
    for line in events:
        if line.startswith(b"data: "):
            print(line[6:].decode().strip(), flush=True)
            break
"""
GRANT = [
    {"ref": {"name": "echo"}, "arguments": [{"argument": "text", "deny": ["*secret*"]}]},
    *granted("other"),
]
ROOM = {"limits": {"cpu": "2", "memory": "512Mi", "pids": 128}}


def got_by_pip(what: str) -> None:
    options = ["--no-deps", "--retries", "1", "--dry-run", "--ignore-installed", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, what], capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        pytest.skip(f"this machine's own pip does not get {what}: {done.stderr.strip()[-300:]}")


def got_by_npm(what: str) -> None:
    if not shutil.which("npm", path="/usr/local/bin:/usr/bin:/bin"):
        pytest.skip("no npm below /usr")
    done = subprocess.run(["npm", "view", what, "version"], capture_output=True, text=True, timeout=300)
    if done.returncode or not done.stdout.strip():
        pytest.skip(f"this machine's own npm does not get {what}: {done.stderr.strip()[-300:]}")


def packaged(space: Space, name: str) -> None:
    """Returns once its packages are made: each stage has its own time, for they take longest on a slow machine."""
    stages = [None, "", "EnvironmentResolving", "EnvironmentFetching", "EnvironmentInstalling"]
    for passed in range(3, len(stages) + 1):
        before = stages[:passed]
        space.until(
            name,
            lambda status, before=before: (
                status.get("phase", "Pending") != "Pending" or status.get("reason") not in before
            ),
        )


def tools(space: Space) -> None:
    space.apply(
        command("echo", "printf", "%s", "{text}", parameters=TEXT, description="Says it again."),
        command("other", "true"),
        command("ungranted", "true"),
    )


def test_a_client_in_a_jail_reads_skills_and_hears_that_its_tools_changed(space: Space) -> None:
    """Without packages: what a client reads of the wire."""
    tools(space)
    text = "---\nname: counting\ndescription: Counts.\n---\n# Count"
    source = {"inline": {"files": {"SKILL.md": text}}}
    counting = household.manifest("Skill", "counting", spec={"description": "Counts.", "source": source})
    space.apply(counting, python("a", LISTENING, tools=GRANT, skills={"use": [{"name": "counting"}]}))
    space.logged("a", "listening")
    assert space.log("a")[0] == "# Count"
    space.apply(command("ungranted", "false"))
    space.apply(command("echo", "printf", "%s!", "{text}", parameters=TEXT, description="Says it louder."))
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", space.log("a")
    assert json.loads(space.log("a")[-1]) == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


def test_the_official_python_client_in_both_eras(space: Space) -> None:
    got_by_pip(PYTHON_CLIENT)
    tools(space)
    wanted = {"python": {"requirements": [PYTHON_CLIENT]}}
    space.apply(python("a", IN_PYTHON, tools=GRANT, environment=wanted, resources=ROOM))
    packaged(space, "a")
    space.phase("a", "Succeeded", "Failed")
    told = [json.loads(line) for line in space.log("a")]
    same: list[Any] = [["echo", "other"], "hello", True, "PolicyDenied"]
    assert told == [["2025-11-25", *same], ["2026-07-28", *same]]


def test_the_official_typescript_client_and_the_inspector(space: Space) -> None:
    got_by_npm(NODE_CLIENT)
    got_by_npm(INSPECTOR)
    tools(space)
    inspect = "mcp-inspector --cli http://127.0.0.1:8700/mcp --transport http"
    script = f"""
        {inspect} --method tools/list
        {inspect} --method tools/call --tool-name echo --tool-arg text=hello
    """
    # One environment for both: packages take longest here.
    more = {
        "environment": {"node": {"packages": [NODE_CLIENT, INSPECTOR]}},
        "tools": GRANT,
        "resources": ROOM,
    }
    space.apply(
        agent("a", "node", "--input-type=module", "-e", IN_NODE, **more),
        agent("b", "sh", "-ec", script, **more),
    )
    packaged(space, "a")
    space.phase("a", "Succeeded", "Failed")
    assert [json.loads(line) for line in space.log("a")] == [[["echo", "other"], "hello", True]]
    space.phase("b", "Succeeded", "Failed")
    said = "\n".join(space.log("b"))
    assert '"name": "echo"' in said and '"text": "hello"' in said and "ungranted" not in said, said
