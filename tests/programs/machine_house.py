"""A small house for machines: a real gate's socket, a model by its turns, a memory, mail, and code that really runs."""

import asyncio
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from agentk.api import errors
from agentk.programs import machine, progress, telling
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
