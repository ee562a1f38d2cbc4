"""The proxy that HTTP_PROXY and HTTPS_PROXY of an agent lead to: CONNECT, and requests for http://host/path.

It decides nothing: everything that leaves is a call of the gate. A tunnel is carried unread, unless the agent's spec
puts a secret in for that host, or bounds its methods; then the tunnel's TLS ends here and every request inside is a
call of its own.
"""

import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from agentk.api import errors
from agentk.broker import egress, egress_secrets, egress_termination, egress_tunnel, egress_urls
from agentk.broker.calling import fetching, proxying
from agentk.broker.dialects.http import Handler, Respond
from agentk.broker.dialects.http_reading import Request
from agentk.broker.egress_fetching import Fetcher
from agentk.broker.words import Call, Guest

Emit = Callable[[Any], Awaitable[None]]
ContextOf = Callable[[str, str], ssl.SSLContext]  # box id, host: what to be that host with

# Methods that are none of a host's: TRACE sends a request's secrets back, CONNECT is for proxies.
_NEVER = frozenset({"TRACE", "CONNECT"})


class Gate(Protocol):
    async def call(self, call: Call, emit: Emit) -> Any: ...


def handler(gate: Gate, guest: Callable[[], Guest], fetcher: Fetcher, context: ContextOf) -> Handler:
    """Fits `HttpService`'s `tunnel`: answers what one guest asks of a proxy."""
    return _Proxy(gate, guest, fetcher, context).answer


class _Proxy:
    def __init__(self, gate: Gate, guest: Callable[[], Guest], fetcher: Fetcher, context: ContextOf) -> None:
        self._gate, self._guest, self._fetcher, self._context = gate, guest, fetcher, context

    async def answer(self, request: Request, respond: Respond) -> None:
        if request.method != "CONNECT":
            await self._forward("http", request.authority, request, respond)
            return
        guest = self._guest()
        host, port = egress.authority(request.authority)
        target = self._read_along(guest, host, port)
        if target is None:
            call = Call(guest, fetching.NAME, proxying.tunnelled(host, port), "proxy", form=proxying.TUNNEL)
            await self._gate.call(call, partial(_carry, respond))
            return
        context = self._context(guest.box_id, host)
        inside, already = respond.tunnel()
        serve = partial(self._forward, "https", f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        await egress_termination.serve(inside, already, target, context, serve, held=respond.held)

    def _read_along(self, guest: Guest, host: str, port: int) -> egress.Target | None:
        """The target of a tunnel that must be read along; None for one that is carried, or refused, by a call."""
        try:
            target = egress.permitted(self._fetcher.allowed(guest.spec), host, port)
        except errors.Denied:
            return None
        return target if target.methods or egress_secrets.wanted(guest.spec, host) else None

    async def _forward(self, scheme: str, authority: str, request: Request, respond: Respond) -> None:
        if request.method in _NEVER:
            raise errors.MethodNotAllowed(f"{request.method} is not passed on")
        wanted = request.headers.get("upgrade", "").lower()
        if wanted and wanted != "h2c":  # a client that offers HTTP/2 is content with less
            raise errors.BadRequest(
                f"no upgrade to {wanted[:40]!r} here: this proxy reads along, and reads HTTP only",
                hint="a tunnel to a host without secrets and methods in the agent's spec carries anything in TLS",
            )
        url = egress_urls.of(request, scheme, authority)
        params = proxying.forwarded(request.method, url, list(request.headers.items()), request.body)
        call = Call(self._guest(), fetching.NAME, params, "proxy", form=proxying.FORWARD)
        answering = _Answering(respond)
        await self._gate.call(call, answering.hear)
        respond.end(answering.last)


class _Answering:
    """Passes an answer on as it comes. Its end waits until the call is on record: a whole answer is a settled call."""

    def __init__(self, respond: Respond) -> None:
        self.last = b""
        self._respond = respond
        self._left = -1  # bytes until the length that was told; -1 when none was

    async def hear(self, item: proxying.Begun | bytes) -> None:
        if isinstance(item, proxying.Begun):
            self._left = int(dict(item.headers).get("content-length", -1))
            self._respond.start(item.status, item.headers)
            return
        if self._left >= 0:
            self._left -= len(item)
            if self._left <= 0:
                self.last += item
                return
        try:
            await self._respond.write(item)
        except ConnectionError:
            raise errors.Cancelled("the guest hung up before its answer was whole") from None


async def _carry(respond: Respond, opened: proxying.Opened) -> None:
    try:
        inside, already = respond.tunnel()
    except RuntimeError:
        opened.outside.close()
        raise
    opened.carried = await egress_tunnel.carry(inside, already, opened.outside, opened.target)
