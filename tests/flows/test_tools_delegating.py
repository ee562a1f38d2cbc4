"""An agent as a tool, whose caller hangs up or whose daemon dies: one Task each time, that ends with who asked."""

from collections.abc import Iterator

import pytest

from tests.flows import household
from tests.flows.household import Household, Space, manifest, python
from tests.flows.test_deaths import revive
from tests.flows.test_tasks import BEGIN, agents, shape, tasks

pytestmark = household.needs

LONG = (
    BEGIN + 'print("began", flush=True)\ntime.sleep(int(task))\nagent.exit(result="done")\ntime.sleep(1000)'
)
CALL = """
import agentk.sdk.client as sdk
from agentk.sdk import errors
try:
    print(str(sdk.connect().tool_call("helper", {"input": "%s"})), flush=True)
except errors.OutcomeUnknown:
    print("OutcomeUnknown", flush=True)
"""
# The process that calls is not the agent's own: it may die and the agent go on.
APART = """
import subprocess, sys, time
calls = subprocess.Popen([sys.executable, "-c", %r])
open("/workspace/pid", "w").write(str(calls.pid))
calls.wait()
print("hung up", flush=True)
time.sleep(1000)
"""


def helper(**spec: object) -> household.Object:
    return manifest("Tool", "helper", spec={"agent": {"agentRef": {"name": "long"}}, "timeout": "1h", **spec})


def caller(script: str) -> household.Object:
    return python("boss", script, tools=[{"ref": {"name": "helper"}}])


def phases(space: Space) -> list[str]:
    """Of the Tasks there are."""
    return [(one.get("status") or {}).get("phase", "") for one in tasks(space)]


def works(space: Space) -> str:
    """The name of the agent of the one Task, once it works."""
    household.until("the helper works", lambda: phases(space) == ["Running"])
    (agent,) = agents(space)
    space.logged(agent["metadata"]["name"], "began")
    return str(agent["metadata"]["name"])


@pytest.fixture(scope="module")
def fragile() -> Iterator[Household]:
    with household.household() as home:
        yield home


@pytest.fixture
def broken(fragile: Household) -> Iterator[Space]:
    with household.space(fragile) as made:
        yield made


def test_a_caller_that_hangs_up_ends_the_agent_that_it_asked(space: Space) -> None:
    space.apply(shape("long", LONG, terminationGracePeriodSeconds=1), helper(), caller(APART % (CALL % 1000)))
    agent = works(space)
    space.agentk("exec", "boss", "--", "sh", "-c", "kill -9 $(cat /workspace/pid)")
    household.until("its Task is given up", lambda: phases(space) == ["Cancelled"])
    space.phase(agent, "Failed", "Succeeded")
    space.logged("boss", "hung up")
    assert space.status("boss")["phase"] == "Running" and len(agents(space)) == 1


def test_a_call_that_comes_again_after_a_death_waits_for_the_agent_that_it_had_asked(broken: Space) -> None:
    broken.apply(shape("long", LONG), helper(idempotent="true"))
    (broken.home.crashes / "tool.made").touch()
    broken.apply(caller(CALL % 3))
    agent = works(broken)
    broken.home.kill("daemon")
    broken.phase("boss", "Succeeded", "Failed")
    assert broken.log("boss") == ["done"] and phases(broken) == ["Succeeded"]
    assert broken.log(agent) == ["began"] and len(agents(broken)) == 1
    assert not any(broken.home.crashes.iterdir()), "nobody came by"


def test_an_agent_whose_caller_no_longer_waits_after_a_death_ends_with_it(broken: Space) -> None:
    broken.home.kill("keeper")  # its successor knows of no earlier deaths
    revive(broken.home)
    broken.apply(shape("long", LONG, terminationGracePeriodSeconds=1), helper(), caller(CALL % 1000))
    agent = works(broken)
    broken.home.kill("daemon")
    broken.phase("boss", "Succeeded", "Failed")
    assert broken.log("boss") == ["OutcomeUnknown"]
    household.until("the Task does not go on", lambda: "Running" not in phases(broken))
    broken.phase(agent, "Failed", "Succeeded")
    assert len(tasks(broken)) == 1 and broken.log(agent) == ["began"]
    broken.delete("boss")
    household.until("nothing is left of it", lambda: not tasks(broken) and not agents(broken))
