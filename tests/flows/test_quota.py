"""Quotas: who may run when not all may; and many agents at once."""

import pytest

from agentk.api import kinds
from agentk.client import client
from tests.flows import household
from tests.flows.household import IN_VM, Space, agent, manifest

pytestmark = household.needs
MANY = 10 if IN_VM else 200


def quota(**hard: object) -> household.Object:
    return manifest("Quota", "q", spec={"hard": hard})


@pytest.mark.parametrize(
    "hard", [{"agents": 1}, {"cpu": "700m"}, {"memory": "100Mi"}], ids=["agents", "cpu", "memory"]
)
def test_no_more_run_than_the_quota_allows(space: Space, hard: dict[str, object]) -> None:
    space.apply(quota(**hard), agent("first"))
    space.running("first")
    space.apply(agent("second"))
    status = space.until("second", lambda status: status.get("reason") == "QuotaExceeded")["status"]
    assert status["phase"] == "Pending" and next(iter(hard)) in status["message"].lower()
    space.delete("first")
    space.running("second")


def test_most_important_one_goes_first_when_there_is_room(space: Space) -> None:
    space.apply(quota(agents=1), agent("holds"))
    space.running("holds")
    space.apply(agent("low", priority=1), agent("high", priority=9), agent("middle", priority=5))
    for name in ("low", "high", "middle"):
        space.until(name, lambda status: status.get("reason") == "QuotaExceeded")
    space.delete("holds")
    space.running("high")
    assert {space.status(name)["phase"] for name in ("low", "middle")} == {"Pending"}


def test_larger_quota_lets_the_waiting_in_and_counts_them(space: Space) -> None:
    space.apply(quota(agents=1), agent("a"), agent("b"))
    space.agentk("wait", "--for=jsonpath={.status.used.agents}=1", "quota/q", "--timeout", "100s")
    space.apply(quota(agents=2))
    space.running("a")
    space.running("b")
    space.agentk("wait", "--for=jsonpath={.status.used.agents}=2", "quota/q", "--timeout", "100s")


@household.on_both
def test_many_agents_at_once(space: Space) -> None:
    # Podman's boxes cost each a process more; what many at once could break shows with a few tens.
    names = [f"a{number}" for number in range(MANY if space.runtime == "nsjail" else min(MANY, 40))]
    space.apply(*(agent(name) for name in names))
    for name in names:
        space.running(name)
    listed = space.api.list(client.Selection(kinds.AGENT, space.name)).items
    assert {obj["status"]["attempt"] for obj in listed} == {1}
    assert "deleted" in space.agentk("delete", "agents", "--all", "--timeout", "900s").out
