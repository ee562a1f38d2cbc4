"""Declared ports in an agent's status, its conditions and its events."""

from dataclasses import replace
from typing import Any

from agentk.api import admit, errors
from agentk.control import decide, digests, opened, plans
from tests.control import cases

PORTS = [{"name": "web", "containerPort": 80}]


def decided(told: list[dict[str, Any]] | None, status: dict[str, Any] | None = None) -> plans.Decision:
    one = cases.agent(status, ports=PORTS)
    observed = replace(plans.Observed([cases.running(one)]), ports=told)
    return decide.decide(one, observed, cases.now(5))


def condition(made: plans.Decision) -> dict[str, Any]:
    return next(one for one in made.status["conditions"] if one["type"] == "PortsOpen")


def test_what_listens_is_told() -> None:
    made = decided([{"name": "web", "containerPort": 80, "hostPort": 4000}])
    assert made.status["ports"][0]["hostPort"] == 4000 and condition(made)["status"] == "True"


def test_a_taken_port_is_told_once_and_stops_nobody() -> None:
    told = [{"name": "web", "containerPort": 80, "hostPort": 4000, "message": "taken"}]
    made = decided(told)
    assert condition(made)["status"] == "False" and made.status["phase"] == "Running"
    assert [event.reason for event in made.events].count("PortUnavailable") == 1
    assert "PortUnavailable" not in [event.reason for event in decided(told, made.status).events]


def test_what_nobody_has_looked_at_stays_as_it_was() -> None:
    had = [{"name": "web", "containerPort": 80, "hostPort": 4000}]
    assert decided(None, {"ports": had}).status["ports"] == had


def test_other_ports_need_no_other_box() -> None:
    assert digests.token(cases.agent(ports=PORTS)) == digests.token(cases.agent())


def test_only_what_is_new_wakes() -> None:
    woken: list[str] = []
    told = opened.Opened()
    told.wake = woken.append
    told.tell("u", [{"name": "web"}])
    told.tell("u", [{"name": "web"}])
    assert (woken, told.of("u"), told.of("v")) == (["u"], [{"name": "web"}], None)
    told.forget("u")
    assert told.of("u") is None


def test_a_host_port_is_given_once() -> None:
    ports = [{"name": name, "containerPort": 80, "hostPort": 4000} for name in ("a", "b")]
    obj = {
        "apiVersion": "agentk.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"command": ["x"], "ports": ports},
    }
    try:
        admit.admit(obj)
    except errors.Invalid as error:
        assert "ports[0]" in str(error)
    else:
        raise AssertionError("it was admitted")
