"""Tasks as people send them: real jails, results that stay, many at once, and kill -9 of the daemon on their way."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from agentk.api import kinds
from agentk.cli import waiting
from agentk.client import client, watching
from agentk.control import crash
from tests.flows import household
from tests.flows.household import Household, Space, manifest, python
from tests.flows.test_deaths import revive

pytestmark = household.needs

BEGIN = "import sys, time\nimport agentk.sdk.client as sdk\nagent = sdk.connect()\ntask = agent.task()\n"
ECHO = (
    BEGIN
    + 'print("got", task, flush=True)\nagent.exit(message="done", result={"got": task})\ntime.sleep(1000)'
)


def shape(name: str, program: str, **spec: Any) -> household.Object:
    """An agent that is there to be taken as a template."""
    made = python(name, program, suspend=True, **spec)
    del made["spec"]["restartPolicy"]
    return made


def status(space: Space, name: str) -> household.Object:
    return space.get(name, kinds.TASK).get("status") or {}


def until(space: Space, name: str, **wanted: Any) -> household.Object:
    selection = client.Selection(kinds.TASK, space.name, "", f"metadata.name={name}")

    def seen() -> household.Object:
        told: household.Object = {}
        for obj in watching.states(space.api, selection, waiting.deadline(household.SECONDS)):
            told = (obj or {}).get("status") or {}
            if all(told.get(key) == value for key, value in wanted.items()):
                return told
        pytest.fail(f"{name} never came to {wanted}: {json.dumps(told)}\n{space.home.words()}")

    return household.again(seen)


def agents(space: Space) -> list[household.Object]:
    return [
        one
        for one in space.api.list(client.Selection(kinds.AGENT, space.name)).items
        if one["metadata"].get("ownerReferences")
    ]


@household.on_both
def test_a_task_is_sent_and_its_result_stays_when_its_agent_is_gone(space: Space) -> None:
    space.apply(shape("echo", ECHO))
    words = ("--input", '{"n": [1, null, "ä"]}', "--json", "--name", "one")
    ran = space.agentk("task", "run", "agent/echo", *words, "--wait", "-o", "json")
    told = ran.json
    assert (told["phase"], told["reason"], told["message"]) == ("Succeeded", "Completed", "done")
    assert told["result"] == {"got": {"n": [1, None, "ä"]}} and told["input"] == {"n": [1, None, "ä"]}
    assert "got {'n'" in space.agentk("task", "logs", "one").out
    (agent,) = agents(space)
    assert agent["spec"]["runtimeRef"]["name"] == space.runtime and not agent["spec"]["suspend"]
    space.delete(told["agent"])
    assert space.agentk("task", "wait", "one").json == {"got": {"n": [1, None, "ä"]}}
    assert space.status("echo")["phase"] == "Suspended", "what is only a shape never ran"


def test_many_run_in_parallel_and_are_collected_together(space: Space) -> None:
    program = BEGIN + 'agent.exit(code=7 if task == "bad" else 0, result=task.upper())\ntime.sleep(1000)'
    space.apply(shape("upper", program))
    lines = [f"line {number}" for number in range(11)] + ["bad"]
    ran = space.agentk(
        "task", "run", "upper", "--each", "-", "--wait", "-o", "json", stdin="\n".join(lines), code=1
    )
    assert [one["result"] for one in ran.json] == [line.upper() for line in lines]
    assert [one["phase"] for one in ran.json] == ["Succeeded"] * 11 + ["Failed"]
    assert "failed: Error" in ran.err
    table = space.agentk("task", "get").lines
    assert len(table) == 13 and table[0].split() == ["NAME", "PHASE", "REASON", "RESULT"]


def test_a_task_is_cancelled_tried_again_and_runs_out_of_time(space: Space) -> None:
    space.apply(
        shape("sleeper", "import time\ntime.sleep(1000)", terminationGracePeriodSeconds=1),
        shape(
            "third",
            BEGIN + "sys.exit(0 if agent.hello().attempt == 3 else 3)",
            restartBackoff={"initialSeconds": 1},
        ),
    )
    space.agentk("task", "run", "sleeper", "--name", "long")
    until(space, "long", phase="Running")
    assert space.agentk("task", "cancel", "long").out == "task.agentk.dev/long cancelled\n"
    assert space.agentk("task", "cancel", "long", code=1).err
    words = ("--task-timeout", "2s", "--name", "late", "--wait")
    assert "DeadlineExceeded" in space.agentk("task", "run", "sleeper", *words, code=1).err
    space.agentk("task", "run", "third", "--retries", "4", "--name", "again", "--wait")
    assert status(space, "again")["attempts"] == 3
    assert space.agentk("task", "wait", "again", "--timeout", "5s").out == ""
    space.agentk("wait", "task/again", "--for=condition=Succeeded")
    assert "will never be" in space.agentk("wait", "task/late", "--for=condition=Succeeded", code=1).err


def test_who_sends_work_to_nobody_is_told_so(space: Space) -> None:
    assert '"nobody" not found' in space.agentk("task", "run", "nobody", "--wait", code=1).err
    space.apply(manifest("Task", "early", spec={"agentRef": {"name": "nobody"}}))
    until(space, "early", phase="Pending", reason="AgentNotFound")
    told = space.agentk("task", "wait", "early", "--timeout", "1s", code=1).err
    assert 'task/early has not begun yet: Agent "nobody" does not exist' in told


def test_a_task_of_a_schedule_is_made_by_hand_and_belongs_to_it(space: Space) -> None:
    template = {"spec": {"input": "now", "template": {"spec": shape("x", ECHO)["spec"]}}}
    del template["spec"]["template"]["spec"]["suspend"]  # type: ignore[index]
    space.apply(manifest("Schedule", "yearly", spec={"schedule": "@yearly", "taskTemplate": template}))
    ran = space.agentk("task", "run", "--from", "schedule/yearly", "--wait", "-o", "json")
    assert ran.json["result"] == {"got": "now"}
    assert "@yearly" in space.agentk("get", "schedules").out
    space.agentk("delete", "schedule", "yearly")
    household.until("its Tasks went with it", lambda: not agents(space))


ASKING = """
import json
import agentk.sdk.client as sdk
from agentk.sdk import errors
agent = sdk.connect()
for name in ("upper", "wide", "fails", "slow"):
    try:
        told = agent.tool_call(name, {"input": "say it"})
        print(json.dumps([told.is_error, str(told), told.structured]), flush=True)
    except errors.CallError as error:
        print(json.dumps([error.reason, "memory" in str(error)]), flush=True)
"""


TEAM = (
    ("upper", "loud", "5m"),
    ("wide", "greedy", "5m"),
    ("fails", "broken", "5m"),
    ("slow", "sleeper", "3s"),
)


def test_an_agent_as_a_tool_is_the_callers_child_and_never_wider(space: Space) -> None:
    space.apply(
        shape("loud", BEGIN + 'agent.exit(result={"said": task.upper()})\ntime.sleep(1000)'),
        shape("greedy", "1", resources={"limits": {**household.TINY, "memory": "1Gi"}}),
        shape("broken", "raise SystemExit(3)"),
        shape("sleeper", "import time\\ntime.sleep(1000)", terminationGracePeriodSeconds=1),
        *(
            manifest("Tool", name, spec={"agent": {"agentRef": {"name": of}}, "timeout": timeout})
            for name, of, timeout in TEAM
        ),
        python("boss", ASKING, tools=[{"ref": {"name": name}} for name, _, _ in TEAM]),
    )
    assert space.phase("boss", "Succeeded", "Failed")["reason"] == "Completed", space.log("boss")
    upper, wide, fails, slow = map(json.loads, space.log("boss"))
    assert upper == [False, '{"said": "SAY IT"}', {"said": "SAY IT"}]
    assert wide == ["PolicyDenied", True]
    assert fails[0] and fails[1].startswith("the agent has failed: Error")
    assert slow[0] is True or slow[0] == "Timeout", "whoever was first: the gate, or the Task's own time"
    boss = space.get("boss")["metadata"]["uid"]
    made = agents(space)
    assert len(made) == 3, "what would be wider was never made"
    assert {one["metadata"]["annotations"]["agentk.dev/spawnedBy"] for one in made} == {boss}
    household.until(
        "none of them goes on",
        lambda: not [1 for one in tasks(space) if "completionTime" not in one["status"]],
    )
    space.agentk("tool", "call", "upper", "--args", '{"input": "by hand"}')
    space.delete("boss")
    household.until("they went with who asked", lambda: boss not in owners(space))


def owners(space: Space) -> set[str]:
    there = [*agents(space), *tasks(space)]
    return {one["metadata"]["ownerReferences"][0]["uid"] for one in there}


@pytest.fixture(scope="module")
def fragile() -> Iterator[Household]:
    with household.household() as home:
        yield home


@pytest.fixture
def broken(fragile: Household) -> Iterator[Space]:
    fragile.kill("keeper")  # its successor knows of no earlier deaths, and waits less after the next one
    revive(fragile)
    with household.space(fragile) as made:
        yield made


LONG = BEGIN + 'print("began", flush=True)\ntime.sleep(task)\nagent.exit(result="done")\ntime.sleep(1000)'


def patch(space: Space, name: str, **spec: Any) -> None:
    household.again(lambda: space.api.patch(kinds.TASK, space.name, name, {"spec": spec}))


def tasks(space: Space) -> list[household.Object]:
    return household.again(lambda: space.api.list(client.Selection(kinds.TASK, space.name)).items)


WHEN = pytest.mark.parametrize("when", ("before", "after"))


def arm(home: Household, when: str, *steps: str) -> None:
    """One death at each."""
    for step in steps:
        assert f"{step}.{when}" in crash.TASKS
        (home.crashes / f"{step}.{when}").touch()


def died(home: Household) -> None:
    """Returns once it has died at each, and lives."""
    household.until("it died at each point", lambda: not any(home.crashes.iterdir()))
    home.answers()


@WHEN
def test_a_daemon_that_dies_on_the_way_makes_no_second_agent_and_loses_no_result(
    broken: Space, when: str
) -> None:
    home = broken.home
    broken.create(shape("long", LONG))
    arm(home, when, "make-agent", "task-status", "let-go")
    broken.create(manifest("Task", "t", spec={"agentRef": {"name": "long"}, "input": 0.2}))
    done = until(broken, "t", phase="Succeeded")
    assert (done["result"], done["attempts"]) == ('"done"', 1)
    died(home)
    (agent,) = agents(broken)
    assert broken.log(agent["metadata"]["name"]) == ["began"]
    arm(home, when, "delete-task")
    patch(broken, "t", ttlSecondsAfterFinished=0)
    household.until("it is gone with its agent", lambda: not tasks(broken) and not agents(broken))
    died(home)
    home.clean(agent["metadata"]["uid"])


@WHEN
def test_a_daemon_that_dies_while_a_task_is_held_and_cancelled_does_both(broken: Space, when: str) -> None:
    home = broken.home
    broken.create(shape("long", LONG, terminationGracePeriodSeconds=1))
    broken.create(manifest("Task", "t", spec={"agentRef": {"name": "long"}, "input": 1000}))
    until(broken, "t", phase="Running")
    arm(home, when, "hold-agent")
    patch(broken, "t", suspend=True)
    until(broken, "t", phase="Running", reason="Suspended")
    died(home)
    arm(home, when, "cancel-agent")
    patch(broken, "t", cancel=True)
    until(broken, "t", phase="Cancelled")
    died(home)
    (agent,) = agents(broken)
    assert broken.log(agent["metadata"]["name"]) == ["began"]
    broken.delete(agent["metadata"]["name"])  # nothing holds it any more
    assert status(broken, "t")["phase"] == "Cancelled"


def test_a_task_of_a_minute_is_made_once_by_a_daemon_that_dies_on_the_way(broken: Space) -> None:
    """Nothing but the real clock tells that it is time; cron counts minutes, so it takes up to one."""
    for point in ("make-task.after", "schedule-status.before"):
        (broken.home.crashes / point).touch()
    spec = shape("x", ECHO)["spec"]
    del spec["suspend"]
    template = {"spec": {"input": "tick", "template": {"spec": spec}}}
    limits = {"timeZone": "UTC", "concurrencyPolicy": "Forbid", "successfulTasksHistoryLimit": 10}
    broken.create(
        manifest("Schedule", "s", spec={"schedule": "* * * * *", "taskTemplate": template, **limits})
    )
    (first,) = household.until("a Task is made", lambda: tasks(broken))
    name = first["metadata"]["name"]
    assert until(broken, name, phase="Succeeded")["result"] == '{"got":"tick"}'
    broken.home.answers()
    there = [one["metadata"]["name"] for one in tasks(broken)]
    assert there.count(name) == 1 and len(set(there)) == len(there)
    owned = [one["metadata"]["labels"]["agentk.dev/task"] for one in agents(broken)]
    assert owned.count(name) == 1 and not any(broken.home.crashes.iterdir())
