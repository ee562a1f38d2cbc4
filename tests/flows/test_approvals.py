"""A person is asked, and answers at a terminal; the agents are in real jails and the daemon may die at every step."""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from agentk.api import kinds
from agentk.broker import crash
from agentk.client import client
from tests.flows import household
from tests.flows.household import Household, Object, Space, python

pytestmark = household.needs

ASK = """
import agentk.sdk.client as sdk, agentk.sdk.errors as errors, sys
with sdk.connect() as agent:
    for code in sys.argv[1:]:
        try:
            print(agent.exec_shell(code).stdout.strip(), flush=True)
        except errors.CallError as error:
            print(error.reason + ":", error.message, flush=True)
"""
COUNTED = "echo once >> /workspace/done; wc -l < /workspace/done"


def policy(name: str, *, rules: list[Object] | None = None, **approvals: Any) -> Object:
    asked = {"name": "code", "effect": "Ask", "methods": ["exec"]}
    rest = {"name": "rest", "effect": "Allow", "methods": ["*"]}
    spec = {"level": "baseline", "rules": rules or [asked, rest], "approvals": approvals}
    return household.manifest("Policy", name, spec=spec)


def asker(name: str, space: Space, *codes: str, **spec: Any) -> Object:
    made = python(name, ASK, policyRef={"name": space.name}, **spec)
    made["spec"]["command"] += codes
    return made


def pending(space: Space, count: int = 1) -> list[str]:
    """Names of the Approvals that wait, as soon as there are so many."""

    def found() -> list[str]:
        there = space.api.list(client.Selection(kinds.APPROVAL, space.name)).items
        names = [one["metadata"]["name"] for one in there if phase(one) == "Pending"]
        return names if len(names) == count else []

    return list(household.until("somebody is asked", lambda: household.again(found)))


def phase(obj: Object) -> str:
    return str((obj.get("status") or {}).get("phase", "Pending"))


def done(space: Space, name: str) -> list[str]:
    assert space.phase(name, "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log(name))
    return space.agentk("logs", name).lines


def forget(space: Space) -> None:
    space.agentk("delete", "policy", space.name)


def test_a_person_is_asked_and_answers(space: Space) -> None:
    space.apply(policy(space.name), asker("a", space, "echo hello", "echo bye"))
    (name,) = pending(space)
    row = space.agentk("get", "approvals", "--no-headers").lines[0]
    assert row.split()[:2] == [name, "a"] and "exec: echo hello" in row and "Pending" in row
    told = space.agentk("describe", "approval", name).out
    assert "echo hello" in told and "wants a person asked before exec of shell" in told
    space.agentk("wait", "agent/a", "--for=condition=AwaitingApproval", "--timeout=100s")
    assert f"agentk approve {name}" in space.agentk("describe", "agent", "a").out
    assert space.agentk("approve", name, "--reason", "harmless").lines == [
        f"approval.agentk.dev/{name} approved"
    ]
    space.agentk("wait", f"approval/{name}", "--for=condition=Approved", "--timeout=100s")
    (other,) = pending(space)
    assert "is Approved already" in space.agentk("approve", name, code=1).err
    space.agentk("deny", f"approval/{other}", "--reason", "not today")
    lost = space.agentk("wait", f"approval/{other}", "--for=condition=Approved", code=1)
    assert "not today" in lost.err
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    said, refused = done(space, "a")
    assert said == "hello" and refused.startswith(f"ApprovalDenied: {user} said no: not today")
    who = f"{user} (uid {os.getuid()})"
    assert any(
        "exec  shell  ok" in line and f"approved by {who}" in line
        for line in space.agentk("trace", "a").lines
    )
    calls = space.agentk("audit", "a", "-o", "json").json["items"]
    assert [(one["method"], one["status"]) for one in calls] == [
        ("approval.approve", "ok"), ("exec", "ok"), ("approval.deny", "ok"), ("exec", "denied"),
    ]  # fmt: skip
    assert calls[0]["meta"] == {"approval": name, "by": user, "byUid": os.getuid()}
    assert {"ApprovalRequested", "ApprovalApproved", "ApprovalDenied"} <= set(space.events("a"))
    forget(space)


def test_nobody_but_the_gate_makes_one(space: Space) -> None:
    space.apply(policy(space.name), asker("a", space, "true"))
    (name,) = pending(space)
    obj = space.get(name, kinds.APPROVAL)
    told = space.agentk("apply", "-f", "-", stdin=json.dumps(obj), code=1).err
    assert "made by agentk alone" in told and "agentk approve" in told
    for method, path in (("PATCH", ""), ("PATCH", "/status"), ("PUT", "/status")):
        made = {**obj, "status": {"phase": "Approved"}}
        with pytest.raises(Exception, match="made by agentk alone"):
            space.api.request(
                method, kinds.APPROVAL.path(space.name, name) + path, body=made,
                content_type="application/merge-patch+json" if method == "PATCH" else "application/json",
            )  # fmt: skip
    assert phase(space.get(name, kinds.APPROVAL)) == "Pending"
    space.agentk("delete", "approval", name)
    assert done(space, "a")[0].startswith("ApprovalDenied: the Approval was deleted")
    forget(space)


def test_what_is_remembered_is_asked_once(space: Space) -> None:
    space.apply(policy(space.name), asker("a", space, "echo 1", "echo 1", "echo 2"))
    pending(space)
    space.agentk("approve", "-l", "agentk.dev/agent=a", "--remember")
    (name,) = pending(space)
    assert "exec: echo 2" in space.get(name, kinds.APPROVAL)["spec"]["summary"]
    space.agentk("approve", name)
    assert done(space, "a") == ["1", "1", "2"]
    forget(space)


def test_an_agent_that_is_killed_asks_no_more(space: Space) -> None:
    space.apply(policy(space.name), asker("a", space, "true"))
    (name,) = pending(space)
    space.agentk("kill", "a", "--grace-period", "0")
    space.agentk("wait", f"approval/{name}", "--for=condition=Finished", "--timeout=100s")
    obj = space.get(name, kinds.APPROVAL)
    assert (phase(obj), obj["status"]["reason"]) == ("Expired", "its agent has ended")
    space.delete("a")
    household.until("it went with its agent", lambda: not space.agentk("get", "approvals", "-o", "name").out)
    forget(space)


def test_a_frozen_agent_has_its_answer_when_it_can_read_it(space: Space) -> None:
    space.apply(policy(space.name), asker("a", space, "echo hello"))
    (name,) = pending(space)
    space.agentk("suspend", "a")
    space.phase("a", "Suspended")
    space.agentk("approve", name)
    space.agentk("resume", "a")
    assert done(space, "a") == ["hello"]
    forget(space)


def test_time_answers_as_the_rule_says(space: Space) -> None:
    rules = [
        {
            "name": "soon", "effect": "Ask", "methods": ["exec"], "languages": ["shell"],
            "approval": {"timeout": "1s", "default": "Allow"},
        },
        {"name": "rest", "effect": "Allow", "methods": ["*"]},
    ]  # fmt: skip
    space.apply(policy(space.name, rules=rules), asker("a", space, "echo late"))
    assert done(space, "a") == ["late"]
    del rules[0]["approval"]  # type: ignore[arg-type]
    space.apply(policy(space.name, rules=rules, timeout="1s"), asker("b", space, "echo late"))
    assert done(space, "b")[0].startswith("ApprovalRequired: nobody has approved it in time")
    forget(space)


# kill -9 at every step


@pytest.fixture(scope="module")
def fragile() -> Iterator[Household]:
    with household.household() as made:
        yield made


@pytest.fixture
def broken(fragile: Household) -> Iterator[Space]:
    with household.space(fragile) as made:
        yield made


# Where the daemon dies, and how many Approvals there are in the end: one that was used up and not acted upon is lost.
POINTS = {"approval.made": 1, "approval.answering": 1, "approval.answered": 1, "approval.used": 2}


@pytest.mark.parametrize("point", sorted(POINTS))
def test_the_daemon_dies_and_the_call_is_done_once(broken: Space, point: str) -> None:
    (broken.home.crashes / point).touch()
    broken.apply(policy(broken.name), asker("a", broken, COUNTED))

    def answered() -> bool:
        there = household.again(lambda: broken.api.list(client.Selection(kinds.APPROVAL, broken.name)).items)
        for one in there:
            if phase(one) == "Pending":
                broken.agentk("approve", one["metadata"]["name"], code=None)
        return broken.status("a").get("phase") in kinds.FINAL_PHASES

    household.until("it is done", answered)
    assert done(broken, "a") == ["1"]
    assert not (broken.home.crashes / point).exists(), "nobody came by"
    found = broken.api.list(client.Selection(kinds.APPROVAL, broken.name)).items
    assert [phase(one) for one in found] == ["Approved"] * POINTS[point]
    forget(broken)


def test_every_point_of_asking_is_tried() -> None:
    assert set(POINTS) == set(crash.ASKING)
