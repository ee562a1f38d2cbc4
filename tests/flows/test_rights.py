"""As root: what the daemon may not, although it was started by root; and who may talk to it."""

import http.client
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.flows import household
from tests.flows.household import Household, Space, agent

pytestmark = [
    *household.needs,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="without root there are no rights to give away"),
]
NOBODY = 65534


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def as_uid(uid: int, act: Callable[[], str]) -> str:
    """What `act` answers in a child of that uid."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "nothing"
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            said = act()
        except BaseException as error:
            said = type(error).__name__
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def daemon_uid(home: Household) -> int:
    return int(status_of(home.pid("daemon"))["Uid"].split()[0])


def test_daemon_has_no_right_of_root(home: Household) -> None:
    told = status_of(home.pid("daemon"))
    assert "0" not in told["Uid"].split() + told["Gid"].split()
    assert told["Groups"] == "" and told["NoNewPrivs"] == "1"
    assert {int(told[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}


def test_daemon_cannot_read_what_is_the_launchers(space: Space) -> None:
    space.apply(agent("a"))
    space.running("a")
    uid, state = daemon_uid(space.home), space.home.places.state
    for folder in (state / "boxes", state / "workspaces", state / "staged"):
        assert as_uid(uid, lambda folder=folder: str(os.listdir(folder))) == "PermissionError"
    assert as_uid(uid, lambda: str(os.listdir(state / "logs"))).startswith("[")


@household.on_both
def test_boxes_have_a_uid_each_and_none_is_the_daemons(space: Space) -> None:
    space.apply(agent("a"), agent("b"))
    seen = {space.running(name)["hostUID"] for name in ("a", "b")}
    assert len(seen | {0, daemon_uid(space.home)}) == 4


def test_nobody_else_reaches_the_socket(home: Household) -> None:
    path = str(home.places.socket)
    assert as_uid(NOBODY, lambda: answer(path)) == "PermissionError"
    assert as_uid(daemon_uid(home), lambda: answer(path)) == "PermissionError"


def test_whoever_reaches_the_socket_is_asked_for_his_uid(alone: Space) -> None:
    places = alone.home.places
    places.run.chmod(0o755)
    places.socket.chmod(0o666)
    assert as_uid(NOBODY, lambda: answer(str(places.socket))) == "403"
    assert answer(str(places.socket)) == "200"


def answer(path: str) -> str:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    connection.request("GET", "/version")
    told = str(connection.getresponse().status)
    connection.close()
    return told
