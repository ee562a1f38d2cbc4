"""The configuration file and its variables."""

from pathlib import Path

import pytest

from agentk.api import errors
from agentk.daemon import settings


def test_nothing_written_gives_the_defaults() -> None:
    made = settings.load("", "", {})
    assert (made.log_level, made.max_agents, made.event_retention_seconds) == ("info", 0, 86400.0)


def test_the_file_is_read_and_a_variable_wins() -> None:
    text = "logLevel: debug\nmaxAgents: 7\n"
    made = settings.load(text, "config.yaml", {"AGENTK_MAX_AGENTS": "9", "AGENTK_LOG_FORMAT": ""})
    assert (made.log_level, made.max_agents, made.log_format) == ("debug", 9, "text")


def test_the_room_of_this_machine_is_not_bounded_until_somebody_says_so() -> None:
    made = settings.load("", "", {})
    assert (made.max_cpu_millis, made.max_memory_bytes, made.time_slice_seconds) == (None, None, 0)
    told = {"AGENTK_MAX_MEMORY": "2Gi", "AGENTK_TIME_SLICE": "10s"}
    made = settings.load("maxCpu: 4\nmaxMemory: 1Gi\n", "c.yaml", told)
    assert (made.max_cpu_millis, made.max_memory_bytes, made.time_slice_seconds) == (4000, 2 << 30, 10)
    assert settings.load("", "", {"AGENTK_MAX_CPU": "1500m"}).max_cpu_millis == 1500


@pytest.mark.parametrize("line", ["maxCpu: some", "maxMemory: -1", "timeSlice: 100ms", "timeSlice: 5"])
def test_room_that_makes_no_sense_is_refused_by_its_name(line: str) -> None:
    with pytest.raises(errors.Invalid, match=line.partition(":")[0]):
        settings.load(line, "c.yaml", {})


def test_a_misspelt_field_is_named_with_its_line() -> None:
    with pytest.raises(errors.Invalid) as caught:
        settings.load("logLevel: info\nmaxAgent: 7\n", "config.yaml", {})
    assert "config.yaml:2" in str(caught.value) and "maxAgents" in str(caught.value)


def test_authorities_to_believe_are_read_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    made = settings.load("", "", {"AGENTK_CA_FILE": str(path)})
    with pytest.raises(errors.Invalid, match=r"ca\.pem cannot be read: No such file"):
        made.ca_pem()
    path.write_text("PEM")
    assert (made.ca_pem(), settings.load("", "", {}).ca_pem()) == ("PEM\n", "")


def test_a_variable_that_is_no_number_is_named() -> None:
    with pytest.raises(errors.Invalid, match="AGENTK_MAX_AGENTS"):
        settings.load("", "", {"AGENTK_MAX_AGENTS": "many"})


def test_the_journal_is_kept_as_long_as_is_said() -> None:
    made = settings.load("journalMaxSize: 64Mi\njournalBodyRetention: 1h\n", "c.yaml", {}).journal
    assert (made.total_bytes, made.bodies_seconds, made.records_seconds) == (64 << 20, 3600.0, 90 * 86400.0)
    assert settings.load("", "", {"AGENTK_JOURNAL_RETENTION": "24h"}).journal.records_seconds == 86400.0
    with pytest.raises(errors.Invalid, match="at least 16Mi"):
        settings.load("journalMaxSize: 1Mi", "c.yaml", {})
