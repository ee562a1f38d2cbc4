"""A server at the other end of two pipes, for the SDK: whole lines, bounded one by one and all servers together.

The SDK's own stdio starts the process itself and reads lines without a bound; here the process is in a jail already,
and a line without an end ends the session, not this process.
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage

from agentk.sdk import wire
from agentk.tools import mcp_sieve, mcp_wire

HELD_BYTES_MAX = 64 * 1024 * 1024  # of lines that have no end yet, of all servers
UNREAD_SECONDS = 120.0  # a server that leaves its stdin unread for so long is let go
NOISE_LINES = 1_000  # that are no JSON: some servers greet on stdout
_CHUNK_BYTES = 64 * 1024


class Held:
    """What the servers' unfinished lines take together."""

    def __init__(self, most: int = HELD_BYTES_MAX) -> None:
        self._left = most

    def take(self, size: int) -> None:
        """`size` may be negative. Raises Broken when it is too much."""
        if size > self._left:
            raise mcp_sieve.Broken("all servers together hold too many unfinished lines")
        self._left -= size


@asynccontextmanager
async def pipes(says: int, hears: int, held: Held) -> AsyncGenerator[TransportStreams, None]:
    """Fits the SDK's Transport. The descriptors are its own from here on."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_CHUNK_BYTES)
    incoming, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(says, "rb", 0)
    )
    outgoing, flow = await loop.connect_write_pipe(_Flow, os.fdopen(hears, "wb", 0))
    heard, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, told = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_listen, reader, heard, held)
            group.start_soon(_tell, told, outgoing, flow, incoming)
            try:
                yield read, write
            finally:
                group.cancel_scope.cancel()
    finally:
        for stream in (heard, read, write, told):
            stream.close()
        incoming.close()
        if not outgoing.is_closing():
            outgoing.abort()


async def _listen(reader: asyncio.StreamReader, heard: Any, held: Held) -> None:
    lines = wire.Lines(mcp_wire.CALL_BYTES_MAX)
    noise, holds = 0, 0
    try:
        async with heard:
            try:
                while data := await reader.read(_CHUNK_BYTES):
                    lines.feed(data)
                    while (line := lines.take()) is not None:
                        if _blank(line):
                            noise += 1
                            if noise > NOISE_LINES:
                                raise mcp_sieve.Broken("the server prints on stdout what is no message")
                            await asyncio.sleep(0)
                        else:
                            await heard.send(mcp_sieve.message(line))
                    held.take(len(lines) - holds)
                    holds = len(lines)
            except wire.Refused as refused:
                await heard.send(mcp_sieve.Broken(f"the server cannot be understood: {refused.message}"))
            except mcp_sieve.Broken as broken:
                await heard.send(broken)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
        pass  # the session is over
    finally:
        held.take(-holds)


def _blank(line: bytes) -> bool:
    return not line.lstrip().startswith(b"{")


async def _tell(
    told: Any, outgoing: asyncio.WriteTransport, flow: "_Flow", incoming: asyncio.ReadTransport
) -> None:
    try:
        async with told:
            async for item in told:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                outgoing.write(text.encode("utf-8", "replace") + b"\n")
                async with asyncio.timeout(UNREAD_SECONDS):
                    await flow.drained()
    except (ConnectionError, TimeoutError):
        incoming.close()  # a server that hears nothing has ended


class _Flow(asyncio.BaseProtocol):
    """Says when the pipe has taken what was written."""

    def __init__(self) -> None:
        self._free = asyncio.Event()
        self._free.set()
        self._lost = False

    def pause_writing(self) -> None:
        self._free.clear()

    def resume_writing(self) -> None:
        self._free.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._free.set()

    async def drained(self) -> None:
        await self._free.wait()
        if self._lost:
            raise ConnectionResetError("the server closed its stdin")
