"""A provider on loopback: it keeps every request as it came off the wire and answers what a test says, also half of it.

It checks nothing by itself. What a request must look like stands in each provider's test, from that provider's own
documentation.
"""

import asyncio
import dataclasses
import json
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

from aiohttp import web

from agentk.llm import asking, sse
from agentk.llm.worker import Worker

T = TypeVar("T")
WAIT_SECONDS = 100.0  # for what must happen; a test that waits so long has failed
KEY = "canary-7f3a9c51e2d84b60"


@dataclasses.dataclass(frozen=True)
class Seen:
    """A request on the wire."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a caller got."""

    raw: bytes
    usage: asking.Usage
    error: asking.Refused | None = None

    @property
    def document(self) -> Any:
        return json.loads(self.raw)

    @property
    def events(self) -> list[sse.Event]:
        return sse.Parser().feed(self.raw)

    @property
    def chunks(self) -> list[Any]:
        """Of a stream: the documents, `[DONE]` left out."""
        return [json.loads(event.data) for event in self.events if event.data != b"[DONE]"]


class Upstream:
    """Answers one request after another with what was `will`ed, and then always with the last one."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.closed = (
            asyncio.Event()
        )  # a request's connection was closed by its client before its answer ended
        self.arrived = asyncio.Event()
        self._answers: list[Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]] = []
        self.written = 0  # bytes of streams that the connection took
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def will(
        self,
        answer: Any,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answer with a document."""

        async def whole(request: web.Request) -> web.StreamResponse:
            return web.json_response(answer, status=status, headers=headers)

        self._answers.append(whole)

    def will_stream(
        self,
        pieces: Iterable[bytes],
        *,
        cut: bytes | None = None,
        hang: bool = False,
        content_type: str = "text/event-stream",
    ) -> None:
        """Answer with a stream. `cut`: then half a chunk of HTTP and no more; `hang`: then nothing, for ever."""

        async def stream(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": content_type})
            await response.prepare(request)
            for piece in pieces:
                await response.write(piece)
                self.written += len(piece)
            if cut is not None and request.transport is not None:
                request.transport.write(b"%x\r\n" % (len(cut) + 400) + cut)
                request.transport.close()
            elif hang:
                await self._hang()
            else:
                await response.write_eof()
            return response

        self._answers.append(stream)

    def will_hang(self) -> None:
        """Never answer."""

        async def hang(request: web.Request) -> web.StreamResponse:
            await self._hang()
            raise AssertionError("it hangs until it is cancelled")

        self._answers.append(hang)

    async def serve(self) -> web.AppRunner:
        # With handler_cancellation a client that hangs up cancels its handler: that is how it is seen here.
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._port = runner.addresses[0][1]
        return runner

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = json.loads(text) if text else None
        self.seen.append(Seen(request.method, request.path, dict(request.query), headers, body))
        self.arrived.set()
        return await self._answers[min(len(self.seen), len(self._answers)) - 1](request)

    async def _hang(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.closed.set()
            raise


class Desk:
    """An event loop of its own with one worker in it, for tests that are no coroutines."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="desk")
        self._thread.start()
        self.worker = self.run(self._make())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(WAIT_SECONDS)

    def ask(self, model: dict[str, Any], ask: asking.Ask, **settings: Any) -> Answer:
        """One call from its first byte to its last; `error` is what ended its stream. Raises what the call raised."""
        return self.run(self.asked(model, ask, **settings))

    async def asked(self, model: dict[str, Any], ask: asking.Ask, **settings: Any) -> Answer:
        reply = await self.send(model, ask, **settings)
        raw, error = b"", None
        try:
            async for chunk in reply.chunks():
                raw += chunk
        except asking.Refused as refused:
            error = refused
        return Answer(raw, reply.usage, error)

    async def send(self, model: dict[str, Any], ask: asking.Ask, **settings: Any) -> asking.Reply:
        settings = {
            "num_retries": 0,
            "disable_cooldowns": True,
            "timeout": 60,
            "stream_timeout": 60,
        } | settings
        return await self.worker.send(route_key(model), [model], settings, ask)

    def close(self) -> None:
        self.run(self.worker.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _make(self) -> Worker:
        return Worker()


def working() -> Iterator[Desk]:
    """For a fixture: a desk, and its end."""
    desk = Desk()
    try:
        yield desk
    finally:
        desk.close()


def serving(desk: Desk) -> Iterator[Upstream]:
    """For a fixture: an upstream, and its end."""

    async def make() -> Upstream:
        return Upstream()

    upstream = desk.run(make())
    runner = desk.run(upstream.serve())
    try:
        yield upstream
    finally:
        desk.run(runner.cleanup())


def deployment(model: str, base: str, **params: Any) -> dict[str, Any]:
    """One item of a model list, with the key that must be found nowhere but in its own header."""
    params = {"model": model, "api_base": base, "api_key": KEY} | params
    return {"model_name": "m", "litellm_params": params, "model_info": {"id": "one"}}


def route_key(model: dict[str, Any]) -> str:
    return json.dumps(model, sort_keys=True)


def events(*documents: Any, done: bool = True) -> list[bytes]:
    """Server-sent events as OpenAI and those compatible with it write them."""
    ends = [b"data: [DONE]\n\n"] if done else []
    return [sse.write(json.dumps(document).encode()) for document in documents] + ends


def named(*documents: dict[str, Any]) -> list[bytes]:
    """Server-sent events with the name of their type, as Anthropic writes them."""
    return [sse.write(json.dumps(document).encode(), document["type"].encode()) for document in documents]
