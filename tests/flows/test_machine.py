"""Machines in jails: what they can do is theirs, moves, becomes code, and survives whatever ends them."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.flows import household
from tests.flows.household import Household, Object, Space, manifest
from tests.flows.test_examples import EXAMPLES
from tests.flows.test_react import calls, react, route

pytestmark = household.needs


def machine(name: str, **spec: Any) -> Object:
    made = react(name, **spec)
    return {**made, "spec": {"memory": {}, **made["spec"], "program": "machine"}}


def back(value: Any) -> tuple[str, Object]:
    return "return", {"value": value}


def test_a_machine_learns_to_write_cards_and_another_one_inherits_it(home: Household, tmp_path: Path) -> None:
    path, kept = str(EXAMPLES / "machine" / "manifest.yaml"), str(tmp_path / "card.jsonl")
    home.agentk("apply", "-f", path)
    there = Space(home, "machine")
    card = "Dear Ada, happy birthday! Yours, Bo"
    try:
        status = there.phase("clerk", "Succeeded", "Failed")
        log = there.log("clerk")
        assert (status["reason"], json.loads(status["result"] or "null")) == ("Completed", card), log
        assert "thinks: I need three routines." in log and card in log
        assert [line for line in log if "< greet" in line or "> greet" in line] == [
            '    > greet("Ada")',
            "    < greet: Dear Ada,",
        ] * 2
        assert sum("> card" in line for line in log) == 2
        assert there.agentk("memory", "get", "clerk", "greet@1").out.startswith("Greet whom")
        there.agentk("memory", "export", "clerk", "-f", kept)
        there.agentk("memory", "import", "heir", "-f", kept)
        there.agentk("resume", "heir")
        status = there.phase("heir", "Succeeded", "Failed")
        assert json.loads(status["result"] or "null") == card, there.log("heir")
        thought = there.agentk("audit", "heir", "-o", "json").json["items"]
        asked = json.dumps([one for one in thought if one["method"] == "think"])
        assert "routine, card" in asked and "routine, greet" not in asked
    finally:
        home.agentk("delete", "-f", path)


@household.on_both
def test_runaway_code_is_an_error_and_the_machine_goes_on(space: Space) -> None:
    js = "exec: () => { const a = []; for (;;) a.push('x'.repeat(9999)) }"
    python = "exec: def run(a):\n    x = []\n    while True: x.append('x' * 99999)"
    space.apply(
        route(
            calls(
                ("remember", {"name": "js", "value": js}),
                ("remember", {"name": "python", "value": python}),
                turn=1,
            ),
            calls(
                ("invoke", {"name": "js"}),
                ("invoke", {"name": "python"}),
                ("invoke", {"name": "nobody"}),
                turn=2,
            ),
            calls(back("alive")),
        ),
        machine("a", task="Run."),
    )
    status = space.phase("a", "Succeeded", "Failed")
    log = space.log("a")
    assert (status["reason"], json.loads(status["result"] or "null")) == ("Completed", "alive"), log
    said = [line.partition("failed: ")[2] for line in log if "failed: " in line]
    assert said[0] == "it took too much memory" and said[1].endswith("it took too much memory"), log
    assert "no routine 'nobody'" in said[2]


def test_what_leaves_a_frame_is_found_in_its_memory(space: Space) -> None:
    note = {"text": "The clerk looked for a kumquat and found words."}
    again = calls(("recall", {"name": "blob"}))
    space.apply(
        route(
            {"match": {"lastMessage": {"contains": "oldest part of a record"}}, "reply": note},
            calls(
                ("remember", {"name": "blob", "value": "word " * 400}),
                turn=1,
                lastMessage={"prefix": "Fold."},
            ),
            {**again, "repeat": 8},
            calls(("search", {"query": "kumquat"}), toolResult={"name": "recall"}),
            calls(back("{{toolResult}}")),
        ),
        manifest("Memory", "team", spec={"contextTokens": 3500}),
        machine("a", task="Fold.", memory={"ref": {"name": "team"}}),
    )
    status = space.phase("a", "Succeeded", "Failed")
    log = space.log("a")
    assert "(episode): The clerk looked for a kumquat" in json.loads(status["result"] or "null"), log
    assert any("folds: p" in line for line in log) and any(" of 3500 tokens" in line for line in log)
    assert "kumquat" in space.agentk("memory", "search", "a", "kumquat").out
    assert "kumquat" in space.agentk("memory", "ls", "a", "--kind", "episode", "-o", "json").out


def test_it_is_killed_in_the_middle_and_remembers(space: Space) -> None:
    space.apply(
        route(
            calls(("recall", {"name": "fact"}), turn=1, lastMessage={"contains": "attempt 2"}),
            calls(("remember", {"name": "fact", "value": "the key is under the mat"}), turn=1),
            calls(back("{{toolResult}}"), toolResult={"name": "recall"}),
            calls(("wait", {})),
        ),
        machine("a", task="Remember.", restartPolicy="OnFailure", restartBackoff={"initialSeconds": 0}),
    )
    space.logged(
        "a", 'remember {"name": "fact", "value": "the key is under the mat"} -> Kept. M holds 1 cell.'
    )
    found = "grep -la 'agentk[.]programs' /proc/[0-9]*/cmdline | cut -d/ -f3"
    space.agentk("exec", "a", "--", "sh", "-c", f"kill -9 $({found} | grep -vx 1)", code=None)
    status = space.phase("a", "Succeeded", "Failed")
    assert status["attempt"] == 2
    assert json.loads(status["result"] or "null") == "the key is under the mat", space.log("a")
    assert "begins: M holds 1 cell." in space.log("a")


def test_a_person_makes_code_of_a_routine_and_types_to_the_machine(space: Space, tmp_path: Path) -> None:
    code = tmp_path / "greet.js"
    code.write_text("(name) => `Dear ${name}`")
    space.apply(
        route(
            {
                "match": {"lastMessage": {"contains": "the routine part"}},
                "reply": {"text": "lambda a: 'Bye ' + a"},
            },
            calls(
                ("remember", {"name": "greet", "value": "Greet."}),
                ("remember", {"name": "part", "value": "Say goodbye."}),
                turn=1,
            ),
            calls(("wait", {}), turn=2),
            calls(
                ("invoke", {"name": "greet", "args": "Ada"}),
                ("invoke", {"name": "part", "args": "Ada"}),
                toolResult={"name": "wait", "contains": "[terminal] go"},
            ),
            calls(back("{{toolResult}}")),
        ),
        machine("a", task="Wait.", stdin=True),
    )
    space.logged("a", 'remember {"name": "part", "value": "Say goodbye."} -> Kept. M holds 2 cells.')
    assert "greet is code from now on" in space.agentk("machine", "harden", "a", "greet", "-f", str(code)).out
    assert "part@1" in space.agentk("machine", "harden", "a", "part").out
    wrong = space.agentk("machine", "harden", "a", "nobody", code=1)
    assert "nobody stays what it is" in wrong.err
    with subprocess.Popen(
        [*household.AGENTK, "attach", "-i", "a", "-n", space.name],
        env=space.home.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as typing:
        assert typing.stdin is not None
        typing.stdin.write(b"go\n")
        typing.stdin.flush()
        status = space.phase("a", "Succeeded", "Failed")
    log = space.log("a")
    assert json.loads(status["result"] or "null") == "Bye Ada" and "  < greet: Dear Ada" in log, log
