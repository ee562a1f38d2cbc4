"""kill -9 of a machine at each step that its memory has of hardening and of folding: M is whole, and it goes on."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.programs import machine_window, telling
from tests.programs.machine_house import LAST, TOP, House, does

WINDOW = 2400
GREET = "Greet whoever it is."
CODE = "exec: js\n(name) => `Dear ${name}`"


class Deadly(House):
    """`at`: the call of `method` at which its caller dies, counted from 0: before it is done, or done and not told."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.armed = threading.Event()
        self.pid = 0
        self.method, self.at, self.done_first = "", -1, False
        self.counts: dict[str, int] = {}

    async def _answer(self, asked: Any, emit: Any) -> Any:
        number = self.counts.get(asked.method, 0)
        self.counts[asked.method] = number + 1
        dies = (asked.method, number) == (self.method, self.at)
        if not dies:
            return await super()._answer(asked, emit)
        told = await super()._answer(asked, emit) if self.done_first else {}
        await asyncio.to_thread(self.armed.wait)
        os.kill(self.pid, signal.SIGKILL)
        return told

    def live(self, folder: Path) -> int:
        self.armed.clear()
        self.counts.clear()
        self.counted = 0
        command = [sys.executable, "-P", "-m", "agentk.programs.machine"]
        told = {**os.environ, "AGENTK_SOCKET": self.path, "PYTHONPATH": str(TOP)}
        with subprocess.Popen(command, cwd=folder, env=told, stdin=subprocess.DEVNULL) as process:
            self.pid = process.pid
            self.armed.set()
        return process.returncode


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Deadly]:
    made = Deadly(tmp_path)
    made.knows(greet=GREET, blob="word " * 2000)
    many = does("recall", name="blob") * 4
    made.frames = {
        "Do it.": [does("invoke", name="harden", args={"name": "greet"}), many, many, LAST],
        "This is the routine greet": [f"```js\n{CODE.partition(chr(10))[2]}\n```"],
        "oldest part of a record": ["A note."],
    }
    told = telling.Told(window=WINDOW)._asdict()
    (tmp_path / telling.FILE).write_text(json.dumps({**told, "context": []}))
    yield made
    made.close()


@pytest.mark.parametrize("done_first", (False, True))
@pytest.mark.parametrize(("method", "at"), [("exec", 0), *(("memory.remember", at) for at in range(4))])
def test_it_dies_in_the_middle_and_does_it_again(
    house: Deadly, tmp_path: Path, method: str, at: int, done_first: bool
) -> None:
    house.method, house.at, house.done_first = method, at, done_first
    assert house.live(tmp_path) == -signal.SIGKILL
    assert house.cell("greet") in (GREET, CODE) and house.cell("greet@1") in (GREET, None)
    assert house.cell("greet") == GREET or house.cell("greet@1") == GREET, "what it was is lost"
    house.method = ""
    assert house.live(tmp_path) == 0, house.exits
    named = {one["name"]: one["content"] for one in house.pages.values() if one["name"]}
    assert named == {"greet": CODE, "greet@1": GREET, "blob": "word " * 2000}
    notes = {one["id"]: one["content"] for one in house.pages.values() if one["kind"] == "episode"}
    assert set(notes.values()) == {"A note."}
    recap = house.asked[-1]["messages"][0]["content"].partition("What happened before")[2].split("- ")[1:]
    assert recap and all(one.partition(":")[0] in notes for one in recap), "a line that leads nowhere"
    shown = [
        machine_window.tokens([one["messages"], one["tools"], one["system"]])
        for one in house.asked
        if one.get("tools")
    ]
    assert max(shown) <= WINDOW
