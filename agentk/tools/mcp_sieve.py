"""What of a server's messages is heard, and how often it gets a turn: between any transport and the SDK's session.

A server is a stranger. It is heard when it answers, when it tells how far a call is, and when it says that its tools
changed. What it asks of us (sampling, roots, elicitation) it is refused here, in order and one at a time, so that a
flood of questions waits in the server's own pipe and not in our memory.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp.client._transport import ReadStream, Transport, TransportStreams, WriteStream
from mcp.shared.message import SessionMessage
from mcp_types import (
    METHOD_NOT_FOUND,
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)

from agentk.sdk import wire

UNHEARD_SECONDS = 10.0  # a server that does not read for so long what it asked for is let go
_REST_TIMES = 3  # so a server has a quarter of this process at most, however it behaves
_DEBT_SECONDS = 0.005  # what is rested for at once
_BYTE_SECONDS = 20e-9  # of a stream of events: 16 MB of it a second at most
_MESSAGE_SECONDS = 0.0003  # what a message costs after it was read
_PROGRESS = "notifications/progress"
_CHANGED = "notifications/tools/list_changed"


class Broken(Exception):
    """The server can no longer be spoken with, and why."""


class Share:
    """One server's part of this process: who used it rests for three times as long."""

    def __init__(self) -> None:
        self._debt = 0.0
        self._since = 0.0

    def begin(self) -> None:
        self._since = time.perf_counter()

    def end(self) -> None:
        self._debt += time.perf_counter() - self._since + _MESSAGE_SECONDS

    def read(self, size: int) -> None:
        """Bytes that somebody else takes apart."""
        self._debt += size * _BYTE_SECONDS

    async def rest(self) -> None:
        if self._debt > _DEBT_SECONDS:
            owed, self._debt = self._debt, 0.0
            await asyncio.sleep(owed * _REST_TIMES)


def message(line: bytes) -> SessionMessage:
    """One message of a server. Raises wire.Refused for what is none."""
    told = wire.decode(line, wire.VALUES)
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_python(told, by_name=False))
    except ValueError:
        raise wire.Refused(wire.INVALID_REQUEST, "no message of JSON-RPC") from None


@asynccontextmanager
async def sifted(
    transport: Transport, share: Share, changed: Callable[[], None], ended: Callable[[str], None]
) -> AsyncGenerator[TransportStreams, None]:
    """The streams of a transport with only what may be heard in them. `ended` is told once why there is no more."""
    async with transport as (read, write):
        heard, kept = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        async with anyio.create_task_group() as group:
            group.start_soon(_sift, _Ends(read, write, heard), share, changed, ended)
            try:
                yield kept, write
            finally:
                kept.close()
                group.cancel_scope.cancel()


class _Ends:
    def __init__(self, read: ReadStream[Any], write: WriteStream[SessionMessage], heard: Any) -> None:
        self.read, self.write, self.heard = read, write, heard


async def _sift(ends: _Ends, share: Share, changed: Callable[[], None], ended: Callable[[str], None]) -> None:
    async with ends.heard:  # left last: who waits for an answer finds out why there is none
        why = "the server ended"
        try:
            async for item in ends.read:
                if isinstance(item, Broken):
                    why = str(item)
                    break
                share.begin()
                try:
                    if isinstance(item, SessionMessage):
                        await _hear(item, ends, changed)
                finally:
                    share.end()
                await share.rest()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        except TimeoutError:
            why = "the server does not read what it asked for"
        finally:
            ended(why)


async def _hear(item: SessionMessage, ends: _Ends, changed: Callable[[], None]) -> None:
    said = item.message
    if isinstance(said, JSONRPCRequest):
        with anyio.fail_after(UNHEARD_SECONDS):
            await ends.write.send(SessionMessage(_reply(said)))
    elif isinstance(said, JSONRPCNotification):
        if said.method == _CHANGED:
            changed()
        elif said.method == _PROGRESS:
            await ends.heard.send(item)
    else:
        await ends.heard.send(item)


def _reply(said: JSONRPCRequest) -> JSONRPCResponse | JSONRPCError:
    if said.method == "ping":
        return JSONRPCResponse(jsonrpc="2.0", id=said.id, result={})
    refusal = ErrorData(
        code=METHOD_NOT_FOUND, message="agentk offers servers nothing: no sampling, roots or questions"
    )
    return JSONRPCError(jsonrpc="2.0", id=said.id, error=refusal)
