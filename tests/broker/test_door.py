"""The door with real sockets: who is let in, which dialect is spoken, and that nobody is kept by another."""

import asyncio
import os
from pathlib import Path

import pytest

from agentk.broker.dialects.jsonrpc import Room
from agentk.broker.door import Door, Limits, dialect_of
from agentk.sdk import wire
from tests.broker.door_rig import Guesthouse, story


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
