"""Skills where other things meet them: a model without code, a person who is asked, a box that waited, a namespace."""

import json
from pathlib import Path

from agentk.api import kinds
from tests.flows import household
from tests.flows.household import Household, Space, python
from tests.flows.test_approvals import pending, policy
from tests.flows.test_pools import filled, pool
from tests.flows.test_react import calls as model_calls
from tests.flows.test_react import react, route, says
from tests.flows.test_skills import ALL, CALLING, FIB, calls, folder

pytestmark = household.needs


def test_a_model_reads_a_skill_and_runs_it(space: Space, tmp_path: Path) -> None:
    space.agentk("apply", "-f", str(folder(tmp_path, "fib", **{"__init__.py": FIB})))
    run = {"name": "fib", "function": "fib", "arguments": {"n": 9}}
    space.apply(
        route(
            model_calls(("read_skill", {"name": "fib"}), turn=1),
            model_calls(("run_skill", run), turn=2),
            says("It is {{toolResult}}.", toolResult={"name": "run_skill"}),
        ),
        react("a", task="The ninth?", skills={"use": [{"name": "fib"}]}),
    )
    status = space.phase("a", "Succeeded", "Failed")
    assert status["reason"] == "Completed" and json.loads(status["result"]) == "It is 34.", space.log("a")
    assert "skills: fib" in space.log("a")


def test_what_a_person_approves_is_this_skill_and_not_what_it_becomes(space: Space, tmp_path: Path) -> None:
    asks = {"name": "skills", "effect": "Ask", "methods": ["skill.run"]}
    space.apply(policy(space.name, rules=[asks, {"name": "rest", "effect": "Allow", "methods": ["*"]}]))
    code = "def run():\n    return {}\n"
    space.agentk("apply", "-f", str(folder(tmp_path, "work", **{"__init__.py": code.format(1)})))
    made = python("a", CALLING, skills=ALL, policyRef={"name": space.name})
    run = ("run", {"name": "work", "function": "run"})
    made["spec"]["command"].append(json.dumps([run, run]))
    space.apply(made)
    first = pending(space)[0]
    space.agentk("apply", "-f", str(folder(tmp_path, "work", **{"__init__.py": code.format(2)})))
    space.agentk("approve", first)
    household.until("the next is asked for", lambda: set(pending(space)) - {first})
    space.agentk("approve", pending(space)[0])
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", space.log("a")
    told = [json.loads(line) for line in space.log("a")]
    assert told[0][0] == "Conflict" and "skill/work" in told[0][1] and told[1]["result"] == 2
    space.agentk("delete", "policy", space.name)


def test_an_agent_in_a_box_that_waited_imports_its_skills(space: Space, tmp_path: Path) -> None:
    space.agentk("apply", "-f", str(folder(tmp_path, "fib", **{"__init__.py": FIB})))
    space.apply(pool(size=1))
    filled(space, ready=1)
    program = "from skills import fib; print(fib.fib(7))"
    space.apply(python("a", program, poolRef={"name": "p"}, skills=ALL))
    status = space.phase("a", "Succeeded", "Failed")
    assert status["reason"] == "Completed" and status["start"]["type"] == "Warm", status
    assert space.log("a") == ["13"]


def test_another_namespace_is_used_when_both_sides_say_so(
    home: Household, space: Space, tmp_path: Path
) -> None:
    with household.space(home, "nsjail") as library:
        for name in ("open-one", "closed-one"):
            library.agentk("apply", "-f", str(folder(tmp_path, name, **{"__init__.py": FIB})))
        library.api.patch(kinds.SKILL, library.name, "open-one", {"spec": {"namespaces": [space.name]}})
        use = {"use": [{"name": "*", "namespace": library.name}]}
        run = ("run", {"name": "open-one", "function": "fib", "arguments": {"n": 6}})
        told = calls(space, use, ("search", {}), run, ("get", {"name": "closed-one"}))
        assert [one[:2] for one in told[0]] == [["open-one", library.name]]
        assert told[1]["result"] == 8 and told[2][0] == "NotFound"
        assert calls(space, ALL, ("search", {}), name="b") == [[]]


def test_what_a_person_takes_over_is_theirs(space: Space, tmp_path: Path) -> None:
    save = ("save", {"name": "fib", "description": "x", "code": FIB})
    assert calls(space, ALL, save)[0]["version"] == 1
    mine = str(folder(tmp_path, "fib", **{"__init__.py": "mine = True\n"}))
    assert "conflict" in space.agentk("apply", "-f", mine, code=1).err
    space.agentk("apply", "--force-conflicts", "-f", mine)
    assert [one[0] for one in calls(space, ALL, save, ("delete", {"name": "fib"}), name="b")] == [
        "Forbidden"
    ] * 2
    assert "mine" in space.agentk("skill", "show", "fib", "__init__.py").out
