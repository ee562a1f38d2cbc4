"""The daemon's way to MCP servers: sessions over pipes or over HTTP, all of them in one worker process.

It is started by the first session, started again by the next one after it died, and ends with the daemon. This side
never imports the SDK, never parses what a server says, and never asks a server twice for the same thing.
"""

import asyncio
import contextlib
import itertools
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from agentk.api import errors
from agentk.tools import mcp_wire, offers
from agentk.tools.mcp_child import Child, Message

OPEN_SECONDS = (
    60.0  # until a server has said what it offers: `npx` of a cold cache is slow, a jail's first Node too
)
BACKOFF_SECONDS = 0.5  # before a new process, doubled with each death in a row after the first …
BACKOFF_SECONDS_MAX = 30.0
_LATE_SECONDS = 15.0  # what the worker is given beyond a call's own time

Progress = Callable[[float, float | None, str], None]


class Unasked(errors.Unavailable):
    """The server had ended before it heard of the call: it may be started again and asked."""


class Answer(Protocol):
    """The answer of a server behind HTTP."""

    status: int
    headers: Sequence[tuple[str, str]]

    def chunks(self) -> AsyncIterator[bytes]: ...


# (method, headers, body): one exchange with the server of this session, whose address and secrets the caller knows.
Fetch = Callable[[str, Sequence[tuple[str, str]], bytes], AbstractAsyncContextManager[Answer]]


@dataclass(frozen=True)
class Listing:
    """What a server offers, and why it is not offered what it also named."""

    tools: tuple[offers.Offered, ...] = ()
    refused: tuple[str, ...] = ()
    server: str = ""
    version: str = ""  # of the protocol


class Session:
    """A server that is spoken with. `ended` is done, with why, once it can no longer be."""

    def __init__(self, number: int, worker: "Worker", fetch: Fetch | None) -> None:
        loop = asyncio.get_running_loop()
        self.listing = Listing()
        self.ended: asyncio.Future[str] = loop.create_future()
        self.changed: Callable[[Listing], None] = lambda listing: None
        self.number = number
        self._worker, self.fetch = worker, fetch
        self._opened: asyncio.Future[None] = loop.create_future()

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        seconds: float,
        progress: Progress | None = None,
    ) -> offers.Outcome:
        """Raises Timeout, UpstreamError (the server refuses, or answers nonsense), OutcomeUnknown (it ended meanwhile),
        Unasked (it had ended before: `ended` is done). Cancelled, it tells the server so."""
        if self.ended.done():
            raise Unasked(f"the tool's server is gone: {self.ended.result()}")
        asked = {
            "t": "call",
            "session": self.number,
            "name": name,
            "arguments": arguments,
            "seconds": seconds,
        }

        def told(message: Message) -> None:
            if progress is not None:
                progress(message["done"] or 0.0, message["total"], str(message["text"]))

        try:
            async with asyncio.timeout(seconds + _LATE_SECONDS):
                answer = await self._worker.ask({**asked, "progress": progress is not None}, told)
        except TimeoutError:
            raise errors.Timeout(f"{name} did not answer within {seconds:g} s") from None
        try:
            return _outcome(name, answer)
        except Unasked:
            self.end("it had ended")  # why is on its way; what is asked next must not come here
            raise

    def leave(self) -> None:
        """Safe to call twice."""
        self._worker.leave(self)

    async def opened(self) -> None:
        await asyncio.wait((self._opened,))
        self._opened.result()

    def hear(self, message: Message) -> None:
        if message["t"] == "closed":
            self.end(str(message["why"]), started=message["kind"] != "start")
            return
        self.listing = Listing(
            tuple(_offered(one) for one in message["offers"]),
            tuple(str(one) for one in message["refused"]),
            str(message.get("server", self.listing.server)),
            str(message.get("version", self.listing.version)),
        )
        if message["t"] == "changed":
            self.changed(self.listing)
        elif not self._opened.done():
            self._opened.set_result(None)

    def end(self, why: str, started: bool = True) -> None:
        if not self._opened.done():
            hint = "see its log: agentk logs" if self.fetch is None else ""
            self._opened.set_exception(
                errors.Unavailable(f"the tool's server did not start: {why}", hint=hint)
            )
            self._opened.exception()
        if not self.ended.done():
            self.ended.set_result(why)


class Worker:
    def __init__(self, python: str = sys.executable) -> None:
        self._python = python
        self._child: Child | None = None
        self._starting: asyncio.Task[Child] | None = None
        self._sessions: dict[int, Session] = {}
        self._fetches: dict[int, _Fetching] = {}
        self._numbers = itertools.count(1)
        self._deaths, self._not_before = 0, 0.0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._child.pid if self._child and not self._child.gone else None

    async def over_pipes(self, says: int, hears: int, seconds: float = OPEN_SECONDS) -> Session:
        """The server that writes to the pipe `says` and reads from `hears`. Both stay the caller's to close, at once.
        Raises Unavailable when it does not say what it offers."""
        child = await self._ready()
        session = self._new(None)
        try:
            child.give(session.number, says, hears)
        except OSError as error:
            self.leave(session)
            raise errors.Unavailable(f"the MCP worker takes no server: {error}") from None
        return await self._open(child, session, {"seconds": seconds})

    async def over_http(self, fetch: Fetch, seconds: float = OPEN_SECONDS) -> Session:
        """The server that `fetch` reaches, over streamable HTTP. Raises Unavailable when it does not say what it
        offers."""
        child = await self._ready()
        return await self._open(child, self._new(fetch), {"seconds": seconds, "url": True})

    async def close(self) -> None:
        """End the process and all that is under way. Safe to call twice; nothing is started afterwards."""
        self._closed = True
        if self._starting:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._child:
            await self._child.end()

    async def ask(self, message: Message, progress: Callable[[Message], None]) -> Message:
        """For `Session`: one call."""
        child = self._child
        if child is None or child.gone:
            raise errors.Unavailable("the MCP worker ended")
        return await child.call(message, progress)

    def leave(self, session: Session) -> None:
        """For `Session`."""
        if self._sessions.pop(session.number, None) is not None and self._child:
            self._child.tell({"t": "close", "id": session.number})
        session.end("closed")

    def _new(self, fetch: Fetch | None) -> Session:
        session = Session(next(self._numbers), self, fetch)
        self._sessions[session.number] = session
        return session

    async def _open(self, child: Child, session: Session, how: Message) -> Session:
        child.tell({"t": "open", "id": session.number, **how})
        try:
            await session.opened()
        except BaseException:
            self.leave(session)
            raise
        return session

    # hearing

    def _hear(self, message: Message) -> None:
        kind, number = message["t"], int(message["id"])
        if kind == "fetch":
            session = self._sessions.get(int(message["session"]))
            if session and session.fetch and self._child:
                fetching = self._fetches[number] = _Fetching(number, self._child)
                fetching.begin(session.fetch, message, lambda: self._fetches.pop(number, None))
            elif self._child:
                self._child.tell({"t": "over", "id": number, "why": "the session is closed"})
        elif kind in ("more", "stop"):
            if known := self._fetches.get(number):
                known.credit(int(message["bytes"])) if kind == "more" else known.stop()
        elif session := self._sessions.get(number):
            self._deaths = 0
            if kind == "closed":
                del self._sessions[number]
            session.hear(message)

    def _died(self, how: str) -> None:
        self._deaths += 1
        if self._deaths > 1:
            wait = min(BACKOFF_SECONDS * 2 ** min(self._deaths - 2, 10), BACKOFF_SECONDS_MAX)
            self._not_before = asyncio.get_running_loop().time() + wait
        for fetching in list(self._fetches.values()):
            fetching.stop()
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.end(how)

    # the process

    async def _ready(self) -> Child:
        if self._closed:
            raise errors.Unavailable("the MCP worker is shut down")
        if self._child and not self._child.gone:
            return self._child
        if self._starting is None:
            self._starting = asyncio.create_task(self._begin(), name="mcp-worker-start")
            self._starting.add_done_callback(self._started)
        # Waited for, not awaited: a caller that hangs up does not take the start from the others.
        await asyncio.wait((starting := self._starting,))
        if starting.cancelled():
            raise errors.Unavailable("the MCP worker is shut down")
        return starting.result()

    def _started(self, task: "asyncio.Task[Child]") -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # every caller that still waits is told; with none left it is no error

    async def _begin(self) -> Child:
        wait = self._not_before - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.sleep(wait)
        self._child = await Child.spawn(self._python, self._hear, self._died)
        return self._child


class _Fetching:
    """One exchange that the worker asked for, no faster than it takes the answer."""

    def __init__(self, number: int, child: Child) -> None:
        self._number, self._child = number, child
        self._left = mcp_wire.WINDOW_BYTES
        self._more = asyncio.Event()
        self._task: asyncio.Task[None]

    def begin(self, fetch: Fetch, asked: Message, over: Callable[[], Any]) -> None:
        self._task = asyncio.create_task(self._run(fetch, asked), name=f"mcp-fetch-{self._number}")
        self._task.add_done_callback(lambda _: over())

    def credit(self, size: int) -> None:
        self._left += size
        self._more.set()

    def stop(self) -> None:
        self._task.cancel()

    async def _run(self, fetch: Fetch, asked: Message) -> None:
        why: str | None = None
        try:
            headers = [(str(name), str(value)) for name, value in asked["headers"]]
            async with fetch(str(asked["method"]), headers, asked["body"].encode("latin-1")) as answer:
                self._say("answer", status=answer.status, headers=list(answer.headers))
                async with contextlib.aclosing(answer.chunks()) as chunks:  # type: ignore[type-var]
                    async for piece in chunks:
                        await self._send(piece)
        except errors.AgentkError as error:
            why = str(error)
        except (KeyError, ValueError, TypeError, AttributeError):
            why = "this is no request"
        except asyncio.CancelledError:
            why = "taken back"
            raise
        finally:
            self._say("over", why=why)

    async def _send(self, piece: bytes) -> None:
        for start in range(0, len(piece), mcp_wire.WINDOW_BYTES):
            part = piece[start : start + mcp_wire.WINDOW_BYTES]
            while self._left <= 0:
                self._more.clear()
                await self._more.wait()
            self._left -= len(part)
            self._say("body", text=part.decode("latin-1"))
            await self._child.flush()

    def _say(self, kind: str, **more: Any) -> None:
        self._child.tell({"t": kind, "id": self._number, **more})


def _offered(told: Mapping[str, Any]) -> offers.Offered:
    return offers.Offered(
        str(told["name"]),
        str(told["description"]),
        told["inputSchema"],
        told["outputSchema"],
        told["annotations"],
        str(told["digest"]),
    )


def _outcome(name: str, answer: Message) -> offers.Outcome:
    if answer["t"] == "result":
        return offers.Outcome(tuple(answer["content"]), answer["structured"], bool(answer["error"]))
    kind, why = answer["kind"], str(answer["why"])
    if kind == "timeout":
        raise errors.Timeout(f"{name}: {why}", hint="whether the tool did it all the same is not known")
    if kind == "gone":
        raise errors.OutcomeUnknown(f"{why} during {name}: whether it did it is not known")
    if kind == "unasked":
        raise Unasked(f"{name} was not asked: {why}")
    raise errors.UpstreamError(f"{name}: {why}")
