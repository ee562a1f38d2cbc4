"""Ends a tunnel's TLS here, as the host it was asked for, and serves the requests inside.

Only HTTP/1.1 to that one host is served; a client that means another host is cut in its handshake. The connection is
closed with its tunnel, whichever ends first, and what it asked for ends with it.
"""

import asyncio
import ssl
from functools import partial

from agentk.api.errors import BadRequest, Denied
from agentk.broker import egress, egress_hello
from agentk.broker.dialects.http import Handler, HttpConnection, HttpService, Respond
from agentk.broker.dialects.http_reading import Held, Limits, Request
from agentk.broker.egress_tunnel import ALERT
from agentk.broker.egress_urls import PORTS

_HANDSHAKE_SECONDS = 10.0
_SHUTDOWN_SECONDS = 2.0


async def serve(
    inside: asyncio.Transport,
    already: bytes,
    target: egress.Target,
    context: ssl.SSLContext,
    handler: Handler,
    limits: Limits | None = None,
    held: Held | None = None,
) -> None:
    """Until the guest hangs up. Raises Denied when it speaks no TLS, or means another host.

    `held`: what all connections of the guest hold together.

    Call it right after the 200, without an await between: `inside` gets another protocol here.
    """
    refused: list[Denied] = []
    context.sni_callback = partial(_named, inside, target, refused)
    service = HttpService(handler, _no_proxy, limits, hosts=partial(_is_host, target), held=held)
    connection = _Connection(service)
    try:
        tls, first = await _handshake(inside, already, context)
        tls.set_protocol(connection)
        connection.connection_made(tls)
        if first:
            connection.data_received(first)
        await connection.lost.wait()
    except (
        OSError,
        TimeoutError,
    ):  # ssl.SSLError too: a client that does not believe us, or is no TLS at all
        raise (
            refused[0] if refused else Denied(f"no TLS for {target.host} came about in the tunnel")
        ) from None
    finally:
        await service.close()
        inside.abort()  # what was written inside was sent, or its reader is gone


class _Connection(HttpConnection):
    def __init__(self, service: HttpService) -> None:
        super().__init__(service, by_unix=False)
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost.set()


class _Early(asyncio.Protocol):
    """Keeps what comes right behind the handshake, until somebody serves it. One read at most: then it stops."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.ended = True
        return False


async def _handshake(
    inside: asyncio.Transport, already: bytes, context: ssl.SSLContext
) -> tuple[asyncio.Transport, bytes]:
    """The transport of what is said inside the TLS, and what was said already."""
    loop = asyncio.get_running_loop()
    early = _Early()
    starting = loop.create_task(
        loop.start_tls(
            inside,
            early,
            context,
            server_side=True,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
        ),
        name="handshake of a tunnel",
    )
    try:
        if already:
            # After its first step the task has queued the connection's beginning: this comes right behind that, and
            # before anything that the socket has yet to say.
            await asyncio.sleep(0)
            loop.call_soon(_feed, inside, already)
        tls = await starting
    finally:
        starting.cancel()
    if tls is None or early.ended:
        raise ConnectionResetError("the guest hung up in its handshake")
    return tls, bytes(early.data)


def _feed(inside: asyncio.Transport, data: bytes) -> None:
    """As though it came from the socket just now."""
    protocol = inside.get_protocol()
    if not isinstance(protocol, asyncio.BufferedProtocol):
        assert isinstance(protocol, asyncio.Protocol)
        protocol.data_received(data)
        return
    rest = memoryview(data)
    while rest and not inside.is_closing():
        room = memoryview(protocol.get_buffer(len(rest)))
        size = min(len(room), len(rest))
        room[:size] = rest[:size]
        protocol.buffer_updated(size)
        rest = rest[size:]


def _named(
    inside: asyncio.Transport,
    target: egress.Target,
    refused: list[Denied],
    tls: ssl.SSLObject | ssl.SSLSocket,
    name: str | None,
    context: ssl.SSLContext,
) -> int | None:
    """In the handshake: an alert for who means another host."""
    try:
        egress_hello.check(name or "", target)
    except Denied as problem:
        refused.append(problem)
        inside.write(ALERT)  # the handshake's own is lost when asyncio gives it up
        return int(ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)
    return None


def _is_host(target: egress.Target, header: str) -> bool:
    try:
        return egress.authority(header, PORTS["https"]) == (target.host, target.port)
    except BadRequest:
        return False


async def _no_proxy(request: Request, respond: Respond) -> None:
    respond.fail(400, "bad_request", "a tunnel to a host is no proxy: ask for a path of that host")
