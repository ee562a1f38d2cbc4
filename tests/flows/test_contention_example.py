"""The example's own judgement, from the journal of a real daemon: turns on a saturated route are fair."""

import subprocess
import sys
from pathlib import Path

from tests.flows import household

pytestmark = household.needs
DEMO = Path(__file__).parents[2] / "examples" / "llm-contention" / "demo.py"


def test_a_greedy_agent_gets_no_more_than_the_others() -> None:
    done = subprocess.run(
        [sys.executable, str(DEMO)], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "turns were fair" in done.stdout
