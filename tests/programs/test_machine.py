"""The ten primitives of `program: machine`, over a real gate's socket with a small memory and real code routines."""

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.programs import machine, machine_folding, machine_frames, machine_routines, progress, telling
from agentk.sdk import client
from tests.programs import test_react

TOP = test_react.TOP


class House(test_react.House):
    """A model by its turns in each frame, and that by what it is told first; the last turn again and again."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.frames: dict[str, list[Any]] = {}
        self.pages: dict[str, dict[str, Any]] = {}
        self.mail: list[dict[str, Any]] = []
        self.acked: list[str] = []
        self.sent: list[Any] = []
        self.full = False
        self.made = 0
        self.refuses_mail = False
        self.counted = -1  # turns of a frame that forgets some of them
        self.terminal = -1  # where the tool writes a line

    async def _think(self, params: Any, emit: Any) -> Any:
        opening = params["messages"][0]["content"]
        told = next((turns for key, turns in self.frames.items() if key in opening), ["nothing to say"])
        turn = sum(one["role"] == "assistant" for one in params["messages"])
        if self.counted >= 0 and told is self.frames["Do it."]:
            turn, self.counted = self.counted, self.counted + 1
        self.model = [told[min(turn, len(told) - 1)]]
        return await super()._think(params, emit)

    async def _tool_call(self, params: Any, emit: Any) -> Any:
        os.write(self.terminal, b"hello\n")
        return await super()._tool_call(params, emit)

    async def _memory_remember(self, params: Any, emit: Any) -> Any:
        if self.full:
            raise errors.TooLarge("the memory is full")
        name = params.get("name") or ""
        before = next((one["id"] for one in self.pages.values() if name and one["name"] == name), "")
        self.pages.pop(before, None)
        self.made += 1
        made = f"p{self.made:016x}"
        kind = params.get("kind", "note")
        self.pages[made] = {"id": made, "name": name, "kind": kind, "content": params["content"]}
        return {"id": made, "name": name, "tokens": 1, "replaced": before, "embedded": True}

    async def _memory_recall(self, params: Any, emit: Any) -> Any:
        wanted = [*params.get("ids", ()), *params.get("names", ())]
        items = [one for one in self.pages.values() if one["id"] in wanted or one["name"] in wanted]
        return {"items": items, "missing": [], "left": 0}

    async def _memory_search(self, params: Any, emit: Any) -> Any:
        words = params.get("query", "").split()
        found = [one for one in self.pages.values() if all(word in one["content"] for word in words)]
        items = [{**one, "content": "", "snippet": one["content"][:80]} for one in found]
        return {"items": items[: params["limit"]], "pages": len(self.pages)}

    async def _memory_forget(self, params: Any, emit: Any) -> Any:
        gone = [key for key, one in self.pages.items() if one["name"] in params["names"]]
        for key in gone:
            del self.pages[key]
        return {"forgotten": gone, "erased": True}

    async def _exec(self, params: Any, emit: Any) -> Any:
        def work() -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-u", "-c", params["code"]]
            given = params.get("stdin", "")
            return subprocess.run(command, input=given, capture_output=True, text=True, cwd=TOP, check=False)

        ran = await asyncio.to_thread(work)
        code = ran.returncode if ran.returncode >= 0 else 128 - ran.returncode
        told = {"exitCode": code, "reason": "Error" if code else "Completed"}
        return {"id": "x", "state": "Exited", **told, "stdout": ran.stdout, "stderr": ran.stderr}

    async def _message_recv(self, params: Any, emit: Any) -> Any:
        if params.get("waitSeconds"):
            await asyncio.Event().wait()
        taken, self.mail = self.mail, []
        return {"messages": taken}

    async def _message_ack(self, params: Any, emit: Any) -> Any:
        self.acked += params["ids"]
        return {"acknowledged": len(params["ids"])}

    async def _message_send(self, params: Any, emit: Any) -> Any:
        if self.refuses_mail:
            raise errors.ApprovalDenied("ada: no")
        self.sent.append((params["to"], params["body"]))
        return {"id": "m9"}

    def knows(self, **cells: str) -> None:
        for name, value in cells.items():
            self.pages[f"p{len(self.pages) + 100:016x}"] = {
                "id": f"p{len(self.pages) + 100:016x}", "name": name, "kind": "skill", "content": value,
            }  # fmt: skip

    def cell(self, name: str) -> str | None:
        return next((one["content"] for one in self.pages.values() if one["name"] == name), None)

    def told(self, opening: str) -> list[str]:
        """What the functions of the frame that begins so answered, as its model was told at last."""
        asked = [one for one in self.asked if opening in one["messages"][0]["content"]]
        return [one["content"] for one in asked[-1]["messages"][1:] if one["role"] == "tool"]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


def run(house: House, terminal: int | None = None, **told: Any) -> tuple[int, list[str]]:
    log = io.StringIO()
    with client.connect(house.path) as agent:
        code = machine.run(agent, telling.Told(**told), progress.Progress(log), terminal)
    return code, log.getvalue().splitlines()


def does(called: str, /, **given: Any) -> list[tuple[str, str]]:
    return [(called, json.dumps(given))]


def back(value: Any) -> list[tuple[str, str]]:
    return does("return", value=value)


LAST = [("return", '{"value": "done"}')]


def test_routines_invoke_routines_each_in_a_context_of_its_own(house: House) -> None:
    house.knows(
        card="Write a card.", greet="Greet.", signoff="exec: (a) => `Yours, ${a.from}`", secret="4711"
    )
    house.frames = {
        "Do it.": [does("invoke", name="card", args={"to": "Ada"}), back("the card is written")],
        "this routine, card": [
            [*does("invoke", name="greet", args="Ada"), *does("invoke", name="signoff", args={"from": "Bo"})],
            back({"card": "Dear Ada … Yours, Bo"}),
        ],
        "this routine, greet": [back("Dear Ada")],
    }
    code, log = run(house)
    assert (code, house.exits) == (0, [{"result": "the card is written", "steps": 5}]), log
    assert house.told("this routine, card") == ["Dear Ada", "Yours, Bo"]
    assert json.loads(house.told("Do it.")[0]) == {"card": "Dear Ada … Yours, Bo"}
    fresh = next(one for one in house.asked if "this routine, greet" in one["messages"][0]["content"])
    assert len(fresh["messages"]) == 1 and '"Ada"' in fresh["messages"][0]["content"]
    shown = json.dumps(house.asked)
    assert "M holds 4 cells." in shown and "4711" not in shown
    assert len({json.dumps([one["system"], one["tools"]]) for one in house.asked}) == 1
    names = [one["function"]["name"] for one in house.asked[0]["tools"]]
    assert " ".join(names) == "remember recall search forget perceive act wait invoke return exec"


def test_m_is_kept_found_and_forgotten(house: House) -> None:
    house.frames["Do it."] = [
        does("remember", name="due", value="on the fifth"),
        does("recall", name="due"),
        does("search", query="fifth"),
        does("forget", name="due"),
        does("recall", name="due"),
        LAST,
    ]
    assert run(house)[0] == 0
    kept, told, found, gone, none = house.told("Do it.")
    assert (kept, told) == ("Kept. M holds 1 cell.", "on the fifth") and found.startswith(
        "due (note): on the"
    )
    assert gone.startswith("Forgotten.") and none.startswith("There is no such cell")


@pytest.mark.parametrize(
    ("routine", "said"),
    [
        ("exec: () => { const a = []; for (;;) a.push('x'.repeat(1000)) }", "too much memory"),
        ("exec: def run(a):\n    x = []\n    while True: x.append('x' * 100000)", "too much memory"),
        ("exec: () => { const f = () => f() + 1; return f() }", "call stack"),
        ("exec: def run(a):\n    return 1 / 0", "line 2: ZeroDivisionError"),
        ("exec: import os\ndef run(a):\n    os._exit(3)", "without an answer"),
        ("exec: lambda a: {1, 2}", "no JSON"),
        ("exec: () => 3n", "BigInt"),
        ("exec: 3 +", "this is no Python"),
        ("exec: () => new Promise(() => {})", "never comes"),
        (
            "exec: import os\nfrom agentk.programs import machine_code as m\ndef run(a):\n"
            "    print('\\n' + m._runs[0].mark + '[' * 90000, flush=True)\n    os._exit(0)",
            "without an answer",
        ),
        (
            "exec: from agentk.programs import machine_code as m\ndef run(a):\n    m._runs[0].ask('invoke', [])",
            "it needs",
        ),
        ("exec: () => Math.random() < 2 && invoke('other', Math.random())", "something else each time"),
    ],
)
def test_what_code_does_wrong_is_an_error_to_its_caller(house: House, routine: str, said: str) -> None:
    house.knows(bad=routine, other="exec: lambda a: a")
    house.frames["Do it."] = [does("invoke", name="bad"), LAST]
    assert run(house)[0] == 0
    (told,) = house.told("Do it.")
    assert told.startswith("Failed: ") and said in told


@pytest.mark.parametrize(
    "routine",
    [
        "exec: async (a) => { console.log('hi'); remember('seen', a);\n"
        "return invoke('twice', await 4) + recall('n').length }",
        "exec: def run(a):\n    remember('seen', a)\n    print('hi')\n    return invoke('twice', 4) + len(recall('n'))",
    ],
)
def test_code_invokes_and_remembers_by_what_the_machine_answers(house: House, routine: str) -> None:
    house.knows(c=routine, twice="exec: python\nlambda n: n * 2", n="ab")
    house.frames["Do it."] = [does("invoke", name="c", args={"k": 1}), LAST]
    code, log = run(house)
    assert (code, house.told("Do it.")) == (0, ["10"]), log
    assert house.cell("seen") == '{"k": 1}' and "prints: hi" in log


def test_code_that_asks_without_end_is_stopped(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_routines, "ASKS", 3)
    monkeypatch.setattr(machine_frames, "ASKED", 9)
    house.knows(
        many="exec: (n) => { for (;;) recall('n' + n++) }", fan="exec: (n) => [invoke('fan'), invoke('fan')]"
    )
    house.frames["Do it."] = [does("invoke", name="many", args=1), does("invoke", name="fan"), LAST]
    assert run(house)[0] == 0
    many, fan = house.told("Do it.")
    monkeypatch.setattr(machine_routines, "CPU_SECONDS", 1)
    house.frames["Do it."] = [does("exec", code="() => { for (;;); }"), LAST]
    assert run(house)[0] == 0 and house.told("Do it.") == ["Failed: it took too much time"]
    assert "more than 3 things" in many and "more than 9 things" in fan


def test_exec_runs_scripts_and_functions(house: House) -> None:
    house.frames["Do it."] = [
        [*does("exec", code="print(6 * 7)"), *does("exec", code="(a) => a.n + 1", args={"n": 1})],
        [*does("exec", code="def run(a):\n    return [a]", args=1), *does("exec", code="1 / 0")],
        LAST,
    ]
    assert run(house)[0] == 0
    said, js, python, wrong = house.told("Do it.")
    assert (said, js, python) == ("42", "2", "[1]") and "ZeroDivisionError" in wrong


def test_guards_of_depth_burst_and_steps(house: House) -> None:
    house.knows(deep="Go deeper.", loop="Go on.", code="exec: () => invoke('code')")
    house.frames = {
        "this routine, deep": [does("invoke", name="deep"), back("too deep below")],
        "this routine, loop": [does("search", query="x")],
        "Do it.": [
            does("invoke", name="deep"),
            does("invoke", name="code"),
            does("invoke", name="nobody"),
            does("search") * 5,
            LAST,
        ],
    }
    code, log = run(house, burst=3, steps=200)
    assert code == 0, log
    deep, recursed, nobody, *many = house.told("Do it.")
    assert deep == "too deep below" and sum("> deep(" in line for line in log) == machine_frames.DEPTH
    assert "too deep" in recursed and "no routine 'nobody'" in nobody
    assert [one.startswith("Not done: at most 3") for one in many] == [False] * 3 + [True] * 2
    house.frames["Do it."] = [does("invoke", name="loop"), LAST]
    assert run(house, steps=10)[0] == 0 and "did not return after 5 steps" in house.told("Do it.")[0]
    house.frames["Do it."] = [does("search")]
    assert run(house, steps=6)[0] == 1
    assert (house.exits[-1]["reason"], house.exits[-1]["steps"]) == ("MaxSteps", 6)


def test_thinking_is_not_acting(house: House) -> None:
    house.frames["Do it."] = ["I wonder.", "Still."]
    code, log = run(house)
    assert code == 1 and house.exits[0]["message"] == "main talks and calls nothing"
    assert "thinks: I wonder." in log and house.sent == []


def test_a_model_that_insists_on_what_a_person_refused_is_stopped(house: House) -> None:
    house.refuses_mail = True
    house.frames["Do it."] = [does("act", channel="mail", to="bob", content="again")]
    assert run(house)[0] == 1
    assert house.exits[0]["reason"] == "ApprovalDenied" and house.told("Do it.")[0].startswith(
        "A person was asked"
    )


def test_it_perceives_its_mail_and_its_terminal_and_acts_on_both(house: House) -> None:
    house.mail = [{"id": "m1", "from": "bob", "body": {"n": 1}, "sentAt": ""}]
    there, house.terminal = os.pipe()
    house.tools = {"type": "3"}
    house.frames["Do it."] = [
        does("perceive"),
        [*does("act", channel="mail", to="bob", content="got it"), *does("perceive", channel="tool")],
        [
            *does("act", channel="tool", to="type", content={}),
            *does("act", channel="terminal", content="Ah!"),
        ],
        does("wait"),
        does("wait", seconds=0),
        LAST,
    ]
    code, log = run(house, there)
    os.close(house.terminal)
    assert code == 0, log
    assert house.told("Do it.") == [
        '[mail] {"from": "bob", "message": {"n": 1}}',
        "Sent: m9",
        "type: Is type.",
        "3",
        "Done.",
        "[terminal] hello",
        "Nothing came.",
    ]
    assert house.sent == [("bob", "got it")] and house.acked == ["m1"] and "Ah!" in log


def test_a_routine_becomes_code_and_callers_need_not_know(house: House) -> None:
    house.knows(greet="Greet whoever it is.")
    house.frames = {
        "Do it.": [
            does("invoke", name="greet", args="Ada"),
            does("invoke", name="harden", args={"name": "greet"}),
            does("invoke", name="greet", args="Ada"),
            does("invoke", name="harden", args={"name": "greet"}),
            does("invoke", name="harden", args={"name": "greet", "code": "x = 1"}),
            LAST,
        ],
        "Do this routine, greet": [back("Dear Ada")],
        "This is the routine greet": ["```js\n(name) => `Dear ${name}`\n```"],
    }
    code, log = run(house)
    assert code == 0, log
    told = house.told("Do it.")
    assert told[0] == told[2] == "Dear Ada" and json.loads(told[1]) == {"earlier": "greet@1"}
    assert "code already" in told[3] and "no function" in told[4]
    assert house.cell("greet@1") == "Greet whoever it is."
    assert (house.cell("greet") or "").startswith("exec: js\n(name) =>")


def test_a_context_folds_into_notes_that_are_found_and_never_nest(house: House) -> None:
    blob = "word " * 300
    turns: list[Any] = [does("recall", name="blob")] * 30
    house.knows(blob=blob)
    house.frames = {"Do it.": [*turns, LAST], "oldest part of a record": ["A note of what was done."]}
    house.counted = 0
    code, log = run(house, window=3000, steps=60)
    assert code == 0, log
    notes = [one for one in house.pages.values() if one["kind"] == "episode"]
    assert notes and all(one["content"] == "A note of what was done." for one in notes)
    sizes = [machine_folding.tokens(one["messages"]) for one in house.asked]
    assert max(sizes) < 3000
    asked = [
        one["messages"][0]["content"] for one in house.asked if "Do it." in one["messages"][0]["content"]
    ]
    assert asked[-1].count("What happened before") == 1 and notes[-1]["id"] in asked[-1]
    folded = [
        one["messages"][0]["content"] for one in house.asked if "oldest part" in one["messages"][0]["content"]
    ]
    assert folded and not any("What happened before" in one or "A note of" in one for one in folded)
    house.full = True
    house.frames["Do it."] = [*turns, LAST]
    house.counted = 0
    code, log = run(house, window=3000, steps=60)
    assert code == 0 and any("does not fold" in line for line in log)


def test_a_note_needs_no_model_and_a_recap_has_its_bounds(house: House) -> None:
    said = [{"role": "user", "content": "task"}]
    for n in range(20):
        call = {"id": f"c{n}", "function": {"name": "recall", "arguments": "{}"}}
        said += [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": f"{n} " * 200}]  # type: ignore[list-item,dict-item]
    kept: list[str] = []
    name, line, left = machine_folding.fold(
        said, 600, lambda text: "", lambda note: kept.append(note) or "p1"
    )
    assert name == "p1" and kept[0].startswith("assistant: recall({})\ntool: 0 0") and len(line) <= 200
    assert left[0] == said[0] and left[1]["role"] == "assistant" and left[-1] == said[-1]
    recap = [(f"p{n}", "x" * 200) for n in range(40)]
    text = machine_folding.recapped("task", recap)
    assert len(text) < machine_folding.RECAP_LETTERS + 200 and "p39" in text and "earlier: search" in text


def test_no_memory_and_a_result_that_is_not_taken(house: House) -> None:
    house.frames["Do it."] = [back("three"), back(3)]
    house.refuses = ["expected integer"]
    code, log = run(house, output={"type": "integer"})
    assert (code, house.exits[-1]["result"]) == (0, 3), log
    assert machine_routines.is_code(" exec: x") and not machine_routines.is_code("do exec: x")
