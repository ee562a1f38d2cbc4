"""What a process apart can still do once it has given up the rest."""

import ctypes
import subprocess
import sys
from pathlib import Path

WAIT_SECONDS = 60


def test_it_can_dial_nobody_become_nothing_and_read_only_libraries(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("keys")
    script = (
        "import os, socket, sys; from agentk.apart import confining as c; c.confine(); f = sys.argv[1]\n"
        "acts = (lambda: socket.socket(), lambda: os.execv('/bin/true', ['true']), lambda: os.kill(1, 0),\n"
        "        lambda: open(f), lambda: open(f, 'w'), lambda: os.listdir(os.path.dirname(f)))\n"
        "for act in acts:\n"
        "    try: act(); print('did')\n"
        "    except PermissionError: print('refused')\n"
        "import colorsys; print('imported')\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "state.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS)
    files = "refused" if has_landlock() else "did"
    assert done.stdout.split() == ["refused"] * 3 + [files] * 3 + ["imported"], done.stderr


def has_landlock() -> bool:
    """Its version, or -1."""
    return ctypes.CDLL(None).syscall(444, None, 0, 1) > 0
