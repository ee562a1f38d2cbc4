"""How `program: react` shows Skills to its model, and what it is told of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from tests.programs.test_react import House, run

LINE = {"namespace": "n", "module": "skills.x", "version": 1, "saved": False}


class Skilled(House):
    skills: tuple[str, ...] = ("count", "draw")
    ran: Any = None

    async def _skill_search(self, params: Any, emit: Any) -> Any:
        names = [one for one in self.skills if params.get("search", "") in one]
        return {
            "items": [{**LINE, "name": one, "description": f"Can {one}."} for one in names][: params["limit"]]
        }

    async def _skill_get(self, params: Any, emit: Any) -> Any:
        if params["name"] not in self.skills:
            raise errors.NotFound("no such Skill")
        return {"text": "# How", "files": [{"path": "a.py", "bytes": 3}]}

    async def _skill_save(self, params: Any, emit: Any) -> Any:
        self.ran = params
        if params["name"] == "count":
            raise errors.Forbidden("a person's")
        return {"name": params["name"], "version": 2, "digest": "sha256:x"}

    async def _skill_run(self, params: Any, emit: Any) -> Any:
        self.ran = params
        if params.get("script") == "bad.py":
            return {"exitCode": 1, "reason": "Error", "stderr": "Traceback", "stdout": ""}
        return {"exitCode": 0, "reason": "Completed", "result": {"n": 1}, "stdout": "out", "stderr": ""}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Skilled]:
    made = Skilled(tmp_path)
    yield made
    made.close()


def test_skills_are_read_and_run(house: Skilled) -> None:
    house.model = [
        [("read_skill", '{"name": "count"}'), ("read_skill", '{"name": "none"}')],
        [("run_skill", '{"name": "count", "function": "f", "arguments": {"a": 1}}')],
        [("run_skill", '{"name": "count", "script": "bad.py"}')],
        "done",
    ]
    code, log = run(house)
    assert code == 0 and "skills: count, draw" in log
    functions = {one["function"]["name"]: one["function"] for one in house.asked[0]["tools"]}
    assert set(functions) == {"read_skill", "run_skill"}
    assert "count: Can count." in functions["read_skill"]["description"]
    told = [one["content"] for one in house.heard()]
    assert told[0].startswith("# How") and "- a.py (3 bytes)" in told[0]
    assert "no such Skill" in told[1] and told[2] == '{"n": 1}'
    assert told[3].startswith("It failed (Error, exit code 1):\nTraceback")
    assert house.ran == {**house.ran, "name": "count", "script": "bad.py"}


def test_skills_are_saved_where_the_manifest_says_so(house: Skilled) -> None:
    given = '{"name": "new", "description": "About it.", "code": "x = 1", "more": 1}'
    house.skills = ()
    house.model = [[("save_skill", '{"name": "count"}')], [("save_skill", given)], "done"]
    assert run(house, saves=["new", "learned-*"])[0] == 0
    functions = {one["function"]["name"]: one["function"] for one in house.asked[0]["tools"]}
    assert "Names: new, learned-*." in functions["save_skill"]["description"]
    told = [one["content"] for one in house.heard()]
    assert told == ["Not allowed, and it will not be: a person's", "Saved as version 2."]
    assert house.ran == {"name": "new", "description": "About it.", "code": "x = 1"}


def test_of_many_only_a_search_is_shown(house: Skilled) -> None:
    house.skills = tuple(f"skill-{number}" for number in range(30))
    house.model = [[("find_skills", '{"query": "skill-7"}')], "done"]
    assert run(house)[0] == 0
    functions = {one["function"]["name"]: one["function"] for one in house.asked[0]["tools"]}
    assert set(functions) == {"find_skills", "read_skill", "run_skill"}
    assert "skill-1:" not in functions["read_skill"]["description"]
    assert house.heard()[0]["content"] == "skill-7: Can skill-7."
