"""What the machine is to try is there, for each account: a name that changed must not be found out an hour later."""

import os
import subprocess
import sys

import pytest

from tests.vm import image, selection


@pytest.mark.parametrize("who", ["root", "user"])
def test_every_line_names_a_test(who: str) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "tests.vm.selection", "-p", "no:cacheprovider"]
    command += ["--collect-only", "-q", *selection.WANTED]
    told = subprocess.run(
        command, cwd=image.TOP, env={**os.environ, "AGENTK_VM": who}, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stdout + told.stderr
    files = {line.partition("::")[0] for line in told.stdout.splitlines() if "::" in line}
    assert files >= {"tests/vm/guest/test_guest.py", "tests/escapes/test_limits.py"}
