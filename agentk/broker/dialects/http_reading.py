"""HTTP/1.1 requests out of bytes, without a socket: httptools parses, this file bounds and refuses.

Nothing here may guess: a message whose length two parsers could read differently is refused, never mended. And nothing
may be raised for what a guest sends: every problem becomes a `Refused` in its place among the requests.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import httptools

State = Literal["idle", "head", "body", "over"]

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost"})
# A second one of these would leave two readings of who is asked, or how long the body is.
_ONCE = frozenset(
    {"host", "content-length", "transfer-encoding", "content-type", "origin", "expect", "idempotency-key"}
)


@dataclass(frozen=True)
class Limits:
    """What one connection may take."""

    head_bytes: int = 32 * 1024  # request line and headers
    headers: int = 128
    body_bytes: int = 8 * 1024 * 1024  # DESIGN: the frame limit of the gate
    held_bytes: int = 64 * 1024 * 1024  # bodies on all connections of one guest: eight of the largest
    queued: int = 8  # complete requests waiting behind the one being answered
    ahead_bytes: int = 64 * 1024  # bytes sent before the answer came; more is a flood
    head_seconds: float = 30  # from the first byte of a request to the end of its headers
    body_seconds: float = 120  # from there to the end of its body
    idle_seconds: float = 600  # between two requests
    stall_seconds: float = 60  # how long a guest may leave its answer unread: it holds a turn meanwhile
    linger_seconds: float = 2  # reading on after a refusal, so that the guest sees it and not a reset
    linger_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    """One request. `authority` is "host:port" as it was written when the guest asked a proxy, else empty."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""
    authority: str = ""


@dataclass(frozen=True)
class Received:
    request: Request
    keep_alive: bool = True
    chunked: bool = True  # the guest speaks HTTP/1.1, so the answer may come in chunks
    rest: bytes = b""  # what followed a CONNECT: the tunnel's first bytes


@dataclass(frozen=True)
class Refused:
    status: int
    code: str
    message: str


class Held:
    """Bytes of bodies that one guest's connections hold, still being read or being answered."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes

    def take(self, size: int) -> bool:
        if size > self._left:
            return False
        self._left -= size
        return True

    def give(self, size: int) -> None:
        self._left += size


class Reader:
    """Feed it bytes; take `Received` and `Refused` out of `done`, in the order they came."""

    def __init__(
        self,
        limits: Limits,
        *,
        by_unix: bool,
        port: int = 0,
        hosts: Callable[[str], bool] | None = None,
        held: Held | None = None,
    ) -> None:
        """`hosts`: whether a Host header names who is spoken to, inside a tunnel; outside it is this very door."""
        self.done: deque[Received | Refused] = deque()
        self.state: State = "idle"
        self.continue_due = False  # the guest waits for "100 Continue" before it sends its body
        self._limits = limits
        self._by_unix = by_unix
        self._port = port
        self._hosts = hosts
        self._held = held or Held(limits.held_bytes)
        self._holds = 0
        self._parser = httptools.HttpRequestParser(self)
        self._blank()

    def feed(self, data: bytes) -> None:
        """Never raises. After the state is "over" bytes are ignored."""
        if self.state == "over":
            return
        before = self.state
        if before == "body":
            self._bare += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(400, "bad_request", f"not well-formed HTTP/1.1: {error}")
        if self.state == "head" and before != "body":
            self._fed += len(data)
            if self._fed > self._limits.head_bytes:
                self._refuse_head()
        # What is no body, and has no end yet: a trailer, which the parser keeps, or an extension of a chunk.
        if self.state == "body" and self._bare > self._limits.head_bytes:
            self._refuse_head()

    def let_go(self, size: int | None = None) -> None:
        """A body of this size was answered; without one: the connection is gone, with all it held."""
        size = self._holds if size is None else min(size, self._holds)
        self._holds -= size
        self._held.give(size)

    # What httptools calls. They return early once refused: the parser cannot be stopped inside one buffer.

    def on_message_begin(self) -> None:
        if self.state == "over":
            return
        if len(self.done) >= self._limits.queued:
            self._refuse(429, "too_many_requests", "too many requests were sent before an answer")
            return
        self._blank()
        self.state = "head"

    def on_url(self, part: bytes) -> None:
        self._target += part
        self._grow(len(part))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.state == "over":
            return
        self._grow(len(name) + len(value) + 4)
        self._count += 1
        if self._count > self._limits.headers:
            self._refuse_head()
        if self.state != "head":
            return  # a trailer, or just refused: trailers are counted and never become headers
        key = name.decode("latin-1").lower()
        if key in self._headers and key in _ONCE:
            self._refuse(400, "bad_request", f"more than one {key} header")
            return
        text = value.decode("latin-1").strip(" \t")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        if self.state == "over":
            return
        refusal = self._judged()
        if refusal:
            self._refuse(refusal.status, refusal.code, refusal.message)
            return
        self.state = "body"
        self.continue_due = self._headers.get("expect", "").lower() == "100-continue"

    def on_body(self, part: bytes) -> None:
        if self.state == "over":
            return
        self.continue_due = False
        self._bare = 0
        if len(self._body) + len(part) > self._limits.body_bytes:
            self._refuse_body()
            return
        if not self._held.take(len(part)):
            self._refuse(429, "too_many_requests", "the requests of this agent hold too much at once")
            return
        self._holds += len(part)
        self._body += part  # one buffer: a list of one-byte chunks would take forty times the bytes

    def on_message_complete(self) -> None:
        if self.state == "over":
            return
        keep = bool(self._parser.should_keep_alive()) and not self._parser.should_upgrade()
        self.done.append(Received(self._request(), keep, self._parser.get_http_version() == "1.1"))
        self.continue_due = False
        self.state = "idle" if keep else "over"  # what follows a "Connection: close" is nobody's

    def _blank(self) -> None:
        self._target = bytearray()
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._fed = self._bare = self._size = self._count = 0
        self._path = self._query = self._authority = ""

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._limits.head_bytes:
            self._refuse_head()

    def _refuse(self, status: int, code: str, message: str) -> None:
        if self.state != "over":
            self.done.append(Refused(status, code, message))
        self._body = bytearray()
        self.continue_due = False
        self.state = "over"

    def _refuse_head(self) -> None:
        self._refuse(431, "headers_too_large", f"headers are over {self._limits.head_bytes} bytes")

    def _refuse_body(self) -> None:
        self._refuse(413, "request_too_large", f"the body is over {self._limits.body_bytes} bytes")

    def _judged(self) -> Refused | None:
        """What is wrong with the head; also finds out where the request goes."""
        if self._parser.get_http_version() not in ("1.0", "1.1"):
            return Refused(505, "bad_version", "only HTTP/1.1 and HTTP/1.0 are spoken here")
        return self._judged_length() or self._judged_target() or self._judged_origin()

    def _judged_length(self) -> Refused | None:
        headers = self._headers
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if coding is not None and (
            coding.lower() != "chunked" or length is not None or self._parser.get_http_version() != "1.1"
        ):
            return Refused(400, "bad_request", "the only Transfer-Encoding is chunked, in HTTP/1.1, alone")
        if length is not None and not (length.isascii() and length.isdigit()):
            return Refused(400, "bad_request", "Content-Length is not a number")
        if length is not None and (len(length) > 12 or int(length) > self._limits.body_bytes):
            return Refused(413, "request_too_large", f"the body is over {self._limits.body_bytes} bytes")
        if headers.get("expect", "100-continue").lower() != "100-continue":
            return Refused(417, "bad_expectation", "the only Expect is 100-continue")
        if self._method == "CONNECT" and (coding is not None or (length or "0").strip("0")):
            return Refused(400, "bad_request", "CONNECT has no body")
        return None

    def _judged_target(self) -> Refused | None:
        target = bytes(self._target)
        if self._method == "CONNECT":
            self._authority = target.decode("latin-1")
            return None
        if target.startswith(b"/"):
            path, _, query = target.partition(b"#")[0].partition(b"?")
            self._path, self._query = path.decode("latin-1"), query.decode("latin-1")
            return None
        if target == b"*":
            self._path = "*"
            return None
        return self._judged_absolute(target)

    def _judged_absolute(self, target: bytes) -> Refused | None:
        try:
            url = httptools.parse_url(target)
        except httptools.HttpParserInvalidURLError:
            return Refused(400, "bad_request", "the request's target is no URL")
        if (url.schema or b"").lower() != b"http" or url.userinfo or not url.host:
            return Refused(
                400, "bad_request", "a proxied request is for http://host/path; use CONNECT for https"
            )
        host, port = url.host.decode("latin-1"), url.port or 80
        self._path = (url.path or b"/").decode("latin-1")
        self._query = (url.query or b"").decode("latin-1")
        if not (host.lower() in LOCAL_HOSTS and port == self._port):  # else it is this very door
            self._authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return None

    def _judged_origin(self) -> Refused | None:
        """A web page must not reach the door through a browser in the jail: neither by a name of its own that
        resolves to 127.0.0.1, nor across origins."""
        host, origin = self._headers.get("host"), self._headers.get("origin")
        if host is None and self._parser.get_http_version() == "1.1":
            return Refused(400, "bad_request", "the Host header is missing")
        if self._hosts is not None:  # whose pages may ask this host is for the host to say
            return (
                None if self._hosts(host or "") else Refused(421, "foreign_host", "Host is not the tunnel's")
            )
        if not self._by_unix and not self._authority and not _is_local(host or ""):
            return Refused(421, "foreign_host", "Host must be 127.0.0.1 or localhost")
        if origin is not None:
            scheme, _, place = origin.partition("://")
            if scheme != "http" or not (_is_local(place) or (self._by_unix and place == host)):
                return Refused(403, "foreign_origin", "requests of another origin are refused")
        return None

    @property
    def _method(self) -> str:
        return self._parser.get_method().decode("latin-1")

    def _request(self) -> Request:
        headers = MappingProxyType(self._headers)
        body, self._body = bytes(self._body), bytearray()
        return Request(self._method, self._path, self._query, headers, body, self._authority)

    def _upgraded(self, rest: bytes) -> None:
        """After a CONNECT the rest is the tunnel's. Any other upgrade is declined by answering in HTTP/1.1."""
        self.state = "over"
        last = self.done[-1] if self.done else None
        if isinstance(last, Received) and last.request.method == "CONNECT":
            self.done[-1] = Received(last.request, False, last.chunked, rest)


def _is_local(authority: str) -> bool:
    host, _, port = authority.partition(":")
    return host.lower() in LOCAL_HOSTS and (
        not port or (port.isascii() and port.isdigit() and len(port) <= 5)
    )
