"""Programs written for AgentOS run as they are: in a jail, and on the host through `agentk compat agentos`."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentk.api import kinds
from agentk.client import client
from tests.flows import household
from tests.flows.household import Space

pytestmark = household.needs

CLIENT = (Path(__file__).parent / "agentos_client.py").read_text()

WORKER = """
import sys
from agentos import AgentOS

kernel = AgentOS(sys.argv[1])
kernel.raw(0x00)
kernel.ask(0x23, name="worker")
kernel.ask(0x20, to_name="boss", message={"my id": kernel.agent_id})
kernel.ask(0x20, to_name="boss", message={"heard": kernel.receive()["message"]})
kernel.receive(1000)
"""

PROGRAM = """
import json, sys
from agentos import AgentOS

TYPES = ["AGENT_SPAWNED", "AGENT_PAUSED", "CUSTOM", "STATE_CHANGED", "SYSCALL_BLOCKED"]
kernel = AgentOS(*sys.argv[1:])
told = {}
told["echo"] = kernel.raw(0x00, b"hello").decode()
told["hello"] = kernel.ask(0xFE)["protocol_version"]
told["think"] = kernel.ask(0x01, prompt="What is the capital of France?")["content"]
told["exec"] = kernel.ask(0x02, command="echo out; echo err >&2; exit 3")
told["write"] = kernel.ask(0x04, path="notes.txt", content="one")
kernel.ask(0x04, path="notes.txt", content=" two", mode="append")
told["read"] = kernel.ask(0x03, path="notes.txt")
kernel.ask(0x04, path="/tmp/sub/scratch", content="kept")
told["scratch"] = kernel.ask(0x03, path="/tmp/sub/../sub/scratch")["content"]
kernel.ask(0x30, key="k", value={"n": 1}, scope="global")
told["fetch"] = kernel.ask(0x31, key="k")["value"]
told["register"] = kernel.ask(0x23, name="boss")["success"]
told["subscribed"] = kernel.ask(0x60, event_types=TYPES)["success"]
spawned = kernel.ask(0x10, name="worker", script=WORKER, sandboxed=True)
told["spawned"] = {key: spawned.get(key) for key in ("success", "status", "name", "error")}
told["isolated"] = spawned["isolation"]["fully_isolated"]
first = kernel.receive()
told["one id"] = first["message"]["my id"] == first["from_id"] == spawned["id"]
told["from"] = first["from_name"]
told["sent"] = kernel.ask(0x20, to=spawned["id"], message="go")["delivered_to"] == spawned["id"]
told["heard"] = kernel.receive()["message"]
told["paused"] = kernel.ask(0x14, name="worker")["paused"]
kernel.until(lambda: [one["status"] for one in kernel.ask(0x12) if one["name"] == "worker"] == ["paused"])
told["resumed"] = kernel.ask(0x15, id=spawned["id"])["resumed"]
kernel.until(lambda: [one["status"] for one in kernel.ask(0x12) if one["name"] == "worker"] == ["running"])
told["list"] = [(one["name"], one["running"]) for one in kernel.ask(0x12) if one["name"] == "worker"]
kernel.ask(0x63, event_type="CUSTOM", data={"x": 1})
events = kernel.ask(0x62, max=50)["events"]
told["events"] = sorted({one["type"] for one in events})
told["killed"] = kernel.ask(0x11, name="worker")["killed"]
told["gone"] = [one["name"] for one in kernel.ask(0x12) if one["name"] == "worker"]
told["audit"] = "exec" in {one["event_type"] for one in kernel.ask(0x76, limit=100)["entries"]}
told["memory"] = kernel.ask(0xC0)["metrics"]["memory"]["used"] > 0
told["lowered"] = kernel.ask(0x41, level="minimal")["success"]
told["refused"] = kernel.ask(0x02, command="id")["success"]
told["blocked"] = kernel.until(
    lambda: [
        one["data"]["opcode"] for one in kernel.ask(0x62, max=50)["events"] if one["type"] == "SYSCALL_BLOCKED"
    ]
)
told["raised"] = kernel.ask(0x41, level="unrestricted")["success"]
told["bye"] = kernel.raw(0xFF).decode()
print(json.dumps(told), flush=True)
"""

EXPECTED = {
    "echo": "hello",
    "hello": 1,
    "think": "Paris.",
    "exec": {"success": False, "stdout": "out\n", "stderr": "err\n", "exit_code": 3},
    "write": {"success": True, "bytes_written": 3},
    "read": {"success": True, "content": "one two", "size": 7},
    "scratch": "kept",
    "fetch": {"n": 1},
    "register": True,
    "subscribed": True,
    "spawned": {"success": True, "status": "running", "name": "worker", "error": None},
    "isolated": True,
    "one id": True,
    "from": "worker",
    "sent": True,
    "heard": {"heard": "go"},
    "paused": True,
    "resumed": True,
    "list": [["worker", True]],
    "events": ["AGENT_PAUSED", "AGENT_SPAWNED", "CUSTOM", "STATE_CHANGED"],
    "killed": True,
    "gone": [],
    "audit": True,
    "memory": True,
    "lowered": True,
    "refused": False,
    "blocked": ["EXEC"],
    "raised": False,
    "bye": "goodbye",
}
LIMITS = {"cpu": "1", "memory": "256Mi", "pids": 64, "ephemeral-storage": "16Mi"}


def program(script: str) -> str:
    return PROGRAM.replace("WORKER", repr(script))


def route(space: Space) -> None:
    rules = [{"match": {"lastMessage": {"contains": "France"}}, "reply": {"text": "Paris."}}]
    space.apply(household.manifest("ModelRoute", "default", spec={"scripted": {"rules": rules}}))


@household.on_both
@pytest.mark.parametrize("arguments", [[], ["/tmp/clove.sock"], ["/run/agentk/gate.sock"]])
def test_a_program_runs_unmodified_in_a_jail(space: Space, arguments: list[str]) -> None:
    route(space)
    files = {"agentos.py": CLIENT, "main.py": program("worker.py"), "worker.py": WORKER}
    spec = {
        "source": {"inline": {"files": files}},
        "command": ["python3", "main.py", *arguments],
        "resources": {"limits": LIMITS},
        "restartPolicy": "Never",
    }
    space.apply(household.manifest("Agent", "a", spec=spec))
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log("a"))
    assert json.loads(space.agentk("logs", "a").lines[-1]) == EXPECTED


@pytest.fixture
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As that kernel's examples lie: agents beside the client's folder."""
    top = tmp_path_factory.mktemp("host")
    for name in ("agents", "python_sdk"):
        (top / name).mkdir()
    (top / "python_sdk" / "agentos.py").write_text(CLIENT)
    find = "import os, sys\nsys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'python_sdk'))\n"
    (top / "agents" / "worker.py").write_text(find + WORKER)
    (top / "agents" / "main.py").write_text(find + program(str(top / "agents" / "worker.py")))
    return top


@pytest.fixture
def kernel(space: Space) -> Iterator["Kernel"]:
    with household.folder() as place:
        made = Kernel(space, place)
        yield made
        made.end()


class Kernel:
    """`agentk compat agentos`, on two sockets."""

    def __init__(self, space: Space, folder: Path) -> None:
        self.space = space
        self.sockets = [folder / "agentos.sock", folder / "clove.sock"]
        self.running: subprocess.Popen[str] | None = None

    def begin(self, *more: str) -> None:
        words = [word for path in self.sockets for word in ("--socket", str(path))]
        environment = self.space.home.environment | {"AGENTK_NAMESPACE": self.space.name}
        self.running = subprocess.Popen(
            [*household.AGENTK, "compat", "agentos", *words, "--name", "host", *more],
            env=environment,
            text=True,
            stderr=subprocess.PIPE,
        )
        assert self.running.stderr is not None
        for path in self.sockets:
            line = self.running.stderr.readline()
            assert str(path) in line, line + self.running.stderr.read()

    def end(self, number: int = signal.SIGINT) -> int:
        if self.running is None:
            return 0
        self.running.send_signal(number)
        code = self.running.wait(household.SECONDS)
        assert self.running.stderr is not None
        self.running.stderr.close()
        self.running = None
        return code

    def run(self, path: Path, *arguments: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, str(path), *arguments], capture_output=True, text=True, timeout=household.SECONDS
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def agents(self) -> list[str]:
        found = self.space.api.list(client.Selection(kinds.AGENT, self.space.name)).items
        return sorted(obj["metadata"]["name"] for obj in found)


def test_a_program_runs_unmodified_on_the_host(kernel: Kernel, programs: Path) -> None:
    route(kernel.space)
    kernel.begin()
    for path in kernel.sockets:
        seen = path.lstat()
        assert stat.S_ISSOCK(seen.st_mode) and stat.S_IMODE(seen.st_mode) == 0o600
    assert json.loads(kernel.run(programs / "agents" / "main.py", str(kernel.sockets[0]))[-1]) == EXPECTED
    assert kernel.end() == 130
    household.until("its Agents are gone", lambda: kernel.agents() == [])
    assert not any(path.exists() for path in kernel.sockets)


ECHO = """
import sys, time
from agentos import AgentOS

while True:
    try:
        print(AgentOS(sys.argv[1]).raw(0x00, b"again").decode(), flush=True)
        break
    except (EOFError, ConnectionError):
        time.sleep(0.05)
"""

SPAWN = """
import sys
from agentos import AgentOS

kernel = AgentOS(sys.argv[1])
told = kernel.ask(0x10, name="worker", script=sys.argv[2])
print(told["success"], told.get("error"), flush=True)
"""


def test_a_command_that_is_killed_leaves_a_stale_path_only(kernel: Kernel, programs: Path) -> None:
    kernel.begin()
    (programs / "python_sdk" / "spawn.py").write_text(SPAWN)
    worker = str(programs / "agents" / "worker.py")
    [told] = kernel.run(programs / "python_sdk" / "spawn.py", str(kernel.sockets[1]), worker)
    assert told == "True None" and kernel.agents() == ["host", "worker"]
    labels = kernel.space.get("worker")["metadata"]["labels"]
    assert labels == {"agentos-host": "host"}
    kernel.end(signal.SIGKILL)
    assert all(path.exists() for path in kernel.sockets)
    household.until("its Agents are gone", lambda: kernel.agents() == [])
    kernel.begin("--policy", "restricted")
    [told] = kernel.run(programs / "python_sdk" / "spawn.py", str(kernel.sockets[0]), worker)
    assert told.startswith("False")


def test_a_new_daemon_goes_on_with_the_session(alone: Space, programs: Path) -> None:
    with household.folder() as place:
        kernel = Kernel(alone, place)
        try:
            kernel.begin()
            alone.home.kill("daemon")
            alone.home.answers()
            (programs / "python_sdk" / "echo.py").write_text(ECHO)
            assert kernel.run(programs / "python_sdk" / "echo.py", str(kernel.sockets[0])) == ["again"]
            assert kernel.agents() == ["host"]
        finally:
            kernel.end()
        household.until("its Agents are gone", lambda: kernel.agents() == [])


def test_a_path_that_cannot_be_is_refused_before_anything_is_made(space: Space, tmp_path: Path) -> None:
    taken, link, open_ = tmp_path / "file", tmp_path / "link", tmp_path / "open"
    taken.write_text("mine")
    link.symlink_to(taken)
    open_.mkdir()
    os.chmod(open_, 0o777)
    for path in (taken, link, open_ / "s", tmp_path / ("x" * 100), tmp_path / "no" / "s"):
        ran = space.agentk("compat", "agentos", "--socket", str(path), code=1)
        assert "error" in ran.err.lower()
    assert taken.read_text() == "mine" and link.is_symlink()
    assert space.api.list(client.Selection(kinds.AGENT, space.name)).items == []
