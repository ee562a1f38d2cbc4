"""spec.ports: a server in a box, found on this host's loopback over restarts and deaths, and a port that is taken."""

import socket
from collections.abc import Iterator

import pytest

from tests.flows import household
from tests.flows.household import Object, Space, python
from tests.flows.test_hands import SERVE, fetched

pytestmark = household.needs


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of the loopback that somebody has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def web(name: str, **port: int) -> Object:
    ports = [{"name": "web", "containerPort": 8080, **port}]
    return python(name, SERVE, restartPolicy="Always", ports=ports)


def port_of(space: Space, name: str) -> int:
    status = space.until(name, lambda status: (status.get("ports") or [{}])[0].get("hostPort"))["status"]
    return int(status["ports"][0]["hostPort"])


def test_a_declared_port_follows_its_agent(alone: Space) -> None:
    alone.create(web("a"))
    port = port_of(alone, "a")
    household.until("it listens", lambda: fetched(port, "/x") == "/x" * 1000)
    alone.agentk("restart", "a")
    alone.running("a", 2)
    household.until("it listens again", lambda: fetched(port, "/y"))
    alone.home.kill("daemon")
    alone.home.answers()
    household.until("and after the daemon's death", lambda: fetched(port, "/z"))
    assert port_of(alone, "a") == port and alone.status("a")["attempt"] == 2
    assert "PortsOpen" in alone.agentk("describe", "agent", "a").out
    alone.delete("a")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_that_is_taken_stops_nobody(space: Space, taken: int) -> None:
    space.create(web("a", hostPort=taken))
    space.running("a")
    space.event("a", "PortUnavailable")
    found = {one["type"]: one for one in space.status("a")["conditions"]}["PortsOpen"]
    assert (found["status"], str(taken) in found["message"]) == ("False", True)
    space.create(web("a"))
    space.until("a", lambda status: status["ports"][0].get("hostPort") != taken)
    household.until("another is chosen", lambda: fetched(port_of(space, "a"), "/x"))
    assert space.status("a")["attempt"] == 1
