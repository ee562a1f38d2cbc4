"""The gate, for programs that wait: one connection, shared by any number of threads.

    from agentk.sdk import client

    agent = client.connect()
    print(agent.think("Say hi"))
    print(agent.exec_python("print(6 * 7)").stdout)
    agent.state["seen"] = agent.state.get("seen", 0) + 1
    for event in agent.events(["build.*"]):
        print(event.type, event.data)
        break
    with agent.lock("db", wait_seconds=10):
        agent.queue_put("todo", {"issue": 7})

When the daemon restarts, calls wait and are sent again with the same key. There is no thread behind this: whoever
waits for an answer reads for all. Not to be used on both sides of a fork. Python 3.9, standard library only.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import threading
import time
from collections import deque
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Deque,
    Generic,
    Iterator,
    Optional,
    Sequence,
    TypeVar,
)

from agentk.sdk import calls, core, errors, results
from agentk.sdk.answers import Call, Streaming
from agentk.sdk.states import State

if TYPE_CHECKING:
    from typing import Concatenate, ParamSpec

    P = ParamSpec("P")
T = TypeVar("T")
Piece = TypeVar("Piece")

READ_BYTES = 256 * 1024
PATIENCE_SECONDS = 60.0


def connect(path: Optional[str] = None, *, patience_seconds: float = PATIENCE_SECONDS) -> Agent:
    """The gate of this agent: at AGENTK_SOCKET, if no path is given. Raises Disconnected when there is none."""
    return Agent(core.socket_path(path), patience_seconds)


def _sends(build: Callable[P, Call[T]]) -> Callable[Concatenate[Agent, P], T]:
    @functools.wraps(build)
    def method(self: Agent, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.call(build(*args, **kwargs))

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

    def __init__(self, path: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._path = path
        self._patience = core.Patience(patience_seconds)
        self._core = core.Core(os.environ.get("TRACEPARENT", ""))
        self._turn = threading.Condition()  # guards all below; whoever reads does so without it
        self._reading = False
        self._closed = False
        self._out = bytearray()
        self._socket: Optional[socket.socket] = None
        self._waker, self._wakes = socket.socketpair()
        for end in (self._waker, self._wakes):
            end.setblocking(False)
        self._next_try = 0.0
        self._abandoned: Deque[core.Flight] = deque()  # streams nobody holds any more
        try:
            self._connect()
        except BlockingIOError:
            pass  # the gate has a full backlog: the first call waits
        except OSError as error:
            self.close()
            raise errors.Disconnected(f"no gate at {path}: {error.strerror or error}") from None

    def call(self, call: Call[T], *, key: str = "", timeout_seconds: Optional[float] = None) -> T:
        """Sends a call made by `agentk.sdk.calls` and waits. The same key twice is one call."""
        flight = self._begin(call, key)
        try:
            self._wait(flight, lambda: flight.done, timeout_seconds)
        except BaseException:
            self._cancel(flight)
            raise
        result: T = flight.outcome()
        return result

    def stream(self, call: Streaming[T, Piece], *, key: str = "") -> Stream[T, Piece]:
        """The same, piece by piece.

        answer = agent.stream(calls.think("Tell me a story"))
        for piece in answer:
            print(piece.text, end="")
        print(answer.result.usage)
        """
        streamed = call.streamed()
        return Stream(self, streamed, self._begin(streamed, key))

    def events(
        self, types: Optional[Sequence[str]] = None, *, after: Optional[int] = None
    ) -> Stream[results.Heard, results.Event]:
        """Events as they come, over restarts of the daemon too."""
        return self.stream(calls.event_subscribe(types, after=after))

    @property
    def state(self) -> State:
        """What this agent keeps, as a dict: `agent.state["x"] = 1`."""
        return State(self, "agent")

    @property
    def shared(self) -> State:
        """What this agent shares with those it spawned and those above it, as a dict."""
        return State(self, "family")

    @contextlib.contextmanager
    def lock(
        self, name: str, *, wait_seconds: float = 60, lease_seconds: Optional[float] = None
    ) -> Iterator[results.Lock]:
        """Holds a lock. Raises TookTooLong when it is not to be had in time."""
        held = self.lock_acquire(name, wait_seconds=wait_seconds, lease_seconds=lease_seconds)
        if not held.acquired:
            raise errors.TookTooLong(f"somebody else held the lock {name!r} for {wait_seconds} s")
        try:
            yield held
        finally:
            self.lock_release(name, held.token)

    def close(self) -> None:
        """Hangs up: calls under way are taken back. Safe to call again."""
        with self._turn:
            self._closed = True
            self._core.give_up(errors.Disconnected("the connection was closed"))
            self._wake()
            if not self._reading:
                self._drop()
                self._waker.close()
                self._wakes.close()
            self._turn.notify_all()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, call: Call[Any], key: str) -> core.Flight:
        with self._turn:
            if self._closed:
                raise errors.Disconnected("the connection was closed")
            while self._abandoned:
                self._send(self._core.cancel(self._abandoned.popleft()))
            flight, line = self._core.begin(call, key)
            self._send(line)
            return flight

    def _cancel(self, flight: core.Flight) -> None:
        with self._turn:
            line = self._core.cancel(flight)
            if line and not self._closed:
                self._send(line)

    def _wait(self, flight: core.Flight, ready: Callable[[], object], seconds: Optional[float]) -> None:
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._turn:
            while not ready():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise errors.TookTooLong(f"{flight.call.method}: no answer within {seconds} s")
                if self._reading:  # for us too
                    self._turn.wait(left)
                    continue
                self._reading = True
                try:
                    self._read(left)
                finally:
                    self._reading = False
                    if self._closed:
                        self.close()
                    self._turn.notify_all()

    def _read(self, left: Optional[float]) -> None:
        """One turn of sending, hearing or trying to connect. Called with the lock, which it lets go to wait."""
        if self._socket is None and self._next_try <= time.monotonic():
            try:
                self._connect()
            except OSError as error:
                self._failed(error)
        poll = select.poll()
        poll.register(self._waker, select.POLLIN)
        if self._socket is not None:
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._out else 0))
        else:
            pause = max(0.0, self._next_try - time.monotonic())
            left = pause if left is None else min(left, pause)
        self._turn.release()
        try:
            ready = poll.poll(None if left is None else left * 1000 + 1)
        finally:
            self._turn.acquire()
        if any(fd == self._waker.fileno() for fd, _ in ready):
            self._waker.recv(4096)
        if self._socket is not None and not self._closed:
            try:
                self._hear(self._socket)
            except OSError as error:
                self._failed(error)

    def _hear(self, connected: socket.socket) -> None:
        self._flush(connected)
        try:
            data = connected.recv(READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionError("the gate hung up")
        if self._core.feed(data):
            self._patience.heard()

    def _send(self, line: bytes) -> None:
        self._out += line
        if self._socket is not None:
            with contextlib.suppress(OSError):  # whoever reads finds out, and connects anew
                self._flush(self._socket)
        if self._out:
            self._wake()

    def _flush(self, connected: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._out:
                del self._out[: connected.send(self._out)]

    def _wake(self) -> None:
        if self._reading:
            with contextlib.suppress(BlockingIOError):
                self._wakes.send(b"!")

    def _connect(self) -> None:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.setblocking(False)  # on a unix socket: connected, or an error, at once
            connected.connect(self._path)
        except BaseException:
            connected.close()
            raise
        self._socket = connected
        self._out = bytearray(self._core.again())

    def _failed(self, error: OSError) -> None:
        self._drop()
        now = time.monotonic()
        pause = self._patience.pause(now)
        if pause is None:
            told = f"the gate at {self._path} cannot be reached: {error.strerror or error}"
            self._core.give_up(errors.Disconnected(told))
            pause = 0.0
        self._next_try = now + pause

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._out.clear()


class Stream(Generic[T, Piece]):
    """An answer that comes in pieces. Leaving it early takes the call back: use `with`, or read to the end."""

    def __init__(self, agent: Agent, call: Streaming[T, Piece], flight: core.Flight) -> None:
        self._agent = agent
        self._call = call
        self._flight = flight

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        flight = self._flight
        try:
            self._agent._wait(flight, lambda: flight.items or flight.done, None)
        except BaseException:
            self.close()
            raise
        if flight.items:
            return self._call.piece(flight.items.popleft())
        flight.outcome()
        raise StopIteration

    @property
    def result(self) -> T:
        """The whole answer; waits for it, and drops the pieces not read."""
        for _ in self:
            pass
        result: T = self._flight.outcome()
        return result

    def close(self) -> None:
        """Takes the call back, unless it has ended."""
        self._agent._cancel(self._flight)

    def __enter__(self) -> Stream[T, Piece]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._agent._abandoned.append(self._flight)  # no lock here: this may run in the middle of anything
