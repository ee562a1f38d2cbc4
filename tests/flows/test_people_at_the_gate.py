"""What people see of the gate, of an agent in a real jail: its calls, their tree, its rights and its budget."""

import json
import sqlite3
from contextlib import closing

from tests.flows import household
from tests.flows.household import Space, python

pytestmark = household.needs

ROUTE = household.manifest(
    "ModelRoute",
    "default",
    spec={"scripted": {"rules": [{"match": {}, "reply": {"text": "forty-two"}}]}},
)
PROGRAM = """
import agentk.sdk.client as sdk
with sdk.connect() as agent:
    print(agent.think("What is the answer?"))
    agent.state_put("seen", 1)
"""


def test_audit_trace_and_verify_tell_of_a_run(space: Space) -> None:
    space.apply(ROUTE, python("a", PROGRAM))
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log("a"))
    calls = space.agentk("audit", "a", "-o", "json").json["items"]
    assert [(one["method"], one["status"]) for one in calls] == [("think", "ok"), ("state.put", "ok")]
    assert calls[0]["asked"]["prompt"] == "What is the answer?"
    assert calls[0]["answer"]["text"] == "forty-two"
    assert calls[0]["used"]["tokens"] > 0
    told = space.agentk("trace", "a").lines
    assert told[0].startswith("agent/a  run ") and f"{calls[0]['used']['tokens']} tokens" in told[1]
    assert [line.split()[1] for line in told[1:]] == ["think", "state.put"]
    assert space.agentk("audit", "verify").out.startswith("ok: ")
    head = space.agentk("audit", "head").out
    assert space.agentk("audit", "verify", "--head", "-", stdin=head).code == 0
    space.delete("a")
    assert len(space.agentk("audit", "a", "--no-headers").lines) == 2  # what it did is not forgotten with it


FAILING = """
import agentk.sdk.client as sdk
with sdk.connect() as agent:
    agent.exec(argv=["sh", "-c", "exit 3"])
    agent.tool_call("oops", {})
    agent.tool_call("fine", {})
"""


def test_a_call_that_was_made_and_failed_is_not_told_as_well(space: Space) -> None:
    tools = [
        household.manifest("Tool", name, spec={"command": {"argv": ["sh", "-c", script]}})
        for name, script in (("oops", "echo it broke >&2; exit 1"), ("fine", "true"))
    ]
    granted = [{"ref": {"name": one["metadata"]["name"]}} for one in tools]
    space.apply(*tools, python("a", FAILING, tools=granted))
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log("a"))
    calls = space.agentk("audit", "a", "-o", "json").json["items"]
    assert [one["status"] for one in calls] == ["failed", "failed", "ok"]
    ran, broke, _ = space.agentk("trace", "a").lines[1:]
    assert "failed" in ran and "exit code 3" in ran
    assert "failed" in broke and "it broke" in broke


def test_what_an_agent_may_do_is_told_while_it_does_not_run(space: Space) -> None:
    space.apply(ROUTE, python("a", "pass"))
    space.phase("a", "Succeeded", "Failed")
    assert space.agentk("auth", "can-i", "--as", "agent/a", "think").out.startswith("yes: ")
    ran = space.agentk("auth", "can-i", "--as", "a", "http.request", "url=https://example.com/x", code=1)
    assert ran.lines[0] == "no: no rule of spec.network.egress allows example.com:443"
    assert "not found" in space.agentk("auth", "can-i", "--as", "nobody", "think", code=1).err


SPEND = """
import time
import agentk.sdk.client as sdk
from agentk.sdk import errors
with sdk.connect() as agent:
    while True:
        try:
            agent.think("x", max_tokens=5)
        except errors.BudgetExceeded as error:
            print(error.code, flush=True)
            time.sleep(0.5)
"""


def test_a_budget_runs_out_and_more_can_be_given(space: Space) -> None:
    space.apply(ROUTE, python("a", SPEND, budget={"maxCalls": 3}))
    household.until("its budget is used up", lambda: used(space) == 3)
    tree = space.agentk("budget", "a", "-o", "json").json["items"]
    assert (tree[-1]["limits"], tree[-1]["left"]) == ({"calls": 3}, {"calls": 0})
    space.agentk("budget", "add", "a", "--calls", "2")
    household.until("what was given is used too", lambda: used(space) == 5)
    assert "3 + 2" in space.agentk("budget").out
    space.agentk("budget", "add", "a", "--tokens", "5", code=1)  # there is no such limit


def used(space: Space) -> int:
    told = space.agentk("budget", "a", "-o", "json").json["items"]
    return int(told[-1]["used"]["calls"]) if told else 0


def test_verify_names_the_record_that_was_changed_while_the_daemon_was_down() -> None:
    with household.household() as home, household.space(home) as space:
        space.apply(ROUTE, python("a", PROGRAM))
        assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed"
        record = space.agentk("audit", "a", "-o", "json").json["items"][0]["record"]
        home.agentk("daemon", "stop")
        path = home.places.state / "store" / "journal.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as conn:
            conn.execute("UPDATE records SET status = 'ok' WHERE id = ?", (record,))
        home.agentk("daemon", "start")
        ran = space.agentk("audit", "verify", code=1)
        assert ran.out.startswith(f"record {record}: is not what was written")
        assert json.loads(space.agentk("audit", "verify", "-o", "json", code=1).out)["ok"] is False
        assert home.agentk("daemon", "restart").out.startswith("restarted: ")
        assert space.agentk("get", "agent", "a").code == 0
