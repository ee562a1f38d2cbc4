"""Machines in jails: what they can do is theirs, moves, becomes code, and survives whatever ends them."""

import json
import subprocess
from pathlib import Path
from typing import Any

from agentk.programs import machine_routines
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
        assert "agentk resume heir" in there.agentk("machine", "harden", "heir", "card", code=1).err
        there.agentk("resume", "heir")
        status = there.phase("heir", "Succeeded", "Failed")
        assert json.loads(status["result"] or "null") == card, there.log("heir")
        thought = there.agentk("audit", "heir", "-o", "json").json["items"]
        asked = json.dumps([one for one in thought if one["method"] == "think"])
        assert "routine, card" in asked and "routine, greet" not in asked
    finally:
        home.agentk("delete", "-f", path)


def test_a_machine_reads_what_others_remember_and_never_does_it(space: Space) -> None:
    space.apply(manifest("Memory", "team", spec={"sharing": {"namespace": True}}))
    for name in ("evil", "m"):
        space.apply(machine(name, task="Go on.", memory={"ref": {"name": "team"}}, suspend=True))
    theirs = "exec: lambda v: open('/workspace/theirs', 'w').close()"
    space.agentk("memory", "put", "evil", theirs, "--name", "greet", "--kind", "skill")
    space.agentk("memory", "put", "evil", theirs, "--name", "part", "--kind", "skill")
    space.agentk("memory", "put", "m", "exec: lambda v: 'mine'", "--name", "greet", "--kind", "skill")
    turns = [("recall", {"name": "part"}), ("invoke", {"name": "part"}), ("invoke", {"name": "greet"})]
    space.apply(route(calls(*turns, turn=1), calls(back("done"))))
    space.agentk("resume", "m")
    assert space.phase("m", "Succeeded", "Failed")["reason"] == "Completed", space.log("m")
    log = space.log("m")
    assert [line.strip() for line in log if line.strip().startswith("<")] == [
        "< part failed: there is no routine 'part' of its own: search finds what there is",
        "< greet: mine",
    ]
    asked = json.dumps(space.agentk("audit", "m", "-o", "json").json["items"])
    assert theirs.partition("(")[0] in asked, "it may read it"


@household.on_both
def test_runaway_code_is_an_error_and_the_machine_goes_on(space: Space, runtime: str) -> None:
    js = "exec: () => { const a = []; for (;;) a.push('x'.repeat(9999)) }"
    python = "exec: def run(a):\n    x = []\n    while True: x.append('x' * 99999)"
    prints = (
        "def run(a):\n    import os\n    for n in range(160): os.write(1, b'x' * 65536)\n    return 'told'"
    )
    kept = {"js": js, "python": python, "prints": f"exec: {prints}"}
    # These two take long, so each is told once: 32 runs within each other, and ten seconds of processor.
    last: Object = {"code": "() => { for (;;); }"}
    if runtime == "nsjail":
        last = {"code": "(n) => invoke('self', n)"}
        kept["self"] = "exec: (n) => invoke('self', n)"
    space.apply(
        route(
            calls(*(("remember", {"name": name, "value": code}) for name, code in kept.items()), turn=1),
            calls(*(("invoke", {"name": name}) for name in ("js", "python", "prints", "nobody")), turn=2),
            calls(("exec", last), turn=3),
            calls(back("{{toolResult}}")),
        ),
        machine("a", task="Run."),
    )
    status = space.phase("a", "Succeeded", "Failed")
    log = space.log("a")
    said = dict(line[4:].split(" failed: ") for line in log if line.startswith("  < ") and "failed" in line)
    assert said["js"] == "it took too much memory" and said["python"].endswith("it took too much memory"), log
    assert "  < prints: told" in log and "no routine 'nobody'" in said["nobody"], log
    ended = ["it took too much time", f"it took longer than {machine_routines.SECONDS:g} s"]
    if runtime == "nsjail":
        ended = ["too deep: 16 routines invoked each other, the last 'self'"]
    result = json.loads(status["result"] or "null")
    assert (status["attempt"], result in [f"Failed: {one}" for one in ended]) == (1, True), log


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
    assert "is this code already" in space.agentk("machine", "harden", "a", "greet", "-f", str(code)).out
    code.write_text("(name) => `Dear ${name},`")
    space.agentk("suspend", "a")
    space.phase("a", "Suspended")
    asleep = space.agentk("machine", "harden", "a", "greet", code=1)
    assert "is suspended" in asleep.err and "agentk resume a" in asleep.err
    again = space.agentk("machine", "harden", "a", "greet", "-f", str(code)).out
    assert again == "greet is code from now on; what it was is greet@2\n"
    assert "already" in space.agentk("machine", "harden", "a", "greet", "-f", str(code)).out
    space.agentk("resume", "a")
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
    assert json.loads(status["result"] or "null") == "Bye Ada" and "  < greet: Dear Ada," in log, log
    bad = tmp_path / "bad.py"
    bad.write_text("x = 1")
    wrong = space.agentk("machine", "harden", "a", "greet", "-f", str(bad), code=2)
    assert "no function in it" in wrong.err
    wrong = space.agentk("machine", "harden", "a", "nobody", "-f", str(code), code=1)
    assert "has no routine nobody" in wrong.err
    assert "agentk restart a" in space.agentk("machine", "harden", "a", "greet", code=1).err
    code.write_text("def run(name):\n    return name")
    # As somebody left it who was ended in the middle.
    space.agentk("memory", "put", "a", space.agentk("memory", "get", "a", "greet").out, "--name", "greet@3")
    assert "what it was is greet@3" in space.agentk("machine", "harden", "a", "greet", "-f", str(code)).out
    names = [one["name"] for one in space.agentk("memory", "ls", "a", "-o", "json").json["items"]]
    assert sorted(names) == ["greet", "greet@1", "greet@2", "greet@3", "part", "part@1"]


def test_the_daemon_dies_while_a_routine_becomes_code(alone: Space) -> None:
    alone.apply(
        route(
            calls(("remember", {"name": "greet", "value": "Greet."}), turn=1),
            calls(("wait", {}), turn=2),
            calls(
                ("invoke", {"name": "harden", "args": {"name": "greet", "code": "a => `Hi ${a}`"}}), turn=3
            ),
            calls(("invoke", {"name": "greet", "args": "Ada"}), turn=4),
            calls(back("{{toolResult}}")),
        ),
        machine("a", task="Wait.", stdin=True),
    )
    alone.logged("a", 'remember {"name": "greet", "value": "Greet."} -> Kept. M holds 1 cell.')
    (alone.home.crashes / "memory.kept").touch()
    command = [*household.AGENTK, "attach", "-i", "a", "-n", alone.name]
    with subprocess.Popen(
        command, env=alone.home.environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as typing:
        assert typing.stdin is not None
        typing.stdin.write(b"go\n")
        typing.stdin.flush()
        household.until("it died", lambda: not (alone.home.crashes / "memory.kept").exists())
        alone.home.answers()
        status = alone.phase("a", "Succeeded", "Failed")
    assert (status["attempt"], json.loads(status["result"] or "null")) == (1, "Hi Ada"), alone.log("a")
    kept = {
        one["name"]: one["snippet"] for one in alone.agentk("memory", "ls", "a", "-o", "json").json["items"]
    }
    assert kept == {"greet": "exec: a => `Hi ${a}`", "greet@1": "Greet."}
