"""The machine really boots, and is what guest/test_guest.py says, for root and for the user.

Nothing else here runs against unified cgroups and a real systemd, whatever the host has.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.vm import host, image

PROBE = "tests/vm/guest/test_guest.py"
REASON = host.missing()


@pytest.mark.vm
@pytest.mark.timeout(900)  # the first time, it downloads and builds Debian
@pytest.mark.skipif(REASON is not None, reason=REASON or "")
def test_the_guest_keeps_its_promises(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.vm", "--results", str(tmp_path), "--timeout", "420"]
    command += ["--must-run", PROBE, "--", PROBE]
    run = subprocess.run(command, cwd=image.TOP, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert [(tmp_path / f"{name}.exit").read_text() for name in ("root", "user")] == ["0", "0"]
