"""The daemon's way to MCP servers: sessions over pipes or over HTTP, all of them in one worker process.

It is started by the first session, started again by the next one after it died, and ends with the daemon. This side
never imports the SDK, never parses what a server says, and never asks a server twice for the same thing.
"""

import asyncio
import itertools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agentk.apart.child import Child, Role
from agentk.apart.frames import Message
from agentk.apart.kept import Kept
from agentk.api import errors
from agentk.tools import mcp_fetching, offers
from agentk.tools.mcp_fetching import Fetch

ROLE = Role("the MCP worker", "agentk.tools.mcp_main", hand=True)

OPEN_SECONDS = (
    60.0  # until a server has said what it offers: `npx` of a cold cache is slow, a jail's first Node too
)
_LATE_SECONDS = 15.0  # what the worker is given beyond a call's own time

Progress = Callable[[float, float | None, str], None]


class Unasked(errors.Unavailable):
    """The server had ended before it heard of the call: it may be started again and asked."""


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
        key: str = "",
    ) -> offers.Outcome:
        """`key`: what the server is told, so that the same call made again is known. Raises Timeout, UpstreamError (the
        server refuses, or answers nonsense), OutcomeUnknown (it ended meanwhile), Unasked (it had ended before: `ended`
        is done). Cancelled, it tells the server so."""
        if self.ended.done():
            raise Unasked(f"the tool's server is gone: {self.ended.result()}")
        asked = {
            "t": "call",
            "session": self.number,
            "name": name,
            "arguments": arguments,
            "seconds": seconds,
            "key": key,
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
        self._kept = Kept(ROLE, self._hear, self._died, python=python)
        self._sessions: dict[int, Session] = {}
        self._calls: dict[int, tuple[asyncio.Future[Message], Callable[[Message], None]]] = {}
        self._fetches: dict[int, mcp_fetching.Fetching] = {}
        self._numbers = itertools.count(1)  # of sessions and of calls

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._kept.now.pid if self._kept.now else None

    async def over_pipes(self, says: int, hears: int, seconds: float = OPEN_SECONDS) -> Session:
        """The server that writes to the pipe `says` and reads from `hears`. Both stay the caller's to close, at once.
        Raises Unavailable when it does not say what it offers."""
        child = await self._kept.ready()
        session = self._new(None)
        try:
            child.give(str(session.number), says, hears)
        except OSError as error:
            self.leave(session)
            raise errors.Unavailable(f"the MCP worker takes no server: {error}") from None
        return await self._open(child, session, {"seconds": seconds})

    async def over_http(self, fetch: Fetch, seconds: float = OPEN_SECONDS) -> Session:
        """The server that `fetch` reaches, over streamable HTTP. Raises Unavailable when it does not say what it
        offers."""
        child = await self._kept.ready()
        return await self._open(child, self._new(fetch), {"seconds": seconds, "url": True})

    async def close(self) -> None:
        """End the process and all that is under way. Safe to call twice; nothing is started afterwards."""
        await self._kept.close()

    async def ask(self, message: Message, progress: Callable[[Message], None]) -> Message:
        """For `Session`: what the worker says of one call; who is cancelled takes it back. Raises OutcomeUnknown when
        it dies."""
        child = self._kept.now
        if child is None:
            raise errors.Unavailable("the MCP worker ended")
        number = next(self._numbers)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._calls[number] = future, progress
        child.tell({**message, "id": number})
        try:
            return await future
        finally:
            if self._calls.pop(number, None) is not None:
                child.tell({"t": "cancel", "id": number})

    def leave(self, session: Session) -> None:
        """For `Session`."""
        if self._sessions.pop(session.number, None) is not None and (child := self._kept.now):
            child.tell({"t": "close", "id": session.number})
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

    def _hear(self, message: Message) -> None:
        kind, number = message["t"], int(message["id"])
        if kind in ("result", "wrong"):
            if (held := self._calls.pop(number, None)) and not held[0].done():
                held[0].set_result(message)
        elif kind == "progress":
            if held := self._calls.get(number):
                held[1](message)
        elif kind == "fetch":
            self._fetch(number, message)
        elif kind in ("more", "stop"):
            if known := self._fetches.get(number):
                known.credit(int(message["bytes"])) if kind == "more" else known.stop()
        elif session := self._sessions.get(number):
            self._kept.served()
            if kind == "closed":
                del self._sessions[number]
            session.hear(message)

    def _fetch(self, number: int, message: Message) -> None:
        child = self._kept.now
        session = self._sessions.get(int(message["session"]))
        if session and session.fetch and child:
            fetching = self._fetches[number] = mcp_fetching.Fetching(number, child)
            fetching.begin(session.fetch, message, lambda: self._fetches.pop(number, None))
        elif child:
            child.tell({"t": "over", "id": number, "why": "the session is closed"})

    def _died(self, how: str) -> None:
        calls, self._calls = self._calls, {}
        for future, _ in calls.values():
            if not future.done():
                future.set_exception(
                    errors.OutcomeUnknown(
                        f"{how} during this call: whether the tool did it is not known",
                        hint="a new worker is started by the next call",
                    )
                )
        for fetching in list(self._fetches.values()):
            fetching.stop()
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.end(how)


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
