"""What of the host a spawned script is given: texts beside it, bounded, and nothing behind links."""

from pathlib import Path

import pytest

from agentk.api import errors
from agentk.client import scripts


@pytest.fixture
def top(tmp_path: Path) -> Path:
    for name in ("agents/sub", "agents/.git", "python_sdk", "lib"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "agents" / "main.py").write_text("import agentos")
    (tmp_path / "agents" / "sub" / "other.py").write_text("1")
    (tmp_path / "agents" / ".git" / "config").write_text("secret")
    (tmp_path / "agents" / "picture.png").write_bytes(b"\x89PNG\0\xff")
    (tmp_path / "agents" / "link.py").symlink_to("/etc/passwd")
    (tmp_path / "python_sdk" / "agentos.py").write_text("2")
    (tmp_path / "lib" / "found.py").write_text("3")
    return tmp_path


def test_a_script_comes_with_what_it_imports(top: Path) -> None:
    spec, path = scripts.brought("agents/main.py", top, {"PYTHONPATH": f"lib:{top}/nowhere"})
    assert path == "/app/agents/main.py"
    assert spec["source"]["inline"]["files"] == {
        "agents/main.py": "import agentos",
        "python_sdk/agentos.py": "2",
        ".pythonpath/0/found.py": "3",
        "agents/sub/other.py": "1",
    }
    assert spec["env"] == [{"name": "PYTHONPATH", "value": "/app/.pythonpath/0:/app/.pythonpath/1"}]
    assert "env" not in scripts.brought(str(top / "agents" / "main.py"), Path("/"), {})[0]


def test_what_is_too_much_is_left_out_and_the_script_is_not(top: Path) -> None:
    (top / "agents" / "a.json").write_text("x" * (scripts.BYTES_MAX - 100))
    for n in range(scripts.FILES_MAX + 10):
        (top / "lib" / f"m{n}.py").write_text("")
    files = scripts.brought("agents/main.py", top, {"PYTHONPATH": "lib"})[0]["source"]["inline"]["files"]
    assert len(files) <= scripts.FILES_MAX and "agents/a.json" not in files
    assert "agents/main.py" in files and "python_sdk/agentos.py" in files
    assert sum(len(text) for text in files.values()) <= scripts.BYTES_MAX


@pytest.mark.parametrize("script", ["agents/none.py", "agents", "agents/picture.png", "/dev/zero"])
def test_what_is_no_script_is_told(top: Path, script: str) -> None:
    with pytest.raises(errors.BadRequest, match="no such script"):
        scripts.brought(script, top, {})
