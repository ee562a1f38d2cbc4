"""One MCP worker process, as the daemon sees it: starting it, hearing it, and telling everybody when it is gone.

Whatever ends the process, every call under way is answered at once. None is asked again: it may have happened.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agentk.api import errors
from agentk.tools import mcp_wire

START_SECONDS = 60.0  # importing the SDK takes under a second, and far longer on an emulated machine
END_SECONDS = 2.0  # what it is given to end by itself

Message = Mapping[str, Any]
_PASSED = ("PATH", "LANG", "LC_ALL")


class Child:
    """A started worker. `hear` is given what it says of sessions and exchanges, `died` is called once when it ends."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        hand: socket.socket,
        hear: Callable[[Message], None],
        died: Callable[[str], None],
    ) -> None:
        self.gone = False
        self._process, self._hand = process, hand
        self._reader, self._writer = streams
        self._hear_of, self._died = hear, died
        self._calls: dict[int, tuple[asyncio.Future[Message], Callable[[Message], None] | None]] = {}
        self._ids = itertools.count(1)
        self._hearing: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def spawn(
        cls, python: str, hear: Callable[[Message], None], died: Callable[[str], None]
    ) -> "Child":
        """Start a process and wait until it has said that it is ready. Raises Unavailable."""
        talk, theirs = socket.socketpair()
        hand, hands = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        hand.setblocking(False)
        streams = await asyncio.open_connection(sock=talk, limit=mcp_wire.LINE_BYTES_MAX)
        try:
            process = await _execute(python, theirs, hands)
        except BaseException as error:
            streams[1].close()
            hand.close()
            if isinstance(error, OSError):
                raise errors.Unavailable(f"the MCP worker cannot be started: {error}") from None
            raise
        finally:
            theirs.close()
            hands.close()
        child = cls(process, streams, hand, hear, died)
        try:
            await child._greet()
        except BaseException:
            await child.end()
            raise
        child._hearing = asyncio.create_task(child._listen(), name="mcp-worker")
        return child

    def tell(self, message: Message) -> None:
        if not self.gone:
            self._writer.write(mcp_wire.pack(message))

    async def flush(self) -> None:
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def give(self, session: int, says: int, hears: int) -> None:
        """Hand a server's pipes over. They stay the caller's to close. Raises OSError."""
        mcp_wire.give(self._hand, session, says, hears)

    async def call(self, message: Message, progress: Callable[[Message], None] | None) -> Message:
        """What the worker says of one call; who is cancelled takes it back. Raises OutcomeUnknown when it dies."""
        number = next(self._ids)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._calls[number] = future, progress
        self.tell({**message, "id": number})
        try:
            if self.gone:
                raise errors.Unavailable("the MCP worker ended")
            return await future
        finally:
            if self._calls.pop(number, None) is not None:
                self.tell({"t": "cancel", "id": number})

    async def end(self) -> None:
        """End the process, kindly first, and every call with it. Safe to call twice."""
        self._writer.close()  # the end of its socket is its signal
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            self._kill()
        await self._process.wait()
        if self._hearing:
            await self._hearing
        self._hand.close()

    async def _greet(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                first = await mcp_wire.read(self._reader)
        except TimeoutError:
            raise errors.Unavailable(f"the MCP worker was not ready in {START_SECONDS:.0f} s") from None
        if not first or first.get("t") != "ready":
            self._writer.close()
            why = (first or {}).get("message") or await self._how()
            raise errors.Unavailable(f"the MCP worker cannot be started: {why}")

    async def _listen(self) -> None:
        try:
            while message := await mcp_wire.read(self._reader):
                kind = message.get("t")
                if kind in ("result", "wrong"):
                    if (held := self._calls.pop(int(message["id"]), None)) and not held[0].done():
                        held[0].set_result(message)
                elif kind == "progress":
                    held = self._calls.get(int(message["id"]))
                    if held and held[1]:
                        held[1](message)
                else:
                    self._hear_of(message)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            pass  # it speaks no sense any more: as good as dead
        finally:
            await self._bury()

    async def _bury(self) -> None:
        self.gone = True
        self._writer.close()
        self._hand.close()
        how = await self._how()
        for future, _ in self._calls.values():
            if not future.done():
                future.set_exception(
                    errors.OutcomeUnknown(
                        f"{how} during this call: whether the tool did it is not known",
                        hint="a new worker is started by the next call",
                    )
                )
        self._calls.clear()
        self._died(how)

    async def _how(self) -> str:
        """How the process ended; one that only closed its socket is ended."""
        try:
            async with asyncio.timeout(END_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            self._kill()
            code = await self._process.wait()
        if code < 0:
            return f"the MCP worker died ({signal.Signals(-code).name})"
        return f"the MCP worker died (exit code {code})"

    def _kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


Starting = Awaitable[Child]


async def _execute(python: str, *theirs: socket.socket) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        python,
        "-I",
        "-m",
        "agentk.tools.mcp_main",
        *(str(one.fileno()) for one in theirs),
        pass_fds=tuple(one.fileno() for one in theirs),
        env={name: os.environ[name] for name in _PASSED if name in os.environ},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # a traceback may quote what a server said
        start_new_session=True,
    )
