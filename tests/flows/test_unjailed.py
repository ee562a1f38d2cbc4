"""Agents without a jail: off until somebody makes a Runtime and a Policy allows it; their gate is the same gate."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentk.api import kinds
from agentk.runtime.launcher import doors
from tests.flows import household
from tests.flows.household import Space, python
from tests.flows.test_agentos import CLIENT, Kernel, route

pytestmark = household.needs
ROOT = os.geteuid() == 0

PROGRAM = """
import json, os, socket, sys
import agentk.sdk.client as sdk
told = {}
with sdk.connect() as agent:
    told["think"] = str(agent.think("What is the capital of France?"))
    told["exec"] = agent.exec(argv=["sh", "-c", "echo $AGENTK_SOCKET; id -u"]).stdout.split()
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    sock.sendall(b"GET /v1/models HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
    told["http"] = sock.makefile().readline().split()[1]
told["socket"], told["uid"] = sys.argv[1], os.getuid()
told["urls"] = sorted(name for name in os.environ if "URL" in name or "PROXY" in name)
print(json.dumps(told), flush=True)
"""


@pytest.fixture
def plain(space: Space) -> Iterator[str]:
    """A Runtime without a jail, and the Policy that allows it alone beside nsjail, of this test."""
    name = f"plain-{space.name}"
    spec = {"type": "process", "enforcement": "BestEffort"}
    rules = [{"name": "all", "effect": "Allow", "methods": ["*"]}]
    allowed = {"level": "baseline", "rules": rules, "isolation": {"allowRuntimes": ["nsjail", name]}}
    space.apply(
        household.manifest("Runtime", name, spec=spec), household.manifest("Policy", name, spec=allowed)
    )
    yield name
    for agent in space.agentk("get", "agents", "-o", "name").lines:
        space.delete(agent.rpartition("/")[2])
    space.api.delete(kinds.RUNTIME, "", name)
    space.api.delete(kinds.POLICY, "", name)


def test_an_agent_without_a_jail_reaches_its_gate(space: Space, plain: str) -> None:
    route(space)
    made = python("a", PROGRAM, runtimeRef={"name": plain}, policyRef={"name": plain})
    made["spec"]["command"].append("$(AGENTK_SOCKET)")
    made["spec"]["command"][0] = "python3"
    space.apply(made)
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log("a"))
    told = json.loads(space.agentk("logs", "a").lines[-1])
    assert (told["think"], told["http"], told["urls"]) == ("Paris.", "200", [])
    places = space.home.places
    folder = doors.open_folder(places.run, places.instance, rootless=not ROOT)
    assert told["socket"] == str(folder / space.get("a")["metadata"]["uid"] / "gate.sock")
    assert told["exec"] == [told["socket"], str(told["uid"])]
    assert told["uid"] != 0 and (ROOT or told["uid"] == os.getuid())


WORKER = """
import json, os, sys
from agentos import AgentOS
import beside

kernel = AgentOS(sys.argv[1])
kernel.ask(0x23, name="worker")
inner = kernel.ask(0x10, name="inner", script=beside.__file__, sandboxed=True)
told = {"file": __file__, "beside": beside.WORD, "uid": os.getuid(), "pid": os.getpid(), "id": kernel.agent_id}
told["socket"] = sys.argv[1] == os.environ["AGENTK_SOCKET"]
told["inner"] = inner["isolation"]["fully_isolated"]
kernel.ask(0x20, to_name="boss", message=told)
kernel.receive(1000)
"""

SPAWN = """
import json, sys
from agentos import AgentOS

kernel = AgentOS(sys.argv[1])
kernel.ask(0x23, name="boss")
told = {"spawned": kernel.ask(0x10, name="worker", script=sys.argv[2], sandboxed=False)}
if told["spawned"]["success"] and sys.argv[3:]:
    told["heard"] = kernel.receive()["message"]
    told["metrics"] = kernel.ask(0xC1, agent_id=told["spawned"]["id"])["metrics"]
print(json.dumps(told), flush=True)
"""


@pytest.fixture
def kernel(space: Space) -> Iterator[Kernel]:
    with household.folder() as place:
        made = Kernel(space, place)
        yield made
        made.end()


@pytest.fixture
def scripts() -> Iterator[Path]:
    """Where every uid may read them."""
    with household.folder() as place:
        texts = {"agentos.py": CLIENT, "worker.py": WORKER, "spawn.py": SPAWN, "beside.py": "WORD = 'beside'"}
        for name, text in texts.items():
            (place / name).write_text(text)
            (place / name).chmod(0o644)
        yield place


def spawn(kernel: Kernel, scripts: Path, *more: str) -> household.Object:
    words = [str(kernel.sockets[0]), str(scripts / "worker.py"), *more]
    told: household.Object = json.loads(kernel.run(scripts / "spawn.py", *words)[-1])
    return told


def test_a_script_runs_where_it_is_and_ends_with_the_command(
    kernel: Kernel, scripts: Path, plain: str
) -> None:
    kernel.begin("--policy", plain)
    told = spawn(kernel, scripts, "and listen")
    spawned, heard = told["spawned"], told["heard"]
    assert (heard["file"], heard["beside"]) == (str(scripts / "worker.py"), "beside")
    assert (heard["id"], heard["socket"]) == (spawned["id"], True)
    assert heard["uid"] != 0 and (ROOT or heard["uid"] == os.getuid())
    assert heard["inner"] is False, "what it spawns has its Runtime, whatever it asks for"
    assert not spawned["isolation"]["fully_isolated"] and not any(spawned["isolation"]["namespaces"].values())
    assert told["metrics"]["sandboxed"] is False
    made = kernel.space.get("worker")
    assert made["spec"]["runtimeRef"] == {"name": plain} and made["spec"]["policyRef"] == {"name": plain}
    assert made["spec"]["resources"]["limits"]["memory"] == str(256 << 20)
    kernel.end(signal.SIGKILL)
    household.until("its Agents are gone", lambda: kernel.agents() == [])
    assert not household.is_alive(heard["pid"])


def test_a_policy_that_forbids_it_refuses_before_anything_is_made(
    kernel: Kernel, scripts: Path, plain: str
) -> None:
    kernel.begin()
    spawned = spawn(kernel, scripts)["spawned"]
    assert spawned["success"] is False
    assert f'Policy "baseline" does not allow Runtime "{plain}"' in spawned["error"]
    assert kernel.agents() == ["host"]


def test_without_such_a_runtime_it_is_refused(kernel: Kernel, scripts: Path) -> None:
    kernel.begin("--policy", "privileged")
    assert "there is none" in spawn(kernel, scripts)["spawned"]["error"]
    assert kernel.agents() == ["host"]


JAILED = """
import json
from agentos import AgentOS
spawned = AgentOS().ask(0x10, name="worker", script="sleep.py", sandboxed=False)
print(json.dumps(spawned), flush=True)
"""


def test_a_guest_in_a_jail_gets_no_child_without_one(space: Space, plain: str) -> None:
    files = {"agentos.py": CLIENT, "main.py": JAILED, "sleep.py": "import time; time.sleep(1000)"}
    direct = """
import agentk.sdk.client as sdk
with sdk.connect() as agent:
    try:
        agent.agent_spawn({"command": ["true"], "runtimeRef": {"name": "NAME"}})
    except Exception as error:
        print(error)
""".replace("NAME", plain)
    for name, policy in (("a", plain), ("b", "privileged")):
        spec = {"source": {"inline": {"files": files}}, "policyRef": {"name": policy}}
        space.apply(python(name, files["main.py"], **spec))
        assert space.phase(name, "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log(name))
        told = json.loads(space.agentk("logs", name).lines[-1])
        assert told["success"] and all(told["isolation"]["namespaces"].values()), told
        space.delete(name)
    space.apply(python("c", direct, policyRef={"name": plain}))
    assert space.phase("c", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log("c"))
    assert "spec.runtimeRef.name" in space.agentk("logs", "c").out
