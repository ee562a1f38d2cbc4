"""A house with a door and guests at it."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from agentk.api import errors
from agentk.broker.dialects.jsonrpc import Asked, Room
from agentk.broker.dialects.jsonrpc_serving import Emit, JsonRpcService
from agentk.broker.door import Door, Limits
from agentk.sdk import wire


class Guesthouse:
    """A door on a unix socket and one on TCP, and what is known of the calls that came through."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "gate.sock")
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(self.path)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.unix.listen(128)
        self.begun = asyncio.Queue[str]()
        self.cancelled = asyncio.Queue[str]()
        self.go_on = asyncio.Event()

    async def answer(self, asked: Asked, emit: Emit) -> Any:
        if asked.method == "noop":
            return asked.params
        if asked.method == "fail":
            raise errors.Denied("rule r says no")
        if asked.method == "break":
            raise KeyError("secret")
        self.begun.put_nowait(asked.method)
        try:
            if asked.method == "count":
                for n in range(asked.params["to"]):
                    await emit({"n": n, "pad": "x" * asked.params["pad"]})
            else:
                await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.put_nowait(asked.method)
            raise
        return {}

    @contextlib.asynccontextmanager
    async def open(
        self, limits: Limits | None = None, room: Room | None = None, at_once: tuple[str, ...] = ("noop",)
    ) -> AsyncIterator[Door]:
        service = JsonRpcService(self.answer, room, frozenset(at_once))
        fds = [os.dup(self.unix.fileno()), os.dup(self.tcp.fileno())]
        opened = Door(fds, {"jsonrpc": service.connection}, limits)
        opened.open()
        try:
            yield opened
        finally:
            await opened.close()
            await service.close()
            assert opened.connections == 0 and not service.tasks

    async def connect(self, unix: bool = True) -> "Guest":
        if unix:
            return Guest(*await asyncio.open_unix_connection(self.path, limit=2**24))
        return Guest(*await asyncio.open_connection(*self.tcp.getsockname()))

    def close(self) -> None:
        self.unix.close()
        self.tcp.close()


class Guest:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def ask(self, id: wire.Id, method: str, **params: Any) -> None:
        self.writer.write(wire.request(id, method, params))

    async def hear(self) -> Any:
        return wire.read_answer(await self.reader.readline())

    async def noop(self) -> None:
        self.ask("n", "noop", payload=1)
        assert await self.hear() == wire.Response("n", {"payload": 1})

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def story(told: Callable[[Guesthouse], Awaitable[None]]) -> Callable[[Path], None]:
    def test(tmp_path: Path) -> None:
        async def run() -> None:
            house = Guesthouse(tmp_path)
            try:
                async with asyncio.timeout(60):
                    await told(house)
            finally:
                house.close()

        asyncio.run(run())

    test.__name__ = told.__name__
    return test
