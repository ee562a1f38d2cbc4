"""AgentOS frames on a connection: reads, has requests answered one after another, and stops reading when it should.

The protocol has no ids: a reply belongs to the oldest request without one, so a connection has one call under way and
the next waits in the buffer. Calls of different connections never wait for each other, except for the guest's room,
which they share with its other dialects. A guest that hangs up takes its calls with it.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from agentk.broker.dialects import frames
from agentk.broker.dialects.jsonrpc import Room
from agentk.broker.dialects.jsonrpc_serving import hung_up

AHEAD_BYTES = frames.HEADER_BYTES + frames.PAYLOAD_BYTES + 256 * 1024  # read while a call is under way
FRAMES_A_TURN = 32  # then others have their turn on the loop
HALF_OPEN_SECONDS = 30.0  # for answers to who ended its side
LINGER_SECONDS = 1.0  # to read away what was being sent: a reset would overtake the error
LINGER_BYTES = 16 * 1024 * 1024

_log = logging.getLogger(__name__)

Start = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class Session(Protocol):
    """Who answers on one connection."""

    @property
    def agent_id(self) -> int:
        """The connection's, in every reply."""

    async def answer(self, opcode: int, payload: bytes) -> bytes:
        """The payload of the reply. Never raises but for a mistake of ours, and when cancelled."""

    def close(self) -> None:
        """Nobody is there any more."""


class FramesService:
    """What all connections of one guest that speak frames share: its room, and the tasks, which it owns."""

    def __init__(self, session: Callable[[Start], Session], room: Room | None = None) -> None:
        self.session = session
        self.room = room or Room()
        self.tasks: set[asyncio.Task[None]] = set()

    def connection(self, *, by_unix: bool) -> "FramesConnection":
        return FramesConnection(self, by_unix=by_unix)

    def start(self, running: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """A task that ends at the latest when the service is closed."""
        task = asyncio.get_running_loop().create_task(running, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def close(self) -> None:
        """Cancels what is being answered and waits for it to end. Safe to call again."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class FramesConnection(asyncio.Protocol):
    def __init__(self, service: FramesService, *, by_unix: bool) -> None:
        self._service = service
        self._by_unix = by_unix
        self._loop = asyncio.get_running_loop()
        self._frames = frames.Frames()
        self._session = service.session(service.start)
        self._counted_bytes = 0  # in the room's books
        self._working: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._closing = False  # after a frame that is none
        self._half_open = False
        self._lost = False
        self._timer: asyncio.TimerHandle | None = None
        self._lingered_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._closing:
            self._lingered_bytes += len(data)
            if self._lingered_bytes > LINGER_BYTES:
                self._transport.close()
            return
        self._frames.feed(data)
        if not self._count():
            self._refuse("the connections of this agent hold too much at once", 0)
        elif self._working is None:
            self._working = self._service.start(self._work(), "frames")
        elif len(self._frames) > AHEAD_BYTES:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._writable.clear()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._writable.set()
        self._read_on()

    def eof_received(self) -> bool:
        """True keeps our side open."""
        if self._closing or not self._by_unix or hung_up(self._transport):
            return False
        self._half_open = True
        if self._working is None:
            return False
        self._timer = self._loop.call_later(HALF_OPEN_SECONDS, self._transport.close)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
        if self._working is not None:
            self._working.cancel()
        self._session.close()
        self._frames = frames.Frames()
        self._count()

    async def _work(self) -> None:
        """Answers frame after frame until there is no whole one."""
        done = 0
        try:
            while (frame := self._frames.take()) is not None:
                # Counted twice from here until it is answered, as running and as held: it cannot be counted less.
                await self._enter(frame.size_bytes)
                try:
                    payload = await self._answered(frame)
                finally:
                    self._service.room.leave(frame.size_bytes)
                self._count()
                self._write(frame.opcode, payload)
                self._read_on()
                await self._writable.wait()
                done += 1
                if done % FRAMES_A_TURN == 0:
                    await asyncio.sleep(0)
        except frames.Refused as refused:
            self._refuse(refused.message, refused.opcode)
        finally:
            self._working = None  # here and not in a callback: bytes that come next begin a new one
        if self._half_open and not self._closing:
            self._transport.close()
        elif not self._closing:
            self._read_on()

    async def _enter(self, size_bytes: int) -> None:
        """Waits until the guest may have one more call under way."""
        room, first = self._service.room, False
        while not room.enter(size_bytes):
            turn: asyncio.Future[None] = self._loop.create_future()
            woken = partial(_set, turn)
            room.wait(woken, first)
            try:
                await turn
            except asyncio.CancelledError:
                room.forget(woken)
                if turn.done():
                    room.wake()  # it was our turn: now it is another's
                raise
            first = True
        if first:
            room.wake()  # there may be room for one more

    async def _answered(self, frame: frames.Frame) -> bytes:
        try:
            return await self._session.answer(frame.opcode, frame.payload)
        except Exception as error:  # noqa: BLE001 — a mistake of ours ends this call, not the guest's others
            _log.exception("opcode 0x%02X failed", frame.opcode)
            return failure(f"internal error: {type(error).__name__}")

    def _read_on(self) -> None:
        """Reads also during a call, up to a bound: a guest that hangs up is only noticed by reading."""
        if self._lost or self._half_open or not self._writable.is_set():
            return
        if self._working is None or len(self._frames) <= AHEAD_BYTES:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _count(self) -> bool:
        held = len(self._frames)
        fits = self._service.room.hold(held - self._counted_bytes)
        self._counted_bytes = held
        return fits or not held

    def _write(self, opcode: int, payload: bytes) -> None:
        if self._lost or self._transport.is_closing():
            return
        try:
            frame = frames.encode(self._session.agent_id, opcode, payload)
        except ValueError as error:
            frame = frames.encode(self._session.agent_id, opcode, failure(str(error)))
        self._transport.write(frame)

    def _refuse(self, message: str, opcode: int) -> None:
        """The error is written, the rest read away, what is under way cancelled."""
        self._closing = True
        self._write(opcode, failure(message))
        self._frames = frames.Frames()
        self._count()
        working = self._working
        if working is not None and working is not asyncio.current_task():
            working.cancel()
        if self._half_open:
            self._transport.close()
        elif not self._lost and not self._transport.is_closing():
            self._transport.resume_reading()
            self._timer = self._loop.call_later(LINGER_SECONDS, self._transport.close)
            self._transport.write_eof()


def failure(message: str) -> bytes:
    """An error as this protocol tells it."""
    return json.dumps({"success": False, "error": message}).encode()


def _set(turn: "asyncio.Future[None]") -> None:
    if not turn.done():
        turn.set_result(None)
