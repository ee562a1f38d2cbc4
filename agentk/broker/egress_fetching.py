"""Sends one request of a guest to a host its spec allows, and gives back what comes, scrubbed.

The way is the same for `http.request` and for the proxy: judged by `spec.network`, resolved once, every address looked
at, secrets put in, sent over a connection of its own, and never redirected here. It must never use a proxy or a cookie
of the daemon's, share a connection between guests, nor quote in an error what a library says: that may hold headers.
"""

import contextlib
import errno
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from agentk.api.errors import Denied, Timeout, UpstreamError
from agentk.broker import egress, egress_secrets
from agentk.broker.egress_addresses import refusal
from agentk.broker.egress_decoding import Decoding
from agentk.broker.egress_scrubbing import Needles, Stream
from agentk.broker.egress_urls import Url
from agentk.broker.words import Guest

Headers = Sequence[tuple[str, str]]

_NOT_TOLD = frozenset(
    {"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "transfer-encoding", "te",
     "trailer", "upgrade", "alt-svc"}
)  # fmt: skip
# A part of an answer could begin inside a secret; and how it is packed must be something we can read.
_NOT_WITH_SECRETS = frozenset({"range", "if-range", "accept-encoding"})
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BREAKS_LINES = re.compile(r"[\r\n\0]")
_OURS = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")  # what the library would add by itself


@dataclass(frozen=True)
class Limits:
    connect_seconds: float = 10
    silent_seconds: float = 300  # without a byte of the answer: a model may think for long
    total_seconds: float = 3600
    headers: int = 128
    header_bytes: int = 8190  # of one
    headers_bytes: int = 64 * 1024  # of all


@dataclass(frozen=True)
class Outgoing:
    """A request as the guest wants it."""

    method: str
    url: Url
    headers: Headers = ()
    body: bytes = b""
    plain: bool = False  # the answer is wanted unpacked, whatever the guest's headers say


class Answer:
    """The head of what came; the body is read once, from `chunks`."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        headers: Headers,
        decoding: Decoding,
        needles: Needles,
        url: Url,
    ) -> None:
        self.status = response.status
        self.headers = (
            headers  # names in lower case, values in latin-1, scrubbed; a length only where it is kept
        )
        self.received_bytes = 0  # of the body, as it came
        self._response, self._decoding, self._needles, self._url = response, decoding, needles, url

    async def chunks(self) -> AsyncIterator[bytes]:
        """Pieces of the body, scrubbed. Raises UpstreamError when it breaks off: what came is not whole then."""
        stream = Stream(self._needles)
        try:
            async for piece in self._response.content.iter_any():
                self.received_bytes += len(piece)
                for part in self._decoding.feed(piece):
                    if told := stream.feed(part):
                        yield told
        except (aiohttp.ClientError, TimeoutError, OSError) as wrong:
            raise _told(wrong, self._url) from None
        if not self._decoding.whole:
            raise UpstreamError(f"the answer of {self._url.host} broke off")
        if rest := stream.end():
            yield rest


class Fetcher:
    """Made on the running loop; holds no connections."""

    def __init__(
        self,
        dialer: egress.Dialer,
        secrets: egress_secrets.Secrets,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
    ) -> None:
        """`tls`: which certificates of hosts are believed; by default what the machine believes."""
        self._dialer, self._secrets = dialer, secrets
        self._tls = tls or ssl.create_default_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        self._limits = limits or Limits()
        self._read: dict[int, tuple[Mapping[str, Any], egress.Egress]] = {}

    @contextlib.asynccontextmanager
    async def send(self, guest: Guest, outgoing: Outgoing) -> AsyncIterator[Answer]:
        """Raises Denied for what spec.network does not allow, UpstreamError and Timeout for what did not work."""
        url = outgoing.url
        target = egress.permitted(self.allowed(guest.spec), url.host, url.port, outgoing.method)
        addresses = await self._dialer.look_up(target)
        injected = await self._secrets.of(guest, url.host)
        if injected and url.scheme == "http" and not all(refusal(one, private=False) for one in addresses):
            raise Denied(
                f"a secret for {url.host} would travel in clear", hint=f"ask for https://{url.authority}"
            )
        connector = aiohttp.TCPConnector(resolver=_Pinned(url.host, addresses), use_dns_cache=False,
                                         force_close=True, ssl=self._tls)  # fmt: skip
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            max_line_size=self._limits.header_bytes,
            max_field_size=self._limits.header_bytes,
            max_headers=self._limits.headers,
        ) as session:
            response = await self._ask(session, outgoing, injected)
            try:
                yield self._answer(response, outgoing, injected)
            finally:
                response.close()

    def allowed(self, spec: Mapping[str, Any]) -> egress.Egress:
        """Parsed once for each spec: they are shared and never changed."""
        known = self._read.get(id(spec))
        if known is None or known[0] is not spec:
            if len(self._read) >= 1024:
                self._read.clear()
            known = self._read[id(spec)] = (spec, egress.parse(spec))
        return known[1]

    async def _ask(
        self, session: aiohttp.ClientSession, outgoing: Outgoing, injected: egress_secrets.Injected
    ) -> aiohttp.ClientResponse:
        limits, url = self._limits, outgoing.url
        try:
            return await session.request(
                outgoing.method,
                yarl.URL.build(
                    scheme=url.scheme, host=url.host, port=url.port, path=url.path, query_string=url.query,
                    encoded=True,
                ),
                headers=_sent(outgoing, injected),
                data=outgoing.body or None,
                allow_redirects=False,
                skip_auto_headers=_OURS,
                timeout=aiohttp.ClientTimeout(
                    total=limits.total_seconds,
                    sock_connect=limits.connect_seconds,
                    sock_read=limits.silent_seconds,
                ),
            )  # fmt: skip
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as wrong:
            raise _told(wrong, url) from None  # the cause may hold headers

    def _answer(
        self, response: aiohttp.ClientResponse, outgoing: Outgoing, injected: egress_secrets.Injected
    ) -> Answer:
        host = outgoing.url.host
        if response.status < 200:
            raise UpstreamError(f"{host} wants to speak something else than HTTP/1.1")
        raw = response.raw_headers
        if sum(len(name) + len(value) for name, value in raw) > self._limits.headers_bytes:
            raise UpstreamError(f"{host} answered with more headers than are taken")
        decoding = Decoding()
        told = _received(raw, injected.needles)
        if (outgoing.plain or injected) and outgoing.method != "HEAD":
            decoding = Decoding.of(response.headers.getall("content-encoding", []))
            if decoding.unknown and injected:
                raise UpstreamError(f"{host} packed its answer in a way that was not asked for")
        dropped = {"content-encoding", "content-length"} if decoding.packed else set()
        if injected.needles:
            dropped |= {"content-length", "content-range", "accept-ranges"}
        kept = [(name, value) for name, value in told if name not in dropped]
        return Answer(response, kept, decoding, injected.needles, outgoing.url)


class _Pinned(AbstractResolver):
    """Answers with what was vetted, and for nothing else."""

    def __init__(self, host: str, addresses: Sequence[str]) -> None:
        self._host, self._addresses = host, addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host != self._host:
            raise OSError(errno.EHOSTUNREACH, "nobody looked at this name")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""


def _sent(outgoing: Outgoing, injected: egress_secrets.Injected) -> Headers:
    """What goes on the wire: the guest's headers but those of the hop, then ours."""
    of_the_hop = _listed(outgoing.headers)
    replaced = egress_secrets.NOT_SENT | of_the_hop | injected.headers.keys()
    if injected:
        replaced |= _NOT_WITH_SECRETS
    asked = [(name, value) for name, value in outgoing.headers if name.lower() not in replaced]
    if injected or (outgoing.plain and not any(name.lower() == "accept-encoding" for name, _ in asked)):
        asked.append(("Accept-Encoding", "identity"))
    return [("Host", outgoing.url.authority), *asked, *injected.headers.items()]


def _received(raw: Sequence[tuple[bytes, bytes]], needles: Needles) -> Headers:
    pairs = [(name.decode("latin-1").lower(), value) for name, value in raw]
    dropped = _NOT_TOLD | _listed([(name, value.decode("latin-1")) for name, value in pairs])
    told = []
    for name, value in pairs:
        text = needles.whole(value).decode("latin-1").strip(" \t")
        name = needles.text(name)
        if name not in dropped and _NAME.fullmatch(name) and not _BREAKS_LINES.search(text):
            told.append((name, text))
    return told


def _listed(headers: Headers) -> frozenset[str]:
    """What Connection names is of the hop too."""
    lists = [value for name, value in headers if name.lower() == "connection"]
    return frozenset(word.strip().lower() for one in lists for word in one.split(","))


def _told(wrong: Exception, url: Url) -> UpstreamError | Timeout:
    """In words of our own."""
    where = f"{url.host}:{url.port}"
    if isinstance(wrong, TimeoutError):
        return Timeout(f"{where} did not answer in time")
    if isinstance(wrong, aiohttp.ClientConnectorCertificateError | ssl.CertificateError):
        certificate = getattr(wrong, "certificate_error", wrong)
        why = getattr(certificate, "verify_message", "") or "it is not valid"
        return egress.Unreached(f"the certificate of {where} is not believed: {why}")
    if isinstance(wrong, aiohttp.ClientSSLError | ssl.SSLError):
        return egress.Unreached(f"TLS with {where} failed")
    if isinstance(wrong, aiohttp.ClientConnectorError):
        return egress.Unreached(f"connecting to {where} failed: {_reason(wrong.os_error)}")
    if isinstance(wrong, aiohttp.ClientPayloadError):
        return UpstreamError(f"the answer of {where} broke off")
    if isinstance(wrong, aiohttp.ServerDisconnectedError | OSError):
        return UpstreamError(f"{where} hung up before it answered")
    return UpstreamError(f"{where} answered with something that is no HTTP")


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else "no connection"
