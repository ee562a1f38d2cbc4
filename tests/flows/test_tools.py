"""Tools, granted by manifest and called from a jail: beside the caller, or in a box of their own."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

from agentk.api import kinds
from agentk.client import client
from tests.flows import household
from tests.flows.household import Object, Space, python

pytestmark = household.needs

CALLING = """
import json, sys
from agentk.sdk import client, errors
agent = client.connect()
for name, arguments in json.loads(sys.argv[1]):
    try:
        if name == "tool.list":
            told = agent.tool_list(**arguments)
            print(json.dumps([[one.name for one in told.items], list(told.unavailable)]), flush=True)
        elif name == "tool.describe":
            print(json.dumps(agent.tool_describe(**arguments).input_schema), flush=True)
        else:
            told = agent.tool_call(name, arguments)
            print(json.dumps([told.is_error, str(told), told.structured, told.file]), flush=True)
    except errors.CallError as error:
        print(json.dumps([error.reason, str(error)]), flush=True)
"""
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


def tool(name: str, **spec: Any) -> Object:
    return household.manifest("Tool", name, spec=spec)


def command(name: str, *argv: str, parameters: Any = None, **more: Any) -> Object:
    known = {key: more.pop(key) for key in ("output", "exitCodes", "stdin") if key in more}
    return tool(name, command={"argv": list(argv), "parameters": parameters or {}, **known}, **more)


def granted(*names: str) -> list[Object]:
    return [{"ref": {"name": name}} for name in names]


README = Path(__file__).parent.parent.parent / "README.md"


def agents(space: Space) -> list[str]:
    return [
        one["metadata"]["name"] for one in space.api.list(client.Selection(kinds.AGENT, space.name)).items
    ]


def call(
    space: Space, tools: list[Object], *calls: tuple[str, Any], name: str = "a", before: str = "", **spec: Any
) -> list[Any]:
    """What an agent with these tools is told, one line a call."""
    made = python(name, f"{before}\n{CALLING}", tools=tools, **spec)
    made["spec"]["command"].append(json.dumps(calls))
    space.apply(made)
    ended = space.phase(name, "Succeeded", "Failed")
    assert ended["reason"] == "Completed", "\n".join(space.log(name))
    return [json.loads(line) for line in space.log(name)]


@household.on_both
def test_a_command_runs_beside_its_caller_and_what_it_is_not_granted_is_not_there(space: Space) -> None:
    space.apply(
        command(
            "write", "sh", "-c", 'printf %s "$2" >note && cat note', "sh", "--", "{text}", parameters=TEXT
        ),
        command("words", "wc", "-w", stdin="{text}", parameters=TEXT, description="Counts words.\nMore."),
        command("rows", "printf", '{{"n": [1, 2]}}', output="Json"),
        command("other", "true"),
    )
    grants = [
        {"ref": {"name": "write"}, "arguments": [{"argument": "text", "deny": ["*secret*"]}]},
        {"ref": {"name": "words"}, "maxCalls": 2},
        {"ref": {"name": "rows"}},
        {"ref": {"name": "missing"}},
    ]
    told = call(
        space,
        grants,
        ("tool.list", {"search": "count the words"}),
        ("tool.list", {}),
        ("tool.describe", {"name": "words"}),
        ("write", {"text": "$(id); --x"}),
        ("write", {"text": "a secret"}),
        ("write", {"texts": "x"}),
        ("words", {"text": "one two three"}),
        ("words", {"text": ""}),
        ("words", {"text": "x"}),
        ("rows", {}),
        ("other", {}),
        ("nobody", {}),
    )
    assert told[0] == [["words"], [{"tool": "missing", "message": "there is no such Tool"}]]
    missing = 'spec.tools names Tool "missing", and there is none'
    household.until("it is told", lambda: missing in space.agentk("events", "--for", "agent/a").out)
    assert told[1][0] == ["rows", "words", "write"]
    assert told[2] == {**TEXT, "additionalProperties": False}
    assert told[3] == [False, "$(id); --x", None, None]
    assert "agentk get agent a -o yaml" in told[4][1]
    assert told[4][0] == "PolicyDenied" and "spec.tools[write].arguments[0]" in told[4][1]
    assert told[5][0] == "BadRequest" and "text missing" in told[5][1]
    assert told[6][1].strip() == "3" and told[7][1].strip() == "0"
    assert told[8][0] == "BudgetExceeded" and "maxCalls" in told[8][1]
    assert told[9][2] == {"n": [1, 2]}
    assert told[10][0] == told[11][0] == "NotFound"
    status = space.get("words", kinds.TOOL)["status"]
    assert status["offers"] == 1 and status["conditions"][0]["status"] == "True"
    listed = space.agentk("get", "tools", "-o", "wide").out
    assert "Counts words." in listed


def test_a_long_answer_is_a_file_of_the_callers(space: Space) -> None:
    space.apply(
        command("many", "seq", "100000", description="Many lines."),
        command("first", "head", "-c", "20", "--", "{path}", parameters={"properties": {"path": {}}}),
    )
    many = {"ref": {"name": "many"}, "resultBytes": 1000}
    told = call(space, [many, *granted("first")], ("many", {}), ("first", {"path": ".tools"}))
    wrong, text, structured, file = told[0]
    assert (
        not wrong and structured is None and file["bytes"] == 588_895 and file["path"].startswith(".tools/")
    )
    assert len(text) < 1000 and "100000 lines" in text.replace("100001", "100000") and file["path"] in text
    assert told[1][0] is True and "Is a directory" in told[1][1]


@household.on_both
def test_a_box_of_its_own_has_what_is_the_tools_and_goes_when_idle(space: Space) -> None:
    space.apply(
        household.manifest("Secret", "s", stringData={"k": "tool-secret-value"}),
        command(
            "own",
            "sh",
            "-c",
            'echo "$KEY:$(ls /workspace | wc -l):$(hostname)" && touch /workspace/x',
            jail={
                "runtimeRef": {"name": space.runtime},
                "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                "resources": {"limits": dict(household.TINY)},
            },
            idleSeconds=1,
        ),
    )
    told = call(space, granted("own"), ("own", {}), ("own", {}))
    boxes = [one for one in agents(space) if one != "a"]
    assert [one[1].split(":")[1].strip() for one in told] == ["0", "1"]  # one box, kept from call to call
    assert all(one[1].split(":")[0] == "tool-secret-value" for one in told)
    assert {one[1].split(":")[2].strip() for one in told} == set(boxes) and len(boxes) == 1
    household.until("it is idle", lambda: agents(space) == ["a"])


def test_who_waits_for_a_box_of_a_tool_is_told_what_it_waits_for(space: Space) -> None:
    secret = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "late", "key": "k"}}}
    space.apply(command("own", "printenv", "KEY", jail={"env": [secret]}))
    with space.begin("tool", "call", "own", stderr=subprocess.PIPE) as asking:
        assert asking.stderr is not None
        assert 'has not started yet: env KEY: Secret "late" does not exist' in asking.stderr.readline()
        space.apply(household.manifest("Secret", "late", stringData={"k": "in-time"}))
        out, _ = asking.communicate(timeout=household.SECONDS)
    assert (asking.returncode, out.strip()) == (0, "in-time")


FUNCTIONS = """
import os
seen = []

def count(text: str, letter: str = "a") -> int:
    '''Counts a letter.

    Args:
        letter: Which.
    '''
    print("noise")
    seen.append(text)
    return text.count(letter)

def here() -> list[str]:
    '''What lies in the workspace.'''
    return sorted(os.listdir("/workspace"))
"""


def test_functions_are_read_in_a_box_of_their_own_and_run_beside_the_caller(space: Space) -> None:
    python_of = {"functions": ["letters:count", "letters:here"]}
    broken = {"inline": {"files": {"m.py": "import nothing_here"}}}
    space.apply(
        household.manifest("ConfigMap", "code", data={"letters.py": FUNCTIONS}),
        tool("letters", python={**python_of, "source": {"configMapRef": {"name": "code"}}}, idleSeconds=1),
        tool("broken", python={"functions": ["m:f"], "source": broken}),
    )
    letters = {"ref": {"name": "letters"}, "deny": ["nobody"]}
    told = call(
        space,
        [letters, *granted("broken")],
        ("tool.list", {}),
        ("tool.describe", {"name": "letters__count"}),
        ("letters__count", {"text": "banana"}),
        ("letters/count", {"text": "banana", "letter": 7}),
        ("letters__here", {}),
    )
    assert told[0][0] == ["letters__count", "letters__here"]
    assert "No module named 'nothing_here'" in told[0][1][0]["message"]
    assert told[1]["properties"]["letter"] == {"type": "string", "description": "Which.", "default": "a"}
    assert told[2] == [False, "3", 3, None]
    assert told[3][0] == "BadRequest" and "expected string" in told[3][1]
    assert told[4][2] == []
    status = space.get("letters", kinds.TOOL)["status"]
    assert [one["name"] for one in status["tools"]] == ["count", "here"]
    assert "nothing_here" in space.get("broken", kinds.TOOL)["status"]["lastError"]
    changed = {"letters.py": FUNCTIONS.replace("count", "tally")}
    space.apply(household.manifest("ConfigMap", "code", data=changed))
    again = call(space, [letters], ("tool.list", {}), name="b")
    assert "has no attribute 'count'" in again[0][1][0]["message"]


def test_a_person_calls_tests_and_lists_tools(space: Space) -> None:
    examples = [
        {"arguments": {"text": "a b"}, "contains": "2"},
        {"arguments": {"text": "a"}, "contains": "7"},
    ]
    space.apply(
        command(
            "words",
            "wc",
            "-w",
            stdin="{text}",
            parameters=TEXT,
            description="Counts words.",
            examples=examples,
        ),
        command("mine", "ls", "/workspace"),
        tool(
            "letters",
            python={"functions": ["m:f"], "source": {"inline": {"files": {"m.py": "def f(): 'Is.'"}}}},
        ),
        household.shell("a", "touch here; sleep 1000", tools=granted("mine")),
    )
    space.running("a")
    asked = json.dumps({"text": "one two"})
    assert space.agentk("tool", "call", "words", "--args", asked).out.strip() == "2"
    wrong = space.agentk("tool", "call", "words", "--args", '{"texts": 1}', code=1)
    assert "text missing" in wrong.err
    assert space.agentk("tool", "call", "mine").out.strip() == ""
    household.until(
        "it is there", lambda: "here" in space.agentk("tool", "call", "mine", "--as", "agent/a").out
    )
    assert "NotFound" not in space.agentk("tool", "call", "words", "--args", asked, "--as", "a", code=1).out
    assert "Is." in space.agentk("tool", "list", "letters").out
    assert space.agentk("tool", "call", "letters__f").code == 0
    tried = space.agentk("tool", "test", "words", "letters", code=1).lines
    assert tried[:3] == ["words: offers 1", "words: words: ok", "words: examples[0]: ok"]
    assert tried[3].startswith("words: examples[1]: '7' is not in") and tried[4] == "letters: offers 1"
    told = space.agentk("describe", "tool", "words").out
    assert "Counts words." in told and "Offers:" in told
    (made, *_) = space.agentk("audit", "mine", "-o", "json").json["items"]
    assert made["method"] == "people.tool.call" and "uid" in json.dumps(made)
    space.apply(command("oops", "sh", "-c", "echo it broke >&2; exit 3"))
    assert "it broke" in space.agentk("tool", "call", "oops", code=1).out
    told = space.agentk("audit", "oops", "--no-headers").out
    assert "failed" in told and "it broke" in told
    may = space.agentk("auth", "can-i", "--as", "agent/a", "tool.call", "name=mine").out
    assert may.startswith("yes:") and "mine/mine" in may
    assert space.agentk("auth", "can-i", "--as", "agent/a", "tool.call", "name=words", code=1).err


def test_the_readme_works_as_typed(space: Space, tmp_path: Path) -> None:
    section = README.read_text().partition("### Give it tools\n")[2].partition("\n### ")[0]
    manifests, commands = re.findall(r"```\w+\n(.*?)```", section, re.DOTALL)
    (tmp_path / "clerk.yaml").write_text(manifests)
    told = {}
    for line in re.findall(r"^\$ agentk (.*)$", commands, re.MULTILINE):
        words = shlex.split(line.replace("clerk.yaml", str(tmp_path / "clerk.yaml")), comments=True)
        told[" ".join(words[:2])] = space.agentk(*words).out
    assert told["logs -f"].strip() == "3" and told["tool call"].strip() == "2"
    assert "words: ok" in told["tool test"] and "kind: Tool" in told["tool discover"]


def test_what_a_manifest_says_is_told_before_anybody_calls(space: Space) -> None:
    document = {"inline": '{"openapi": "3.0.0", "servers": [{"url": "https://a.example"}], "paths": {}}'}
    deep: Any = {"type": "string"}
    for _ in range(12):
        deep = {"type": "object", "properties": {"a": deep}}
    long = "x" * 200
    space.apply(
        command(long, "wc"),
        command("deep", "wc", parameters=deep),
        command("words", "wc"),
        tool("pet", http={"openapi": {"source": document, "operation": "pet"}}),
    )
    space.agentk("wait", "tool/words", "--for=condition=Ready", "--timeout=100s")
    space.agentk("wait", "tool/pet", "--for=condition=Ready=False", "--timeout=100s")
    for name in (long, "deep"):
        space.agentk("wait", f"tool/{name}", "--for=condition=Ready=False", "--timeout=100s")
    assert 'no operation "pet"' in space.agentk("get", "tools", "-o", "wide").out


def test_functions_of_a_folder_are_packed_with_the_jail_they_run_in(space: Space, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text(
        "import other\ndef f(n: int) -> int:\n    return other.twice(n)\n"
    )
    (tmp_path / "code" / "other.py").write_text("def twice(n):\n    return 2 * n\n")
    made = tool("packed", python={"functions": ["main:f"]}, jail={"source": {"path": "./code"}})
    (tmp_path / "tool.yaml").write_text(json.dumps(made))
    space.agentk("apply", "-f", str(tmp_path / "tool.yaml"))
    assert space.agentk("tool", "call", "packed", "--args", '{"n": 21}').out.strip() == "42"
