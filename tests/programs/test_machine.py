"""The ten primitives of `program: machine`, over a real gate's socket with a small memory."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.programs import machine_folding, machine_routines, machine_window
from tests.programs import test_react
from tests.programs.machine_house import LAST, House, back, does, run


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


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
        [
            *does("act", channel="mail", to="bob", content="got it"),
            *does("perceive", channel="tool"),
            *does("perceive", channel="tool", name="type"),
        ],
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
        f"type: Is.\nIts arguments: {json.dumps(test_react.TEXT)}",
        "3",
        "Done.",
        "[terminal] hello",
        "Nothing came.",
    ]
    assert house.sent == [("bob", "got it")] and house.acked == ["m1"] and "Ah!" in log


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
    sizes = [machine_window.tokens(one["messages"]) for one in house.asked]
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
    text = machine_folding.recapped("task", recap, 8000)
    assert len(text) < machine_folding.RECAP_LETTERS + 200 and "p39" in text and "earlier: search" in text


def test_no_memory_and_a_result_that_is_not_taken(house: House) -> None:
    house.frames["Do it."] = [back("three"), back(3)]
    house.refuses = ["expected integer"]
    code, log = run(house, output={"type": "integer"})
    assert (code, house.exits[-1]["result"]) == (0, 3), log
    assert machine_routines.is_code(" exec: x") and not machine_routines.is_code("do exec: x")
