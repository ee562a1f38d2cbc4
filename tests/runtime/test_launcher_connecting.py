"""Connections from outside to ports inside of a box."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from agentk.api import errors
from agentk.runtime import box, hands
from agentk.runtime.launcher import doors
from tests.runtime import launching, podmans
from tests.runtime.launching import Place

RUNTIMES = [
    pytest.param("nsjail", marks=launching.needs_jail),
    pytest.param("podman", marks=podmans.needs_podman),
]
LISTENS = """
import socket, time
with socket.create_server(("127.0.0.1", 8080)) as server:
    print("up", flush=True)
    while True:
        peer, address = server.accept()
        peer.sendall(b"hello " + peer.recv(100) + b" from " + address[0].encode())
        peer.close()
"""
DEAF = """
import socket, time
server = socket.create_server(("127.0.0.1", 8080), backlog=0)
print("up", flush=True)
time.sleep(1000)
"""


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made


@pytest.mark.parametrize("kind", RUNTIMES)
def test_it_reaches_the_port_inside(there: Place, kind: str) -> None:
    async def flow() -> None:
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.python(LISTENS, uid=f"port-{kind}", runtime=kind))
            await launching.logged(there, "up", uid=f"port-{kind}")
            many = [hands.Hands(runtime).connect(seen.id, 8080) for _ in range(20)]
            connected = await asyncio.gather(*many)
            for number, made in enumerate(connected):
                made.sendall(b"%d" % number)
            for number, made in enumerate(connected):
                with made:
                    said = await asyncio.to_thread(made.recv, 100)
                    assert said == b"hello %d from 127.0.0.1" % number
            for port in (8081, 1):
                with pytest.raises(errors.Unavailable, match="nobody listens there"):
                    await hands.Hands(runtime).connect(seen.id, port)
            await runtime.remove(seen.id)

    asyncio.run(flow())


@pytest.mark.parametrize("kind", RUNTIMES)
def test_the_hosts_own_ports_are_not_reached(there: Place, kind: str) -> None:
    async def flow() -> None:
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.make("sleep", "1000", uid=f"host-{kind}", runtime=kind))
            server = socket.create_server(("127.0.0.1", 0))
            with server, pytest.raises(errors.Unavailable, match="nobody listens there"):
                await hands.Hands(runtime).connect(seen.id, server.getsockname()[1])
            await runtime.remove(seen.id)

    asyncio.run(flow())


@pytest.mark.parametrize("port", [0, -1, 65536, 1 << 40, True, "80", None, 1.5])
@pytest.mark.parametrize("kind", RUNTIMES[:1])
def test_what_is_no_port_is_refused(there: Place, port: object, kind: str) -> None:
    async def flow() -> None:
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.make("sleep", "1000", uid="bad", runtime=kind))
            with pytest.raises(errors.Invalid):
                await hands.Hands(runtime).connect(seen.id, port)  # type: ignore[arg-type]
            await runtime.remove(seen.id)

    asyncio.run(flow())


@pytest.mark.parametrize("kind", RUNTIMES)
def test_a_guest_that_takes_nobody_holds_nobody_up(there: Place, kind: str) -> None:
    """Connections beyond its backlog hang in the kernel: so many at once, and the launcher serves others meanwhile."""

    async def flow() -> None:
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.python(DEAF, uid=f"deaf-{kind}", runtime=kind))
            await launching.logged(there, "up", uid=f"deaf-{kind}")
            waiting = [asyncio.ensure_future(hands.Hands(runtime).connect(seen.id, 8080)) for _ in range(40)]
            with contextlib.suppress(errors.TooManyRequests):
                await asyncio.gather(*waiting)
            other = await runtime.start(there.make("true", uid=f"other-{kind}", runtime=kind))
            assert (await launching.ended(runtime, other.id)).exit.code == 0
            await runtime.remove(seen.id)
            for made in await asyncio.gather(*waiting, return_exceptions=True):
                if isinstance(made, socket.socket):
                    made.close()
                else:
                    assert isinstance(made, errors.TooManyRequests | errors.Unavailable)

    asyncio.run(flow())


@pytest.mark.parametrize("kind", RUNTIMES)
def test_only_a_box_that_runs_and_moves(there: Place, kind: str) -> None:
    there.need_cgroups()

    async def flow() -> None:
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.make("sleep", "1000", uid=f"frozen-{kind}", runtime=kind))
            await runtime.freeze(seen.id)
            with pytest.raises(errors.Conflict, match="frozen"):
                await hands.Hands(runtime).connect(seen.id, 80)
            await runtime.kill(seen.id, box.Intent("Killed"))
            await launching.ended(runtime, seen.id)
            with pytest.raises(errors.Conflict, match="not Running"):
                await hands.Hands(runtime).connect(seen.id, 80)
            await runtime.remove(seen.id)
            plain = there.make(
                "sleep", "1000", uid=f"plain-{kind}", runtime="process", enforcement="BestEffort"
            )
            await runtime.start(plain)
            with pytest.raises(errors.BadRequest, match="no network of its own"):
                await hands.Hands(runtime).connect(plain.id, 80)
            await runtime.remove(plain.id)

    asyncio.run(flow())


def test_the_gate_of_a_box_is_no_port_to_reach(there: Place) -> None:
    """Whoever is on the loopback that it is forwarded to would be the agent."""

    async def flow() -> None:
        async with launching.connected(there) as runtime:
            seen = await runtime.start(there.make("sleep", "1000", uid="gate"))
            with pytest.raises(errors.BadRequest, match="its own gate's"):
                await hands.Hands(runtime).connect(seen.id, doors.PORT)
            await runtime.remove(seen.id)

    asyncio.run(flow())
