"""Which doors there are, as the daemon's gate hears of it: from boxes, and from launchers that come and go."""

import asyncio
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from agentk.runtime import box, lent
from tests.runtime import launching
from tests.runtime.launching import Place

SLEEP = "import time; time.sleep(1000)"


class Heard:
    """What a gate was told, with its own copies of the sockets."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, int]]] = []  # inodes
        self.sockets: dict[str, dict[str, socket.socket]] = {}

    def __call__(self, box_id: str, uid: str, fds: Mapping[str, int]) -> None:
        self.told.append((box_id, uid, {what: os.fstat(fd).st_ino for what, fd in fds.items()}))
        self.close(box_id)
        self.sockets[box_id] = {what: socket.socket(fileno=os.dup(fd)) for what, fd in fds.items()}

    def close(self, box_id: str) -> None:
        for one in self.sockets.pop(box_id, {}).values():
            one.close()

    def here(self, box_id: str) -> set[str]:
        return set(self.sockets.get(box_id, {}))


@pytest.fixture
def heard() -> Iterator[Heard]:
    made = Heard()
    yield made
    for box_id in list(made.sockets):
        made.close(box_id)


@pytest.fixture
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


def listening() -> int:
    """A new socket that listens; whoever gets it closes it."""
    made = socket.socket(socket.AF_UNIX)
    made.bind("")
    made.listen()
    return made.detach()


def note(box_id: str, **fds: int) -> tuple[dict[str, Any], list[int]]:
    names = [{"box_id": box_id, "uid": "u", "what": what} for what in fds]
    return {"note": "fds", "names": names}, list(fds.values())


def fails(box_id: str, uid: str, fds: Mapping[str, int]) -> None:
    raise RuntimeError(box_id)


def test_only_listeners_are_told_and_only_when_they_change(heard: Heard) -> None:
    held = lent.Lent()
    held.on_listeners(heard)
    held.take(*note("", holder=listening()))
    held.take(*note("b", out=listening(), gate=listening(), inside=listening()))
    gate, inside = (held.of("b")[what] for what in ("gate", "inside"))
    held.take(*note("b", gate=os.dup(gate), inside=os.dup(inside)))
    assert len(heard.told) == 1
    held.take(*note("b", gate=listening()))
    assert len(heard.told) == 2
    assert heard.told[0][2]["inside"] == heard.told[1][2]["inside"]
    held.forget("b")
    held.forget("b")
    assert heard.told[2:] == [("b", "u", {})]
    held.close()


def test_what_a_new_launcher_does_not_have_went(heard: Heard) -> None:
    held = lent.Lent()
    held.take(*note("old", gate=listening()))
    held.take(*note("stays", gate=listening()))
    end = held.on_listeners(heard)
    assert sorted(told[0] for told in heard.told) == ["old", "stays"]
    held.expect()
    held.take(*note("stays", gate=os.dup(held.of("stays")["gate"])))
    held.take(*note("new", gate=listening()))
    assert len(heard.told) == 2
    held.settle(instead=True)
    assert {(box_id, bool(fds)) for box_id, _, fds in heard.told[2:]} == {("old", False), ("new", True)}
    assert set(held.listeners()) == {"stays", "new"}
    end()
    held.close()
    assert len(heard.told) == 4


def test_a_box_that_ends_while_a_launcher_lends_is_not_kept(heard: Heard) -> None:
    held = lent.Lent()
    held.on_listeners(heard)
    held.expect()
    held.take(*note("b", gate=listening()))
    held.forget("b")
    held.settle(instead=True)
    assert (heard.told, held.listeners()) == ([], {})


def test_one_who_fails_does_not_hide_the_door_from_others(heard: Heard) -> None:
    async def flow() -> list[str]:
        failures: list[str] = []
        handler = lambda _, context: failures.append(context["message"])  # noqa: E731
        asyncio.get_running_loop().set_exception_handler(handler)
        held = lent.Lent()
        held.on_listeners(fails)
        held.on_listeners(heard)
        held.take(*note("b", gate=listening()))
        held.close()
        return failures

    assert len(asyncio.run(flow())) == 2
    assert heard.told[-1] == ("b", "u", {})


@pytest.mark.jail
@pytest.mark.skipif(bool(launching.why_no_jail()), reason=launching.why_no_jail() or "-")
def test_a_gate_serves_a_box_across_launchers_with_what_it_duplicated(there: Place, heard: Heard) -> None:
    call = "import socket; s = socket.create_connection(('127.0.0.1', 8700), 60); print(s.recv(9).decode())"

    async def flow() -> box.ExecResult:
        async with launching.connected(there) as runtime:
            runtime.on_listeners(heard)
            seen = await runtime.start(there.python(SLEEP))
            await launching.holds(lambda: heard.here(seen.id) == {"gate", "inside"})
            there.die()
            there.launch()
            await runtime.list()
            assert len(heard.told) == 1
            assert runtime.listeners()[seen.id][0] == "u-1"
            calling = asyncio.ensure_future(runtime.exec(seen.id, ["python", "-c", call], 60))
            inside = heard.sockets[seen.id]["inside"]
            inside.setblocking(False)
            accepted, _ = await asyncio.get_running_loop().sock_accept(inside)
            with accepted:
                accepted.sendall(b"hello")
            result = await calling
            await runtime.remove(seen.id)
            await launching.holds(lambda: heard.told[-1] == (seen.id, "u-1", {}))
            return result

    assert asyncio.run(flow()).stdout == b"hello\n"


def test_a_box_without_a_jail_has_a_gate_and_no_loopback(there: Place, heard: Heard) -> None:
    async def flow() -> None:
        async with launching.connected(there) as runtime:
            runtime.on_listeners(heard)
            wanted = there.make("sleep", "1000", runtime="process", enforcement="BestEffort")
            await runtime.start(wanted)
            await launching.holds(lambda: heard.here(wanted.id) == {"gate"})
            await runtime.kill(wanted.id, box.Intent("Killed"))
            await launching.holds(lambda: heard.told[-1][2] == {})

    asyncio.run(flow())
