"""Answers that go on: each ends when its source does, the caller goes away, or the daemon stops.

Nothing is buffered here: a slow caller holds up its own source and nobody else's.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")


class Stream(Response):
    """Sends what `chunks` gives; `chunks` is closed however this ends."""

    def __init__(self, chunks: AsyncGenerator[bytes, None], media_type: str) -> None:
        super().__init__(None, media_type=media_type, headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(send), name="stream")
        gone = asyncio.create_task(_disconnected(receive), name="stream's caller")
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.wait({sending, gone})
            await self._chunks.aclose()
        if not sending.cancelled() and (error := sending.exception()):
            raise error

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until(source: AsyncIterator[T], ending: asyncio.Event, seconds: float) -> AsyncGenerator[T, None]:
    """What `source` gives until it ends, `ending` is set or `seconds` have passed. Close it when done."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    stop = asyncio.create_task(ending.wait(), name="wait for the daemon's end")
    following: asyncio.Task[Any] | None = None
    nothing = object()
    try:
        while not stop.done():
            following = asyncio.create_task(_next(source, nothing), name="next of a stream")
            await asyncio.wait(
                {following, stop},
                timeout=max(0.0, deadline - loop.time()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not following.done():
                return
            item = following.result()
            if item is nothing:
                return
            yield item
    finally:
        for task in (following, stop):
            if task is not None and not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if isinstance(source, AsyncGenerator):
            await source.aclose()


async def _next(source: AsyncIterator[T], default: object) -> T | object:
    return await anext(source, default)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
