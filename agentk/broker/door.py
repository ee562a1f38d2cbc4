"""The door of one guest: accepts on its box's listening sockets and finds out which dialect is spoken.

It knows nothing of calls. It bounds what a guest can take from others by connecting: how many connections it has, how
many are accepted at a turn, and for how long it may leave what was written for it unread. A guest that is frozen is
not slow: what is written for it is kept, so that nobody waits for it to read. The listening sockets are
duplicates; closing them here never closes the door for callers, who wait in the backlog for whoever accepts next.
"""

import asyncio
import errno
import logging
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

from agentk.api import errors
from agentk.sdk import wire

_log = logging.getLogger(__name__)

Spoken = Literal["jsonrpc", "http", "frames"]
AGENTOS_MAGIC = b"TNGA"  # 0x41474E54, little endian
_WITH_EOF = (asyncio.Protocol, asyncio.BufferedProtocol)
_METHOD = re.compile(rb"[A-Z]{3}[A-Z ]")  # GET_, POST, CONNECT …: no method is shorter
_CAPITALS = re.compile(rb"[A-Z]+")
_BLANK = b" \t\r\n"
_BLANK_BYTES = 64  # before the first word
# The machine, not the guest, has run out: trying again at once would spin.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True)
class Limits:
    connections: int = 128  # of one guest; more wait in the backlog
    accepts_a_turn: int = 16
    unread_seconds: float = 30.0  # a guest that reads nothing for so long is dropped
    kept_bytes: int = 16 * 1024 * 1024  # for a guest that is frozen; beyond it, who writes waits
    close_seconds: float = 1.0  # for what is written to be read, when the door closes
    exhausted_seconds: float = 1.0  # until accepting is tried again when there are no descriptors left


class Dialect(Protocol):
    """Makes what speaks on one new connection. It gets all that asyncio tells a protocol, the first bytes included."""

    def __call__(self, *, by_unix: bool) -> asyncio.Protocol: ...


class Door:
    def __init__(
        self, fds: Iterable[int], dialects: Mapping[Spoken, Dialect], limits: Limits | None = None
    ) -> None:
        """The descriptors are the door's own from here on."""
        self._listeners = [socket.socket(fileno=fd) for fd in fds]
        self._limits = limits or Limits()
        self._dialects = dialects
        self._visitors: set[_Visitor] = set()
        self._greeting: set[asyncio.Task[object]] = set()
        self._still = False
        self._accepting = False
        self._closed = False
        self._retry: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    @property
    def connections(self) -> int:
        return len(self._visitors) + len(self._greeting)

    def open(self) -> None:
        for listener in self._listeners:
            listener.setblocking(False)
        self._resume()

    def stand(self, still: bool) -> None:
        """Whether the guest is frozen. Safe to repeat."""
        if still != self._still:
            self._still = still
            for visitor in list(self._visitors):
                visitor.stand(still)

    def keeps_too_much(self) -> bool:
        kept = sum(visitor.transport.get_write_buffer_size() for visitor in self._visitors)
        return kept > self._limits.kept_bytes

    async def close(self) -> None:
        """Accepts no more, lets written answers be read for a moment, and hangs up. Safe to call again."""
        self._closed = True
        self._pause()
        if self._retry is not None:
            self._retry.cancel()
        for listener in self._listeners:
            listener.close()  # never shutdown: that would close it for everybody
        await asyncio.gather(*self._greeting, return_exceptions=True)
        for visitor in list(self._visitors):
            visitor.transport.close()
        if self._visitors:
            self._empty.clear()
            try:
                await asyncio.wait_for(self._empty.wait(), self._limits.close_seconds)
            except TimeoutError:
                for visitor in list(self._visitors):
                    visitor.transport.abort()
                await self._empty.wait()

    def _resume(self) -> None:
        self._retry = None
        if not self._accepting and not self._closed:
            self._accepting = True
            for listener in self._listeners:
                asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _pause(self) -> None:
        if self._accepting:
            self._accepting = False
            for listener in self._listeners:
                asyncio.get_running_loop().remove_reader(listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(self._limits.accepts_a_turn):
            if self.connections >= self._limits.connections:
                return self._pause()
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return None
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    _log.warning("a guest's door cannot accept: %s", error)
                self._pause()
                loop = asyncio.get_running_loop()
                self._retry = loop.call_later(self._limits.exhausted_seconds, self._resume)
                return None
            task = asyncio.get_running_loop().create_task(self._greet(accepted), name="greet a guest")
            self._greeting.add(task)
            task.add_done_callback(self._greeted)
        return None

    async def _greet(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        by_unix = accepted.family == socket.AF_UNIX
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: _Visitor(self, by_unix), accepted)
        except OSError:
            accepted.close()  # gone before it was greeted

    def _greeted(self, task: "asyncio.Task[object]") -> None:
        self._greeting.discard(task)
        self._settle()

    def _settle(self) -> None:
        """After one came or went."""
        if not self._visitors:
            self._empty.set()
        if self._retry is None and self.connections < self._limits.connections:
            self._resume()


class _Visitor(asyncio.Protocol):
    """One connection: stays between it and the dialect only for coming, going and being written to."""

    def __init__(self, door: Door, by_unix: bool) -> None:
        self._door = door
        self._by_unix = by_unix
        self._first = b""
        self._speaker: asyncio.BaseProtocol | None = None
        self._answers = False  # it speaks a dialect; what took the connection over is not kept for
        self._full = self._paused = False  # the transport's buffer; the speaker was told so
        self._unread: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        # A tunnel, or TLS, puts a protocol of its own onto the transport. It gets all that the dialect got, and the
        # door still hears when the connection ends.
        transport.set_protocol = self._take_over  # type: ignore[method-assign]
        self._door._visitors.add(self)

    def data_received(self, data: bytes) -> None:
        self._first += data
        spoken = dialect_of(self._first)
        if spoken is None:
            return
        make = None if spoken == "unknown" else self._door._dialects.get(spoken)
        if make is None:
            self._turn_away()
            return
        speaker = make(by_unix=self._by_unix)
        self._hand_over(speaker)
        self._answers = True
        speaker.connection_made(self.transport)
        self.stand(self._door._still)
        first, self._first = self._first, b""
        self.data_received(first)

    def _take_over(self, protocol: asyncio.BaseProtocol) -> None:
        self.stand(False)
        self._answers = False
        self._hand_over(protocol)

    def _hand_over(self, protocol: asyncio.BaseProtocol) -> None:
        self._speaker = protocol
        heard: Callable[[bytes], None]
        if isinstance(protocol, asyncio.BufferedProtocol):
            heard = partial(_fill, protocol)
        else:
            assert isinstance(protocol, asyncio.Protocol)
            heard = protocol.data_received
        self.data_received = heard  # type: ignore[method-assign] # asyncio looks it up each time

    def eof_received(self) -> bool | None:
        speaker = self._speaker
        return speaker.eof_received() if isinstance(speaker, _WITH_EOF) else False

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        self._door._visitors.discard(self)
        self._door._settle()
        if self._speaker is not None:
            self._speaker.connection_lost(exc)

    def pause_writing(self) -> None:
        self._full = True
        if not self._keeps:
            self._watch(self.transport.get_write_buffer_size())
            self._pause()

    def resume_writing(self) -> None:
        self._full = False
        self._stop_watching()
        self._go_on()

    def stand(self, still: bool) -> None:
        """While the guest is frozen its speaker writes on, into our memory: a stream comes to its end, and gives back
        what it held. Safe to repeat."""
        if still and self._answers:
            self._stop_watching()
            self.transport.write = self._keep  # type: ignore[method-assign]
            if not self._door.keeps_too_much():
                self._go_on()
        elif self._keeps:
            del self.transport.write
            if self._full:
                self._watch(self.transport.get_write_buffer_size())
                self._pause()

    @property
    def _keeps(self) -> bool:
        return "write" in vars(self.transport)

    def _keep(self, data: bytes | bytearray | memoryview) -> None:
        type(self.transport).write(self.transport, data)
        if self._full and self._door.keeps_too_much():
            self._pause()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            if self._speaker is not None:
                self._speaker.pause_writing()

    def _go_on(self) -> None:
        if self._paused:
            self._paused = False
            if self._speaker is not None:
                self._speaker.resume_writing()

    def _watch(self, unread_bytes: int) -> None:
        loop = asyncio.get_running_loop()
        self._unread = loop.call_later(self._door._limits.unread_seconds, self._look, unread_bytes)

    def _look(self, before_bytes: int) -> None:
        """Slow is fine, standing still is not."""
        now_bytes = self.transport.get_write_buffer_size()
        if now_bytes < before_bytes:
            self._watch(now_bytes)
        else:
            self.transport.abort()

    def _stop_watching(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _turn_away(self) -> None:
        message = "this is no JSON-RPC line, no HTTP request and no AgentOS frame"
        status = errors.BadRequest(message).to_status()
        self.transport.write(wire.failure(None, wire.PARSE_ERROR, message, status))
        self.transport.close()


def _fill(speaker: asyncio.BufferedProtocol, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        room = memoryview(speaker.get_buffer(len(rest)))
        size = min(len(room), len(rest))
        room[:size] = rest[:size]
        speaker.buffer_updated(size)
        rest = rest[size:]


def dialect_of(first: bytes) -> Spoken | Literal["unknown"] | None:
    """Which dialect these first bytes are; None when they are too few to tell."""
    word = first.lstrip(_BLANK)
    if not word:
        return None if len(first) <= _BLANK_BYTES else "unknown"
    if word[:1] in (b"{", b"["):
        return "jsonrpc"  # a batch is refused there, by name
    if len(word) < 4:
        return None if _CAPITALS.fullmatch(word) else "unknown"
    if first.startswith(AGENTOS_MAGIC):
        return "frames"
    return "http" if _METHOD.match(word) else "unknown"
