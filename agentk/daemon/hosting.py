"""Host programs as guests: Agents that live as long as somebody holds them, and the way to their gate from outside.

A held Agent is made by the person's own command like any other, with an annotation. Whoever holds it does so with a
connection; when that ends, and nobody holds it again within moments (the daemon may have been started anew), the
Agent is deleted with all it spawned. Nothing here widens what it may: its gate is the same, under its own Policy.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from agentk.api import errors, kinds
from agentk.broker.dialects import agentos
from agentk.broker.dialects.agentos_session import Kernel
from agentk.broker.dialects.frames_serving import FramesService
from agentk.broker.guests import HELD, Guests
from agentk.broker.words import Guest
from agentk.control import isolation
from agentk.store import store as stores

HOLD_SECONDS = 15.0  # between two holders
_UNJAILED = "process"
_LINE_BYTES = 2 * 1024 * 1024
_SOURCE_SECONDS = 30.0  # for the host program's files to be read

_log = logging.getLogger(__name__)

Object = Mapping[str, Any]


class Hosting:
    """All held Agents of this daemon. `hear` is told of every Agent."""

    def __init__(self, store: stores.Store, guests: Guests, hold_seconds: float = HOLD_SECONDS) -> None:
        self._store, self._guests, self._hold_seconds = store, guests, hold_seconds
        self._leases: dict[str, Lease] = {}  # by uid
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        if kind is not kinds.AGENT or HELD not in (obj["metadata"].get("annotations") or {}):
            return
        uid = str(obj["metadata"]["uid"])
        if gone:
            if timer := self._timers.pop(uid, None):
                timer.cancel()
            if lease := self._leases.get(uid):
                lease.end()
        elif uid not in self._leases and uid not in self._timers:
            self._wait(uid)

    def hold(self, namespace: str, name: str, kernel: Kernel) -> "Lease":
        """Raises NotFound, Forbidden for an Agent that is not made to be held, Conflict when somebody holds it."""
        agent = self._guests.named(namespace, name)
        if agent is None:
            raise errors.NotFound(f'agents.agentk.dev "{name[:253]}" not found', kind="agents", name=name)
        if HELD not in (agent["metadata"].get("annotations") or {}):
            raise errors.Forbidden(f'agent "{name}" is not made to be held')
        uid = str(agent["metadata"]["uid"])
        if uid in self._leases:
            raise errors.Conflict(f'somebody holds agent "{name}"')
        if timer := self._timers.pop(uid, None):
            timer.cancel()
        lease = self._leases[uid] = Lease(self, uid, kernel)
        return lease

    def lease(self, namespace: str, name: str) -> "Lease":
        agent = self._guests.named(namespace, name)
        lease = self._leases.get(str(agent["metadata"]["uid"])) if agent is not None else None
        if lease is None:
            raise errors.Conflict(f'nobody holds agent "{name[:253]}"')
        return lease

    def guest(self, uid: str) -> Guest:
        """Who a held Agent is now. Raises Forbidden while it has no box, or when it is being deleted."""
        agent = self._guests.of(uid)
        box_id = ((agent or {}).get("status") or {}).get("boxID")
        if agent is None or not box_id:
            raise errors.Forbidden("the agent of this session has no box")
        return self._guests.find(box_id)

    async def unjailed(self, guest: Guest) -> str:
        """The Runtime of type process that its Policy allows it. Raises Denied, with the Policy's words."""
        runtimes = (await self._store.list(kinds.RUNTIME)).items
        found = [one for one in runtimes if (one.get("spec") or {}).get("type") == _UNJAILED]
        if not found:
            raise errors.Denied(
                "sandboxed: false needs a Runtime of type process, and there is none",
                hint="apply one, or spawn it with sandboxed: true",
            )
        policy = await self._store.find(kinds.POLICY, None, guest.policy_name)
        whys = []
        for runtime in found:
            name = str(runtime["metadata"]["name"])
            why = next((one.message for one in isolation.problems({}, runtime, policy)), "")
            if not why and runtime["spec"].get("enforcement", "Strict") == "Strict":
                why = (
                    f'Runtime "{name}" is Strict, and without a jail no disk is limited: it needs BestEffort'
                )
            if not why:
                return name
            whys.append(why)
        raise errors.Denied(
            f"sandboxed: false: {'; '.join(whys)}",
            hint="agentk compat agentos --policy NAME, one of level privileged or whose isolation.allowRuntimes has it",
        )

    async def close(self) -> None:
        """Hangs up on every holder; their Agents stay for whoever comes next. Safe to call again."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        for lease in list(self._leases.values()):
            lease.end()
            await lease.service.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def released(self, uid: str) -> None:
        """Nobody holds it."""
        lease = self._leases.pop(uid, None)
        if self._closed:
            return
        if lease is not None:
            self._start(lease.service.close(), "end a host session")
        if self._guests.of(uid) is not None:
            self._wait(uid)

    def _wait(self, uid: str) -> None:
        if uid in self._timers:
            return
        loop = asyncio.get_running_loop()
        self._timers[uid] = loop.call_later(self._hold_seconds, self._expired, uid)

    def _expired(self, uid: str) -> None:
        del self._timers[uid]
        self._start(self._delete(uid), "delete what nobody holds")

    async def _delete(self, uid: str) -> None:
        agent = self._guests.of(uid)
        if agent is None:
            return
        metadata = agent["metadata"]
        with contextlib.suppress(errors.NotFound, errors.Conflict):
            await self._store.delete(kinds.AGENT, metadata["namespace"], metadata["name"], uid=uid)
            _log.info("deleted %s/%s: nobody holds it", metadata["namespace"], metadata["name"])

    def _start(self, running: Any, name: str) -> None:
        task = asyncio.get_running_loop().create_task(running, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Lease(asyncio.Protocol):
    """The connection that holds one Agent, and asks its holder for files of the host: a JSON object a line.

    {"source": 1, "script": "/home/me/worker.py", "jailed": true}
        →  {"source": 1, "spec": {…}, "path": "/app/…"} or {"source": 1, "error": "…"}
    """

    def __init__(self, hosting: Hosting, uid: str, kernel: Kernel) -> None:
        self._hosting, self._uid = hosting, uid
        self._held = bytearray()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._connections: set[asyncio.Transport] = set()
        self._transport: asyncio.Transport | None = None
        self.service: FramesService = agentos.service(kernel, partial(hosting.guest, uid), host=self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\n")) >= 0:
            line = bytes(self._held[:end])
            del self._held[: end + 1]
            self._answered(line)
        if len(self._held) > _LINE_BYTES:
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(errors.Cancelled("the host program's session has ended"))
        for transport in list(self._connections):
            transport.close()
        self._hosting.released(self._uid)

    def connection(self) -> "_Bridged":
        return _Bridged(self.service.connection(by_unix=True), self._connections)

    def end(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def unjailed(self, guest: Guest) -> str:
        return await self._hosting.unjailed(guest)

    async def source(self, script: str, jailed: bool = True) -> tuple[dict[str, Any], str]:
        self._number += 1
        number = self._number
        waiting = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            if self._transport is None or self._transport.is_closing():
                raise errors.Cancelled("the host program's session has ended")
            asked = {"source": number, "script": script, "jailed": jailed}
            self._transport.write(json.dumps(asked).encode() + b"\n")
            async with asyncio.timeout(_SOURCE_SECONDS):
                told = await waiting
        except TimeoutError:
            raise errors.Timeout("the host program's files were not read in time") from None
        finally:
            del self._asked[number]
        if "error" in told:
            raise errors.BadRequest(str(told["error"])[:1000])
        return dict(told["spec"]), str(told["path"])

    def _answered(self, line: bytes) -> None:
        """What cannot be read ends the session: it comes from our own command."""
        try:
            told = json.loads(line)
            waiting = self._asked.get(told["source"])
            if waiting is not None and not waiting.done():
                if "error" not in told and not (
                    isinstance(told["spec"], dict) and isinstance(told["path"], str)
                ):
                    raise TypeError
                waiting.set_result(told)
        except (ValueError, KeyError, TypeError, RecursionError):
            self.end()


class _Bridged(asyncio.Protocol):
    """One connection of a host program: what speaks frames, and its transport known to the lease."""

    def __init__(self, inner: asyncio.Protocol, connections: set[asyncio.Transport]) -> None:
        self._inner, self._connections = inner, connections
        self.data_received = inner.data_received  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(transport)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self._transport)
        self._inner.connection_lost(exc)


class Upgrade(Response):
    """Hands the connection over instead of answering."""

    def __init__(self, make: Callable[[], asyncio.Protocol]) -> None:
        super().__init__()
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["upgrade"](self._make())


def routes(hosting: Hosting, kernel: Kernel) -> list[BaseRoute]:
    """Below /agentk/v1."""

    async def hold(request: Request) -> Response:
        namespace, name = _named(request, "agentk-lease")
        lease = hosting.hold(namespace, name, kernel)
        return Upgrade(lambda: lease)

    async def frames(request: Request) -> Response:
        lease = hosting.lease(*_named(request, "agentos-frames"))
        return Upgrade(lease.connection)

    return [
        Route("/held/{namespace}/{name}/lease", hold, methods=["GET"]),
        Route("/held/{namespace}/{name}/frames", frames, methods=["GET"]),
    ]


def _named(request: Request, protocol: str) -> tuple[str, str]:
    if request.headers.get("upgrade") != protocol:
        raise errors.BadRequest(f"this path is for connections that become {protocol}")
    return request.path_params["namespace"], request.path_params["name"]
