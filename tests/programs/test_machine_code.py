"""Routines that are code, and guards: what runs away is an error to its caller, and the machine goes on."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentk.programs import machine_frames, machine_routines
from tests.programs.machine_house import LAST, House, back, does, run


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


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
    house.knows(loop="exec: def run(a):\n    while True: pass")
    house.frames["Do it."] = [[*does("exec", code="() => { for (;;); }"), *does("invoke", name="loop")], LAST]
    assert run(house)[0] == 0 and house.told("Do it.") == ["Failed: it took too much time"] * 2
    assert "more than 3 things" in many and "more than 9 things" in fan


def test_code_takes_less_than_its_box_has_and_what_it_asked_for_fails_in_its_own_words(house: House) -> None:
    house.knows(
        large="exec: lambda a: len('x' * a)",
        js="exec: (n) => 'x'.repeat(n).split('').length",
        deep="exec: (a) => invoke('deeper')",
        deeper="exec: def run(a): return invoke('large', 10**9)",
    )
    house.frames["Do it."] = [
        [*does("invoke", name="large", args=50_000_000), *does("invoke", name="js", args=500_000)],
        does("invoke", name="deep"),
        LAST,
    ]
    assert run(house)[0] == 0
    assert house.told("Do it.") == ["50000000", "500000", "Failed: line 1: it took too much memory"]
    assert run(house, memory=64 * 1024 * 1024)[0] == 0
    assert [one.endswith("it took too much memory") for one in house.told("Do it.")] == [True] * 3


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
