"""A CONNECT tunnel: the hello is checked, then bytes go both ways unread, as fast as the slower side takes them.

It never buffers more than one read and the transport's own buffer, never outlives either side, and always closes both.
"""

import asyncio
import socket
from dataclasses import dataclass
from typing import Literal

from agentk.api.errors import Cancelled, Denied
from agentk.broker import egress_hello
from agentk.broker.egress import Target

_AHEAD = 64 * 1024  # bytes kept before the tunnel stands
# A fatal TLS alert, unrecognized_name: the client then says why it failed, instead of "connection closed".
ALERT = bytes((21, 3, 3, 0, 2, 2, 112))


Ended = Literal["closed", "idle", "lost"]


@dataclass(frozen=True)
class TunnelLimits:
    hello_seconds: float = 10
    idle_seconds: float = 300  # without a byte either way
    linger_seconds: float = 30  # to deliver what is left when one side has ended


@dataclass(frozen=True)
class Carried:
    """What went through, for the journal."""

    sent_bytes: int  # by the guest
    received_bytes: int
    ended: Ended


async def carry(
    inside: asyncio.Transport,
    already: bytes,
    outside: socket.socket,
    target: Target,
    limits: TunnelLimits | None = None,
) -> Carried:
    """Carries until either side ends; both are closed in any case. Raises Denied when the TLS is not for the target.

    Call it right after the 200, without an await between: `inside` gets a protocol of the tunnel's.
    """
    splice = _Splice(limits or TunnelLimits())
    try:
        guest = _Side(splice)
        inside.set_protocol(guest)
        guest.connection_made(inside)
        await splice.hello(guest, already, target)
        host = _Side(splice)
        await asyncio.get_running_loop().create_connection(lambda: host, sock=outside)
        splice.join(guest, host)
        return await splice.ended()
    except Denied:
        inside.write(ALERT)
        raise
    finally:
        splice.close(inside)
        if not splice.joined:
            outside.close()


class _Splice:
    def __init__(self, limits: TunnelLimits) -> None:
        self.joined = False
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[Ended] = self._loop.create_future()
        self._sides: tuple[_Side, ...] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._last = self._loop.time()

    async def hello(self, guest: "_Side", already: bytes, target: Target) -> None:
        """Waits for the guest's ClientHello and checks it. Its bytes are kept on the side, unsent."""
        hello = egress_hello.ClientHello()
        waiting = already
        try:
            async with asyncio.timeout(self._limits.hello_seconds):
                while not hello.feed(waiting):
                    waiting = await guest.next()
        except TimeoutError:
            raise Denied("no TLS came through the tunnel in time") from None
        egress_hello.check(hello.server_name, target)
        guest.hold(bytes(hello.seen))

    def join(self, guest: "_Side", host: "_Side") -> None:
        self.joined = True
        self._sides = (guest, host)
        guest.other, host.other = host, guest
        self._idle()
        guest.release()
        host.release()

    async def ended(self) -> Carried:
        why = await self._done
        guest, host = self._sides
        return Carried(guest.read_bytes, host.read_bytes, why)

    def touched(self) -> None:
        self._last = self._loop.time()

    def finish(self, why: Ended) -> None:
        """Safe to call again; the first reason counts."""
        if not self._done.done():
            self._done.set_result(why)

    def close(self, inside: asyncio.Transport) -> None:
        if self._timer:
            self._timer.cancel()
        for transport in {inside, *(side.transport for side in self._sides)}:
            transport.close()  # sends what is buffered first
            if transport.get_write_buffer_size():
                self._loop.call_later(self._limits.linger_seconds, transport.abort)

    def _idle(self) -> None:
        left = self._last + self._limits.idle_seconds - self._loop.time()
        if left <= 0:
            self.finish("idle")
        else:
            self._timer = self._loop.call_later(left, self._idle)


class _Side(asyncio.Protocol):
    """One end. Until it is joined it keeps what comes, and stops reading when that is enough."""

    transport: asyncio.Transport

    def __init__(self, splice: _Splice) -> None:
        self.other: _Side | None = None
        self.read_bytes = 0
        self._splice = splice
        self._kept = bytearray()
        self._ended = False
        self._arrived = asyncio.Event()

    async def next(self) -> bytes:
        await self._arrived.wait()
        if not self._kept:
            raise Cancelled("the guest hung up before its TLS began")
        data = bytes(self._kept)
        self.hold(b"")
        self._read_on()
        return data

    def hold(self, data: bytes) -> None:
        self._kept = bytearray(data)
        if not self._ended:
            self._arrived.clear()

    def release(self) -> None:
        """Sends on what was kept, and its end if that came meanwhile."""
        data, self._kept = bytes(self._kept), bytearray()
        self._read_on()
        if data:
            self._pass(data)
        if self._ended:
            self._end()

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._kept += data
            self._arrived.set()
            if len(self._kept) > _AHEAD:
                self.transport.pause_reading()
        else:
            self._pass(data)

    def eof_received(self) -> bool:
        self._ended = True
        self._arrived.set()
        if self.other is not None:
            self._end()
        return True  # the other direction goes on

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._arrived.set()
        self._splice.finish("lost" if exc else "closed")

    def pause_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def _pass(self, data: bytes) -> None:
        assert self.other is not None
        self.read_bytes += len(data)
        self._splice.touched()
        self.other.transport.write(data)

    def _end(self) -> None:
        assert self.other is not None
        if self.other._ended or self.other.transport.is_closing():
            self._splice.finish("closed")
        else:
            self.other.transport.write_eof()  # sockets can; TLS is the guest's and the host's, not ours
