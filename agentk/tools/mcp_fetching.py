"""One HTTP exchange that the MCP worker asked for, with its session's server: done here, where host and secrets are.

Must never hold more of an answer than the worker has room for, nor tell the worker more of an error than its words.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from agentk.apart.child import Child
from agentk.apart.frames import Message
from agentk.api import errors
from agentk.tools import mcp_wire


class Answer(Protocol):
    """The answer of a server behind HTTP."""

    status: int
    headers: Sequence[tuple[str, str]]

    def chunks(self) -> AsyncIterator[bytes]: ...


# (method, headers, body): one exchange with the server of this session, whose address and secrets the caller knows.
Fetch = Callable[[str, Sequence[tuple[str, str]], bytes], AbstractAsyncContextManager[Answer]]


class Fetching:
    """One exchange that the worker asked for, no faster than it takes the answer."""

    def __init__(self, number: int, child: Child) -> None:
        self._number, self._child = number, child
        self._left = mcp_wire.WINDOW_BYTES
        self._more = asyncio.Event()
        self._task: asyncio.Task[None]

    def begin(self, fetch: Fetch, asked: Message, over: Callable[[], Any]) -> None:
        self._task = asyncio.create_task(self._run(fetch, asked), name=f"mcp-fetch-{self._number}")
        self._task.add_done_callback(lambda _: over())

    def credit(self, size: int) -> None:
        self._left += size
        self._more.set()

    def stop(self) -> None:
        self._task.cancel()

    async def _run(self, fetch: Fetch, asked: Message) -> None:
        why: str | None = None
        try:
            headers = [(str(name), str(value)) for name, value in asked["headers"]]
            async with fetch(str(asked["method"]), headers, asked["body"].encode("latin-1")) as answer:
                self._say("answer", status=answer.status, headers=list(answer.headers))
                async with contextlib.aclosing(answer.chunks()) as chunks:  # type: ignore[type-var]
                    async for piece in chunks:
                        await self._send(piece)
        except errors.AgentkError as error:
            why = str(error)
        except (KeyError, ValueError, TypeError, AttributeError):
            why = "this is no request"
        except asyncio.CancelledError:
            why = "taken back"
            raise
        finally:
            self._say("over", why=why)

    async def _send(self, piece: bytes) -> None:
        for start in range(0, len(piece), mcp_wire.WINDOW_BYTES):
            part = piece[start : start + mcp_wire.WINDOW_BYTES]
            while self._left <= 0:
                self._more.clear()
                await self._more.wait()
            self._left -= len(part)
            self._say("body", text=part.decode("latin-1"))
            await self._child.flush()

    def _say(self, kind: str, **more: Any) -> None:
        self._child.tell({"t": kind, "id": self._number, **more})
