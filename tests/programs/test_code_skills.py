"""Skills as modules of a session: what the model is told of them, and how they are found, imported, run and saved."""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors, skillspecs
from agentk.sdk import skills
from tests.programs.test_code import Bench, py, run, told


class Skilled(Bench):
    """Keeps what is saved."""

    def __init__(self, folder: Path) -> None:
        self.kept: dict[str, dict[str, bytes]] = {}
        super().__init__(folder)

    def _line(self, name: str) -> dict[str, Any]:
        module = f"skills.{skillspecs.module(name)}"
        told = {"namespace": "n", "version": 1, "saved": True, "description": f"Can\n{name}."}
        return {"name": name, "module": module, **told}

    async def _skill_search(self, params: Any, emit: Any) -> Any:
        names = [one for one in self.kept if params.get("search", "") in one]
        return {"items": [self._line(one) for one in names[: params["limit"]]]}

    async def _skill_get(self, params: Any, emit: Any) -> Any:
        held = self.kept.get(params["name"])
        if held is None:
            raise errors.NotFound("no such Skill")
        if "file" not in params:
            files = [{"path": name, "bytes": len(data)} for name, data in held.items()]
            digest = skillspecs.digest(held)
            return {**self._line(params["name"]), "digest": digest, "text": "# How", "files": files}
        data = held[params["file"]]
        try:
            return {"content": data.decode(), "encoding": "utf-8", "bytes": len(data)}
        except UnicodeDecodeError:
            return {"content": base64.b64encode(data).decode(), "encoding": "base64", "bytes": len(data)}

    async def _skill_save(self, params: Any, emit: Any) -> Any:
        held = {name: text.encode() for name, text in params.get("files", {}).items()}
        self.kept[params["name"]] = {**held, "__init__.py": params.get("code", "").encode()}
        return {"name": params["name"], "version": 1, "digest": "sha256:x"}

    async def _skill_delete(self, params: Any, emit: Any) -> Any:
        return {"deleted": self.kept.pop(params["name"], None) is not None}

    async def _skill_run(self, params: Any, emit: Any) -> Any:
        failed = params["script"] == "bad.py"
        said = {"stdout": " ".join(params["argv"]), "stderr": "Traceback" * failed}
        return {"exitCode": int(failed), "reason": "Error" if failed else "Completed", **said}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Skilled]:
    made = Skilled(tmp_path)
    yield made
    made.close()


def test_a_skill_is_found_imported_and_run(bench: Skilled) -> None:
    data = {"pictures/a.bin": b"\xff\0", "inner.py": b"x = 5"}
    bench.kept["pdf-forms"] = {"__init__.py": b"def fill(n):\n    return n * 2\n", **data}
    bench.kept["search"] = {"__init__.py": b"x = 1"}
    bench.model = [
        py("import skills\nskills.search('pdf')"),
        py("from skills import pdf_forms, search_\nimport skills.pdf_forms.inner as i, os"),
        py("home = os.path.dirname(pdf_forms.__file__)\nopen(home + '/pictures/a.bin', 'rb').read()"),
        py("pdf_forms.fill(4), i.x, search_.x, skills.run('pdf_forms', 'a.py', 1, 'b')"),
        py("skills.run('pdf-forms', 'bad.py')"),
        py("from skills import nobody"),
        "done",
    ]
    assert run(bench)[0] == 0
    said = told(bench)
    assert said[0] == "pdf_forms: Can pdf-forms."  # on one line
    assert said[1:4] == ["[Nothing was printed.]", "b'\\xff\\x00'", "(8, 5, 1, '1 b')"]
    assert "SkillError: Error, exit code 1: Traceback" in said[4]
    assert "ImportError: there is no skill 'nobody': no such Skill" in said[5]
    system = bench.asked[0]["system"]
    assert (
        "There are, in words of those who wrote them:\npdf_forms: Can pdf-forms.\nsearch_: Can search."
        in system
        and "save" not in system
    )


def test_functions_of_the_session_are_saved_and_the_next_version_is_imported(bench: Skilled) -> None:
    bench.model = [
        py("def half(n):\n    return n / 2\ndef more(n):\n    return half(n) + 1"),
        py("import skills\nskills.save('my-sums', 'Sums.', [half, more])"),
        py("from skills import my_sums\nmy_sums.more(4)"),
        py("skills.save('my_sums', 'Sums.', 'more = max')\nfrom skills import my_sums\nmy_sums.more(4, 5)"),
        py("skills.delete('my_sums')\nimport skills.my_sums"),
        "done",
    ]
    assert run(bench, saves=["my-*"])[0] == 0
    said = told(bench)
    assert (said[2], said[3]) == ("3.0", "5") and "no such Skill" in said[4]
    assert "Names: my-*." in bench.asked[0]["system"]


def test_what_the_box_shows_is_imported_from_there_while_it_is_the_same(tmp_path: Path) -> None:
    files: Mapping[str, bytes] = {"__init__.py": b"x = 1", "SKILL.md": b"---", "a/b.py": b""}
    for name, data in files.items():
        (tmp_path / "fib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fib" / name).write_bytes(data)
    assert skills.digest(str(tmp_path / "fib")) == skillspecs.digest(files)
    assert skills.digest(str(tmp_path / "nothing")) == ""
    assert f"{skillspecs.FOLDER}/{skillspecs.PACKAGE}" == skills.SHOWN
    assert all(skills.name_of(skillspecs.module(one)) == one for one in ("a-b", "3d", "class", "x"))
