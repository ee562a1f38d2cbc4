"""The MCP worker: `python -I -m agentk.tools.mcp_main TALK HAND`. Every MCP server is spoken with from here.

What servers say is parsed in this process and nowhere else, so it is the one to die of it: it holds no secret, opens no
connection and no file but its libraries, and ends with the daemon. `mcp` is imported here only (0.7 s, 60 MB).
"""

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agentk.apart import confining, frames, inside
from agentk.tools import mcp_wire

if TYPE_CHECKING:
    from agentk.tools import mcp_http

MEMORY_BYTES = 2 * 1024 * 1024 * 1024  # of addresses; some 300 MB of them are libraries and never touched


class Worker:
    """The sessions of one daemon."""

    def __init__(self, hand: socket.socket, writer: asyncio.StreamWriter) -> None:
        from agentk.tools import mcp_http, mcp_pipes, mcp_session, mcp_sieve

        self._http, self._pipes, self._session, self._sieve = mcp_http, mcp_pipes, mcp_session, mcp_sieve
        self._writer, self._hand = writer, hand
        self._held = mcp_pipes.Held()
        self._given: dict[int, asyncio.Future[tuple[int, int]]] = {}
        self._sessions: dict[int, mcp_session.Session] = {}
        self._exchanges: dict[int, mcp_http.Exchange] = {}
        self._numbers = itertools.count(1)
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._lives: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Until the daemon is gone."""
        asyncio.get_running_loop().add_reader(self._hand, self._take)
        self._say(frames.READY)
        while message := await frames.read(reader):
            self._hear(message)
            await self._writer.drain()

    def _hear(self, message: Mapping[str, Any]) -> None:
        kind, number = message["t"], int(message["id"])
        if kind == "open":
            self._hold(self._live(number, message), f"session-{number}", self._lives)
        elif kind == "call":
            self._calls[number] = asyncio.create_task(self._call(number, message), name=f"call-{number}")
        elif kind == "cancel":
            if call := self._calls.get(number):
                call.cancel()
        elif kind == "close":
            if session := self._sessions.get(number):
                session.close()
        elif exchange := self._exchanges.get(number):
            self._answer(exchange, message)

    def _answer(self, exchange: "mcp_http.Exchange", message: Mapping[str, Any]) -> None:
        if message["t"] == "answer":
            exchange.head(int(message["status"]), [(str(k), str(v)) for k, v in message["headers"]])
        elif message["t"] == "body":
            exchange.body(message["text"].encode("latin-1"))
        else:
            del self._exchanges[exchange.number]
            exchange.over(message.get("why"))

    async def _live(self, number: int, message: Mapping[str, Any]) -> None:
        url = message.get("url")
        seconds = float(message["seconds"])
        if url:
            transport, way = self._over_http(number)
            made = self._session.Session(number, transport, seconds, self._say, lambda: way.why)
        else:
            says, hears = await self._pair(number)
            transport = self._pipes.pipes(says, hears, self._held)
            made = self._session.Session(number, transport, seconds, self._say)
        self._sessions[number] = made
        try:
            await made.run()
        except MemoryError:
            os._exit(1)  # whose memory it was cannot be told any more
        finally:
            del self._sessions[number]

    def _over_http(self, session: int) -> "tuple[Any, mcp_http.Way]":
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        share = self._sieve.Share()

        def begin(asked: Mapping[str, Any]) -> "mcp_http.Exchange":
            number = next(self._numbers)
            exchange: mcp_http.Exchange = self._http.Exchange(number, self._say_of_exchange, share)
            self._exchanges[number] = exchange
            self._say({"t": "fetch", "id": number, "session": session, **asked})
            return exchange

        way = self._http.Way(begin)
        client = httpx2.AsyncClient(transport=way, trust_env=False, timeout=None)
        return streamable_http_client(self._http.URL, http_client=client), way

    def _say_of_exchange(self, message: Mapping[str, Any]) -> None:
        if message["t"] == "stop":
            self._exchanges.pop(int(message["id"]), None)
        self._say(message)

    async def _call(self, number: int, message: Mapping[str, Any]) -> None:
        try:
            session = self._sessions.get(int(message["session"]))
            if session is None:
                told: Mapping[str, Any] = {"t": "wrong", "kind": "unasked", "why": "the server is gone"}
            else:
                told = await session.call(message)
            self._say({**told, "id": number})
        except MemoryError:
            os._exit(1)
        finally:
            del self._calls[number]

    def _say(self, message: Mapping[str, Any]) -> None:
        self._writer.write(frames.pack(message))

    def _hold(self, work: Any, name: str, held: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work, name=name)
        held.add(task)
        task.add_done_callback(held.discard)

    async def _pair(self, number: int) -> tuple[int, int]:
        """The pipes of a session, which may come before or after its `open`."""
        try:
            return await self._given.setdefault(number, asyncio.get_running_loop().create_future())
        finally:
            del self._given[number]

    def _take(self) -> None:
        taken = mcp_wire.take(self._hand)
        if taken is None:
            asyncio.get_running_loop().remove_reader(self._hand)
            return
        number, says, hears = taken
        future = self._given.setdefault(number, asyncio.get_running_loop().create_future())
        if not future.done():
            future.set_result((says, hears))


async def serve(talk: socket.socket, hand: socket.socket) -> None:
    """Import, say so, and answer."""
    hand.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=talk)
    try:
        worker = Worker(hand, writer)
        confining.confine()
    except Exception as error:  # noqa: BLE001 - a broken installation can raise anything
        writer.write(frames.failed(error))
        await writer.drain()
        return
    with contextlib.suppress(ConnectionError):
        await worker.serve(reader)
    os._exit(0)  # the daemon is gone: servers are not waited for


def main() -> None:
    talk, hand = inside.begin(MEMORY_BYTES)
    asyncio.run(serve(talk, hand))


if __name__ == "__main__":
    main()
