"""The configuration file and its variables."""

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


def test_a_misspelt_field_is_named_with_its_line() -> None:
    with pytest.raises(errors.Invalid) as caught:
        settings.load("logLevel: info\nmaxAgent: 7\n", "config.yaml", {})
    assert "config.yaml:2" in str(caught.value) and "maxAgents" in str(caught.value)


def test_a_variable_that_is_no_number_is_named() -> None:
    with pytest.raises(errors.Invalid, match="AGENTK_MAX_AGENTS"):
        settings.load("", "", {"AGENTK_MAX_AGENTS": "many"})
