import json
from typing import Any

import pytest

from tests.daemon.conftest import AGENTS, Api, agent

MERGE = {"Content-Type": "application/merge-patch+json"}


def _kill(obj: Any) -> Any:
    return json.loads(obj["metadata"]["annotations"]["agentk.dev/kill"])


def _status(api: Api, **status: Any) -> None:
    api.ok("PATCH", f"{AGENTS}/a/status", {"status": status}, headers=MERGE)


def test_signal_is_written_on_the_object(api: Api) -> None:
    api.ok("POST", AGENTS, agent("a"))
    _status(api, phase="Running", attempt=3)
    asked = _kill(api.ok("POST", f"{AGENTS}/a/signal", {"signal": "INT", "gracePeriodSeconds": 2}))
    assert (asked["attempt"], asked["signal"], asked["grace"]) == (3, 2, 2)
    assert api.ok("GET", f"{AGENTS}/a")["metadata"]["generation"] == 1


def test_signal_without_a_body_is_term(api: Api) -> None:
    api.ok("POST", AGENTS, agent("a"))
    asked = _kill(api.ok("POST", f"{AGENTS}/a/signal"))
    assert (asked["signal"], asked["grace"]) == (15, None)


def test_asking_twice_asks_again(api: Api) -> None:
    api.ok("POST", AGENTS, agent("a"))
    first = _kill(api.ok("POST", f"{AGENTS}/a/signal", {"signal": 9}))
    assert _kill(api.ok("POST", f"{AGENTS}/a/signal", {"signal": 9})) != first


@pytest.mark.parametrize(
    "body",
    [
        {"signal": "SIGNOPE"},
        {"signal": 999},
        {"signal": True},
        {"signal": None},
        {"gracePeriodSeconds": -1},
        {"gracePeriodSeconds": "1"},
        {"gracePeriodSeconds": True},
        {"grace": 1},
    ],
)
def test_signals_that_mean_nothing_are_refused(api: Api, body: Any) -> None:
    api.ok("POST", AGENTS, agent("a"))
    api.fails(400, "POST", f"{AGENTS}/a/signal", body)
    assert "annotations" not in api.ok("GET", f"{AGENTS}/a")["metadata"]


def test_ended_agent_takes_no_signal_and_can_be_restarted(api: Api) -> None:
    api.ok("POST", AGENTS, agent("a"))
    _status(api, phase="Failed", attempt=1)
    assert "already ended" in api.fails(409, "POST", f"{AGENTS}/a/signal")["message"]
    made = api.ok("POST", f"{AGENTS}/a/restart")
    assert made["metadata"]["annotations"]["agentk.dev/restartedAt"].startswith("2")


def test_nobody_takes_no_signal(api: Api) -> None:
    api.fails(404, "POST", f"{AGENTS}/a/signal")
    api.fails(404, "POST", f"{AGENTS}/a/restart")


def test_counters_are_read_from_the_runtime(api: Api) -> None:
    api.ok("POST", AGENTS, agent("a"))
    api.fails(404, "GET", f"{AGENTS}/a/counters")
    _status(api, phase="Running", boxID="u-1")
    told = api.ok("GET", f"{AGENTS}/a/counters")
    assert (told["boxID"], told["counters"]["cpuUsec"], told["counters"]["oomKills"]) == ("u-1", 7, 1)
