"""The daemon's log holds what happened, not a million times the same."""

import logging

from agentk.daemon.flooding import Flood


def record(line: int, text: str = "it failed") -> logging.LogRecord:
    return logging.LogRecord("agentk", logging.ERROR, "a.py", line, text, None, None)


def test_the_first_of_each_kind_are_written_and_the_rest_is_counted() -> None:
    now = 0.0
    flood = Flood(most=3, seconds=60.0, clock=lambda: now)
    assert [flood.filter(record(1)) for _ in range(100)] == [True] * 3 + [False] * 97
    assert flood.filter(record(2))
    now = 60.0
    later = record(1)
    assert flood.filter(later)
    assert later.getMessage() == "it failed (97 more like it were left out)"
    now = 120.0
    again = record(1)
    assert flood.filter(again) and again.getMessage() == "it failed"


def test_what_it_remembers_is_bounded_and_nothing_new_is_lost() -> None:
    flood = Flood(most=1, clock=lambda: 0.0)
    assert all(flood.filter(record(line)) for line in range(5000))
    assert len(flood._seen) <= 1000
