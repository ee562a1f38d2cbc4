"""A machine too small for all: who has priority runs; the others stand still by the kernel's own count, and go on."""

from collections.abc import Iterator

import pytest

from agentk.api import kinds
from tests.flows import household
from tests.flows.household import Household, Space, agent, python, shell

pytestmark = household.needs
SPIN = "while :; do :; done"
COUNTING = "import itertools, time\nfor n in itertools.count(): print(n, flush=True); time.sleep(0.01)"


@pytest.fixture(scope="module")
def small() -> Iterator[Household]:
    """A machine for one that runs, and for memory of two."""
    with household.household(AGENTK_MAX_AGENTS="1", AGENTK_MAX_MEMORY="128Mi") as made:
        yield made


@pytest.fixture
def tight(small: Household) -> Iterator[Space]:
    with household.space(small) as made:
        yield made


def cpu_usec(space: Space, name: str) -> int:
    told = space.api.request("GET", kinds.AGENT.path(space.name, name, "counters"))
    return int(told["counters"]["cpuUsec"])


def test_a_frozen_agent_uses_no_cpu_until_there_is_room_again(tight: Space) -> None:
    tight.apply(shell("low", SPIN))
    tight.running("low")
    household.until("it has burnt some", lambda: cpu_usec(tight, "low") > 100_000)
    tight.apply(shell("high", SPIN, priority=9))
    status = tight.phase("low", "Suspended")
    assert status["reason"] == "Preempted" and "high" not in status["message"]
    suspended = next(one for one in status["conditions"] if one["type"] == "Suspended")
    assert (suspended["status"], suspended["reason"]) == ("True", "Preempted")
    tight.running("high")
    still, burnt = cpu_usec(tight, "low"), cpu_usec(tight, "high")
    household.until("the other burns", lambda: cpu_usec(tight, "high") > burnt + 200_000)
    assert cpu_usec(tight, "low") == still, "the kernel gave it nothing meanwhile"
    tight.event("low", "Preempted")
    tight.event("high", "Preempting")
    assert "needs its room" in tight.agentk("describe", "agent/low").out
    tight.delete("high")
    assert tight.running("low")["attempt"] == 1
    household.until("it burns on", lambda: cpu_usec(tight, "low") > still)


def test_describe_says_why_one_waits(tight: Space) -> None:
    tight.apply(agent("first"))
    tight.running("first")
    tight.apply(agent("second"), agent("huge", resources={"limits": {"memory": "1Gi"}}))
    tight.until("second", lambda status: status.get("reason") == "NodeFull")
    assert "at most 1 agents at once" in tight.agentk("describe", "agent/second").out
    tight.until("huge", lambda status: status.get("reason") == "NodeFull")
    told = tight.agentk("describe", "agent/huge").out
    assert "it can never start: this machine takes at most 128Mi" in told


def test_shortage_of_memory_ends_one(tight: Space) -> None:
    both = {"resources": {"limits": {"memory": "100Mi"}}, "restartPolicy": "OnFailure"}
    tight.apply(agent("low", **both))
    tight.running("low")
    tight.apply(agent("high", priority=9, **both))
    tight.running("high")
    status = tight.until("low", lambda status: status.get("reason") == "NodeFull")["status"]
    assert status["lastTermination"]["reason"] == "Preempted" and status["phase"] == "Pending"
    tight.delete("high")
    assert tight.running("low")["attempt"] == 2


def test_a_victim_that_cannot_be_frozen_is_ended(tight: Space) -> None:
    tight.apply(agent("low", onPreempted="End"))
    tight.running("low")
    tight.apply(agent("high", priority=9))
    tight.running("high")
    assert tight.phase("low", "Failed")["reason"] == "Preempted"


def test_one_that_preempts_never_waits(tight: Space) -> None:
    tight.apply(agent("low"))
    tight.running("low")
    tight.apply(agent("high", priority=9, preemptionPolicy="Never"))
    tight.until("high", lambda status: status.get("reason") == "NodeFull")
    assert tight.status("low")["phase"] == "Running"


def test_it_stays_frozen_over_the_death_of_everything_and_goes_on_after() -> None:
    with household.household(AGENTK_MAX_AGENTS="1") as home, household.space(home) as space:
        space.apply(python("low", COUNTING))
        space.running("low")
        space.logged("low", "3")
        space.apply(agent("high", priority=9))
        space.phase("low", "Suspended")
        space.running("high")
        counted = space.log("low")
        home.kill("keeper", "daemon", "launcher")
        home.agentk("daemon", "start")
        home.answers()
        assert space.phase("low", "Suspended")["reason"] == "Preempted"
        assert space.log("low") == counted
        space.delete("high")
        status = space.running("low")
        space.logged("low", str(len(counted) + 5))
        assert (status["attempt"], status["restartCount"]) == (1, 0)


def test_equals_take_turns() -> None:
    with (
        household.household(AGENTK_MAX_AGENTS="1", AGENTK_TIME_SLICE="1s") as home,
        household.space(home) as space,
    ):
        names = ("a", "b", "c")
        space.apply(*(python(name, COUNTING) for name in names))
        for name in names:
            space.logged(name, "3")
        for name in names:
            space.event(name, "TimeSliced")
            space.logged(name, str(len(space.log(name)) + 5))
        for name in names:
            assert space.status(name)["attempt"] == 1, "turns are taken without a new process"
        running = [name for name in names if space.status(name)["phase"] == "Running"]
        assert len(running) <= 2, "one, or one that goes as another comes"
