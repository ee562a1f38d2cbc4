"""Suspended agents: what stands still with them, over the death of the daemon too."""

from pathlib import Path

from tests.flows import household
from tests.flows.household import Object, Space, agent, python

pytestmark = household.needs
COUNTING = "import itertools, time\nfor n in itertools.count(): print(n, flush=True); time.sleep(0.01)"
_SHARES_OF_100 = 1024


SLOWLY = {"match": {"lastMessage": {"equals": "slow"}}, "reply": {"text": "late"}, "delay": "2s"}
ROUTE = household.manifest(
    "ModelRoute",
    "default",
    spec={"maxConcurrent": 1, "scripted": {"rules": [SLOWLY, {"reply": {"text": "soon"}}]}},
)
ASKS = """
import sys
from agentk.sdk import client

agent = client.connect()
print("asks", flush=True)
print(agent.think(sys.argv[1], max_tokens=20), flush=True)
"""


def asking(name: str, what: str) -> Object:
    return agent(name, "python", "-c", ASKS, what)


def stood_seconds(status: Object) -> float:
    return float(status["run"].get("stoodSeconds", 0))


def test_a_deadline_that_stops_stands_still_while_no_daemon_is_there_too(alone: Space) -> None:
    wanted = {"activeDeadlineSeconds": 1000, "deadlineWhileSuspended": "Stops"}
    alone.apply(python("a", COUNTING, **wanted))
    alone.running("a")
    alone.agentk("suspend", "a")
    since = alone.phase("a", "Suspended")["run"]["stands"]
    alone.home.kill("keeper", "daemon", "launcher")
    alone.home.agentk("daemon", "start")
    alone.home.answers()
    assert alone.phase("a", "Suspended")["run"]["stands"] == since
    alone.agentk("resume", "a")
    status = alone.running("a")
    assert stood_seconds(status) > 0 and "stands" not in status["run"]
    assert (status["attempt"], status["restartCount"]) == (1, 0)


def test_an_answer_is_kept_for_a_frozen_agent_which_keeps_no_turn(space: Space) -> None:
    space.apply(ROUTE, asking("frozen", "slow"))
    space.logged("frozen", "asks")
    space.agentk("suspend", "frozen")
    space.phase("frozen", "Suspended")
    space.apply(asking("other", "quick"))
    assert space.phase("other", "Succeeded", "Failed")["phase"] == "Succeeded", space.log("other")
    assert space.log("frozen") == ["asks"], "it has the answer, and cannot read it"
    space.agentk("resume", "frozen")
    space.phase("frozen", "Succeeded")
    assert space.log("frozen") == ["asks", "late"]


def test_a_frozen_agent_waits_in_no_line(space: Space) -> None:
    space.apply(ROUTE, asking("first", "slow"))
    space.logged("first", "asks")
    space.apply(asking("frozen", "slow"))
    space.logged("frozen", "asks")
    space.agentk("suspend", "frozen")
    space.phase("frozen", "Suspended")
    space.apply(asking("other", "quick"))
    space.phase("other", "Succeeded")
    assert space.status("frozen")["phase"] == "Suspended"
    space.agentk("resume", "frozen")
    space.phase("frozen", "Succeeded")
    assert space.log("frozen") == ["asks", "late"]


def test_the_kernel_is_told_the_weight(space: Space) -> None:
    heavy = agent("heavy")
    heavy["spec"]["resources"]["weight"] = 250
    space.apply(heavy, agent("usual"))
    assert (_weight(space, "heavy"), _weight(space, "usual")) == (250, 100)


def _weight(space: Space, name: str) -> int:
    space.running(name)
    uid = space.get(name)["metadata"]["uid"]
    below = f"agentk-{space.home.places.instance}/{space.name}/{uid}"
    v2 = [*Path("/sys/fs/cgroup").glob(f"{below}/cpu.weight")]
    v2 += Path("/sys/fs/cgroup").glob(f"*.slice/**/{below}/cpu.weight")
    if v2:
        return int(v2[0].read_text())
    v1 = next(Path("/sys/fs/cgroup").glob(f"cpu*/{below}/cpu.shares"))
    return int(v1.read_text()) * 100 // _SHARES_OF_100
