"""Real local upstreams for the tests of the llm room, and a door that serves Models to the vendors' own clients."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from agentk.llm import asking, models

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
KEY = "sk-canary-7f3a9c51d2"


@dataclass
class Seen:
    """One request as it came over the wire."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class Upstream:
    """Answers with the handlers in turn, the last one for ever."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    handlers: list[Handler] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)


@contextlib.asynccontextmanager
async def upstream(*handlers: Handler) -> AsyncIterator[Upstream]:
    made = Upstream(handlers=list(handlers))

    async def handle(request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        made.seen.append(Seen(request.method, request.path, headers, json.loads(raw) if raw else None))
        made.asked.set()
        handler = made.handlers.pop(0) if len(made.handlers) > 1 else made.handlers[0]
        try:
            return await handler(request)
        except (ConnectionResetError, asyncio.CancelledError):
            made.hung_up.set()
            raise

    async with serving(handle) as url:
        made.url = url
        yield made


@contextlib.asynccontextmanager
async def serving(handle: Handler) -> AsyncIterator[str]:
    app = web.Application(client_max_size=32 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def answers(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return handle


def streams(*pieces: bytes, cut: bool = False, before: asyncio.Event | None = None) -> Handler:
    """Sends the pieces one by one; `cut` breaks the connection after them; `before` is waited for after the first."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for n, piece in enumerate(pieces):
            if n == 1 and before:
                await before.wait()
            await response.write(piece)
            await asyncio.sleep(0)
        if cut:
            assert request.transport
            request.transport.abort()
        return response

    return handle


def chat(text: str = "hello", **usage: int) -> dict[str, Any]:
    told = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, **usage}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": told,
    }


def chunk(delta: Mapping[str, Any] | None, **told: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": None}]
    body = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return b"data: " + json.dumps({**body, **told}, separators=(",", ":")).encode() + b"\n\n"


def ask_chat(model: str = "gpt", *, stream: bool = False, **body: Any) -> asking.Ask:
    messages = [{"role": "user", "content": "hi there"}]
    return asking.Ask("openai.chat", {"model": model, "messages": messages, "max_tokens": 50, **body}, stream)


def item(model: str, base: str = "", name: str = "gpt", **params: Any) -> dict[str, Any]:
    written: dict[str, Any] = {"model": model, "apiKeySecretRef": {"name": "keys", "key": "k"}, **params}
    if base:
        written["apiBase"] = base
    return {"modelName": name, "litellmParams": written}


def route_of(*items: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"retries": 0, **spec}
    if items:
        told["modelList"] = list(items)
    return {"metadata": {"namespace": "default", "name": "r"}, "spec": told}


async def secret(namespace: str, name: str, key: str) -> str:
    assert (namespace, name, key) == ("default", "keys", "k")
    return KEY + "\n"


@contextlib.asynccontextmanager
async def models_of(obj: Mapping[str, Any], **settings: Any) -> AsyncIterator[models.Models]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    made = models.Models(secret, **{"sleep": sleep, "die": lambda: 0.0, **settings})
    made.slept = slept  # type: ignore[attr-defined]  # what a back-off would have waited
    assert made.set_route(obj) == []
    try:
        yield made
    finally:
        await made.close()


@contextlib.asynccontextmanager
async def rig(
    *handlers: Handler, model: str = "openai/gpt-4o", end: str = "/v1", **spec: Any
) -> AsyncIterator[tuple[Upstream, models.Models]]:
    """An upstream, and a route of one deployment that leads to it."""
    async with upstream(*handlers) as up, models_of(route_of(item(model, up.url + end), **spec)) as made:
        yield up, made


async def whole(made: models.Models, ask: asking.Ask) -> tuple[bytes, asking.Usage]:
    reply = await made.send("default", "r", ask)
    async with reply:
        body = b"".join([piece async for piece in reply.chunks()])
    return body, reply.usage


PATHS: dict[str, asking.Dialect] = {
    "/v1/chat/completions": "openai.chat",
    "/v1/responses": "openai.responses",
    "/v1/embeddings": "openai.embeddings",
    "/v1/messages": "anthropic.messages",
    "/v1/messages/count_tokens": "anthropic.count_tokens",
}


@contextlib.asynccontextmanager
async def door(made: models.Models) -> AsyncIterator[str]:
    """Serves a Models over HTTP, as the gate does, for clients that know nothing of it."""

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        try:
            reply = await made.send(
                "default", "r", asking.Ask(PATHS[request.path], body, body.get("stream") is True)
            )
        except asking.Refused as wrong:
            error = {
                "type": wrong.type or "server_error",
                "message": wrong.message,
                "code": wrong.provider_code,
            }
            return web.json_response({"type": "error", "error": error}, status=wrong.status)
        response = web.StreamResponse(status=reply.status, headers=dict(reply.headers))
        await response.prepare(request)
        async with reply:
            async for piece in reply.chunks():
                await response.write(piece)
        return response

    async with serving(handle) as url:
        yield url
