"""Agents that make agents, budgets that stop them, and ends they tell: real jails, asked through the SDK."""

import json
from typing import Any

from agentk.api import kinds
from tests.flows import household
from tests.flows.household import Space, manifest, python

pytestmark = household.needs

BEGIN = """
import json, sys, time
import agentk.sdk.client as sdk
from agentk.sdk import errors
agent = sdk.connect()
def say(*words): print(*words, flush=True)
"""
RULES = [{"match": {}, "reply": {"text": "Yes."}}]
# Thinks until it is refused, tells each thought once, and tries again.
THINKER = """
n = 0
while True:
    try:
        agent.think("Shall I?")
        n += 1
        say("thought", n)
    except errors.BudgetExceeded as error:
        say("refused")
        time.sleep(0.05)
"""


def program(name: str, text: str, **spec: Any) -> household.Object:
    return python(name, BEGIN + text, **spec)


def route(space: Space) -> None:
    space.create(manifest("ModelRoute", "default", spec={"scripted": {"rules": RULES}}))


def children(space: Space) -> list[household.Object]:
    agents = space.agentk("get", "agents", "-o", "json").json["items"]
    return [obj for obj in agents if obj["metadata"].get("ownerReferences")]


@household.on_both
def test_a_parent_makes_awaits_and_ends_children_of_its_own(space: Space) -> None:
    child = BEGIN + 'agent.exit(code=0, message="done", result={"answer": 42})\ntime.sleep(1000)'
    space.apply(
        household.agent("sibling"),
        program(
            "boss",
            f"""
child = agent.agent_spawn({{"command": ["python", "-c", {child!r}]}}, labels={{"role": "w"}})
ended = agent.agent_wait(child.name)
say(ended.finished, ended.phase, ended.reason, ended.exit_code, ended.message, json.dumps(ended.result))
other = agent.agent_spawn({{"command": ["sleep", "1000"]}}, name="other")
say([one.name for one in agent.agent_list().items if one.name != child.name])
say(len(agent.agent_list(label_selector="role=w").items))
say(agent.agent_kill("sibling"), agent.agent_kill("other"))
say(agent.agent_wait("other").finished)
try:
    agent.agent_wait("sibling")
except errors.CallError as error:
    say(error.reason)
time.sleep(1000)
""",
        ),
    )
    space.logged("boss", "NotFound")
    assert space.log("boss") == [
        'True Succeeded Completed 0 done {"answer": 42}',
        "['boss', 'other']",
        "1",
        "False True",
        "True",
        "NotFound",
    ]
    space.running("sibling")
    (left,) = children(space)
    status = left["status"]
    assert (status["exitCode"], status["message"], status["result"]) == (0, "done", '{"answer":42}')
    assert left["spec"]["resources"]["limits"]["memory"] == household.TINY["memory"]
    assert left["spec"]["runtimeRef"]["name"] == space.runtime
    space.delete("boss")
    household.until("the child went with its parent", lambda: not children(space))


def test_a_wider_child_is_refused_by_the_field(space: Space) -> None:
    space.apply(
        program(
            "boss",
            """
for spec in ({"resources": {"limits": {"memory": "1Gi"}}}, {"policyRef": {"name": "privileged"}}):
    try:
        agent.agent_spawn({"command": ["true"], **spec})
    except errors.CallError as error:
        say(error.reason, [cause["field"] for cause in error.status["details"]["causes"]])
try:
    agent.agent_spawn({"command": ["true"]}, detached=True)
except errors.CallError as error:
    say(error.reason)
""",
        )
    )
    assert space.phase("boss", "Succeeded", "Failed")["reason"] == "Completed", space.log("boss")
    assert space.log("boss") == [
        "Invalid ['spec.resources.limits.memory']",
        "Invalid ['spec.policyRef.name']",
        "PolicyDenied",
    ]
    assert not children(space)


@household.on_both
def test_pause_freezes_and_a_changed_spec_thaws(space: Space) -> None:
    route(space)
    space.apply(program("a", THINKER, budget={"maxCalls": 3}))
    status = space.phase("a", "Suspended")
    assert status["reason"] == "BudgetExceeded" and "calls" in status["message"], status
    assert [line for line in space.log("a") if "thought" in line] == [f"thought {n}" for n in (1, 2, 3)]
    assert status["usage"]["calls"] == 3
    assert "True" in [one["status"] for one in status["conditions"] if one["type"] == "BudgetExceeded"]
    space.apply(program("a", THINKER, budget={"maxCalls": 5}))
    space.logged("a", "thought 5")
    again = space.until("a", lambda status: status.get("usage", {}).get("calls") == 5)["status"]
    assert again["attempt"] == 1, "the same box went on"
    space.phase("a", "Suspended")


ONCE = """
for n in range(4):
    agent.think("Shall I?")  # nobody catches anything
    say("thought", n)
"""


def test_a_program_that_knows_nothing_of_budgets_goes_on_when_there_is_more(space: Space) -> None:
    route(space)
    space.apply(program("a", ONCE, budget={"maxCalls": 2}))
    assert space.phase("a", "Suspended")["reason"] == "BudgetExceeded"
    space.agentk("budget", "add", "a", "--calls", "2")
    status = space.phase("a", "Succeeded", "Failed")
    assert (status["reason"], status["attempt"]) == ("Completed", 1), space.log("a")
    assert space.log("a") == [f"thought {n}" for n in range(4)]


def test_a_program_that_is_killed_while_its_call_is_held_leaves_nothing(space: Space) -> None:
    route(space)
    space.apply(program("a", ONCE, budget={"maxCalls": 2}))
    space.phase("a", "Suspended")
    space.agentk("kill", "a", "--grace-period", "0")
    assert space.phase("a", "Failed")["reason"] == "Killed"


def test_a_new_window_thaws(space: Space) -> None:
    route(space)
    space.apply(program("a", THINKER, budget={"maxCalls": 1, "per": "2s"}))
    space.phase("a", "Suspended")
    space.logged("a", "thought 2")


def test_kill_ends_it_and_says_why(space: Space) -> None:
    route(space)
    space.apply(program("a", THINKER, budget={"maxCalls": 2, "onExceeded": "Kill"}, restartPolicy="Always"))
    status = space.phase("a", "Failed")
    assert status["reason"] == "BudgetExceeded" and "calls" in status["message"], status
    assert status["attempt"] == 1


def test_a_childs_use_is_its_parents(space: Space) -> None:
    route(space)
    space.apply(
        program(
            "boss",
            f"""
child = agent.agent_spawn({{"command": ["python", "-c", {BEGIN + THINKER!r}], "budget": {{"onExceeded": "Kill"}}}})
ended = agent.agent_wait(child.name)
say(ended.reason)
{THINKER}
""",
            budget={"maxCalls": 4},
        )
    )
    status = space.phase("boss", "Suspended")
    assert status["reason"] == "BudgetExceeded", status
    assert space.log("boss")[0] == "BudgetExceeded" and "thought 1" not in space.log("boss")
    assert status["usage"]["calls"] == 4


def test_wall_time_is_bounded_and_frozen_time_is_not_counted(space: Space) -> None:
    space.apply(program("a", "time.sleep(1000)", budget={"maxWallTime": "1s"}))
    status = space.phase("a", "Suspended")
    assert status["reason"] == "BudgetExceeded" and "wall time" in status["message"]
    space.apply(program("a", "time.sleep(1000)", budget={"maxWallTime": "30m"}))
    status = space.running("a")
    assert status["attempt"] == 1


def test_a_quota_tells_what_was_used(space: Space) -> None:
    route(space)
    space.create(manifest("Quota", "q", spec={"hard": {"calls": 3}}))
    space.apply(program("a", THINKER))
    status = space.phase("a", "Suspended")
    assert "quota/q" in status["message"]
    household.until(
        "the quota tells",
        lambda: space.get("q", kinds.QUOTA).get("status", {}).get("used", {}).get("calls") == 3,
    )
    assert "tokens" not in space.get("q", kinds.QUOTA)["status"]["used"]


def test_what_was_spent_outlives_the_daemon(alone: Space) -> None:
    route(alone)
    alone.apply(
        program("paused", THINKER, budget={"maxCalls": 3}),
        program("timed", "time.sleep(1000)", budget={"maxWallTime": "1s"}),
        program(
            "boss",
            f"""
child = agent.agent_spawn({{"command": ["python", "-c", {BEGIN + 'agent.think("Yes?")'!r}]}})
agent.agent_wait(child.name)
agent.agent_kill(child.name)
say("done")
time.sleep(1000)
""",
        ),
    )
    for name in ("paused", "timed"):
        alone.phase(name, "Suspended")
    alone.logged("boss", "done")
    spent = alone.until("boss", lambda status: status.get("usage", {}).get("calls") == 3)["status"]["usage"]
    alone.home.kill("daemon")
    alone.home.answers()
    alone.apply(program("paused", THINKER, budget={"maxCalls": 4}))
    alone.logged("paused", "thought 4")
    status = alone.until(
        "paused", lambda status: status.get("reason") == "BudgetExceeded" and status["usage"]["calls"] == 4
    )["status"]
    assert status["attempt"] == 1 and "thought 5" not in alone.log("paused")
    assert alone.status("boss")["usage"] == spent, "what a child used that is gone is not given back"
    assert alone.status("timed")["reason"] == "BudgetExceeded"
    assert alone.events("timed").count("Resumed") == 0, "nothing was thawed by the restart"


def test_what_an_agent_said_of_its_end_outlives_the_daemon(alone: Space) -> None:
    text = """
import signal
signal.signal(signal.SIGTERM, lambda *_: say("asked to end"))
agent.exit(code=7, message="that is all", result=[1, 2])
say("said")
while True:
    time.sleep(1)
"""
    alone.apply(program("a", text, terminationGracePeriodSeconds=5))
    alone.logged("a", "asked to end")
    alone.home.kill("daemon")
    alone.home.answers()
    status = alone.phase("a", "Failed")
    assert (status["reason"], status["exitCode"], status["message"]) == ("Error", 7, "that is all")
    assert json.loads(status["result"]) == [1, 2]
