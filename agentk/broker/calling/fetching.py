"""`http.request`: one request to a host that both spec.network and the Policy allow, with the host's secrets put in.

A redirect is a new request: every hop is judged as the first was, gets the secrets of its own host only, and loses
what the guest meant for the host before.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentk.api import errors
from agentk.broker import egress, egress_urls, policy, policy_rules
from agentk.broker import methods as table
from agentk.broker.egress_fetching import Answer, Fetcher, Outgoing
from agentk.broker.methods import ONE_CALL, Context, Done, Params
from agentk.broker.words import Guest

NAME = "http.request"
PRIVATE = "privateAddresses"
_HOPS_MOST = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Meant for the host they were written for.
_OF_THE_HOST = frozenset({"authorization", "cookie", "proxy-authorization", "origin", "x-api-key", "api-key"})
_OF_THE_BODY = frozenset({"content-type", "content-encoding", "content-language", "content-location"})

RulesOf = Callable[[Guest], policy_rules.Rules]


def methods(*, fetcher: Fetcher, rules: RulesOf) -> dict[str, table.Method]:
    """`rules`: of the guest's Policy, for the hops after the first."""
    fetching = _Fetching(fetcher, rules)
    return {
        NAME: table.Method(
            NAME, table.recording(NAME), table.parser(NAME), fetching.request, facts=fetching.facts
        )
    }


def facts(fetcher: Fetcher, guest: Guest, method: str, url: egress_urls.Url) -> policy.Facts:
    """What rules may ask about one request. A host whose rule opens private addresses uses that feature, whatever its
    name leads to today."""
    try:
        target = egress.permitted(fetcher.allowed(guest.spec), url.host, url.port, method)
    except errors.Denied:  # said, with its reason, by whoever sends
        private = False
    else:
        private = target.private
    return policy.Facts(
        host=url.host,
        port=url.port,
        http_method=method,
        path=url.path,
        features=frozenset({PRIVATE}) if private else frozenset(),
    )


@dataclass(frozen=True)
class _Fetching:
    fetcher: Fetcher
    rules: RulesOf

    def facts(self, guest: Guest, params: Params) -> policy.Facts:
        return facts(self.fetcher, guest, str(params["method"]), egress_urls.parse(str(params["url"])))

    async def request(self, context: Context, params: Params) -> Done:
        context.used = ONE_CALL
        sending = replace(outgoing(params), plain=True)
        seconds = float(params["timeoutSeconds"])
        try:
            async with asyncio.timeout(seconds):
                return Done(await self._followed(context.call.guest, sending, params))
        except TimeoutError:
            raise errors.Timeout(
                f"{sending.url.host} did not answer within {seconds:g} s",
                hint="timeoutSeconds gives it longer",
            ) from None

    async def _followed(self, guest: Guest, sending: Outgoing, params: Params) -> Mapping[str, Any]:
        hops = _HOPS_MOST if params["followRedirects"] else 0
        for hop in range(hops + 1):
            if hop:
                self._judge(guest, sending)
            async with self.fetcher.send(guest, sending) as answer:
                location = dict(answer.headers).get("location")
                if hops and location is not None and answer.status in _REDIRECTS:
                    sending = _onwards(sending, answer.status, location)
                    continue
                return await _result(answer, sending, int(params["maxBytes"]))
        raise errors.UpstreamError(f"more than {_HOPS_MOST} redirects")

    def _judge(self, guest: Guest, sending: Outgoing) -> None:
        about = facts(self.fetcher, guest, sending.method, sending.url)
        verdict = policy.decide(self.rules(guest), NAME, about)
        if verdict.effect == "Ask":
            raise errors.ApprovalRequired(
                f"redirected: {verdict.reason}",
                hint="ask for that address in a call of its own: then a person is asked",
            )
        if verdict.effect != "Allow":
            raise errors.Denied(f"redirected: {verdict.reason}")


def outgoing(params: Params) -> Outgoing:
    """What parameters ask for. Raises BadRequest."""
    body = str(params["body"])
    if params["encoding"] == "base64":
        try:
            data = base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError):
            raise errors.BadRequest("the body is not base64", field="params.body") from None
    else:
        data = _encoded(body, "params.body")
    headers = [(str(name), str(value)) for name, value in params["headers"].items()]
    for _, value in headers:
        _encoded(value, "params.headers")
    return Outgoing(str(params["method"]), egress_urls.parse(str(params["url"])), headers, data)


def _encoded(text: str, field: str) -> bytes:
    """Half a surrogate pair is something that JSON can write and no byte can say."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise errors.BadRequest("this is not valid Unicode", field=field) from None


def _onwards(sending: Outgoing, status: int, location: str) -> Outgoing:
    """The request that a redirect asks for."""
    url = egress_urls.joined(sending.url, _unmangled(location))
    dropped: frozenset[str] = frozenset()
    method, body = sending.method, sending.body
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, body, dropped = "GET", b"", _OF_THE_BODY
    if url.origin != sending.url.origin:
        dropped |= _OF_THE_HOST
    headers = [(name, value) for name, value in sending.headers if name.lower() not in dropped]
    return replace(sending, method=method, url=url, headers=headers, body=body)


async def _result(answer: Answer, sending: Outgoing, most: int) -> Mapping[str, Any]:
    kept = bytearray()
    truncated = False
    async for piece in answer.chunks():
        kept += piece
        if len(kept) > most:
            truncated = True
            break
    body, encoding = shown(bytes(kept[:most]), truncated=truncated)
    return {
        "status": answer.status,
        "url": str(sending.url),
        "headers": told_headers(answer.headers),
        "body": body,
        "encoding": encoding,
        "truncated": truncated,
    }


def shown(data: bytes, *, truncated: bool) -> tuple[str, str]:
    """A body in JSON: as text where it is text. A letter that was cut in two by us is left out."""
    for cut in range(4 if truncated else 1):
        try:
            return data[: len(data) - cut].decode(), "utf-8"
        except UnicodeDecodeError:
            continue
    return base64.b64encode(data).decode(), "base64"


def told_headers(headers: Any) -> dict[str, str]:
    told: dict[str, str] = {}
    for name, value in headers:
        text = _unmangled(value)
        between = "\n" if name == "set-cookie" else ", "
        told[name] = f"{told[name]}{between}{text}" if name in told else text
    return told


def _unmangled(value: str) -> str:
    """Headers are latin-1 to HTTP, and UTF-8 to who writes them."""
    return value.encode("latin-1", "replace").decode("utf-8", "replace")
