"""Agents whose model writes code, in jails: what it reads, what it never reads, and what it costs."""

import json
from collections import Counter
from datetime import date, timedelta
from typing import Any

import pytest

from tests.flows import household
from tests.flows.household import Household, Object, Space
from tests.flows.test_examples import EXAMPLES
from tests.flows.test_react import calls, react, route, says

pytestmark = household.needs


def coder(name: str, **spec: Any) -> Object:
    made = react(name)
    made["spec"] |= {"program": "code", **spec}
    return made


def writes(code: str, **match: Any) -> Object:
    return {"match": match, "reply": {"toolCalls": [{"name": "python", "arguments": {"code": code}}]}}


def test_tools_are_called_by_code_that_keeps_what_they_answered(space: Space) -> None:
    count = "import json\nprint(json.dumps([dict(n=n, secret='only-for-code') for n in range(5000)]))"
    space.apply(
        household.manifest(
            "Tool", "rows", spec={"command": {"argv": ["python3", "-c", count], "output": "Json"}}
        ),
        route(
            writes("from tools import rows\nfound = rows()\nlen(found)", turn=1),
            writes("sum(one['n'] for one in found)", turn=2),
            writes("import secret_of_nobody", turn=3),
            says("{{toolResult}}"),
        ),
        coder("a", task="Add them up.", tools=[{"ref": {"name": "rows"}}]),
    )
    status = space.phase("a", "Succeeded", "Failed")
    log = space.log("a")
    assert (status["reason"], status["steps"]) == ("Completed", 4), log
    assert "ModuleNotFoundError" in json.loads(status["result"])
    assert [
        line.rpartition("-> ")[2] for line in log if "step 1: python(" in line or "step 2: python(" in line
    ] == [
        "5000",
        "12497500",
    ]
    made = space.agentk("audit", "a", "-o", "json").json["items"]
    thought = json.dumps([one for one in made if one["method"] == "think"])
    assert "12497500" in thought and "only-for-code" not in thought


@household.on_both
def test_what_code_learns_is_imported_at_once_and_in_later_sessions(space: Space) -> None:
    space.apply(
        route(
            writes(
                "def double(n):\n    return 2 * n\nimport skills\n"
                "skills.save('learned-double', 'Doubles numbers.', double)",
                lastMessage={"contains": "Learn"},
                turn=1,
            ),
            writes(
                "from skills import learned_double as d\nd.double(4), d.__file__[:5]",
                toolResult={"name": "python", "contains": "SavedSkill"},
            ),
            writes(
                "import skills\nprint(skills.search('doubles'))\n"
                "from skills import learned_double as d\nd.double(5), d.__file__",
                lastMessage={"contains": "Use"},
                turn=1,
            ),
            says("{{toolResult}}"),
        ),
        coder("a", task="Learn it.", skills={"use": [{"name": "*"}], "save": ["learned-*"]}),
    )
    status = space.phase("a", "Succeeded", "Failed")
    assert (status["reason"], json.loads(status["result"])) == ("Completed", "(8, '/tmp/')"), space.log("a")
    space.apply(coder("b", task="Use it.", skills={"use": [{"name": "*"}]}))
    status = space.phase("b", "Succeeded", "Failed")
    told = "learned_double: Doubles numbers.\n(10, '/opt/skills/skills/learned_double/__init__.py')"
    assert (status["reason"], json.loads(status["result"])) == ("Completed", told), space.log("b")


def test_a_policy_that_changes_in_the_middle_holds_for_the_next_piece(space: Space) -> None:
    policy = household.manifest("Policy", space.name, spec={"level": "baseline"})
    stricter = {"level": "baseline", "guardrails": {"code": {"python": {"denyImports": ["wave"]}}}}
    waits = "import wave, os, time\nopen('began', 'w').close()\nwhile not os.path.exists('go'):\n    time.sleep(0.1)"
    again = {"name": "python", "contains": "the next begins another session"}
    space.apply(
        policy,
        route(
            writes(waits, turn=1),
            writes("wave.open", turn=2),
            writes("'wave' in globals()", toolResult=again),
            says("{{toolResult}}"),
        ),
        coder("a", task="Run it.", policyRef={"name": space.name}),
    )
    household.until(
        "it runs", lambda: "began" in space.agentk("exec", "a", "--", "ls", "/workspace", code=None).out
    )
    space.apply({**policy, "spec": stricter})
    space.agentk("exec", "a", "--", "touch", "/workspace/go")
    status = space.phase("a", "Succeeded", "Failed")
    told = json.loads(status["result"])
    assert told == "[The interpreter began anew: variables of earlier steps were gone.]\nFalse", space.log(
        "a"
    )
    space.agentk("delete", "policy", space.name)


def test_the_daemon_dies_while_code_runs_and_nobody_knows_what_it_did(alone: Space) -> None:
    waits = "x = 1\nimport os, time\nopen('began', 'w').close()\nwhile not os.path.exists('go'):\n    time.sleep(0.1)"
    alone.apply(
        route(
            writes(waits, turn=1),
            writes("'x' in globals()", toolResult={"name": "python", "contains": "Nobody knows"}),
            says("{{toolResult}}"),
        ),
        coder("a", task="Run it."),
    )
    listed = ("exec", "a", "--", "ls", "/workspace")
    household.until("it runs", lambda: "began" in alone.agentk(*listed, code=None).out)
    alone.home.kill("daemon")
    status = alone.phase("a", "Succeeded", "Failed")
    log = alone.log("a")
    assert (status["reason"], status["attempt"], status["steps"]) == ("Completed", 1, 3), log
    told = json.loads(status["result"])
    assert told == "[The interpreter began anew: variables of earlier steps were gone.]\nFalse", log


def test_hostile_code_harms_its_own_agent_and_nothing_else(space: Space) -> None:
    hostile = {
        "kills": "import os\nos.kill(-1, 9)",
        "forges": "from agentk.sdk import client\nclient.connect().exit(result='forged')",
        "breaks": "import agentk.sdk.client as c, sys\nc.Agent.call = sys.stdout = None\nsys.settrace(len)\n",
    }
    for name, code in hostile.items():
        rules = [writes(code, turn=1), writes("6 * 7", turn=2), says("{{toolResult}}")]
        made = household.manifest("ModelRoute", name, spec={"scripted": {"rules": rules}})
        space.apply(made, coder(name, task="Do it.", modelRef={"name": name}))
    ended = {name: space.phase(name, "Succeeded", "Failed") for name in hostile}
    assert (ended["kills"]["reason"], ended["kills"]["steps"]) == ("Error", 1)
    assert (ended["forges"]["result"], ended["forges"]["steps"]) == ('"forged"', 1)
    assert json.loads(ended["breaks"]["result"]).endswith("42") and ended["breaks"]["steps"] == 3
    assert all(one["usage"]["tokens"] > 0 for one in ended.values())


@pytest.mark.parametrize("program", ["code", "react"])
def test_what_it_took_is_told_of_one_that_was_killed(space: Space, program: str) -> None:
    waits = "touch /workspace/began; sleep 1000"
    space.apply(
        household.manifest("Tool", "slow", spec={"command": {"argv": ["sh", "-c", waits]}}),
        route(
            writes("1 + 1", turn=1) if program == "code" else calls(("nothing", {}), turn=1),
            writes("from tools import slow\nslow()") if program == "code" else calls(("slow", {})),
        ),
        coder("a", task="Wait.", tools=[{"ref": {"name": "slow"}}], program=program),
    )
    listed = ("exec", "a", "--", "ls", "/workspace")
    household.until("it runs", lambda: "began" in space.agentk(*listed, code=None).out)
    space.agentk("kill", "a")
    status = space.phase("a", "Succeeded", "Failed")
    assert (status["reason"], status["steps"]) == ("Killed", 2) and "result" not in status, space.log("a")
    assert status["usage"]["tokens"] > 0


def test_a_million_rows_are_analysed_and_few_are_read(home: Household) -> None:
    path = str(EXAMPLES / "data-analysis" / "manifest.yaml")
    home.agentk("apply", "-f", path)
    there = Space(home, "data-analysis")
    try:
        status = there.phase("analyst", "Succeeded", "Failed")
        log = there.log("analyst")
        assert status["reason"] == "Completed", log
        told = json.loads(status["result"])
        days = [(date(2025, 1, 1) + timedelta(day)).isoformat()[:7] for day in range(365)]
        months: Counter[str] = Counter()
        for n in range(1_000_000):
            months[days[n * 31 % 365]] += n * 7919 % 10007
        assert (told["rows"], (told["month"], told["cents"])) == (1_000_000, months.most_common(1)[0])
        assert status["usage"]["tokens"] < 10_000
    finally:
        home.agentk("delete", "-f", path)
