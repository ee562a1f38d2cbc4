import os
from pathlib import Path

import pytest

from agentk.sdk import heartbeat


def test_a_beat_makes_the_file_and_moves_its_time(tmp_path: Path) -> None:
    file = tmp_path / "beat"
    heartbeat.beat(str(file))
    os.utime(file, (1, 1))
    heartbeat.beat(str(file))
    assert file.stat().st_mtime > 1


def test_a_beat_nowhere_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        heartbeat.beat(str(tmp_path / "no" / "beat"))
