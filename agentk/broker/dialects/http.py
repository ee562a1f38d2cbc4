"""One HTTP/1.1 connection of a guest: requests in order, one answered at a time, answers written with back-pressure.

It knows nothing of dialects, policy or the world: it hands a frozen `Request` to a handler, and a CONNECT or a
proxied request to the tunnel handler. It never buffers without a bound, never trusts a length twice told, and a guest
that hangs up takes its own call with it.
"""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from agentk.api.errors import AgentkError
from agentk.broker.dialects.http_reading import Held, Limits, Reader, Received, Refused, Request

_log = logging.getLogger(__name__)

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BREAKS_LINES = re.compile(r"[\r\n\0]")
# These belong to one hop; an upstream's must not be passed on as ours.
_OF_THE_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer"})

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
Handler = Callable[[Request, "Respond"], Awaitable[None]]


class HttpService:
    """What all HTTP connections of one guest share: who answers, the limits, and the tasks, which it owns."""

    def __init__(
        self,
        handler: Handler,
        tunnel: Handler | None = None,
        limits: Limits | None = None,
        hosts: Callable[[str], bool] | None = None,
        held: Held | None = None,
        still: Callable[[], bool] = lambda: False,
    ) -> None:
        """`hosts`: see `Reader`. `held`: of the guest, when it has connections elsewhere too. `still`: it is frozen,
        and not too slow."""
        self.still = still
        self.handler = handler
        self.tunnel = tunnel or _no_tunnel
        self.limits = limits or Limits()
        self.hosts = hosts
        self.held = held or Held(self.limits.held_bytes)
        self.tasks: set[asyncio.Task[None]] = set()

    def connection(self, *, by_unix: bool) -> "HttpConnection":
        return HttpConnection(self, by_unix=by_unix)

    def adopt(self, transport: asyncio.Transport, first: bytes, *, by_unix: bool) -> "HttpConnection":
        """Takes over a connection whose first bytes were already read."""
        connection = self.connection(by_unix=by_unix)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.data_received(first)
        return connection

    async def close(self) -> None:
        """Cancels what is being answered and waits for it to end. Safe to call again."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class HttpConnection(asyncio.Protocol):
    def __init__(self, service: HttpService, *, by_unix: bool) -> None:
        self._service = service
        self._limits = service.limits
        self._by_unix = by_unix
        self._later = bytearray()  # came while a request was being answered
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timed: str = ""  # the state the timer was set for: bytes that trickle in do not prolong it
        self._lingering = False
        self._drained = 0
        self._gone = False
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        name = transport.get_extra_info("sockname")
        port = name[1] if isinstance(name, tuple) else 0
        service = self._service
        self._reader = Reader(
            self._limits, by_unix=self._by_unix, port=port, hosts=service.hosts, held=service.held
        )
        self._arm("first", self._limits.head_seconds)

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            self._drained += len(data)
            if self._drained > self._limits.linger_bytes:
                self.transport.abort()
        elif self._gone or self.transport.is_closing():
            return
        elif self._task is not None:  # reading goes on meanwhile, or a hang-up would not be seen
            self._later += data
            if len(self._later) > self._limits.ahead_bytes:
                self.transport.abort()
        else:
            self._reader.feed(data)
            self._advance()

    def eof_received(self) -> bool:
        """A guest that ends its side has hung up: half-open connections get no answer."""
        self._hang_up()
        self._close()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._hang_up()
        self._reader.let_go()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _hang_up(self) -> None:
        """Safe to call again."""
        self._gone = True
        self._disarm()
        self._writable.set()
        if self._task is not None:
            self._task.cancel()

    @property
    def held(self) -> Held:
        return self._service.held

    def _advance(self) -> None:
        """Starts the next thing to answer, if nothing is being answered."""
        while self._task is None and not self._lingering and not self._gone:
            if self._reader.done:
                self._take(self._reader.done.popleft())
            elif self._later:
                data = bytes(self._later)
                self._later.clear()
                self._reader.feed(data)
            else:
                break
        if self._task is None and not self._lingering and not self._gone:
            self._await_more()

    def _await_more(self) -> None:
        state, limits = self._reader.state, self._limits
        if self._reader.continue_due:
            self._reader.continue_due = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if state == "over":
            self._close()
        elif state == "head":
            self._arm("head" if self._timed != "first" else "first", limits.head_seconds)
        elif state == "body":
            self._arm("body", limits.body_seconds)
        elif self._timed != "first":
            self._arm("idle", limits.idle_seconds)

    def _take(self, item: Received | Refused) -> None:
        self._disarm()
        if isinstance(item, Refused):
            self._linger(item)
            return
        self._task = asyncio.get_running_loop().create_task(
            self._answer(item),
            name=f"http {item.request.method} {item.request.path or item.request.authority}",
        )
        self._service.tasks.add(self._task)
        self._task.add_done_callback(self._service.tasks.discard)

    async def _answer(self, item: Received) -> None:
        respond = Respond(self, item)
        handler = self._service.tunnel if item.request.authority else self._service.handler
        try:
            await handler(item.request, respond)
            if not (respond.ended or respond.handed_over):
                raise RuntimeError("the handler returned before it ended its answer")
            if not respond.handed_over:
                await self.drain()  # or requests sent ahead would pile up answers that nobody reads
        except asyncio.CancelledError:
            respond.broken = True
            raise
        except AgentkError as error:
            respond.fail(error.http_status, error.code, str(error))
        except ConnectionError:
            respond.broken = True
        except Exception:  # noqa: BLE001 - the last frame of the task: the guest gets a 500, the log gets the cause
            _log.exception("answering %s %s", item.request.method, item.request.path)
            respond.fail(500, "internal_error", "the gate failed to answer; its log says why")
        finally:
            self._task = None
            self._reader.let_go(len(item.request.body))
            self._answered(respond)

    def _answered(self, respond: "Respond") -> None:
        if respond.handed_over:
            self.transport.close()
        elif self._gone:
            return
        elif respond.broken:  # never end a cut answer as though it were whole
            self.transport.abort()
        elif respond.keep_alive:
            self._advance()
        else:
            self._close()

    def _close(self) -> None:
        """Sends what is left and closes; a guest that does not read it is cut off."""
        self._arm("closing", self._limits.stall_seconds)
        self.transport.close()

    def _linger(self, refused: Refused) -> None:
        self._lingering = True
        self.transport.write(_refusal(refused))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._arm("linger", self._limits.linger_seconds)

    def _arm(self, what: str, seconds: float) -> None:
        if self._timed == what:
            return
        self._disarm()
        self._timed = what
        self._timer = asyncio.get_running_loop().call_later(seconds, self._late)

    def _disarm(self) -> None:
        self._timed = ""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self._service.still():
            self._timer = asyncio.get_running_loop().call_later(self._limits.stall_seconds, self._late)
        elif self._timed in ("head", "body") or (self._timed == "first" and self._reader.state != "idle"):
            self._linger(Refused(408, "request_timeout", "the request took too long to arrive"))
        elif self._timed in ("linger", "closing"):
            self.transport.abort()
        else:
            self.transport.close()

    async def drain(self) -> None:
        """Waits until the guest has read enough; a guest that does not read loses the connection."""
        if self._writable.is_set() and not self._gone:
            return
        while not self._writable.is_set():
            try:
                async with asyncio.timeout(self._limits.stall_seconds):
                    await self._writable.wait()
            except TimeoutError:
                if not self._service.still():
                    self.transport.abort()
                    raise ConnectionResetError("the guest did not read its answer") from None
        if self._gone:
            raise ConnectionResetError("the guest hung up")

    def hand_over(self, rest: bytes) -> tuple[asyncio.Transport, bytes]:
        self._disarm()
        already = rest + bytes(self._later)
        self._later.clear()
        self.transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return self.transport, already


class Respond:
    """The answer to one request: `start`, `write` as often as wanted, `end`; or `whole` for all three."""

    def __init__(self, connection: HttpConnection, received: Received) -> None:
        self.keep_alive = received.keep_alive
        self.started = self.ended = self.broken = self.handed_over = False
        self.held = connection.held  # what the guest's connections hold together
        self._connection = connection
        self._received = received
        self._left: int | None = None  # bytes still to come of a told length
        self._chunked = False
        self._bodiless = False

    def start(self, status: int, headers: Headers = ()) -> None:
        self._connection.transport.write(self._head(status, headers))

    def _head(self, status: int, headers: Headers) -> bytes:
        if self.started or self.handed_over:
            raise RuntimeError("the answer was started already")
        lines, length = _checked(headers)
        self._bodiless = self._received.request.method == "HEAD" or status in (204, 304)
        if length is not None:
            self._left = length
        elif not self._bodiless and self._received.chunked:
            self._chunked = True
            lines.append("transfer-encoding: chunked")
        elif not self._bodiless:
            self.keep_alive = False  # HTTP/1.0: the end of the connection is the end of the body
        if not self.keep_alive:
            lines.append("connection: close")
        elif not self._received.chunked:
            lines.append("connection: keep-alive")
        head = "\r\n".join([f"HTTP/1.1 {status} {_phrase(status)}", *lines, "", ""])
        self.started = True
        return head.encode("latin-1", "replace")

    async def write(self, data: bytes) -> None:
        self._push(data)
        await self._connection.drain()

    def end(self, data: bytes = b"") -> None:
        self._push(data)
        if self._left and not self._bodiless:
            raise RuntimeError(f"the answer ended {self._left} bytes before its content-length")
        self.ended = True
        if self._chunked:
            self._connection.transport.write(b"0\r\n\r\n")

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        told = [(name, value) for name, value in pairs if name.lower() != "content-length"]
        head = self._head(status, [*told, ("content-length", str(len(body)))])
        self.ended = True
        self._connection.transport.write(head if self._bodiless else head + body)  # a reader is woken once

    def fail(self, status: int, code: str, message: str) -> None:
        """An error when nothing was sent yet; else the connection is cut, so that the guest sees a broken answer."""
        if self.started or self.handed_over:
            self.broken = True
        else:
            self.whole(status, {"content-type": "application/json"}, _problem(status, code, message))

    def tunnel(self) -> tuple[asyncio.Transport, bytes]:
        """Says 200 to a CONNECT and gives away the transport, with what the guest sent already.

        The caller sets a protocol of its own on the transport before it next awaits, and closes it in the end.
        """
        if self._received.request.method != "CONNECT" or self.started or self.handed_over:
            raise RuntimeError("only an unanswered CONNECT becomes a tunnel")
        self.handed_over = True
        return self._connection.hand_over(self._received.rest)

    def _push(self, data: bytes) -> None:
        if not self.started or self.ended:
            raise RuntimeError("writing needs an answer that was started and not ended")
        if not data or self._bodiless:
            return
        if self._left is not None:
            if len(data) > self._left:
                raise RuntimeError("more was written than content-length says")
            self._left -= len(data)
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._connection.transport.write(data)


async def _no_tunnel(request: Request, respond: Respond) -> None:
    respond.fail(403, "PolicyDenied", "this agent has no egress: nothing is proxied for it")


def _checked(headers: Headers) -> tuple[list[str], int | None]:
    lines: list[str] = []
    length: int | None = None
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        if not _TOKEN.fullmatch(name) or _BREAKS_LINES.search(value):
            raise ValueError(f"not a header: {name!r}")
        if name.lower() in _OF_THE_HOP:
            continue
        if name.lower() == "content-length":
            length = int(value)
        lines.append(f"{name}: {value}")
    return lines, length


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"  # 499, 529: known to clients, not to the registry


def _problem(status: int, code: str, message: str) -> bytes:
    """Understood by OpenAI's and Anthropic's clients alike: here it is not known yet which one asks."""
    kind = "invalid_request_error" if status < 500 else "api_error"
    error: dict[str, Any] = {"type": kind, "message": message, "code": code, "param": None}
    return json.dumps({"type": "error", "error": error}).encode()


def _refusal(refused: Refused) -> bytes:
    body = _problem(refused.status, refused.code, refused.message)
    head = (
        f"HTTP/1.1 {refused.status} {_phrase(refused.status)}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body
