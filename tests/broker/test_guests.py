"""A box is who its socket says, and knows only those it spawned."""

from typing import Any

import pytest

from agentk.api import errors, kinds
from agentk.broker.guests import Guests


def agent(uid: str, name: str, owner: str = "", policy: str = "", first: int = 0) -> dict[str, Any]:
    metadata: dict[str, Any] = {"uid": uid, "name": name, "namespace": "default", "generation": 1}
    if owner:
        metadata["ownerReferences"] = [{"kind": "Agent", "uid": owner, "name": "x", "controller": True}]
    spec = {"command": ["true"], **({"policyRef": {"name": policy}} if policy else {})}
    return {
        "metadata": metadata,
        "spec": spec,
        **({"status": {"run": {"firstAttempt": first}}} if first else {}),
    }


def guests(*agents: dict[str, Any]) -> Guests:
    known = Guests()
    known.hear(kinds.POLICY, {"metadata": {"name": "baseline"}, "spec": {"level": "baseline"}}, False)
    for one in agents:
        known.hear(kinds.AGENT, one, False)
    return known


def test_a_box_is_its_agent_and_attempt() -> None:
    found = guests(agent("u-1-2", "a", first=3)).find("u-1-2-4")
    assert (found.uid, found.namespace, found.name, found.attempt) == ("u-1-2", "default", "a", 4)
    assert (found.run_id, found.policy_name, found.policy) == ("u-1-2-3", "baseline", {"level": "baseline"})


def test_the_run_is_known_before_the_status_is() -> None:
    known = guests(agent("u", "a"))
    known.announce("u-2", "u-1")
    assert known.find("u-2").run_id == "u-1"


@pytest.mark.parametrize("box_id", ["gone-1", "u", "u-x", "", "u-0"])
def test_who_is_not_known_has_no_rights(box_id: str) -> None:
    with pytest.raises(errors.Forbidden):
        guests(agent("u", "a")).find(box_id)


def test_without_its_policy_a_guest_has_no_rights() -> None:
    with pytest.raises(errors.Forbidden, match="strict"):
        guests(agent("u", "a", policy="strict")).find("u-1")


def test_a_changed_policy_and_a_deleted_agent_count_at_once() -> None:
    known = guests(agent("u", "a"))
    known.find("u-1")
    known.hear(kinds.POLICY, {"metadata": {"name": "baseline"}, "spec": {"level": "restricted"}}, False)
    assert known.find("u-1").policy == {"level": "restricted"}
    known.hear(kinds.AGENT, agent("u", "a"), True)
    with pytest.raises(errors.Forbidden):
        known.find("u-1")


def test_a_family_is_an_agent_and_what_it_spawned() -> None:
    known = guests(agent("p", "p"), agent("c", "c", "p"), agent("g", "g", "c"), agent("o", "o"))
    assert known.find("g-1").parents == ("c", "p")
    assert [one["metadata"]["uid"] for one in known.family("p")] == ["p", "c", "g"]
    assert [one["metadata"]["uid"] for one in known.family("c")] == ["c", "g"]


def test_a_circle_of_owners_ends() -> None:
    known = guests(agent("a", "a", "b"), agent("b", "b", "a"))
    assert set(known.find("a-1").parents) == {"a", "b"}
