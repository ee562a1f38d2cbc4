"""The context of a machine's frame: never more than its window, whatever the letters, and nothing is lost by that."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.programs import machine_folding, machine_window
from tests.programs.machine_house import LAST, House, back, does, run


class Dense(House):
    """Its provider counts two tokens a letter of dense scripts, and one for four others."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.read: list[int] = []

    async def _think(self, params: Any, emit: Any) -> Any:
        said = await super()._think(params, emit)
        whole = json.dumps([params["messages"], params.get("tools"), params["system"]], ensure_ascii=False)
        plain = sum(one.isascii() for one in whole)
        told = plain // 4 + 2 * (len(whole) - plain)
        if params.get("tools"):
            self.read.append(told)
        return {**said, "usage": {"inputTokens": told, "outputTokens": 5}}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Dense]:
    made = Dense(tmp_path)
    yield made
    made.close()


def test_scripts_with_many_tokens_a_letter_keep_the_budget(house: Dense) -> None:
    house.knows(blob="\u8a18\u61b6" * 3000)
    house.frames = {
        "Do it.": [*[does("recall", name="blob")] * 25, LAST],
        "oldest part of a record": ["\u7d50\u8ad6\u3002" * 50],
    }
    house.counted = 0
    code, log = run(house, window=4000, steps=60)
    assert code == 0, log
    assert max(house.read) <= 4000 and max(house.read) > 2500, house.read
    folded = [one["messages"][0]["content"] for one in house.asked if not one.get("tools")]
    assert folded and max(map(len, folded)) * 2 < 4000 + 1000
    told = [line for line in log if line.startswith("step ")]
    assert len(told) == 26 and "recap" in told[-1] and any("folds: p" in line for line in log)


def test_a_memory_that_takes_no_notes_costs_neither_the_budget_nor_the_frame(house: Dense) -> None:
    house.knows(blob="word " * 2000)
    house.frames["Do it."] = [*[does("recall", name="blob")] * 8, LAST]
    house.frames["oldest part"] = ["A note."]
    house.counted, house.full = 0, True
    code, log = run(house, window=3000, steps=60)
    assert code == 0 and any("does not fold" in line for line in log), log
    shown = [one["messages"] for one in house.asked if one.get("tools")]
    assert max(house.read) <= 3000 and "are not shown" in shown[-1][0]["content"]
    assert len(house.asked) - len(shown) == 1, "a note asks the model, and is not tried at each step"
    assert all(one["content"] == "word " * 2000 for one in house.pages.values())


def test_what_a_turn_says_is_cut_and_what_cannot_be_is_told(house: Dense) -> None:
    house.frames["Do it."] = [
        does("remember", name="long", value="word " * 5000),
        [*does("recall", name="long") * 4],
        LAST,
    ]
    house.frames["oldest part"], house.counted = ["A note."], 0
    assert run(house, window=3000)[0] == 0
    house.counted = -1
    assert max(house.read) <= 3000 and house.cell("long") == "word " * 5000
    house.task = "Do it. " + "Much. " * 3000
    code, log = run(house, window=3000)
    assert code == 1 and "memory.contextTokens is 3000" in house.exits[-1]["message"], log
    house.task = "Do it."
    house.knows(greedy="Greet. " * 9000)
    house.frames = {
        "Do it.": [does("invoke", name="greedy", args="x" * 90000), LAST],
        "routine, greedy": [back(1)],
    }
    assert run(house, window=3000)[0] == 0 and max(house.read) <= 3000


def test_an_estimate_is_corrected_at_once_upwards_and_slowly_down() -> None:
    window = machine_window.Window(8000, 4, [], "")
    said = [{"role": "user", "content": "x" * 2970}]
    before, estimated = window.room, machine_window.tokens(said) + 18
    window.learned(said, estimated * 2)
    assert abs(window.room - before / 2) < before / 20
    window.learned(said, 0)
    window.learned(said, estimated)
    assert before / 2 < window.room < before * 0.6
    for _ in range(50):
        window.learned(said, 1)
    assert window.room <= before * 4
    quotes = [{"role": "user", "content": "t"}, {"role": "assistant", "content": "", "tool_calls": []}]
    quotes += [{"role": "tool", "content": '"\\' * 4000}, {"role": "tool", "content": "short"}]
    shown = machine_folding.view(quotes, 500)
    assert (
        machine_window.tokens(shown) <= 500 and shown[3] == quotes[3] and quotes[2]["content"] == '"\\' * 4000
    )
