"""The loop of `program: code`, over a real gate's socket, with a real session that calls tools at that very socket."""

import asyncio
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.programs import code, loop, progress, telling, workbench
from agentk.sdk import client, modules, results
from tests.programs.test_react import TOP, House

PROGRAM = "import agentk.sdk.session as s; s.main()"


class Bench(House):
    """exec runs in an interpreter as the gate has it in a box. `schemas`: of tools, by name."""

    def __init__(self, folder: Path) -> None:
        self.schemas: dict[str, dict[str, Any]] = {}
        self.structured: dict[str, Any] = {}
        self.files: dict[str, str] = {}
        self.denies: list[Any] = []  # what exec raises, one after the other
        self.ran: list[dict[str, Any]] = []
        self._folder = folder
        self._session: subprocess.Popen[bytes] | None = None
        super().__init__(folder)

    async def _tool_list(self, params: Any, emit: Any) -> Any:
        listed = await super()._tool_list({"limit": 1000, **params}, emit)
        return {"items": [{**one, "tool": one["name"].partition("__")[0]} for one in listed["items"]]}

    async def _tool_describe(self, params: Any, emit: Any) -> Any:
        described = await super()._tool_describe(params, emit)
        return {**described, **self.schemas.get(params["name"], {})}

    async def _tool_call(self, params: Any, emit: Any) -> Any:
        answered = await super()._tool_call(params, emit)
        if params["name"] in self.files:
            return {**answered, "file": {"path": self.files[params["name"]]}}
        if params["name"] in self.structured:
            return {**answered, "structured": self.structured[params["name"]]}
        return answered

    async def _exec(self, params: Any, emit: Any) -> Any:
        self.ran.append(params)
        if self.denies:
            raise self.denies.pop(0)
        return await asyncio.to_thread(self._step, params)

    def _step(self, params: Any) -> dict[str, Any]:
        began = self._session is None
        if self._session is None:
            env = {**os.environ, "AGENTK_SOCKET": self.path, "PYTHONPATH": str(TOP)}
            argv = [sys.executable, "-u", "-c", PROGRAM]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._session = subprocess.Popen(
                argv, cwd=self._folder, env=env, stderr=subprocess.STDOUT, **pipes
            )
        made, data = self._session, params["code"].encode()
        assert made.stdin is not None and made.stdout is not None
        made.stdin.write(b"word %d\n%s" % (len(data), data))
        made.stdin.flush()
        said, ends = b"", 0
        while ends < 2:  # both streams are one here
            more = os.read(made.stdout.fileno(), 65536)
            if not more:
                self._session = None
                code = made.wait()
                made.stdin.close()
                made.stdout.close()
                ended = {"exitCode": code, "reason": "Error", "session": "Ended"}
                return {"id": "r", "state": "Exited", "stdout": said.decode(), "stderr": "", **ended}
            said += more
            ends = said.count(b"\0word:")
        text, failed = re.sub(rb"\0word:\d\n", b"", said).decode(), b"\0word:1" in said
        out, err = ("", text) if failed else (text, "")
        state = "New" if began else "Kept"
        told = {"exitCode": int(failed), "reason": "", "stdout": out, "stderr": err, "session": state}
        return {"id": "r", "state": "Exited", **told}

    def close(self) -> None:
        if self._session is not None:
            self._session.communicate()
        super().close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def run(bench: Bench, **told: Any) -> tuple[int, list[str]]:
    log = io.StringIO()
    with client.connect(bench.path) as agent:
        given, say = telling.Told(**told), progress.Progress(log)
        exit_code = loop.Loop(agent, given, say, code.tools(agent, given, say)).run()
    return exit_code, log.getvalue().splitlines()


def py(text: str) -> list[tuple[str, str]]:
    return [("python", json.dumps({"code": text}))]


def told(bench: Bench) -> list[str]:
    return [one["content"] for one in bench.heard()]


TITLE = {"type": "string", "description": "Of the issue."}
ISSUE = {
    "inputSchema": {
        "properties": {"title": TITLE, "labels": {"type": "array", "items": {"type": "string"}}},
        "required": ["title"],
    },
    "outputSchema": {"properties": {"number": {"type": "integer"}}},
}


def test_tools_are_modules_and_only_what_is_printed_is_told(bench: Bench) -> None:
    bench.tools = {"github__create_issue": "made", "rows": "only for code\n" * 1000}
    bench.schemas, bench.structured = {"github__create_issue": ISSUE}, {"github__create_issue": {"number": 7}}
    bench.model = [
        py("from tools import github, rows\nmade = github.create_issue('x', labels=['a'])\ntext = rows()"),
        py("print(made['number'], len(text.split()))"),
        "There are 3000.",
    ]
    exit_code, log = run(bench)
    assert (exit_code, bench.exits) == (0, [{"result": "There are 3000.", "steps": 3}])
    assert told(bench) == ["[Nothing was printed.]", "7 3000"]
    assert "only for code" not in json.dumps(bench.asked)
    assert bench.called == [
        ("github__create_issue", {"title": "x", "labels": ["a"]}),
        ("rows", {}),
    ]
    assert (
        "def github.create_issue(title: str, labels: list[str] = None) -> dict[{'number': int}]:"
        in (bench.asked[0]["system"])
    )
    assert [one["function"]["name"] for one in bench.asked[0]["tools"]] == ["python"]
    assert log[0] == "tools: github, rows" and 'step 2: python(code="print(made' in log[4]


def test_many_tools_are_searched_by_code(bench: Bench) -> None:
    bench.tools = {f"big__tool{n}": "x" for n in range(40)}
    bench.model = [
        py("import tools\ntools.search('tool7')"),
        py("from tools import big\nbig.tool7(text='a'), 'tool39' in dir(big)"),
        py("from tools import nobody"),
        "done",
    ]
    assert run(bench)[0] == 0
    said = told(bench)
    assert said[0].startswith("# from tools import big\ndef big.tool7(text: str = None) -> str:")
    assert said[1] == "('x', True)"
    assert "ImportError: there is no tool 'nobody': there is big" in said[2]
    assert "big: 40 functions" in bench.asked[0]["system"] and "tool39" not in bench.asked[0]["system"]


def test_what_goes_wrong_is_an_exception_and_the_interpreter_stays(bench: Bench) -> None:
    refused = errors.Denied("rule r says no")
    bench.tools = {"broken": "wrong: no", "secret": refused, "strict": "x"}
    bench.schemas = {"strict": {"inputSchema": {"properties": {"a": TITLE}, "required": ["a"]}}}
    bench.model = [
        py("import tools\nfrom tools import broken, secret, strict\nx = 1\nbroken()"),
        py("try:\n    secret()\nexcept Exception as e:\n    print(type(e).__name__, e, x)"),
        py("strict(b=1)"),
        py("exit(3)"),
        py("'x' in globals()"),
        [("shell", "{}"), ("python", "print(5)"), ("python", "")],
        "done",
    ]
    assert run(bench)[0] == 0
    said = told(bench)
    assert "ToolError: wrong: no" in said[0] and "Traceback" in said[0]
    assert said[1] == "Denied rule r says no 1"
    assert "TypeError: missing a required argument: 'a': it is def strict(a: str)" in said[2]
    assert said[3] == "[The interpreter ended: Error, exit code 3. Its variables are gone.]"
    assert said[4] == "[The interpreter began anew: variables of earlier steps were gone.]\nFalse"
    assert said[5:] == [
        "there is no function 'shell': write code, and give it to python",
        "5",
        "Not run: there is no code",
    ]
    assert [name for name, _ in bench.called] == ["broken", "secret"]


def test_what_is_too_long_for_an_answer_is_whole_for_code(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text(json.dumps({"result": list(range(9999))}))
    (tmp_path / "all.txt").write_text("a\nb")
    bench.tools = {"many": "a summary", "text": "a summary"}
    wrapped = {"properties": {"result": {"type": "array"}}}
    bench.schemas, bench.files = {"many": {"outputSchema": wrapped}}, {"many": "all.json", "text": "all.txt"}
    bench.model = [py("from tools import many, text\nsum(many()), text()"), "done"]
    assert run(bench)[0] == 0
    assert told(bench) == ["(49985001, 'a\\nb')"]


def test_a_module_of_the_agents_own_is_not_hidden(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("mine = 5")
    bench.model = [py("import tools\ntools.mine"), "done"]
    assert run(bench)[0] == 0
    assert told(bench) == ["5"]


def test_a_person_refuses_code_and_the_model_may_not_insist(bench: Bench) -> None:
    bench.denies = [errors.Denied("os is not allowed")] + [errors.ApprovalDenied("alice: no")] * 9
    bench.model = [py("import os")]
    exit_code, log = run(bench)
    assert exit_code == 1 and bench.exits[0]["reason"] == "ApprovalDenied" and "insists" in log[-1]
    assert "Not allowed, and it will not be: os is not allowed" in bench.asked[1]["messages"][2]["content"]
    assert {(one["session"], one["outputBytes"]) for one in bench.ran} == {("code", workbench.OUTPUT_BYTES)}


def test_code_in_an_answer_is_asked_about_once(bench: Bench) -> None:
    fenced = "So:\n```python\nprint(1)\n```"
    bench.model = [fenced, py("print(6 * 7)"), fenced]
    assert run(bench)[0] == 0
    assert "code in a text is not run" in bench.asked[1]["messages"][-1]["content"]
    assert told(bench)[1:] == ["42"] and bench.exits[0]["result"] == fenced


def test_names_and_texts_of_strangers_become_no_code() -> None:
    hostile = results.Described(
        name='x"); import os',
        tool="t",
        description='ends """ here\n\nimport os',
        input_schema={
            "properties": {"class": {}, "a b": {"enum": ["'", 1]}, "a-b": {"type": "what"}, "9": [], "_9": 3},
            "required": "no",
        },
    )
    made = modules.Function(None, modules.Place("t", "f"), hostile, "/")  # type: ignore[arg-type]
    assert made.stub.startswith(
        'def t.f(class_: Any = None, a_b: Literal["\'", 1] = None, a_b_2: Any = None, _9: Any = None, _9_2'
    )
    assert "'''" in made.stub and made.stub.count('"""') == 2 and len(made.stub.splitlines()) == 2
