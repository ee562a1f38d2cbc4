"""The control API: Kubernetes' paths and semantics, and a few paths of our own below /agentk/v1.

A request's way: who calls → what the path means → the one handler for it → store. Every error is a `Status`.
"""

import logging
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agentk.api import errors
from agentk.daemon import (
    agents,
    answers,
    approvals,
    attaching,
    audits,
    budgeting,
    calls,
    copying,
    deleting,
    executing,
    following,
    forwarding,
    inotify,
    memorycalls,
    own,
    paths,
    permits,
    reading,
    sockets,
    told,
    toolcalls,
    tracing,
    windows,
    writing,
)
from agentk.daemon.services import Services
from agentk.daemon.turns import Turns
from agentk.store.store import Store

Handler = Callable[[calls.Call], Awaitable[Response]]

_COLLECTION: dict[str, Handler] = {
    "GET": reading.listing,
    "POST": writing.create,
    "DELETE": deleting.collection,
}
_OBJECT: dict[str, Handler] = {
    "GET": reading.get,
    "PUT": writing.replace,
    "PATCH": writing.patch,
    "DELETE": deleting.delete,
}
_PARTS: dict[str, dict[str, Handler]] = {
    "status": {"GET": reading.get, "PUT": writing.replace, "PATCH": writing.patch},
    "signal": {"POST": agents.signal},
    "restart": {"POST": agents.restart},
    "restore": {"POST": agents.restore},
    "object": {"GET": agents.kept},
    "counters": {"GET": agents.counters},
    "audit": {"GET": audits.audit},
    "trace": {"GET": tracing.trace},
    "windows": {"GET": windows.windows},
    "budget": {"GET": budgeting.show, "POST": budgeting.add},
    "can-i": {"POST": permits.can_i},
    "approve": {"POST": approvals.approve},
    "deny": {"POST": approvals.deny},
    "answer": {"POST": approvals.answer},
    "offers": {"GET": toolcalls.offers},
    "call": {"POST": toolcalls.invoke},
    "pages": {"GET": memorycalls.read, "POST": memorycalls.add, "DELETE": memorycalls.forget},
    "exec": {"GET": executing.exec_},
    "portforward": {"GET": forwarding.portforward},
    "files": {"HEAD": copying.look, "GET": copying.read, "PUT": copying.write},
}

_log = logging.getLogger(__name__)


def app(store: Store, services: Services) -> ASGIApp:
    """The API over an open store. Serve it with `serving.serve(app, sock, services.ending)`."""
    wakeups = inotify.Wakeups()
    turns = Turns()

    async def log(call: calls.Call) -> Response:
        return await following.log(call, wakeups)

    async def attach(call: calls.Call) -> Response:
        return await attaching.attach(call, wakeups)

    parts = _PARTS | {"log": {"GET": log}, "attach": {"GET": attach}}

    async def resource(request: Request) -> Response:
        target = paths.find(request.scope["path"])
        handlers = parts[target.part] if target.part else _OBJECT if target.name else _COLLECTION
        handler = handlers.get(request.method)
        if handler is None:
            raise _not_allowed(request, handlers)
        return await handler(calls.Call(request, target, store, services, turns))

    routes = [
        *told.routes(store, services),
        Mount("/agentk/v1", routes=[*own.routes(store, services), *services.routes]),
        Route("/{path:path}", resource, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
    ]
    served = Starlette(
        routes=routes,
        exception_handlers={
            errors.AgentkError: _agentk_error,
            HTTPException: _http_error,
            ClientDisconnect: _disconnected,
            RecursionError: _too_deep,
            Exception: _bug,
        },
    )
    served.router.redirect_slashes = False
    return _Guard(served, services.allowed_uids)


class _Guard:
    """Refuses callers by the uid that the kernel told of their connection; no uid is no caller of ours."""

    def __init__(self, inner: ASGIApp, allowed_uids: frozenset[int]) -> None:
        self._inner = inner
        self._allowed = allowed_uids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        peer = scope.get("state", {}).get("peer")
        if isinstance(peer, sockets.Peer) and peer.uid in self._allowed:
            await self._inner(scope, receive, send)
            return
        who = f"uid {peer.uid}" if isinstance(peer, sockets.Peer) else "a caller without a uid"
        error = errors.Forbidden(f"{who} may not use this daemon", hint="only the user who started it may")
        response = answers.failure(error)
        response.headers["connection"] = "close"
        await response(scope, receive, send)


def _not_allowed(request: Request, handlers: dict[str, Handler]) -> errors.MethodNotAllowed:
    request.state.allow = ", ".join(handlers)
    return errors.MethodNotAllowed(
        f"{request.method} is not supported on {str(request.scope['path'])[:200]}",
        hint=f"use {', '.join(handlers)}",
    )


async def _agentk_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.AgentkError)
    response = answers.failure(error)
    if allow := getattr(request.state, "allow", ""):
        response.headers["Allow"] = allow
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    """What the router itself refuses."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        request.state.allow = (error.headers or {}).get("Allow", "")
        made: errors.AgentkError = errors.MethodNotAllowed(
            f"{request.method} is not supported here", hint=f"use {request.state.allow}"
        )
    elif error.status_code == 404:
        made = errors.NotFound("nothing is here", hint="see /api and /apis for what is served")
    else:
        made = errors.BadRequest(str(error.detail)[:200])
    return await _agentk_error(request, made)


async def _disconnected(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _too_deep(request: Request, error: Exception) -> Response:
    return answers.failure(errors.BadRequest("the request is nested too deeply"))


async def _bug(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
    return answers.failure(
        errors.AgentkError(
            f"internal error: {type(error).__name__}", hint="see the daemon's log, and report it"
        )
    )
