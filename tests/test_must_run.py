"""The guard that keeps a suite from being skipped in silence must itself bite."""

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")


@pytest.mark.parametrize(
    ("body", "code", "word"),
    [
        ("def test_it(): pass", 0, "1 passed"),
        ("import pytest\ndef test_it(): pytest.skip('no jail here')", 1, "had to run but was skipped"),
        ("", 5, "no test ran below"),
        ("def test_it(): assert False", 1, "1 failed"),
    ],
    ids=["ran", "skipped", "none", "failed"],
)
def test_a_suite_that_must_run(tmp_path: Path, body: str, code: int, word: str) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    (tmp_path / "test_x.py").write_text(body)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--must-run", "test_x.py", "."]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (out.returncode, word in out.stdout) == (code, True), out.stdout


@pytest.mark.parametrize(("wish", "code"), [("test_*[podman]", 0), ("test_*[p", 0), ("test_*docker", 1)])
def test_one_of_several_runtimes_must_run(tmp_path: Path, wish: str, code: int) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    body = (
        "import pytest\n@pytest.mark.parametrize('runtime', ['nsjail', 'podman'])\ndef test_it(runtime): pass"
    )
    (tmp_path / "test_x.py").write_text(body)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--must-run", wish, "."]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).returncode == code


@pytest.mark.parametrize(("last", "code"), [("pass", 0), ("pytest.skip('no jail here')", 1)])
def test_a_suite_that_must_run_in_several_processes(tmp_path: Path, last: str, code: int) -> None:
    """No process has a whole suite: its second file is another's."""
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    (tmp_path / "test_x.py").write_text("def test_it(): pass")
    (tmp_path / "test_y.py").write_text(f"import pytest\ndef test_it(): {last}")
    wishes = ["--must-run", "test_x.py", "--must-run", "test_y.py"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-n2",
        "--dist",
        "loadfile",
        *wishes,
        ".",
    ]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (out.returncode, "had to run but was skipped" in out.stdout) == (code, bool(code)), out.stdout
