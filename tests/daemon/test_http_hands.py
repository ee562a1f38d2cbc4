"""Hands over the control API, by a WebSocket client that knows nothing of ours."""

import asyncio
import json
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from agentk.api import channels
from tests.daemon.conftest import AGENTS, SECONDS, Api, agent

MERGE = {"Content-Type": "application/merge-patch+json"}
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Protocol": "v4.channel.k8s.io",
}
Socket = aiohttp.ClientWebSocketResponse


@pytest.fixture
def there(api: Api) -> Api:
    api.ok("POST", AGENTS, agent("a", stdin=True))
    status(api, phase="Running", attempt=1, boxID="u-1")
    return api


def status(api: Api, **told: Any) -> None:
    api.ok("PATCH", f"{AGENTS}/a/status", {"status": told}, headers=MERGE)


def play(
    api: Api,
    part: str,
    query: list[tuple[str, Any]],
    story: Callable[[Socket], Awaitable[Any]],
    protocol: str = channels.V5,
) -> Any:
    """What a story comes to, told on one WebSocket."""

    async def told() -> Any:
        async with asyncio.timeout(SECONDS), dialled(api, part, query, protocol) as socket:
            return await story(socket)

    return asyncio.run(told())


@asynccontextmanager
async def dialled(
    api: Api, part: str, query: list[tuple[str, Any]], protocol: str = channels.V5
) -> AsyncIterator[Socket]:
    connector = aiohttp.UnixConnector(str(api.path))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect(f"http://a{AGENTS}/a/{part}?{urlencode(query)}", protocols=(protocol,)) as socket,
    ):
        assert socket.protocol == protocol
        yield socket


def vanish(socket: Socket) -> None:
    """As a caller that is killed."""
    assert socket._response.connection is not None
    transport = socket._response.connection.transport
    assert transport is not None
    transport.abort()


async def all_of(socket: Socket) -> dict[int, bytes]:
    """What every channel said until the end."""
    said: dict[int, bytes] = {}
    async for message in socket:
        assert message.type == aiohttp.WSMsgType.BINARY
        said[message.data[0]] = said.get(message.data[0], b"") + message.data[1:]
    assert socket.close_code == 1000
    return said


def ran(
    api: Api, *argv: str, stdin: bytes = b"", protocol: str = channels.V5, **flags: Any
) -> dict[int, Any]:
    async def story(socket: Socket) -> dict[int, bytes]:
        async def write() -> None:
            if stdin:
                await socket.send_bytes(b"\0" + stdin)
                await socket.send_bytes(b"\xff\0")

        return (await asyncio.gather(all_of(socket), write()))[0]

    if stdin:
        flags["stdin"] = "true"
    query = [("command", word) for word in argv] + list(flags.items())
    said = play(api, "exec", query, story, protocol)
    return said | {3: json.loads(said[3])}


@pytest.mark.parametrize("protocol", [channels.V4, channels.V5])
def test_output_is_apart_and_the_exit_code_is_told(there: Api, protocol: str) -> None:
    said = ran(there, "sh", "-c", "echo out; echo err >&2; exit 7", protocol=protocol)
    assert (said[1], said[2]) == (b"out\n", b"err\n")
    assert said[3]["reason"] == "NonZeroExitCode"
    assert said[3]["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]


def test_success_and_death_by_a_signal_and_no_such_command(there: Api) -> None:
    assert ran(there, "true")[3] == {"metadata": {}, "status": "Success"}
    assert channels.exit_code(ran(there, "sh", "-c", "kill -9 $$")[3]) == 137
    assert channels.exit_code(ran(there, "/no/such/program")[3]) == 127


def test_input_reaches_it_and_has_an_end(there: Api) -> None:
    data = os.urandom(3_000_000)
    said = ran(there, "cat", stdin=data, stdout="true")
    assert said[1] == data


def test_only_the_streams_that_were_asked_for(there: Api) -> None:
    said = ran(there, "sh", "-c", "echo out; echo err >&2", stderr="true")
    assert 1 not in said and said[2] == b"err\n"


def test_a_terminal_has_a_size_and_changes_it(there: Api) -> None:
    async def story(socket: Socket) -> bytes:
        said = b""
        while b"ready" not in said:
            said += (await socket.receive_bytes())[1:]
        await socket.send_bytes(b"\4" + channels.sized(132, 43))
        await socket.send_bytes(b"\0go\n")
        rest = await all_of(socket)
        return said + rest[1]

    query = [
        ("command", w)
        for w in ("sh", "-c", "stty size; echo ready; read x; stty size; test -t 2; echo $? $TERM")
    ]
    said = play(
        there, "exec", [*query, ("tty", 1), ("stdin", 1), ("stdout", 1), ("columns", 80), ("rows", 24)], story
    )
    assert said.split(b"\r\n")[0] == b"24 80"
    assert said.split(b"\r\n")[-3:-1] == [b"43 132", b"0 xterm"]


def test_what_nobody_reads_holds_the_command_back_and_the_caller_s_end_ends_it(there: Api) -> None:
    async def story(socket: Socket) -> None:
        await socket.receive_bytes()
        vanish(socket)

    play(there, "exec", [("command", "yes")], story)
    there.run(there.hands.ended.wait())
    assert there.services.visits is not None
    assert there.settled(lambda: not there.services.visits.visits)  # type: ignore[union-attr]


def test_what_is_not_read_is_not_taken(there: Api) -> None:
    async def story(socket: Socket) -> bool:
        try:
            async with asyncio.timeout(1):
                for _ in range(1000):
                    await socket.send_bytes(b"\0" + bytes(65536))
        except TimeoutError:
            vanish(socket)
            return True
        return False

    assert play(there, "exec", [("command", "sleep"), ("command", "1000"), ("stdin", 1)], story)
    there.run(there.hands.ended.wait())


def test_time_is_up(there: Api) -> None:
    said = ran(there, "sleep", "1000", timeoutSeconds=1)
    assert channels.exit_code(said[3]) == 124


def test_a_box_that_is_gone_is_told_as_a_status(there: Api) -> None:
    there.hands.boxes.clear()
    assert ran(there, "true")[3]["reason"] == "NotFound"


def test_every_visit_is_an_event_without_secrets(there: Api) -> None:
    ran(there, "echo", "hunter2", "\x1b[2J", "x" * 500)
    items = there.ok("GET", "/api/v1/namespaces/default/events")["items"]
    told = [one for one in items if one["reason"] == "Exec"]
    assert told[0]["message"].startswith(f"uid {os.getuid()}: echo '***'") or "***" in told[0]["message"]
    assert "hunter2" not in told[0]["message"] and "\x1b" not in told[0]["message"]
    assert len(told[0]["message"]) < 200


def test_only_what_runs_can_be_entered(there: Api) -> None:
    for phase, hint in (("Suspended", "resume"), ("Succeeded", "describe"), ("Pending", "describe")):
        status(there, phase=phase)
        told = there.fails(409, "GET", f"{AGENTS}/a/exec", query={"command": "true"}, headers=HANDSHAKE)
        assert hint in told["message"]
    there.fails(404, "GET", f"{AGENTS}/b/exec", query={"command": "true"}, headers=HANDSHAKE)


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ({}, {}),
        ({"command": ""}, {}),
        ({"command": "a\0b"}, {}),
        ({"command": "true", "tty": "yes"}, {}),
        ({"command": "true", "term": "x y"}, {}),
        ({"command": "true", "columns": "99999"}, {}),
        ({"command": "true"}, {"Upgrade": "SPDY/3.1"}),
        ({"command": "true"}, {"Connection": "keep-alive"}),
        ({"command": "true"}, {"Sec-WebSocket-Version": "8"}),
        ({"command": "true"}, {"Sec-WebSocket-Key": "x"}),
        ({"command": "true"}, {"Sec-WebSocket-Protocol": "channel.k8s.io"}),
    ],
)
def test_what_is_no_handshake_of_ours_is_refused(there: Api, query: Any, headers: Any) -> None:
    there.fails(400, "GET", f"{AGENTS}/a/exec", query=query, headers=HANDSHAKE | headers)


def test_hands_have_an_end(there: Api) -> None:
    """As many as there may be at once; and the daemon's end is theirs."""

    async def story(socket: Socket) -> int | None:
        await socket.receive_bytes()
        room = there.services.visits
        assert room is not None
        room.visits.update(map(str, range(63)))
        there.fails(429, "GET", f"{AGENTS}/a/exec", query={"command": "true"}, headers=HANDSHAKE)
        closing = asyncio.create_task(asyncio.to_thread(there.run, room.close()))
        async for _ in socket:
            pass
        await closing
        return socket.close_code

    assert (
        play(there, "exec", [("command", "sh"), ("command", "-c"), ("command", "echo x; sleep 1000")], story)
        == 1001
    )


# attach


def test_attach_tells_what_is_written_from_now_on(there: Api) -> None:
    uid = there.ok("GET", f"{AGENTS}/a")["metadata"]["uid"]
    folder = there.services.log_folder("default", uid)
    folder.mkdir(parents=True)
    log = folder / "1.log"
    stamp = "2026-01-01T00:00:00.000000000Z"
    log.write_text(f"{stamp} stdout F before\n{stamp} stdout P name? \n")

    async def story(socket: Socket) -> dict[int, bytes]:
        assert await socket.receive_bytes() == b"\1name? "
        await socket.send_bytes(b"\0me\n")
        with there.stdin.open("rb", buffering=0) as typed:
            assert await asyncio.to_thread(typed.readline) == b"me\n"
        with log.open("a") as file:
            file.write(f"{stamp} stdout F \n{stamp} stderr F hello me\n{stamp} log F said\n")
        said = await socket.receive_bytes()
        await asyncio.to_thread(status, there, phase="Failed", lastTermination={"attempt": 1, "exitCode": 3})
        rest = await all_of(socket)
        return rest | {said[0]: said[1:] + rest.get(said[0], b"")}

    said = play(there, "attach", [("stdin", "true"), ("stdout", "true")], story)
    assert (said[1], said[2]) == (b"\n", b"hello me\n")
    assert channels.exit_code(json.loads(said[3])) == 3


def test_attach_to_a_program_that_reads_nothing(api: Api) -> None:
    api.ok("POST", AGENTS, agent("a"))
    status(api, phase="Running", attempt=1, boxID="u-1")
    told = api.fails(400, "GET", f"{AGENTS}/a/attach", query={"stdin": "true"}, headers=HANDSHAKE)
    assert "spec.stdin" in told["message"]


# port-forward


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"heard " + await reader.read())
    writer.close()


def test_a_port_is_forwarded_both_ways(there: Api) -> None:
    async def told() -> dict[int, bytes]:
        server = await asyncio.start_server(_echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with (
            server,
            asyncio.timeout(SECONDS),
            dialled(there, "portforward", [("ports", port)]) as socket,
        ):
            await socket.send_bytes(b"\0" + b"x" * 300_000)
            await socket.send_bytes(b"\xff\0")
            said = await all_of(socket)
            assert said[0][:2] == said[1] == struct.pack("<H", port)
            return said

    said = asyncio.run(told())
    assert said[0][2:] == b"heard " + b"x" * 300_000
    assert said[255] == b"\0"


def test_a_port_where_nobody_listens(there: Api) -> None:
    async def told() -> dict[int, bytes]:
        server = await asyncio.start_server(_echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        async with (
            asyncio.timeout(SECONDS),
            dialled(there, "portforward", [("ports", port)], channels.V4) as socket,
        ):
            return await all_of(socket)

    assert b"refused" in asyncio.run(told())[1]


@pytest.mark.parametrize("ports", ["", "0", "65536", "x", "80,", ",".join(["80"] * 17)])
def test_ports_that_mean_nothing(there: Api, ports: str) -> None:
    there.fails(400, "GET", f"{AGENTS}/a/portforward", query={"ports": ports}, headers=HANDSHAKE)


# files


def test_files_go_in_and_out_as_tar(there: Api, tmp_path: Any) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "from" / "f").write_bytes(os.urandom(500_000))
    packed = there.call("GET", f"{AGENTS}/a/files", query={"path": f"{tmp_path}/from"})
    assert packed.headers["content-type"] == "application/x-tar"
    told = there.ok("PUT", f"{AGENTS}/a/files", packed.body, query={"path": f"{tmp_path}/to"})
    assert told == {"files": 1, "bytes": 500_000}
    assert (tmp_path / "to" / "from" / "f").read_bytes() == (tmp_path / "from" / "f").read_bytes()


def test_files_that_are_not_there(there: Api, tmp_path: Any) -> None:
    there.fails(404, "GET", f"{AGENTS}/a/files", query={"path": "/no/such"})
    there.fails(404, "PUT", f"{AGENTS}/a/files", bytes(1 << 20), query={"path": "/no/such"})
    there.fails(400, "GET", f"{AGENTS}/a/files", query={"path": "relative"})
    assert there.services.visits is not None and not there.services.visits.visits
