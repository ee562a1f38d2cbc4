"""The gate, for asyncio programs: the same calls as `agentk.sdk.client`, awaited.

    from agentk.sdk import aio, calls

    async with await aio.connect() as agent:
        print(await agent.think("Say hi"))
        first, second = await asyncio.gather(agent.exec_python("print(1)"), agent.exec_shell("ls"))
        async for piece in agent.stream(calls.think("Tell me a story")):
            print(piece.text, end="")
        async with agent.lock("db", wait_seconds=10):
            await agent.state_put("seen", 1)

Cancelling the task that waits takes the call back. When the daemon restarts, calls wait and are sent again with the
same key. Python 3.9, standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from typing import (
    TYPE_CHECKING,
    Any,
    AsyncIterator,
    Awaitable,
    Callable,
    Generic,
    Optional,
    Sequence,
    TypeVar,
)

from agentk.sdk import calls, core, errors, results
from agentk.sdk.answers import Call, Streaming

if TYPE_CHECKING:
    from typing import Concatenate, ParamSpec

    P = ParamSpec("P")
T = TypeVar("T")
Piece = TypeVar("Piece")

PATIENCE_SECONDS = 60.0


async def connect(path: Optional[str] = None, *, patience_seconds: float = PATIENCE_SECONDS) -> Agent:
    """The gate of this agent: at AGENTK_SOCKET, if no path is given. Raises Disconnected when there is none."""
    agent = Agent(core.socket_path(path), patience_seconds)
    try:
        await agent._connect()
    except BlockingIOError:
        pass  # the gate has a full backlog: the first call waits
    except OSError as error:
        raise errors.Disconnected(f"no gate at {agent._path}: {error.strerror or error}") from None
    return agent


def _sends(build: Callable[P, Call[T]]) -> Callable[Concatenate[Agent, P], Awaitable[T]]:
    @functools.wraps(build)
    async def method(self: Agent, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.call(build(*args, **kwargs))

    return method  # type: ignore[return-value]


class Agent:
    hello = _sends(calls.hello)
    task = _sends(calls.task)
    noop = _sends(calls.noop)
    log = _sends(calls.log)
    exit = _sends(calls.exit)
    think = _sends(calls.think)
    embed = _sends(calls.embed)
    exec = _sends(calls.exec)
    exec_python = _sends(calls.exec_python)
    exec_shell = _sends(calls.exec_shell)
    exec_poll = _sends(calls.exec_poll)
    exec_cancel = _sends(calls.exec_cancel)
    agent_spawn = _sends(calls.agent_spawn)
    agent_kill = _sends(calls.agent_kill)
    agent_pause = _sends(calls.agent_pause)
    agent_resume = _sends(calls.agent_resume)
    agent_list = _sends(calls.agent_list)
    agent_wait = _sends(calls.agent_wait)
    message_send = _sends(calls.message_send)
    message_recv = _sends(calls.message_recv)
    message_ack = _sends(calls.message_ack)
    message_broadcast = _sends(calls.message_broadcast)
    event_emit = _sends(calls.event_emit)
    event_subscribe = _sends(calls.event_subscribe)
    state_put = _sends(calls.state_put)
    state_get = _sends(calls.state_get)
    state_delete = _sends(calls.state_delete)
    state_list = _sends(calls.state_list)
    state_cas = _sends(calls.state_cas)
    lock_acquire = _sends(calls.lock_acquire)
    lock_release = _sends(calls.lock_release)
    queue_put = _sends(calls.queue_put)
    queue_get = _sends(calls.queue_get)
    queue_ack = _sends(calls.queue_ack)
    human_ask = _sends(calls.human_ask)
    http_request = _sends(calls.http_request)
    tool_list = _sends(calls.tool_list)
    tool_describe = _sends(calls.tool_describe)
    tool_call = _sends(calls.tool_call)
    skill_search = _sends(calls.skill_search)
    skill_get = _sends(calls.skill_get)
    skill_save = _sends(calls.skill_save)
    skill_run = _sends(calls.skill_run)
    skill_delete = _sends(calls.skill_delete)
    memory_remember = remember = _sends(calls.memory_remember)
    memory_recall = recall = _sends(calls.memory_recall)
    memory_search = _sends(calls.memory_search)
    memory_forget = forget = _sends(calls.memory_forget)

    def __init__(self, path: str, patience_seconds: float) -> None:
        self._path = path
        self._patience = core.Patience(patience_seconds)
        self._core = core.Core(os.environ.get("TRACEPARENT", ""))
        self._wire: Optional[_Wire] = None
        self._connecting: Optional[asyncio.Task[None]] = None
        self._closed = False

    async def call(self, call: Call[T], *, key: str = "", timeout_seconds: Optional[float] = None) -> T:
        """Sends a call made by `agentk.sdk.calls` and waits. The same key twice is one call."""
        flight = self._begin(call, key)
        try:
            await asyncio.wait_for(self._until(flight, lambda: flight.done), timeout_seconds)
        except asyncio.TimeoutError:
            raise errors.TookTooLong(f"{call.method}: no answer within {timeout_seconds} s") from None
        finally:
            self._cancel(flight)
        result: T = flight.outcome()
        return result

    def stream(self, call: Streaming[T, Piece], *, key: str = "") -> Stream[T, Piece]:
        """The same, piece by piece: `async for piece in agent.stream(calls.think("…"))`."""
        streamed = call.streamed()
        return Stream(self, streamed, self._begin(streamed, key))

    def events(
        self, types: Optional[Sequence[str]] = None, *, after: Optional[int] = None
    ) -> Stream[results.Heard, results.Event]:
        """Events as they come, over restarts of the daemon too."""
        return self.stream(calls.event_subscribe(types, after=after))

    @contextlib.asynccontextmanager
    async def lock(
        self, name: str, *, wait_seconds: float = 60, lease_seconds: Optional[float] = None
    ) -> AsyncIterator[results.Lock]:
        """Holds a lock. Raises TookTooLong when it is not to be had in time."""
        held = await self.lock_acquire(name, wait_seconds=wait_seconds, lease_seconds=lease_seconds)
        if not held.acquired:
            raise errors.TookTooLong(f"somebody else held the lock {name!r} for {wait_seconds} s")
        try:
            yield held
        finally:
            await self.lock_release(name, held.token)

    async def close(self) -> None:
        """Hangs up: calls under way are taken back. Safe to call again."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        self._told(self._core.give_up(errors.Disconnected("the connection was closed")))
        if self._wire is not None:
            self._wire.transport.abort()
            await self._wire.gone.wait()

    async def __aenter__(self) -> Agent:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _begin(self, call: Call[Any], key: str) -> core.Flight:
        if self._closed:
            raise errors.Disconnected("the connection was closed")
        flight, line = self._core.begin(call, key)
        self._send(line)
        return flight

    def _cancel(self, flight: core.Flight) -> None:
        line = self._core.cancel(flight)
        if line and self._wire is not None:
            self._wire.transport.write(line)

    def _send(self, line: bytes) -> None:
        if self._wire is not None:
            self._wire.transport.write(line)
        elif self._connecting is None and not self._closed:  # gave up before: a new call tries again
            self._connecting = asyncio.get_running_loop().create_task(self._connect_anew())

    async def _until(self, flight: core.Flight, ready: Callable[[], object]) -> None:
        while not ready():
            flight.tag = asyncio.get_running_loop().create_future()
            await flight.tag

    def _heard(self, data: bytes) -> None:
        touched = self._core.feed(data)
        if touched:
            self._patience.heard()
        self._told(touched)

    def _told(self, touched: Sequence[core.Flight]) -> None:
        for flight in touched:
            if flight.tag is not None and not flight.tag.done():
                flight.tag.set_result(None)

    def _lost(self) -> None:
        self._wire = None
        if self._core.busy:
            self._send(b"")

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.setblocking(False)
            connected.connect(self._path)  # on a unix socket: connected, or an error, at once
            made = await loop.create_unix_connection(lambda: _Wire(self), sock=connected)
        except BaseException:
            connected.close()
            raise
        self._wire = made[1]
        self._wire.transport.write(self._core.again())

    async def _connect_anew(self) -> None:
        loop = asyncio.get_running_loop()
        error: OSError = ConnectionError("the gate hung up")
        while True:
            pause = self._patience.pause(loop.time())
            if pause is None:
                self._connecting = None
                told = f"the gate at {self._path} cannot be reached: {error.strerror or error}"
                return self._told(self._core.give_up(errors.Disconnected(told)))
            await asyncio.sleep(pause)
            try:
                await self._connect()
                self._connecting = None
                return None
            except OSError as failed:
                error = failed


class _Wire(asyncio.Protocol):
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.gone = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._agent._heard(data)
        except ConnectionError:
            self.transport.abort()

    def connection_lost(self, exc: Optional[BaseException]) -> None:
        self.gone.set()
        self._agent._lost()


class Stream(Generic[T, Piece]):
    """An answer that comes in pieces. Leaving it early takes the call back: use `async with`, or read to the end."""

    def __init__(self, agent: Agent, call: Streaming[T, Piece], flight: core.Flight) -> None:
        self._agent = agent
        self._call = call
        self._flight = flight

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self

    async def __anext__(self) -> Piece:
        flight = self._flight
        try:
            await self._agent._until(flight, lambda: flight.items or flight.done)
        except BaseException:
            self.close()
            raise
        if flight.items:
            return self._call.piece(flight.items.popleft())
        flight.outcome()
        raise StopAsyncIteration

    async def result(self) -> T:
        """The whole answer; waits for it, and drops the pieces not read."""
        async for _ in self:
            pass
        result: T = self._flight.outcome()
        return result

    def close(self) -> None:
        """Takes the call back, unless it has ended."""
        self._agent._cancel(self._flight)

    async def __aenter__(self) -> Stream[T, Piece]:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
