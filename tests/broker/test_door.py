"""The door with real sockets: who is let in, which dialect is spoken, and that nobody is kept by another."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.broker.dialects.jsonrpc import Asked, Room
from agentk.broker.dialects.jsonrpc_serving import Emit, JsonRpcService
from agentk.broker.door import Door, Limits, dialect_of
from agentk.sdk import wire


class Guesthouse:
    """A door on a unix socket and one on TCP, and what is known of the calls that came through."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "gate.sock")
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(self.path)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.unix.listen(128)
        self.begun = asyncio.Queue[str]()
        self.cancelled = asyncio.Queue[str]()
        self.go_on = asyncio.Event()

    async def answer(self, asked: Asked, emit: Emit) -> Any:
        if asked.method == "noop":
            return asked.params
        if asked.method == "fail":
            raise errors.Denied("rule r says no")
        if asked.method == "break":
            raise KeyError("secret")
        self.begun.put_nowait(asked.method)
        try:
            if asked.method == "count":
                for n in range(asked.params["to"]):
                    await emit({"n": n, "pad": "x" * asked.params["pad"]})
            else:
                await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.put_nowait(asked.method)
            raise
        return {}

    @contextlib.asynccontextmanager
    async def open(
        self, limits: Limits | None = None, room: Room | None = None, at_once: tuple[str, ...] = ("noop",)
    ) -> AsyncIterator[Door]:
        service = JsonRpcService(self.answer, room, frozenset(at_once))
        fds = [os.dup(self.unix.fileno()), os.dup(self.tcp.fileno())]
        opened = Door(fds, {"jsonrpc": service.connection}, limits)
        opened.open()
        try:
            yield opened
        finally:
            await opened.close()
            await service.close()
            assert opened.connections == 0 and not service.tasks

    async def connect(self, unix: bool = True) -> "Guest":
        if unix:
            return Guest(*await asyncio.open_unix_connection(self.path, limit=2**24))
        return Guest(*await asyncio.open_connection(*self.tcp.getsockname()))

    def close(self) -> None:
        self.unix.close()
        self.tcp.close()


class Guest:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def ask(self, id: wire.Id, method: str, **params: Any) -> None:
        self.writer.write(wire.request(id, method, params))

    async def hear(self) -> Any:
        return wire.read_answer(await self.reader.readline())

    async def noop(self) -> None:
        self.ask("n", "noop", payload=1)
        assert await self.hear() == wire.Response("n", {"payload": 1})

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def story(told: Callable[[Guesthouse], Awaitable[None]]) -> Callable[[Path], None]:
    def test(tmp_path: Path) -> None:
        async def run() -> None:
            house = Guesthouse(tmp_path)
            try:
                async with asyncio.timeout(60):
                    await told(house)
            finally:
                house.close()

        asyncio.run(run())

    test.__name__ = told.__name__
    return test


@story
async def test_both_sockets_answer(house: Guesthouse) -> None:
    async with house.open():
        for unix in (True, False):
            guest = await house.connect(unix)
            await guest.noop()
            await guest.close()


@story
async def test_errors_come_as_answers_and_mistakes_of_ours_tell_no_secret(house: Guesthouse) -> None:
    async with house.open(at_once=("noop", "fail", "break")):
        guest = await house.connect()
        for method in ("fail", "break"):
            guest.ask(method, method)
        denied, broken = await guest.hear(), await guest.hear()
        assert denied.code == -32001 and denied.message == "rule r says no"
        assert broken.code == wire.INTERNAL_ERROR and "secret" not in str(broken)
        await guest.close()


@story
async def test_a_slow_call_holds_up_no_other(house: Guesthouse) -> None:
    async with house.open():
        guest = await house.connect()
        guest.ask(1, "wait")
        await guest.noop()
        house.go_on.set()
        assert await guest.hear() == wire.Response(1, {})
        await guest.close()


@story
async def test_a_call_begun_at_once_may_wait_and_be_taken_back(house: Guesthouse) -> None:
    async with house.open(at_once=("wait",)):
        guest = await house.connect()
        guest.ask(1, "wait")
        guest.ask(2, "wait")
        await house.begun.get()
        guest.writer.write(wire.cancel(1))
        taken = await guest.hear()
        assert (taken.id, taken.code) == (1, -32006) and await house.cancelled.get()
        house.go_on.set()
        assert await guest.hear() == wire.Response(2, {})
        await guest.close()


@story
async def test_a_call_taken_back_in_the_same_breath_is_answered(house: Guesthouse) -> None:
    async with house.open():
        guest = await house.connect()
        guest.writer.write(wire.request(1, "wait", {}) + wire.cancel(1))
        assert (await guest.hear()).code == -32006
        await guest.noop()
        await guest.close()


@pytest.mark.parametrize("unix", [True, False])
def test_hanging_up_takes_the_calls_along(tmp_path: Path, unix: bool) -> None:
    async def told(house: Guesthouse) -> None:
        async with house.open(room=Room(calls=2)):
            guest = await house.connect(unix)
            for n in range(3):  # the third waits for room: the hang-up is noticed all the same
                guest.ask(n, "wait")
            for _ in range(2):
                await house.begun.get()
            await guest.close()
            for _ in range(2):
                await house.cancelled.get()
            assert house.begun.empty()
            other = await house.connect()
            await other.noop()
            await other.close()

    story(told)(tmp_path)


@story
async def test_who_only_ends_its_side_is_answered(house: Guesthouse) -> None:
    async with house.open():
        guest = await house.connect()
        guest.ask(1, "wait")
        guest.writer.write_eof()
        await house.begun.get()
        house.go_on.set()
        assert await guest.hear() == wire.Response(1, {})
        assert await guest.reader.read() == b""
        await guest.close()


@story
async def test_room_is_shared_by_all_connections_and_given_on(house: Guesthouse) -> None:
    async with house.open(room=Room(calls=1)):
        guests = [await house.connect() for _ in range(4)]
        guests[0].ask(1, "wait")
        await house.begun.get()
        for guest in guests[1:]:
            guest.ask("n", "noop", payload=1)
        await guests[1].close()
        house.go_on.set()
        for guest in guests[2:]:
            assert await guest.hear() == wire.Response("n", {"payload": 1})
        for guest in guests:
            await guest.close()


@story
async def test_a_stream_waits_for_who_reads_it(house: Guesthouse) -> None:
    async with house.open():
        guest = await house.connect()
        guest.ask(1, "count", to=200, pad=50_000)
        other = await house.connect()
        await other.noop()
        seen = [(await guest.hear()).seq for _ in range(200)]
        assert seen == list(range(200)) and await guest.hear() == wire.Response(1, {})
        await guest.close()
        await other.close()


@story
async def test_who_never_reads_is_dropped(house: Guesthouse) -> None:
    async with house.open(Limits(unread_seconds=0.05)) as opened:
        guest = socket.socket(socket.AF_UNIX)
        guest.connect(house.path)
        guest.sendall(wire.request(1, "count", {"to": 1000, "pad": 50_000}))
        other = await house.connect()
        await other.noop()
        assert await house.cancelled.get() == "count" and opened.connections == 1
        guest.close()
        await other.close()


@pytest.mark.parametrize(
    "line", [b"{]\n", b'{"a":' + b"x" * wire.LINE_BYTES, b'{"a":1,"a":2}\n', b"{" + b"\xff" * 10 + b"\n"]
)
@pytest.mark.parametrize("unix", [True, False])
def test_a_line_that_cannot_be_read_is_told_so_and_ends_the_connection(
    tmp_path: Path, line: bytes, unix: bool
) -> None:
    async def told(house: Guesthouse) -> None:
        async with house.open():
            guest = await house.connect(unix)
            guest.ask(1, "wait")
            await house.begun.get()
            guest.writer.write(line)
            await guest.writer.drain()
            failure = await guest.hear()
            assert (failure.id, failure.code) == (None, wire.PARSE_ERROR)
            assert await guest.reader.read() == b"" and await house.cancelled.get()
            await guest.close()

    story(told)(tmp_path)


@story
async def test_a_flood_of_lines_lets_others_be_answered(house: Guesthouse) -> None:
    async with house.open():
        flooding = await house.connect()
        flooding.writer.write(b'{"jsonrpc":"2.0","id":1,"method":5}\n' * 5000)
        other = await house.connect()
        await other.noop()
        for _ in range(5000):
            assert (await flooding.hear()).code == wire.INVALID_REQUEST
        await flooding.close()
        await other.close()


@story
async def test_too_many_connections_wait_until_one_goes(house: Guesthouse) -> None:
    async with house.open(Limits(connections=2)) as opened:
        guests = [await house.connect() for _ in range(3)]
        for guest in guests[:2]:
            await guest.noop()
        guests[2].ask("n", "noop", payload=1)
        await guests[0].noop()
        assert opened.connections == 2
        await guests[0].close()
        assert await guests[2].hear() == wire.Response("n", {"payload": 1})
        for guest in guests[1:]:
            await guest.close()


@story
async def test_closing_the_door_leaves_it_open_for_who_comes_next(house: Guesthouse) -> None:
    async with house.open():
        early = await house.connect()
        await early.noop()
    assert await early.reader.read() == b""
    late = await house.connect()  # in the backlog: nobody accepts
    late.ask("n", "noop", payload=1)
    async with house.open():
        assert await late.hear() == wire.Response("n", {"payload": 1})
        await late.close()
    await early.close()


@story
async def test_closing_waits_for_nobody_who_does_not_read(house: Guesthouse) -> None:
    async with house.open(Limits(close_seconds=0.05)):
        guest = socket.socket(socket.AF_UNIX)
        guest.connect(house.path)
        guest.sendall(wire.request(1, "count", {"to": 1000, "pad": 50_000}))
        other = await house.connect()
        await other.noop()
        await other.close()
    guest.close()


@pytest.mark.parametrize("unix", [True, False])
@pytest.mark.parametrize("first", [b"\x00\x01\x02\x03", b"hello\n", b"GET / HTTP/1.1\r\n\r\n", b"TNGA"])
def test_a_dialect_nobody_speaks_is_turned_away(tmp_path: Path, first: bytes, unix: bool) -> None:
    async def told(house: Guesthouse) -> None:
        async with house.open():
            guest = await house.connect(unix)
            guest.writer.write(first)
            assert (await guest.hear()).code == wire.PARSE_ERROR
            assert await guest.reader.read() == b""
            await guest.close()

    story(told)(tmp_path)


@pytest.mark.parametrize(
    ("first", "spoken"),
    [
        (b"{", "jsonrpc"),
        (b"[1", "jsonrpc"),
        (b"\r\n {", "jsonrpc"),
        (b"T", None),
        (b"TNG", None),
        (b"TNGA\0", "frames"),
        (b"GET /", "http"),
        (b"PUT /", "http"),
        (b"CONNECT a:1", "http"),
        (b"\r\nPOST", "http"),
        (b"\nTNGA", "http"),
        (b"", None),
        (b" " * 65, "unknown"),
        (b"get /", "unknown"),
        (b"G3", "unknown"),
        (b"GE\0T", "unknown"),
        (b"\x54\x4e\x47\x42", "http"),
        (b"\x16\x03\x01", "unknown"),
    ],
)
def test_the_first_bytes_tell_the_dialect(first: bytes, spoken: str | None) -> None:
    assert dialect_of(first) == spoken


@story
async def test_the_dialect_is_told_also_byte_by_byte(house: Guesthouse) -> None:
    async with house.open():
        guest = await house.connect()
        for byte in wire.request("n", "noop", {"payload": 1}):
            guest.writer.write(bytes([byte]))
            await guest.writer.drain()
        assert await guest.hear() == wire.Response("n", {"payload": 1})
        await guest.close()


class Shouting(asyncio.BufferedProtocol):
    """As TLS does: asks for a buffer of its own, a small one."""

    def __init__(self) -> None:
        self.buffer = bytearray(4)
        self.heard = bytearray()
        self.lost = asyncio.Event()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.heard += self.buffer[:nbytes]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Handing(asyncio.Protocol):
    """Hands its connection on at the first word, as a tunnel does."""

    def __init__(self, to: Shouting) -> None:
        self.to = to

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.set_protocol(self.to)
        self.transport.write(b"go\n")


@story
async def test_the_door_counts_a_connection_also_after_it_was_handed_on(house: Guesthouse) -> None:
    shouting = Shouting()
    opened = Door(
        [os.dup(house.unix.fileno())], {"http": lambda *, by_unix: Handing(shouting)}, Limits(connections=1)
    )
    opened.open()
    guest = await house.connect()
    guest.writer.write(b"CONNECT x:1 HTTP/1.1\r\n\r\n")
    assert await guest.reader.readline() == b"go\n" and opened.connections == 1
    guest.writer.write(b"hello, world")
    await guest.close()
    await shouting.lost.wait()
    assert shouting.heard == b"hello, world"
    late = await house.connect()
    late.writer.write(b"?\n")
    assert (await late.hear()).code == wire.PARSE_ERROR
    await late.close()
    await opened.close()
