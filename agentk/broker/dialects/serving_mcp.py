"""/mcp at a guest's door: an MCP client's requests become calls of the gate, and its answers messages.

It decides nothing and knows no tool and no Skill: what is listed and what is done, the gate says. A client that hangs
up, or takes a call back, ends its own call. One that listens is told that its tools are others by now, and asks itself
which.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from agentk.api import errors
from agentk.broker.dialects import asked as asking
from agentk.broker.dialects import mcp, mcp_resources
from agentk.broker.dialects.http import Handler, Respond
from agentk.broker.dialects.http_reading import Request
from agentk.broker.words import Call, Guest
from agentk.sdk import wire

LIST = "mcp.list"  # tool.list in this dialect's words: whole descriptions, a page at a time

_JSON = {"content-type": "application/json"}
_EVENTS = {"content-type": "text/event-stream", "cache-control": "no-cache"}
_PROGRESS_MAX = 10_000  # words of one call
_LISTENING_MAX = 16  # streams of one guest
_CHANGES_SECONDS = 1.0  # between two words of one stream

_log = logging.getLogger(__name__)

Emit = Callable[[Any], Awaitable[None]]
Under = dict[tuple[str, mcp.Id], "asyncio.Task[Any]"]


class Gate(Protocol):
    async def call(self, call: Call, emit: Emit) -> Any: ...


@dataclass(frozen=True)
class Changes:
    """Of the tools of one guest."""

    listening: Callable[[], AbstractContextManager[asyncio.Event]]  # set whenever they may be others by now
    state: Callable[[], Any]  # the same as long as they are


def handler(
    gate: Gate, guest: Callable[[], Guest], version: str, other: Handler, changes: Changes
) -> Handler:
    """Answers the requests of one guest at /mcp; all else is the `other`'s."""
    serving = _Serving(gate, guest, version, changes)

    async def answer(request: Request, respond: Respond) -> None:
        await (serving.answer if mcp.takes(request) else other)(request, respond)

    return answer


class _Serving:
    def __init__(self, gate: Gate, guest: Callable[[], Guest], version: str, changes: Changes) -> None:
        self._gate, self._guest, self._version = gate, guest, version
        self._changes, self._listening = changes, 0
        self._calls: Under = {}  # that a client may take back

    async def answer(self, request: Request, respond: Respond) -> None:
        if request.method == "DELETE":  # of a session, of which there is nothing to forget
            respond.whole(204, {}, b"")
        elif request.method == "GET" and mcp.listens(request):
            await self._listen(None, respond)
        elif request.method != "POST":
            told = mcp.failure(None, mcp.INVALID_REQUEST, "POST each message to this address")
            respond.whole(405, {**_JSON, "allow": "GET, POST, DELETE"}, told)
        else:
            try:
                await self._message(request, mcp.read(request), respond)
            except mcp.Refused as refused:
                respond.whole(refused.status, _JSON, refused.body)

    async def _message(self, request: Request, told: mcp.Asked, respond: Respond) -> None:
        if told.kind in ("heard", "cancel"):
            self._take_back(told)
            respond.whole(202, {}, b"")
        elif told.kind == "call":
            await self._call(request, told, respond)
        elif told.kind == "listen":
            await self._listen(told, respond)
        else:
            await self._plain(request, told, respond)

    def _take_back(self, told: mcp.Asked) -> None:
        if told.session and told.taken_back is not None:
            task = self._calls.get((told.session, told.taken_back))
            if task is not None:
                task.cancel()

    async def _plain(self, request: Request, told: mcp.Asked, respond: Respond) -> None:
        headers = dict(_JSON)
        if told.kind == "initialize":
            result = mcp.initialized(told, self._version)
            headers["mcp-session-id"] = mcp.new_session()
        elif told.kind == "discover":
            result = mcp.discovered(self._version)
        elif told.kind == "ping":
            result = {}
        else:
            try:
                result = await self._shown(request, told)
            except errors.AgentkError as error:
                respond.whole(200, headers, _failure(told.id, error))
                return
        respond.whole(200, headers, mcp.success(told.id, result))

    async def _shown(self, request: Request, told: mcp.Asked) -> dict[str, Any]:
        """What there is of tools and of resources, or one of these."""
        page = {"continue": told.cursor} if told.cursor else {}
        if told.kind == "list":
            found = await self._gate.call(self._asked(request, "tool.list", page, LIST), _unheard)
            return mcp.listed(told, found["items"], str(found.get("continue", "")))
        if told.kind == "resources":
            found = await self._gate.call(self._asked(request, "skill.search", page), _unheard)
            return mcp.complete(told, mcp_resources.listed(found))
        if told.kind == "templates":
            return mcp.complete(told, {"resourceTemplates": []})
        found = await self._gate.call(self._asked(request, "skill.get", told.arguments), _unheard)
        return mcp.complete(told, mcp_resources.read(told.name, found))

    async def _listen(self, told: mcp.Asked | None, respond: Respond) -> None:
        """Until the client hangs up."""
        id = told.id if told else None
        if self._listening >= _LISTENING_MAX:
            why = f"there are {_LISTENING_MAX} streams of this agent that listen, and may be no more"
            respond.whole(429, _JSON, mcp.failure(id, mcp.INVALID_REQUEST, why))
            return
        if told is not None and not told.events:
            respond.whole(406, _JSON, mcp.failure(id, mcp.INVALID_REQUEST, "Accept must name events"))
            return
        self._listening += 1
        try:
            with self._changes.listening() as bell:
                state = self._changes.state()
                respond.start(200, _EVENTS)
                if told is not None:
                    await respond.write(mcp.event(mcp.acknowledged(told)))
                while True:
                    await bell.wait()
                    bell.clear()
                    before, state = state, self._changes.state()
                    if state != before and (told is None or told.wants_changes):
                        await respond.write(mcp.event(mcp.changed(told)))
                        await asyncio.sleep(_CHANGES_SECONDS)  # however often they change
        finally:
            self._listening -= 1

    async def _call(self, request: Request, told: mcp.Asked, respond: Respond) -> None:
        stream = _Stream(told, respond)
        params: dict[str, Any] = {"name": told.name, "arguments": dict(told.arguments)}
        if stream.wanted:
            params["stream"] = True
        call = self._asked(request, "tool.call", params, key=asking.idempotency_key(request.headers))
        under = asyncio.ensure_future(self._gate.call(call, stream.emit))
        known = (told.session, told.id) if told.session and told.id is not None else None
        if known:
            self._calls[known] = under
        try:
            await stream.end(mcp.success(told.id, mcp.called(told, await under)))
        except asyncio.CancelledError:
            if (mine := asyncio.current_task()) and mine.cancelling():
                under.cancel()
                await asyncio.gather(under, return_exceptions=True)
                raise
            await stream.end(_failure(told.id, errors.Cancelled("the call was taken back")))
        except errors.NotFound as error:
            await stream.end(mcp.failure(told.id, mcp.INVALID_PARAMS, str(error), error.to_status()))
        except errors.AgentkError as error:
            await stream.end(mcp.success(told.id, mcp.failed(told, error)))
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - a mistake of ours ends this call, in words its client can read
            _log.exception("answering tools/call")
            ours = errors.AgentkError(f"internal error: {type(error).__name__}")
            await stream.end(mcp.failure(told.id, -32603, str(ours)))
        finally:
            if known and self._calls.get(known) is under:
                del self._calls[known]

    def _asked(
        self, request: Request, method: str, params: Mapping[str, Any], form: str = "", key: str = ""
    ) -> Call:
        trace = asking.trace(request.headers)
        return Call(self._guest(), method, params, mcp.NAME, form, key, trace=trace)


class _Stream:
    """The answer to one call: events once there is progress, else one message."""

    def __init__(self, told: mcp.Asked, respond: Respond) -> None:
        self.wanted = told.events and told.progress is not None
        self._token, self._respond, self._said = told.progress, respond, 0

    async def emit(self, item: Any) -> None:
        if not self.wanted or self._token is None or self._said >= _PROGRESS_MAX:
            return
        if not self._respond.started:
            self._respond.start(200, _EVENTS)
        self._said += 1
        await self._respond.write(mcp.event(mcp.progressed(self._token, self._said, item)))

    async def end(self, message: bytes) -> None:
        if not self._respond.started:
            self._respond.whole(200, _JSON, message)
            return
        await self._respond.write(mcp.event(message))
        self._respond.end()


def _failure(id: mcp.Id | None, error: errors.AgentkError) -> bytes:
    return mcp.failure(id, wire.CODES.get(error.code, -32603), str(error), error.to_status())


async def _unheard(item: Any) -> None:
    """A listing has no stream."""
