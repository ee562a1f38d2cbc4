"""A few seconds of fuzzing for each dialect; `python -m tests.fuzz.doors` goes on for as long as one likes."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
RUNS = 1500


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not made for this Python")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("dialect", ["jsonrpc", "http", "frames"])
def test_nothing_a_guest_sends_breaks_the_gate(dialect: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz.doors",
            dialect,
            f"-runs={RUNS}",
            "-seed=1",
            f"-artifact_prefix={tmp_path}/",
        ],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert f"Done {RUNS} runs" in done.stderr
