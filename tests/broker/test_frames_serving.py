"""Frames on real sockets, through the door: order, back-pressure, bounds, hanging up."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.broker.dialects import frames
from agentk.broker.dialects.frames import Frame
from agentk.broker.dialects.frames_serving import FramesService, Start
from agentk.broker.dialects.jsonrpc import Room
from agentk.broker.door import Door, Limits

ECHO, WAIT, BREAK, BIG = 0x00, 0x21, 0x02, 0x03


class Answering:
    def __init__(self, house: "House") -> None:
        self.house = house

    agent_id = 77

    async def answer(self, opcode: int, payload: bytes) -> bytes:
        if opcode == BREAK:
            raise KeyError("secret")
        if opcode == BIG:
            return bytes(frames.PAYLOAD_BYTES + int(payload))
        if opcode == WAIT:
            self.house.begun.put_nowait(payload)
            try:
                await self.house.go_on.wait()
            except asyncio.CancelledError:
                self.house.cancelled.put_nowait(payload)
                raise
        return payload

    def close(self) -> None:
        self.house.closed += 1


class House:
    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "gate.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(128)
        self.begun = asyncio.Queue[bytes]()
        self.cancelled = asyncio.Queue[bytes]()
        self.go_on = asyncio.Event()
        self.closed = 0
        self.guests: list[Guest] = []

    def session(self, start: Start) -> Answering:
        return Answering(self)

    @contextlib.asynccontextmanager
    async def open(self, room: Room | None = None, limits: Limits | None = None) -> AsyncIterator[Room]:
        service = FramesService(self.session, room)
        door = Door([os.dup(self.listener.fileno())], {"frames": service.connection}, limits)
        door.open()
        try:
            yield service.room
        finally:
            await asyncio.gather(*(guest.close() for guest in self.guests))
            await door.close()
            await service.close()
            assert door.connections == 0 and not service.tasks
            assert (service.room.calls, service.room.running_bytes, service.room.held_bytes) == (0, 0, 0)

    async def connect(self) -> "Guest":
        guest = Guest(*await asyncio.open_unix_connection(self.path, limit=2**22))
        self.guests.append(guest)
        return guest


class Guest:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, opcode: int, payload: bytes = b"") -> None:
        self.writer.write(frames.encode(0, opcode, payload))

    async def read(self) -> Frame:
        magic, agent_id, opcode, size = struct.unpack("<IIBQ", await self.reader.readexactly(17))
        assert magic == frames.MAGIC
        return Frame(agent_id, opcode, await self.reader.readexactly(size))

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.listener.close()


async def until(true: Callable[[], bool]) -> None:
    for _ in range(1_000_000):
        if true():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


def run(scene: object) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scene, 60)  # type: ignore[arg-type]

    asyncio.run(bounded())


def test_replies_come_in_order_with_the_connections_id(house: House) -> None:
    async def scene() -> None:
        async with house.open():
            guest = await house.connect()
            for n in range(200):
                guest.send(ECHO, b"%d" % n)
            assert [await guest.read() for _ in range(200)] == [
                Frame(77, ECHO, b"%d" % n) for n in range(200)
            ]
            await guest.close()
        assert house.closed == 1

    run(scene())


def test_a_call_of_one_connection_delays_no_other(house: House) -> None:
    async def scene() -> None:
        async with house.open():
            slow, quick = await house.connect(), await house.connect()
            slow.send(WAIT, b"kill")
            assert await house.begun.get() == b"kill"
            quick.send(ECHO, b"x")
            assert (await quick.read()).payload == b"x"
            house.go_on.set()
            assert (await slow.read()).payload == b"kill"

    run(scene())


def test_calls_in_flight_are_bounded_over_all_connections(house: House) -> None:
    async def scene() -> None:
        async with house.open(Room(calls=2)) as room:
            guests = [await house.connect() for _ in range(3)]
            for n, guest in enumerate(guests):
                guest.send(WAIT, b"%d" % n)
            begun = {await house.begun.get(), await house.begun.get()}
            assert room.calls == 2 and house.begun.empty()
            house.go_on.set()
            begun.add(await house.begun.get())
            assert begun == {b"0", b"1", b"2"}
            assert [(await guest.read()).opcode for guest in guests] == [WAIT] * 3

    run(scene())


def test_who_hangs_up_while_waiting_for_room_gives_it_to_the_next(house: House) -> None:
    async def scene() -> None:
        async with house.open(Room(calls=1)) as room:
            first, gone, last = [await house.connect() for _ in range(3)]
            first.send(WAIT, b"first")
            await house.begun.get()
            for guest in (gone, last):
                guest.send(ECHO, b"x")
                await until(lambda: len(room._waiting) == (1 if guest is gone else 2))  # noqa: B023
            await gone.close()
            house.go_on.set()
            assert (await first.read()).payload == b"first"
            assert (await last.read()).payload == b"x"

    run(scene())


def test_hanging_up_cancels_what_is_under_way(house: House) -> None:
    async def scene() -> None:
        async with house.open():
            guest = await house.connect()
            guest.send(WAIT, b"a")
            await house.begun.get()
            await guest.close()
            assert await house.cancelled.get() == b"a"

    run(scene())


def test_who_ends_its_side_still_gets_its_answers(house: House) -> None:
    async def scene() -> None:
        async with house.open():
            guest = await house.connect()
            guest.send(WAIT, b"a")
            guest.send(ECHO, b"b")
            await house.begun.get()
            guest.writer.write_eof()
            house.go_on.set()
            assert [(await guest.read()).payload, (await guest.read()).payload] == [b"a", b"b"]
            assert await guest.reader.read() == b""

    run(scene())


@pytest.mark.parametrize(
    "bad",
    [
        struct.pack("<IIBQ", frames.MAGIC, 0, 0x10, 2**64 - 1),
        struct.pack("<IIBQ", frames.MAGIC, 0, 0x10, frames.PAYLOAD_BYTES + 1) + bytes(200_000),
        b"TNGX" + bytes(13),
        b"\0" * 17,
    ],
)
def test_a_frame_that_is_none_is_told_and_the_connection_closed(house: House, bad: bytes) -> None:
    async def scene() -> None:
        async with house.open():
            guest = await house.connect()
            guest.send(ECHO, b"before")
            guest.writer.write(bad)
            assert (await guest.read()).payload == b"before"
            refused = await guest.read()
            assert b'"success": false' in refused.payload and refused.agent_id == 77
            assert await guest.reader.read() == b""
            await guest.close()

    run(scene())


def test_a_mistake_of_ours_ends_one_call_and_tells_nothing(house: House) -> None:
    async def scene() -> None:
        async with house.open():
            guest = await house.connect()
            guest.send(BREAK)
            told = (await guest.read()).payload
            assert b"KeyError" in told and b"secret" not in told
            guest.send(BIG, b"1")
            assert b'"success": false' in (await guest.read()).payload
            guest.send(BIG, b"0")
            assert len((await guest.read()).payload) == frames.PAYLOAD_BYTES

    run(scene())


def test_who_does_not_read_is_not_read_from_and_is_dropped(house: House) -> None:
    async def scene() -> None:
        async with house.open(limits=Limits(unread_seconds=0.05)):
            guest, other = await house.connect(), await house.connect()
            guest.writer.transport.pause_reading()  # type: ignore[attr-defined]
            sent = 0
            with contextlib.suppress(ConnectionError):
                while True:
                    guest.send(ECHO, bytes(frames.PAYLOAD_BYTES))
                    await guest.writer.drain()
                    sent += 1
            assert sent < 30  # far less than it wanted was ever read
            other.send(ECHO, b"still here")
            assert (await other.read()).payload == b"still here"
            await guest.close()

    run(scene())


def test_a_long_call_does_not_let_a_flood_into_memory(house: House) -> None:
    async def scene() -> None:
        async with house.open() as room:
            guest = await house.connect()
            guest.send(WAIT, b"a")
            await house.begun.get()

            async def flood() -> None:
                for _ in range(40):
                    guest.send(ECHO, bytes(500_000))
                    await guest.writer.drain()

            flooding = asyncio.create_task(flood())
            await until(lambda: room.held_bytes > 1_300_000)
            for _ in range(1000):
                await asyncio.sleep(0)
            assert not flooding.done() and room.held_bytes < 2_000_000
            house.go_on.set()
            assert (await guest.read()).opcode == WAIT
            for _ in range(40):
                assert len((await guest.read()).payload) == 500_000
            await flooding

    run(scene())


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=12))
def test_no_bytes_hang_the_door(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    house = House(tmp_path_factory.mktemp("house"))

    async def scene() -> None:
        async with house.open():
            guest = await house.connect()
            house.go_on.set()
            guest.send(ECHO, b"first")
            assert (await guest.read()).payload == b"first"
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    guest.writer.write(piece)
                    await guest.writer.drain()
                guest.writer.write_eof()
            with contextlib.suppress(ConnectionError):
                await guest.reader.read()  # it ends
            await guest.close()

    run(scene())
    house.listener.close()
