"""The loop of `program: react`, over a real gate's socket whose model and tools say what a test wants."""

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.programs import answers, loop, progress, react, telling
from agentk.sdk import client
from tests.sdk.gate import Gate

TOP = Path(__file__).resolve().parent.parent.parent
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}}
Said = list[dict[str, Any]]


class House(Gate):
    """`model`: what it says, answer by answer, the last again and again. `tools`: what each answers, or raises."""

    def __init__(self, folder: Path) -> None:
        self.model: list[Any] = ["done"]
        self.tools: dict[str, Any] = {}
        self.task: Any = "Do it."
        self.attempt = 1
        self.refuses: list[str] = []  # what exit says no to, one after the other
        self.asked: list[dict[str, Any]] = []
        self.called: list[tuple[str, Any]] = []
        self.exits: list[dict[str, Any]] = []
        self.calling = self.most = 0  # tools at once, now and ever
        self.met = asyncio.Event()
        super().__init__(folder)

    async def _hello(self, params: Any, emit: Any) -> Any:
        return {"attempt": self.attempt}

    async def _task(self, params: Any, emit: Any) -> Any:
        return {"given": True, "task": self.task} if self.task is not None else {"given": False}

    async def _exit(self, params: Any, emit: Any) -> Any:
        if params.get("code", 0) == 0 and self.refuses:
            raise errors.BadRequest(self.refuses.pop(0), field="params.result")
        self.exits.append(params)
        return {}

    async def _think(self, params: Any, emit: Any) -> Any:
        self.asked.append(json.loads(json.dumps(params)))
        said = self.model.pop(0) if len(self.model) > 1 else self.model[0]
        if isinstance(said, Exception):
            raise said
        if isinstance(said, str):
            return {"text": said, "message": {"role": "assistant", "content": said}, "toolCalls": []}
        calls = [
            {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": given}}
            for n, (name, given) in enumerate(said)
        ]
        return {"text": "", "message": {"role": "assistant", "tool_calls": calls}, "toolCalls": calls}

    async def _tool_list(self, params: Any, emit: Any) -> Any:
        words = params.get("search", "").split()
        names = [name for name in self.tools if not words or any(word in name for word in words)]
        items = [{"name": name, "tool": name, "description": f"Is {name}."} for name in names]
        return {"items": items[: params["limit"]]}

    async def _tool_describe(self, params: Any, emit: Any) -> Any:
        return {"name": params["name"], "tool": "t", "description": "Is.", "inputSchema": TEXT}

    async def _tool_call(self, params: Any, emit: Any) -> Any:
        self.called.append((params["name"], params["arguments"]))
        told = self.tools[params["name"]]
        self.calling += 1
        self.most = max(self.most, self.calling)
        if params["name"] == "meet":  # answers when there are two
            if self.calling == 2:
                self.met.set()
            await self.met.wait()
        await asyncio.sleep(0)
        self.calling -= 1
        if isinstance(told, Exception):
            raise told
        return {"content": [{"type": "text", "text": told}], "isError": told.startswith("wrong")}

    def heard(self) -> Said:
        """What the model was told at last, without the task."""
        messages: Said = self.asked[-1]["messages"]
        return [one for one in messages[1:] if one["role"] != "assistant"]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


def run(house: House, **told: Any) -> tuple[int, list[str]]:
    """The exit code, and the log."""
    log = io.StringIO()
    with client.connect(house.path) as agent:
        given, say = telling.Told(**told), progress.Progress(log)
        code = loop.Loop(agent, given, say, react.tools(agent, given, say)).run()
    return code, log.getvalue().splitlines()


def test_tools_are_called_until_there_is_an_answer(house: House) -> None:
    house.tools = {"add": "3", "git.log": "one\ntwo", "broken": "wrong: no"}
    house.model = [[("add", '{"text": "1"}'), ("git_log", ""), ("broken", "{}")], "It is 3."]
    code, log = run(house, role="a clerk", goal="Be right.", context=[{"name": "a.md", "text": "Sums."}])
    assert (code, house.exits) == (0, [{"result": "It is 3.", "steps": 2}])
    first = house.asked[0]
    assert first["messages"] == [{"role": "user", "content": "Do it."}]
    assert "You are a clerk." in first["system"] and '<text name="a.md">\nSums.' in first["system"]
    assert [one["function"]["name"] for one in first["tools"]] == ["add", "git_log", "broken"]
    assert sorted(house.called) == [("add", {"text": "1"}), ("broken", {}), ("git.log", {})]
    assert house.heard() == [
        {"role": "tool", "tool_call_id": "c0", "content": "3"},
        {"role": "tool", "tool_call_id": "c1", "content": "one\ntwo"},
        {"role": "tool", "tool_call_id": "c2", "content": "The tool says that it failed:\nwrong: no"},
    ]
    assert log[:2] == ["tools: add, git_log, broken", "step 1: calls add, git_log, broken"]
    assert 'step 1: add(text="1") -> 3' in log and "step 1: git_log() -> 2 lines, 7 letters" in log
    assert log[-2:] == ["answer after 2 steps:", "  It is 3."]


def test_what_is_wrong_with_a_call_is_told_to_the_model(house: House) -> None:
    wrong = errors.BadRequest("text missing", field="params.arguments")
    house.tools = {"strict": wrong, "secret": errors.Denied("rule r says no")}
    house.model = [
        [("strict", "{"), ("strict", "[]"), ("nobody", "{}"), ("strict", "{}"), ("secret", "{}")],
        "x",
    ]
    assert run(house)[0] == 0
    told = [one["content"] for one in house.heard()]
    assert told[0].startswith("Not called: the arguments are not JSON")
    assert told[1] == "Not called: the arguments are not a JSON object"
    assert told[2] == "there is no tool 'nobody'"
    assert "text missing" in told[3] and "Mend them" in told[3]
    assert "rule r says no" in told[4] and "will not be" in told[4]
    assert sorted(name for name, _ in house.called) == ["secret", "strict"]


def test_no_more_are_called_at_once_than_burst_says(house: House) -> None:
    house.tools = {"add": "3"}
    for burst, threads in ((1, 1), (4, 4)):
        house.most = house.calling = 0
        house.model = [[("add", f'{{"text": "{n}"}}') for n in range(9)], "x"]
        assert run(house, burst=burst)[0] == 0
        assert 1 <= house.most <= threads
    assert [one["tool_call_id"] for one in house.heard()] == [f"c{n}" for n in range(9)]


def test_a_step_has_an_end(house: House) -> None:
    house.tools, house.model = {"add": "3"}, [[("add", "{}")] * 150, "x"]
    assert run(house, burst=1)[0] == 0
    assert len(house.called) == loop.CALLS
    assert [one["content"] for one in house.heard()][99:101] == ["3", "Not called: at most 100 at once."]


def test_tools_are_called_at_once(house: House) -> None:
    house.tools, house.model = {"meet": "met"}, [[("meet", "{}"), ("meet", "{}")], "x"]
    assert run(house, burst=2)[0] == 0
    assert [one["content"] for one in house.heard()] == ["met", "met"]


def test_nobody_is_asked_again_for_what_they_refused(house: House) -> None:
    house.tools = {"push": errors.ApprovalDenied("alice: not today")}
    house.model = [[("push", '{"text": "a"}')]]
    code, log = run(house)
    assert (
        code == 1
        and len(house.called) == 1
        and "alice: not today" in house.asked[1]["messages"][2]["content"]
    )
    assert house.exits[0]["reason"] == "ApprovalDenied" and "insists" in log[-1]


def test_steps_are_bounded(house: House) -> None:
    house.tools, house.model = {"add": "3"}, [[("add", "{}")]]
    assert run(house, steps=3)[0] == 1
    assert len(house.asked) == 3
    assert house.exits == [
        {"code": 1, "message": "there is no answer after 3 steps", "reason": "MaxSteps", "steps": 3}
    ]


def test_an_answer_that_does_not_fit_is_asked_for_again_twice(house: House) -> None:
    house.model, house.refuses = ["It is 3.", '{"n": "3"}', '```json\n{"n": 3}\n```'], ["n: expected integer"]
    assert run(house, output={"type": "object"})[0] == 0
    assert house.exits == [{"result": {"n": 3}, "steps": 3}]
    told = [one["content"] for one in house.heard()]
    assert "not JSON" in told[0] and "n: expected integer" in told[1] and "JSON alone" in told[1]
    house.model, house.exits = ["never"], []
    code, log = run(house, output={"type": "object"})
    assert code == 1 and house.exits[0]["steps"] == 3 and "still not what was asked for" in log[-1]


def test_many_tools_are_searched_and_only_those_found_are_shown(house: House) -> None:
    house.tools = {f"tool{n}": str(n) for n in range(100)}
    find = [("find_tools", '{"query": "tool7 tool12"}')]
    house.model = [[("tool7", "{}")], find, [("tool12", "{}")], "done"]
    code, log = run(house, burst=1)
    assert code == 0 and house.called == [("tool12", {})]
    shown = [[one["function"]["name"] for one in asked["tools"]] for asked in house.asked]
    assert (
        shown[0] == shown[1] == ["find_tools"] and {"tool7", "tool12"} < set(shown[2]) and len(shown[2]) == 9
    )
    assert "tool12: Is tool12." in house.heard()[1]["content"] and "many tools: they are searched" in log


def test_a_model_that_cannot_be_had_is_the_end_with_its_reason(house: House) -> None:
    for error, reason in (
        (errors.BudgetExceeded("no money"), "BudgetExceeded"),
        (errors.BadRequest("too long", field="params.messages"), "LLMError"),
        (errors.Denied("no rule"), None),
    ):
        house.model, house.exits = [error], []
        assert run(house)[0] == 1
        assert house.exits[0].get("reason") == reason


def test_an_answer_nobody_knows_is_asked_for_again_and_an_attempt_says_that_it_begins_anew(
    house: House,
) -> None:
    house.model, house.attempt, house.task = [errors.OutcomeUnknown("the daemon ended"), "done"], 2, {"n": 1}
    code, log = run(house)
    assert code == 0 and "attempt 2: begins anew; what was done before is done" in log
    work = house.asked[0]["messages"][0]["content"]
    assert work.startswith('{\n  "n": 1\n}') and "This is attempt 2" in work
    house.task, house.exits = None, []
    assert run(house)[0] == 1 and "nothing to do" in house.exits[0]["message"]
    assert run(house, goal="Sort.")[0] == 0 and house.asked[-1]["messages"][0]["content"].startswith("Sort.")


def test_what_tools_answered_long_ago_is_forgotten_first() -> None:
    messages: Said = [{"role": "tool", "content": "x" * 100_000} for _ in range(8)]
    answers.forget(messages)
    sizes = [len(one["content"]) for one in messages]
    assert max(sizes[:4]) < 1000 and sizes[4:] == [100_000] * 4


def test_nothing_of_a_tool_or_model_controls_the_terminal_that_shows_the_log() -> None:
    log = io.StringIO()
    say = progress.Progress(log)
    say.step(1, ["t\x07", "t\x07"], "\x1b[31mred\nblue")
    say.called(1, "t\x07", {"a": "\x1b]0;x"}, "\r")
    say.answer(1, "one\x1b\ntwo")
    assert (
        all(line.isprintable() for line in log.getvalue().splitlines())
        and len(log.getvalue().splitlines()) == 5
    )


@pytest.mark.parametrize("module", ["react", "code"])
def test_the_standard_library_and_the_sdk_are_enough(module: str) -> None:
    code = f"import sys; sys.path.insert(0, sys.argv[1]); import agentk.programs.{module}"
    subprocess.run([sys.executable, "-I", "-S", "-W", "error", "-c", code, str(TOP)], check=True)
