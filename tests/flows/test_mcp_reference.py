"""The reference servers, which nobody here wrote: fetched once from npm and PyPI, run in jails without a network.

A machine whose own pip or npm does not get them says so.
"""

import json
import socket

from tests.flows import household
from tests.flows.household import Object, Space, agent
from tests.flows.test_mcp_clients import got_by_npm, got_by_pip, packaged
from tests.flows.test_mcp_servers import status
from tests.flows.test_tools import call, granted, tool

pytestmark = household.needs

NPM = "2026.8.31"
JAIL = {"resources": {"limits": {"cpu": "2", "memory": "512Mi", "pids": 64, "ephemeral-storage": "16Mi"}}}


def npm(name: str, *args: str, **env: str) -> Object:
    package = f"@modelcontextprotocol/server-{name}@{NPM}"
    got_by_npm(package)
    told = [{"name": key, "value": value} for key, value in env.items()]
    stdio = {"package": {"npm": package}, "args": list(args), "env": told}
    return tool(name, mcp={"stdio": stdio}, jail=JAIL)


def pypi(name: str, version: str, *args: str) -> Object:
    package = f"mcp-server-{name}=={version}"
    got_by_pip(package)
    return tool(name, mcp={"stdio": {"package": {"pypi": package}, "args": list(args)}}, jail=JAIL)


def listed(space: Space, name: str) -> set[str]:
    """What its server offers, once its packages are made."""
    asked = ("tool.list", {"limit": 100})
    for attempt in range(20):
        told = call(space, granted(name), asked, name=f"list-{name}-{attempt}")[0]
        if not told[1]:
            return {one.partition("__")[2] for one in told[0]}
    raise AssertionError(told)


def test_filesystem_memory_and_everything_from_npm(space: Space) -> None:
    space.apply(
        npm("filesystem", "/workspace"), npm("memory", MEMORY_FILE_PATH="/workspace/m"), npm("everything")
    )
    assert {"read_text_file", "write_file", "list_directory"} <= listed(space, "filesystem")
    assert {"create_entities", "read_graph"} <= listed(space, "memory")
    assert {"echo", "get-sum"} <= listed(space, "everything")
    ada = {"name": "Ada", "entityType": "person", "observations": ["wrote programs"]}
    told = call(
        space,
        granted("filesystem", "memory", "everything"),
        ("filesystem__write_file", {"path": "/workspace/a.txt", "content": "kept"}),
        ("filesystem__read_text_file", {"path": "/workspace/a.txt"}),
        ("filesystem__read_text_file", {"path": "/etc/passwd"}),
        ("memory__create_entities", {"entities": [ada]}),
        ("memory__search_nodes", {"query": "programs"}),
        ("everything__echo", {"message": "hello"}),
        ("everything__get-sum", {"a": 2, "b": 3}),
        ("everything__get-env", {}),
    )
    assert "Successfully wrote" in told[0][1] and told[1][1] == "kept"
    assert told[2][0] is True and "denied" in told[2][1]
    assert "Ada" in told[4][1] and "hello" in told[5][1] and "5" in told[6][1]
    env = json.loads(told[7][1])
    assert "AGENTK_SOCKET" in env and not [name for name in env if "TOKEN" in name or "PASSWORD" in name]
    package = status(space, "filesystem")["package"]
    assert package["packages"] > 10 and all(" sha" in line or "#sha" in line for line in package["lock"])


def test_git_and_time_from_pypi(space: Space) -> None:
    space.apply(pypi("git", "2026.10.19"), pypi("time", "2026.10.19"))
    assert {"git_status", "git_log", "git_init"} & listed(space, "git") >= {"git_status", "git_log"}
    assert listed(space, "time") == {"get_current_time", "convert_time"}
    told = call(
        space,
        granted("git", "time"),
        (
            "time__convert_time",
            {"source_timezone": "Europe/Lisbon", "time": "12:00", "target_timezone": "Asia/Tokyo"},
        ),
        ("git__git_status", {"repo_path": "/workspace"}),
    )
    assert "Asia/Tokyo" in told[0][1]
    assert told[1][0] is True  # it is no repository, and the server says so


def test_a_reference_server_behind_streamable_http(space: Space) -> None:
    """In an agent's box, reached through a port of this machine's loopback."""
    package = f"@modelcontextprotocol/server-everything@{NPM}"
    got_by_npm(package)
    port = free_port()
    far = agent(
        "far",
        "mcp-server-everything",
        "streamableHttp",
        environment={"node": {"packages": [package]}},
        env=[{"name": "PORT", "value": "3001"}],
        ports=[{"name": "mcp", "containerPort": 3001, "hostPort": port}],
        **JAIL,
    )
    http = {"url": f"http://127.0.0.1:{port}/mcp", "privateAddresses": True}
    space.apply(far, tool("everything", mcp={"http": http}))
    packaged(space, "far")
    space.running("far")
    assert {"echo", "get-sum"} <= listed(space, "everything")
    told = call(space, granted("everything"), ("everything__echo", {"message": "from afar"}))
    assert "from afar" in told[0][1]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
