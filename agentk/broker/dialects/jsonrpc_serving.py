"""The native dialect on a connection: reads, has calls answered, writes, and stops reading when it should.

A guest that hangs up takes its calls with it. One that ends its side only (`nc -N`, socat) still gets the answers it
waits for, on the unix socket, where the two can be told apart.
"""

import asyncio
import logging
import select
import socket
import types
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import Any

from agentk.api import errors
from agentk.broker.dialects.jsonrpc import LINES_A_TURN, Asked, Conversation, Revoked, Room

AHEAD_BYTES = 256 * 1024  # read on while calls wait for room: as much as comes in one read
HALF_OPEN_SECONDS = 30.0  # for answers to who ended its side
LINGER_SECONDS = 1.0  # to read away what was being sent: a reset would overtake the error
LINGER_BYTES = 16 * 1024 * 1024

_log = logging.getLogger(__name__)

Emit = Callable[[Any], Awaitable[None]]
Answer = Callable[[Asked, Emit], Awaitable[Any]]


class JsonRpcService:
    """What all native connections of one guest share: who answers, its room, and the tasks, which it owns.

    `at_once` names calls that as a rule end without waiting. They are begun without a task of their own, which saves
    two turns of the loop; they must not ask for the current task before they wait for the first time.
    """

    def __init__(
        self, answer: Answer, room: Room | None = None, at_once: frozenset[str] = frozenset()
    ) -> None:
        self.answer = answer
        self.at_once = at_once
        self.room = room or Room()
        self.tasks: set[asyncio.Task[None]] = set()
        self._later: deque[Callable[[], None]] = deque()
        self._turning = False

    def later(self, go_on: Callable[[], None]) -> None:
        """Go on when others had their turn: one connection of the guest after another, so that more of them get no
        more of the loop."""
        self._later.append(go_on)
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self.room.lines_left = LINES_A_TURN
        for _ in range(len(self._later)):
            if not self.room.lines_left:
                break
            self._later.popleft()()
        self._turning = bool(self._later)
        if self._turning:
            asyncio.get_running_loop().call_soon(self._turn)

    def connection(self, *, by_unix: bool) -> "JsonRpcConnection":
        return JsonRpcConnection(self, by_unix=by_unix)

    async def close(self) -> None:
        """Cancels what is being answered and waits for it to end. Safe to call again."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class JsonRpcConnection(asyncio.Protocol):
    def __init__(self, service: JsonRpcService, *, by_unix: bool) -> None:
        self._service = service
        self._by_unix = by_unix
        self._loop = asyncio.get_running_loop()
        self._conversation = Conversation(service.room)
        self._tasks: dict[Asked, asyncio.Task[None]] = {}
        self._writable = asyncio.Event()
        self._writable.set()
        self._woken = self._wake  # one object, so that the room can forget it
        self._taking = False  # `_take` is on its way by the loop or the room
        self._half_open = False
        self._lost = False
        self._timer: asyncio.TimerHandle | None = None
        self._lingered_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._conversation.closing:
            self._lingered_bytes += len(data)
            if self._lingered_bytes > LINGER_BYTES:
                self._transport.close()
            return
        if self._taking:
            self._keep(data)
        else:
            self._take(data)

    def pause_writing(self) -> None:
        self._writable.clear()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._writable.set()
        self._read_on()

    def eof_received(self) -> bool:
        """True keeps our side open."""
        if self._conversation.closing or not self._by_unix or hung_up(self._transport):
            return False
        self._half_open = True
        self._timer = self._loop.call_later(HALF_OPEN_SECONDS, self._transport.close)
        self._close_when_answered()
        return not self._transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._service.room.forget(self._woken)
        if self._timer is not None:
            self._timer.cancel()
        self._writable.set()
        self._cancel_all()

    def _take(self, data: bytes = b"", first: bool = False) -> None:
        """Does what was said, as far as it may be done now."""
        conversation = self._conversation
        for event in conversation.feed(data):
            if isinstance(event, Asked):
                self._start(event)
            elif isinstance(event, Revoked):
                self._tasks[event.asked].cancel()
            else:
                self._write(event)
        if conversation.closing:
            self._end()
        elif conversation.blocked:
            self._taking = True
            self._service.room.wait(self._woken, first)
            self._read_on()
        elif conversation.more:
            self._taking = True
            self._service.later(self._take_on)
            self._transport.pause_reading()
        elif self._half_open:
            self._close_when_answered()
        else:
            self._read_on()

    def _keep(self, data: bytes) -> None:
        """What comes while what came before waits its turn."""
        for event in self._conversation.keep(data):
            assert isinstance(event, bytes)  # it begins nothing
            self._write(event)
        if self._conversation.closing:
            self._end()
        elif self._conversation.ahead_bytes > AHEAD_BYTES:
            self._transport.pause_reading()

    def _take_on(self) -> None:
        self._taking = False
        if not self._lost:
            self._take()

    def _wake(self) -> None:
        # By the loop: the room wakes us in the middle of another call's end.
        self._loop.call_soon(self._try_again)

    def _try_again(self) -> None:
        self._taking = False
        if not self._lost:
            self._take(first=True)
        if self._lost or not self._conversation.blocked:
            self._service.room.wake()

    def _read_on(self) -> None:
        """Reads also while calls wait, up to a bound: a guest that hangs up is only noticed by reading."""
        if self._lost or self._half_open or not self._writable.is_set():
            return
        if not self._taking or self._conversation.ahead_bytes <= AHEAD_BYTES:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _start(self, asked: Asked) -> None:
        running = self._run(asked)
        if asked.method in self._service.at_once:
            try:
                first = running.send(None)
            except StopIteration:
                return
            running = _rest(running, first)
        task = self._loop.create_task(running, name=asked.method)
        self._tasks[asked] = task
        self._service.tasks.add(task)
        task.add_done_callback(partial(self._ended, asked))

    def _ended(self, asked: Asked, task: asyncio.Task[None]) -> None:
        self._tasks.pop(asked, None)
        self._service.tasks.discard(task)
        if task.cancelled():  # before its first step: nothing of it ran, not even what answers for it
            self._write(self._conversation.fail(asked, errors.Cancelled("the call was taken back")))
        self._close_when_answered()

    async def _run(self, asked: Asked) -> None:
        """Never raises: an error is an answer."""
        conversation = self._conversation
        try:
            line = conversation.reply(asked, await self._service.answer(asked, partial(self._emit, asked)))
        except asyncio.CancelledError:
            line = conversation.fail(asked, errors.Cancelled("the call was taken back"))
        except errors.AgentkError as error:
            line = conversation.fail(asked, error)
        except Exception as error:  # noqa: BLE001 — a mistake of ours ends this call, not the guest's others
            _log.exception("%s failed", asked.method)
            told = errors.AgentkError(f"internal error: {type(error).__name__}")
            line = conversation.fail(asked, told)
        self._write(line)

    async def _emit(self, asked: Asked, data: Any) -> None:
        self._write(self._conversation.item(asked, data))
        await self._writable.wait()

    def _write(self, line: bytes) -> None:
        if line and not self._transport.is_closing():
            self._transport.write(line)

    def _close_when_answered(self) -> None:
        if self._half_open and not self._conversation.under_way and not self._taking:
            self._transport.close()

    def _cancel_all(self) -> None:
        for asked in self._conversation.hang_up():
            task = self._tasks.get(asked)
            if task is not None:
                task.cancel()

    def _end(self) -> None:
        """After a line that cannot be read: the error is written, the rest read away, the calls cancelled."""
        self._cancel_all()
        if self._half_open:
            self._transport.close()
        elif self._timer is None:
            self._transport.resume_reading()
            self._timer = self._loop.call_later(LINGER_SECONDS, self._transport.close)
            if not self._transport.is_closing():
                self._transport.write_eof()


@types.coroutine
def _rest(running: Coroutine[Any, Any, None], first: Any) -> Generator[Any, Any, None]:
    """What a coroutine still does after it was begun by hand and waits for `first`."""
    waited = first
    while True:
        try:
            told = yield waited
        except BaseException as error:  # noqa: BLE001 — handed on, cancellation too
            step = partial(running.throw, error)
        else:
            step = partial(running.send, told)
        try:
            waited = step()
        except StopIteration:
            return


def hung_up(transport: asyncio.Transport) -> bool:
    """Whether the other end is gone, and did not only end its side."""
    sock: socket.socket = transport.get_extra_info("socket")
    poll = select.poll()
    poll.register(sock.fileno(), 0)  # POLLHUP and POLLERR are always told
    return bool(poll.poll(0))
