"""`http.request` as a proxy's client asks for it: the answer is streamed to the guest, or a tunnel held open for it.

The same call as the one in JSON, with the same rules, budget and record; what a stream said is kept only in part.
"""

import socket
from dataclasses import dataclass
from typing import Any

from agentk.broker import egress, egress_urls, policy
from agentk.broker.calling import fetching
from agentk.broker.egress_fetching import Fetcher, Headers
from agentk.broker.egress_tunnel import Carried
from agentk.broker.methods import ONE_CALL, Context, Done, Method, Params
from agentk.broker.words import Guest

FORWARD = "http.proxy"
TUNNEL = "http.tunnel"
_KEPT_BYTES = 64 * 1024  # of an answer's body, on record


@dataclass(frozen=True)
class Begun:
    """The head of an answer; its body follows in pieces."""

    status: int
    headers: Headers


@dataclass
class Opened:
    """A connection to the host of a tunnel. Whoever hears of it owns it, carries, and says what was carried."""

    outside: socket.socket
    target: egress.Target
    carried: Carried | None = None


def forms(*, fetcher: Fetcher, dialer: egress.Dialer) -> dict[str, Method]:
    proxying = _Proxying(fetcher, dialer)
    return {
        FORWARD: Method(fetching.NAME, "effect", dict, proxying.forward, facts=proxying.facts),
        TUNNEL: Method(fetching.NAME, "effect", dict, proxying.tunnel, facts=proxying.facts),
    }


def forwarded(method: str, url: egress_urls.Url, headers: Headers, body: bytes) -> Params:
    """The parameters, as they go on record."""
    text, encoding = fetching.shown(body, truncated=False)
    told = fetching.told_headers(headers)
    return {"method": method, "url": str(url), "headers": told, "body": text, "encoding": encoding}


def tunnelled(host: str, port: int) -> Params:
    return {"method": policy.TUNNEL, "url": str(egress_urls.Url("https", host, port))}


@dataclass(frozen=True)
class _Proxying:
    fetcher: Fetcher
    dialer: egress.Dialer

    def facts(self, guest: Guest, params: Params) -> policy.Facts:
        return fetching.facts(
            self.fetcher, guest, str(params["method"]), egress_urls.parse(str(params["url"]))
        )

    async def forward(self, context: Context, params: Params) -> Done:
        context.used = ONE_CALL
        outgoing = fetching.outgoing(params)
        async with self.fetcher.send(context.call.guest, outgoing) as answer:
            await context.emit(Begun(answer.status, answer.headers))
            sent = 0
            async for piece in answer.chunks():
                sent += len(piece)
                context.sent += piece[: _KEPT_BYTES - len(context.sent)]
                await context.emit(piece)
        kept = bytes(context.sent)
        body, encoding = fetching.shown(kept, truncated=len(kept) < sent)
        told: dict[str, Any] = {
            "status": answer.status,
            "url": str(outgoing.url),
            "headers": fetching.told_headers(answer.headers),
            "body": body,
            "encoding": encoding,
            "truncated": len(kept) < sent,
            "sentBytes": len(outgoing.body),
            "receivedBytes": answer.received_bytes,
        }
        return Done(told)

    async def tunnel(self, context: Context, params: Params) -> Done:
        context.used = ONE_CALL
        url = egress_urls.parse(str(params["url"]))
        allowed = self.fetcher.allowed(context.call.guest.spec)
        target = egress.permitted(allowed, url.host, url.port)
        opened = Opened(await self.dialer.connect(target), target)
        await context.emit(opened)
        carried = opened.carried or Carried(0, 0, "lost")
        return Done(
            {"sentBytes": carried.sent_bytes, "receivedBytes": carried.received_bytes, "ended": carried.ended}
        )
