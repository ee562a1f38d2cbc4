"""A server behind HTTP, for the SDK: every exchange is asked of the daemon, which alone knows host, secret and way.

What the SDK may ask for is one URL. A redirect is not followed, and a stream that a server keeps cutting is asked for
again once a second at most, whatever `retry` it names.
"""

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx2

from agentk.sdk import wire
from agentk.tools import mcp_sieve, mcp_wire

ANSWER_SECONDS = 120.0  # until the head of an answer; a call's own time is shorter, mostly
GET_SECONDS = 1.0  # between two streams that are only listened to
URL = "http://server/"  # stands for the Tool's own

Say = Callable[[Mapping[str, Any]], None]


class Exchange:
    """One request and what comes of it; `head`, `body` and `over` are the daemon's side."""

    def __init__(self, number: int, say: Say, share: mcp_sieve.Share) -> None:
        self.number, self._say, self._share = number, say, share
        self.answered: asyncio.Future[tuple[int, list[tuple[str, str]]]] = asyncio.Future()
        self._pieces: collections.deque[bytes] = collections.deque()
        self._more = asyncio.Event()
        self._why: str | None = None
        self.ended = False

    def head(self, status: int, headers: list[tuple[str, str]]) -> None:
        if not self.answered.done():
            self.answered.set_result((status, headers))

    def body(self, data: bytes) -> None:
        self._pieces.append(data)
        self._more.set()

    def over(self, why: str | None) -> None:
        self.ended, self._why = True, why
        if not self.answered.done():
            self.answered.set_exception(httpx2.ConnectError(why or "no answer"))
            self.answered.exception()
        self._more.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._say({"t": "more", "id": self.number, "bytes": len(piece)})
                self._share.read(len(piece))
                await self._share.rest()
                yield piece
            if self.ended:
                break
            self._more.clear()
            await self._more.wait()
        if self._why:
            raise httpx2.ReadError(self._why)

    def stop(self) -> None:
        """Safe to call twice, and after the end."""
        if not self.ended:
            self.ended = True
            self._say({"t": "stop", "id": self.number})


class Way(httpx2.AsyncBaseTransport):
    """The only way out of this process, for one session."""

    def __init__(self, begin: Callable[[Mapping[str, Any]], Exchange]) -> None:
        self.why = ""  # the last exchange that went wrong, in the daemon's words
        self._begin = begin
        self._next_get = 0.0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if str(request.url) != URL:
            raise httpx2.UnsupportedProtocol("the server leads elsewhere; name that address in the Tool")
        if request.method == "GET":
            await self._wait()
        body = await request.aread()
        if len(body) > mcp_wire.CALL_BYTES_MAX:
            raise httpx2.WriteError(f"the call has {len(body)} bytes; the most is {mcp_wire.CALL_BYTES_MAX}")
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _NOT_TOLD]
        exchange = self._begin({"method": request.method, "headers": headers, "body": body.decode("latin-1")})
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                status, told = await exchange.answered
            if status >= 400 and request.method == "POST":
                self.why = f"the server answered with HTTP status {status}"
            kind = next((value for name, value in told if name.lower() == "content-type"), "")
            if kind.lower().startswith("text/event-stream"):
                return httpx2.Response(status, headers=told, stream=_Stream(exchange))
            return httpx2.Response(status, headers=told, content=await _whole(exchange))
        except TimeoutError:
            exchange.stop()
            self.why = "the server did not answer"
            raise httpx2.ReadTimeout(self.why) from None
        except httpx2.ConnectError as error:
            self.why = str(error)
            raise
        except BaseException:
            exchange.stop()
            raise

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        wait = self._next_get - loop.time()
        self._next_get = max(loop.time(), self._next_get) + GET_SECONDS
        if wait > 0:
            await asyncio.sleep(wait)


_NOT_TOLD = frozenset(
    {"host", "connection", "accept-encoding", "user-agent", "content-length", "authorization"}
)


async def _whole(exchange: Exchange) -> bytes:
    """The body of an answer that is no stream, and no more of it than a message may have."""
    body = bytearray()
    async with contextlib.aclosing(exchange.chunks()) as chunks:  # type: ignore[type-var]
        async for piece in chunks:
            body += piece
            if len(body) > mcp_wire.CALL_BYTES_MAX:
                raise httpx2.ReadError(f"the answer is over {mcp_wire.CALL_BYTES_MAX} bytes")
    try:
        wire.decode(bytes(body), wire.VALUES)  # what holds too much is refused before it is built
    except wire.Refused:
        return b""
    return bytes(body)


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._exchange.chunks():
            yield piece

    async def aclose(self) -> None:
        self._exchange.stop()
