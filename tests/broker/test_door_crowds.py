"""The door when many come, nobody reads, or nobody knows what is spoken."""

import socket
from pathlib import Path

import pytest

from agentk.broker.dialects.jsonrpc import Room
from agentk.broker.door import Limits
from agentk.sdk import wire
from tests.broker.door_rig import Guesthouse, story


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
