"""Passes a call on to an upstream that speaks the guest's own dialect, and its answer back as it comes.

Nothing of the guest but the body reaches the upstream: address, key and headers are the route's. A redirect is never
followed: it would carry the key to a place nobody wrote down. No error quotes the key, nor what an upstream says
about it.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from agentk.llm import asking, metering, passthrougherrors, providers, routes, sse, tokens

BODY_BYTES_MAX = 32 * 1024 * 1024  # a whole answer: 2,048 embeddings of 3,072 numbers, as text
IDLE_SECONDS = 30.0  # shorter than the idle time-outs of the providers' own front ends (60 s and more)
# What a guest may learn of the answer's headers. Rate limits tell of other agents' calls and stay here.
_HEADERS = ("content-type", "x-request-id", "request-id", "openai-version", "openai-processing-ms")


@dataclass(frozen=True)
class Target:
    """Where a call goes. `secret_headers` and `secrets` never leave this file."""

    deployment: routes.Deployment
    timeouts: routes.Timeouts
    secret_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


class Passthrough:
    """One pool of connections for all routes. Made on the running loop; `close` ends every call in flight."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Safe to call twice."""
        session, self._session = self._session, None
        if session:
            await session.close()

    async def send(self, target: Target, ask: asking.Ask) -> asking.Reply:
        """The answer once it has begun (a stream) or is whole. Raises Refused before that, and only before that."""
        deadline = asyncio.get_running_loop().time() + target.timeouts.total
        response = await self._open(target, ask, deadline)
        try:
            if response.status != 200:
                raise await passthrougherrors.of_response(response, target.secrets, deadline)
            meter = metering.Meter(ask, target.deployment.upstream_model)
            if ask.stream and response.content_type == "text/event-stream":
                reply = _Streamed(response, meter, target, deadline)
                await reply.first()
                return reply
            return await _whole(response, meter, target, deadline)
        except BaseException:
            response.close()  # the caller hung up, or the answer is of no use: the upstream must not go on writing
            raise

    async def _open(self, target: Target, ask: asking.Ask, deadline: float) -> aiohttp.ClientResponse:
        deployment = target.deployment
        address = providers.url(deployment.provider, deployment.api_base, ask.dialect)
        headers = {
            **_texts(deployment.params.get("extra_headers")),
            **target.secret_headers,
            "content-type": "application/json",
            "accept": "text/event-stream" if ask.stream else "application/json",
            "accept-encoding": "identity",  # what is compressed cannot be passed on as it comes
            "user-agent": "agentk",
        }
        seconds = target.timeouts.first_byte if ask.stream else target.timeouts.total
        until = min(deadline, asyncio.get_running_loop().time() + seconds)
        times = aiohttp.ClientTimeout(total=None, sock_connect=target.timeouts.connect)
        try:
            async with asyncio.timeout_at(until):
                return await self._pool().post(
                    address,
                    data=upstream_body(deployment, ask),
                    headers=headers,
                    allow_redirects=False,
                    timeout=times,
                )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as wrong:
            raise passthrougherrors.unreached(wrong, deployment) from None  # the cause may hold headers

    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0, keepalive_timeout=IDLE_SECONDS, ssl=self._tls if self._tls else True
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),  # one guest's cookie must never ride with another's call
                trust_env=False,  # a proxy of the daemon's environment, or a .netrc, is no part of a route
                auto_decompress=False,
            )
        return self._session


def upstream_body(deployment: routes.Deployment, ask: asking.Ask) -> bytes:
    """The guest's body with what the route decides: the model, the stream, and the name of the bound."""
    body: dict[str, Any] = {**ask.body, "model": deployment.upstream_model}
    if ask.dialect in ("openai.chat", "openai.responses", "anthropic.messages"):
        if ask.stream:
            body["stream"] = True
        else:
            body.pop("stream", None)
    if ask.dialect == "openai.chat":
        _name_limit(body, providers.limit_field(deployment.provider, deployment.api_base))
        if ask.stream:
            options = body.get("stream_options")
            told = options if isinstance(options, Mapping) else {}
            body["stream_options"] = {**told, "include_usage": True}
        else:
            body.pop("stream_options", None)
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _name_limit(body: dict[str, Any], name: str) -> None:
    """Two bounds become the smaller one, under the name the upstream knows."""
    if not name:
        return
    told = [body.pop(field, None) for field in tokens.LIMIT_FIELDS["openai.chat"]]
    bounds = [value for value in told if isinstance(value, int) and not isinstance(value, bool)]
    if bounds:
        body[name] = min(bounds)


def _texts(told: Any) -> Mapping[str, str]:
    return {str(key).lower(): str(value) for key, value in told.items()} if isinstance(told, Mapping) else {}


def _shown(response: aiohttp.ClientResponse) -> Mapping[str, str]:
    return {name: response.headers[name] for name in _HEADERS if name in response.headers}


async def _whole(
    response: aiohttp.ClientResponse, meter: metering.Meter, target: Target, deadline: float
) -> asking.Reply:
    pieces, size = [], 0
    try:
        async with asyncio.timeout_at(deadline):
            async for piece in response.content.iter_any():
                size += len(piece)
                if size > BODY_BYTES_MAX:
                    raise passthrougherrors.broken("answered with more than it may", target.deployment)
                pieces.append(piece)
    except (aiohttp.ClientError, TimeoutError, OSError) as wrong:
        raise passthrougherrors.broken(passthrougherrors.how(wrong), target.deployment) from None
    body = b"".join(pieces)
    try:
        meter.document(json.loads(body))
    except (ValueError, RecursionError):
        raise passthrougherrors.broken(
            "answered with something that is not JSON", target.deployment
        ) from None
    return _Whole(body, _shown(response), meter, target.deployment.id)


class _Whole(asking.Reply):
    def __init__(
        self, body: bytes, headers: Mapping[str, str], meter: metering.Meter, deployment: str
    ) -> None:
        self._body = body
        self.headers = headers
        self.deployment = deployment
        self.usage = meter.usage()

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body

    async def aclose(self) -> None:
        """Nothing is open: the body is here."""


class _Streamed(asking.Reply):
    """Events as they come. A piece is given to the guest as soon as the events in it are whole."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        meter: metering.Meter,
        target: Target,
        deadline: float,
    ) -> None:
        self._response = response
        self._meter = meter
        self._deployment = target.deployment
        self._first_byte = target.timeouts.first_byte
        self._deadline = deadline
        self._parser = sse.Parser()
        self._early = b""
        self._ended = self._closed = False
        self.headers = _shown(response)
        self.deployment = target.deployment.id

    async def first(self) -> None:
        """Wait for the first piece: until it is here another deployment may be tried."""
        until = min(self._deadline, asyncio.get_running_loop().time() + self._first_byte)
        try:
            self._early = await self._read(until)
        except (aiohttp.ClientError, TimeoutError, OSError) as wrong:
            raise passthrougherrors.unreached(wrong, self._deployment) from None
        if not self._early:
            raise passthrougherrors.unreached(EOFError(), self._deployment)

    async def chunks(self) -> AsyncIterator[bytes]:
        piece, self._early = self._early, b""
        try:
            while piece:
                # One write a piece: the guest's stream has the rhythm of the upstream's.
                if told := b"".join(self._meter.event(event) for event in self._parser.feed(piece)):
                    yield told
                piece = await self._read(self._deadline)
            if told := b"".join(self._meter.event(event) for event in self._parser.end()):
                yield told
            self._ended = True
        except sse.TooLarge as wrong:
            raise passthrougherrors.broken(f"sent {wrong}", self._deployment) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as wrong:
            raise passthrougherrors.broken(passthrougherrors.how(wrong), self._deployment) from None
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        if self._closed:  # counting a long answer twice would take twice as long
            return
        self._closed = True
        # A stream read to its end gives its connection back; any other is cut, so that the upstream stops.
        if self._ended:
            self._response.release()
        else:
            self._response.close()
        for event in self._parser.feed(
            self._early
        ):  # came, and was never asked for: it is paid for all the same
            self._meter.event(event)
        self._early = b""
        self.usage = self._meter.usage()

    async def _read(self, until: float) -> bytes:
        async with asyncio.timeout_at(until):
            return await self._response.content.readany()
