"""The worker process: `python -I -m agentk.llm.worker_main FD`. It answers the daemon's calls until its socket ends.

It must never print, log or write a file (what it holds is full of keys), nor outlive the daemon. It translates with
`worker_litellm`, which is imported only once the process is up and can say why that fails.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from agentk.apart import frames, inside
from agentk.llm import worker_calls, worker_wire


class Translator(Protocol):
    """What `worker_litellm` gives. `usage` is filled while the stream runs."""

    async def whole(self, message: Mapping[str, Any]) -> dict[str, Any]: ...

    def stream(self, message: Mapping[str, Any], usage: dict[str, Any]) -> AsyncGenerator[str, None]: ...

    def cost(self, message: Mapping[str, Any], usage: Mapping[str, Any]) -> int: ...


class Worker:
    """The calls of one daemon."""

    def __init__(self, translator: Translator, writer: asyncio.StreamWriter) -> None:
        self._translator = translator
        self._writer = writer
        self._calls: dict[int, _Call] = {}

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Until the daemon is gone."""
        while message := await frames.read(reader):
            number = int(message["id"])
            if message["t"] == "ask":
                call = self._calls[number] = _Call(number, self._writer)
                call.task = asyncio.create_task(self._run(call, message), name=f"call-{number}")
            elif held := self._calls.get(number):
                if message["t"] == "stop":
                    held.task.cancel()
                else:
                    held.credit(int(message["n"]))

    async def _run(self, call: "_Call", message: Mapping[str, Any]) -> None:
        models = message["models"]
        try:
            if message["stream"]:
                await self._stream(call, message)
            else:
                await self._whole(call, message)
        except worker_calls.Unusable as error:
            await call.say("refused", message=worker_calls.scrub(str(error), models), ours=True)
        except Exception as error:  # noqa: BLE001 - whatever LiteLLM raises is the answer of this one call
            await call.say("refused", **worker_calls.refused(error, models))
        finally:
            del self._calls[call.number]

    async def _whole(self, call: "_Call", message: Mapping[str, Any]) -> None:
        document = await self._translator.whole(message)
        usage = document.get("usage") or {}
        first: dict[str, Any] = {"usage": usage, "cost": self._translator.cost(message, usage)}
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        for start in range(0, len(text), worker_wire.PIECE_CHARS):
            await call.data(text[start : start + worker_wire.PIECE_CHARS], **first)
            first = {}
        await call.say("end")

    async def _stream(self, call: "_Call", message: Mapping[str, Any]) -> None:
        usage: dict[str, Any] = {}
        async with contextlib.aclosing(self._translator.stream(message, usage)) as events:
            async for event in events:
                await call.data(event)
        await call.say("end", cost=self._translator.cost(message, usage))


class _Call:
    """One call: what it says, no faster than it has leave to."""

    def __init__(self, number: int, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.task: asyncio.Task[None]
        self._writer = writer
        self._left = worker_wire.WINDOW_CHARS
        self._more = asyncio.Event()

    def credit(self, chars: int) -> None:
        self._left += chars
        self._more.set()

    async def data(self, text: str, **more: Any) -> None:
        while self._left <= 0:
            self._more.clear()
            await self._more.wait()
        self._left -= len(text)
        await self.say("data", text=text, **more)

    async def say(self, kind: str, **more: Any) -> None:
        self._writer.write(frames.pack({"t": kind, "id": self.number, **more}))
        await self._writer.drain()


async def serve(ours: socket.socket) -> None:
    """Import, say so, and answer."""
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        from agentk.llm import worker_litellm

        translator = worker_litellm.LiteLLM()
    except Exception as error:  # noqa: BLE001 - a broken installation of LiteLLM can raise anything
        writer.write(frames.failed(error))
        await writer.drain()
        return
    writer.write(frames.pack(frames.READY))
    with contextlib.suppress(ConnectionError):
        await Worker(translator, writer).serve(reader)


def main() -> None:
    (ours,) = inside.begin()
    asyncio.run(serve(ours))


if __name__ == "__main__":
    main()
    os._exit(0)  # LiteLLM's threads and unfinished tasks hold nothing worth waiting for
