"""Agents without code, in jails: what they are told, what they say, how they end."""

import json
from typing import Any

from agentk.api import kinds
from agentk.client import client
from tests.flows import household
from tests.flows.household import Household, Object, Space
from tests.flows.test_examples import EXAMPLES

pytestmark = household.needs
TEXT = {"properties": {"text": {"type": "string"}}, "required": ["text"]}


def route(*rules: Object) -> Object:
    return household.manifest("ModelRoute", "default", spec={"scripted": {"rules": list(rules)}})


def react(name: str, **spec: Any) -> Object:
    made = household.agent(name, **spec)
    del made["spec"]["command"]
    made["spec"] |= {"program": "react", "modelRef": {"name": "default"}}
    return made


def says(text: str, **match: Any) -> Object:
    return {"match": match, "reply": {"text": text}}


def calls(*called: tuple[str, Object], **match: Any) -> Object:
    return {
        "match": match,
        "reply": {"toolCalls": [{"name": name, "arguments": one} for name, one in called]},
    }


def test_a_repository_is_triaged_and_a_person_says_no_to_one_label(home: Household) -> None:
    path = str(EXAMPLES / "react-triage" / "manifest.yaml")
    home.agentk("apply", "-f", path)
    there = Space(home, "react-triage")

    def waiting() -> list[Object]:
        listed = there.api.list(client.Selection(kinds.APPROVAL, there.name)).items
        return [one for one in listed if (one.get("status") or {}).get("phase", "Pending") == "Pending"]

    try:
        household.until("three labels wait for a person", lambda: len(waiting()) == 3)
        second = next(one for one in waiting() if '"number": 2' in json.dumps(one["spec"]))
        there.agentk("deny", second["metadata"]["name"], "--reason", "I look at that myself")
        there.agentk("approve", "-l", "agentk.dev/agent=triage")
        status = there.phase("triage", "Succeeded", "Failed")
        log = there.log("triage")
        assert status["reason"] == "Completed", log
        assert json.loads(status["result"])["left"] == [2] and status["steps"] == 6
        assert status["usage"]["tokens"] > 0
        assert any("a person said no" in line and "I look at that myself" in line for line in log)
        assert 'step 4: label(label="bug", number=1) -> 1 bug' in log and log[-2] == "answer after 6 steps:"
    finally:
        home.agentk("delete", "-f", path)


@household.on_both
def test_the_gate_takes_no_result_that_is_not_what_was_asked_for(space: Space) -> None:
    output = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    space.apply(
        route(
            says('{"n": "three"}', turn=1),
            says('{"n": 3}', lastMessage={"contains": "expected integer"}),
        ),
        react("a", task={"count": "to three"}, output=output),
    )
    status = space.phase("a", "Succeeded", "Failed")
    assert (status["reason"], status["result"], status["steps"]) == ("Completed", '{"n":3}', 2), space.log(
        "a"
    )


def test_a_task_gives_it_its_work_and_keeps_its_steps(space: Space) -> None:
    space.apply(
        route(says("Sorted: {{last}}")),
        react("sorter", role="a sorter", suspend=True),
        household.manifest("Task", "sort", spec={"agentRef": {"name": "sorter"}, "input": "b a"}),
    )
    space.agentk("task", "wait", "sort", "--timeout", "100s")
    status = space.get("sort", kinds.TASK)["status"]
    assert (status["phase"], json.loads(status["result"]), status["steps"]) == ("Succeeded", "Sorted: b a", 1)
    assert status["usage"]["tokens"] > 0


def test_another_attempt_begins_anew_and_says_so(space: Space) -> None:
    break_down = {"match": {"turn": 1, "lastMessage": {"equals": "Sort."}}, "error": {"status": 500}}
    space.apply(
        route(break_down, says("Done.", lastMessage={"contains": "This is attempt 2"})),
        react("a", goal="Sort.", restartPolicy="OnFailure", restartBackoff={"initialSeconds": 0}),
    )
    status = space.phase("a", "Succeeded", "Failed")
    assert (status["reason"], status["attempt"]) == ("Completed", 2), space.log("a")
    assert "attempt 2: begins anew; what was done before is done" in space.log("a")
    assert any("LLMError" in line for line in space.log("a"))


def test_steps_end_it_for_good_and_nothing_of_what_it_was_told_is_in_its_environment(space: Space) -> None:
    secret = "only-for-the-model"
    space.apply(
        household.manifest("ConfigMap", "facts", data={"fact.md": secret}),
        household.manifest(
            "Tool",
            "look",
            spec={
                "command": {"argv": ["sh", "-c", "cat /proc/1/environ /proc/[0-9]*/environ; ls /opt/program"]}
            },
        ),
        route(calls(("look", {}))),
        react(
            "a",
            goal="Look.",
            steps=2,
            restartPolicy="Always",
            instructions=secret,
            context=[{"configMapRef": {"name": "facts"}}],
            tools=[{"ref": {"name": "look"}}],
        ),
    )
    status = space.phase("a", "Succeeded", "Failed")
    assert (status["phase"], status["reason"], status["steps"]) == ("Failed", "MaxSteps", 2), space.log("a")
    assert status["attempt"] == 1 and not any(secret in line for line in space.log("a"))


def test_the_daemon_dies_while_it_thinks_and_while_a_tool_runs_and_it_goes_on(alone: Space) -> None:
    slow = "echo began >>/workspace/runs; until [ -e /workspace/go ]; do sleep 0.1; done; cat /workspace/runs"
    alone.apply(
        household.manifest("Tool", "slow", spec={"command": {"argv": ["sh", "-c", slow]}, "timeout": "600s"}),
        route(
            {**calls(("slow", {}), turn=1), "delay": "3s"},
            says("It ran: {{toolResult}}", toolResult={"name": "slow"}),
        ),
        react("a", task="Run it.", tools=[{"ref": {"name": "slow"}}]),
    )
    alone.logged("a", "tools: slow")
    alone.home.kill("daemon")
    household.until(
        "the tool runs", lambda: "runs" in alone.agentk("exec", "a", "--", "ls", "/workspace", code=None).out
    )
    alone.home.kill("daemon")
    touch = ("exec", "a", "--", "touch", "/workspace/go")
    over = ("Succeeded", "Failed")
    household.until(
        "it goes on, or need not",
        lambda: alone.agentk(*touch, code=None).code == 0 or alone.status("a").get("phase") in over,
    )
    status = alone.phase("a", *over)
    log = alone.log("a")
    assert (status["reason"], status["attempt"]) == ("Completed", 1), log
    told = json.loads(status["result"])
    assert told == "It ran: began\n" or told.startswith("It ran: Nobody knows whether this happened"), log
