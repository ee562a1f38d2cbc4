"""GET …/agents/NAME/exec: a command in the agent's box, with its terminal or its pipes on a WebSocket.

The bytes go between the socket and descriptors that the command has: no more of them is held than a pipe holds.
"""

import asyncio
import contextlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from agentk.api import channels, errors
from agentk.daemon import calls, descriptors, visiting, websockets
from agentk.runtime import box

_WORDS_MAX = 1000
_SECONDS_MAX = 10**7
_DRAIN_SECONDS = 1.0  # for what a command left behind to let go of its output
_SIGNAL_BASE = 128
_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]{0,63}")
_END_OF_INPUT = b"\x04"  # of a terminal
_GOING, _FAILED = 1001, 1011  # why a WebSocket ends


@dataclass(frozen=True)
class Asked:
    """The query of an exec."""

    argv: Sequence[str]
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool
    size: tuple[int, int] | None  # of the terminal at first: columns, rows
    term: str  # what kind of terminal it is
    timeout_seconds: float | None


async def exec_(call: calls.Call) -> Response:
    asked = _asked(call)
    visit = await visiting.visit(call, "exec", asked.argv)

    def begin(socket: websockets.WebSocket) -> None:
        visit.start(serve(visit, socket, _Command(visit, asked, socket).run()))

    return websockets.Upgrade(call.request, begin, (channels.RESIZE,))


async def serve(visit: visiting.Visit, socket: websockets.WebSocket, running: Any) -> None:
    """Record a visit whose `running` answers an exit code, and tell the caller how it ended."""
    code, why = _FAILED, ""
    try:
        try:
            async with visit.recorded() as told:
                told["exitCode"] = await running
            status = channels.exited(told["exitCode"])
        except errors.AgentkError as error:
            status = dict(error.to_status())
        with contextlib.suppress(websockets.Gone):
            await socket.send(channels.ERROR, _encoded(status))
        code = 1000
    except asyncio.CancelledError:
        code, why = _GOING, "the daemon ends"
        raise
    finally:
        running.close()
        await socket.close(code, why)


class _Command:
    """One command, and what it reads and writes."""

    def __init__(self, visit: visiting.Visit, asked: Asked, socket: websockets.WebSocket) -> None:
        self._visit, self._asked, self._socket = visit, asked, socket
        self._readers: list[tuple[int, descriptors.Reader]] = []  # with their channels
        self._writer: descriptors.Writer | None = None
        self._terminal = -1
        self._theirs: list[int] = []  # copies of the command's own ends

    async def run(self) -> int:
        """Its exit code. Raises Cancelled when the caller hung up."""
        tasks: list[asyncio.Task[Any]] = []
        try:
            try:
                stdin, stdout, stderr = self._open()
            except OSError as error:
                raise errors.Unavailable(f"no pipe or terminal can be made: {error.strerror}") from None
            entering = _task(self._enter(stdin, stdout, stderr), "command")
            pumps = [_task(self._pump(channel, reader), "output") for channel, reader in self._readers]
            gone = _task(self._socket.gone(), "caller")
            hearing = _task(self._hear(), "input")
            tasks = [entering, gone, hearing, *pumps]
            await asyncio.wait(
                {entering, gone}, timeout=self._asked.timeout_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if gone.done() and not entering.done():
                raise errors.Cancelled("the caller hung up")
            code = channels.TIMED_OUT if not entering.done() else exit_code(entering.result())
            entering.cancel()
            await asyncio.wait({entering})
            self._let_go()
            for _, reader in self._readers:
                reader.hurry(_DRAIN_SECONDS)
            said = _task(_all(pumps), "last output")
            tasks.append(said)
            await asyncio.wait({said, gone}, return_when=asyncio.FIRST_COMPLETED)
            return code
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._close()

    async def _enter(self, stdin: int, stdout: int, stderr: int) -> box.Exit:
        visit, asked = self._visit, self._asked
        return await visit.room.hands.enter(
            visit.box_id,
            asked.argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            tty=asked.tty,
            env={"TERM": asked.term} if asked.tty else None,
            hand_id=visit.id,
        )

    async def _pump(self, channel: int, reader: descriptors.Reader) -> None:
        with contextlib.suppress(websockets.Gone):
            while data := await reader.read():
                await self._socket.send(channel, data)

    async def _hear(self) -> None:
        while True:
            try:
                channel, data = await self._socket.receive()
            except websockets.Gone:
                return
            if channel == channels.STDIN and self._writer is not None:
                try:
                    await self._writer.write(data)
                except BrokenPipeError:
                    self._end_input()
            elif channel == channels.RESIZE and self._terminal >= 0 and (size := channels.size(data)):
                descriptors.resize(self._terminal, *size)
            elif channel == channels.CLOSE and data == bytes((channels.STDIN,)):
                if self._terminal >= 0 and self._writer is not None:
                    await self._writer.write(_END_OF_INPUT)
                self._end_input()

    def _end_input(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> tuple[int, int, int]:
        """The command's ends; ours are kept."""
        asked = self._asked
        if asked.tty:
            ours, theirs = os.openpty()
            self._theirs.append(theirs)
            self._terminal = ours
            if asked.size is not None:
                descriptors.resize(ours, *asked.size)
            self._readers.append((channels.STDOUT, descriptors.Reader(ours)))
            if asked.stdin:
                self._writer = descriptors.Writer(os.dup(ours))
            return theirs, theirs, theirs
        if asked.stdin:
            stdin, ours = os.pipe()
            self._theirs.append(stdin)
            self._writer = descriptors.Writer(ours)
        else:
            stdin = self._nothing()
        stdout = self._output(channels.STDOUT) if asked.stdout else self._nothing()
        stderr = self._output(channels.STDERR) if asked.stderr else self._nothing()
        return stdin, stdout, stderr

    def _output(self, channel: int) -> int:
        ours, theirs = os.pipe()
        self._theirs.append(theirs)
        self._readers.append((channel, descriptors.Reader(ours)))
        return theirs

    def _nothing(self) -> int:
        self._theirs.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
        return self._theirs[-1]

    def _let_go(self) -> None:
        """Of the command's ends, so that what is left of its output has an end."""
        while self._theirs:
            os.close(self._theirs.pop())

    def _close(self) -> None:
        self._let_go()
        self._end_input()
        for _, reader in self._readers:
            reader.close()


def exit_code(ended: box.Exit) -> int:
    """As shells tell it. Raises Unavailable when nobody can know."""
    if ended.intent is not None and ended.intent.reason == "DeadlineExceeded":
        return channels.TIMED_OUT
    if ended.code is not None:
        return ended.code
    if ended.signal is not None:
        return _SIGNAL_BASE + ended.signal
    raise errors.Unavailable(ended.message or "how the command ended is not known")


def _asked(call: calls.Call) -> Asked:
    argv = call.request.query_params.getlist("command")
    if not argv or not argv[0]:
        raise errors.BadRequest("say which command, a word each", field="command")
    if len(argv) > _WORDS_MAX or any("\0" in word for word in argv):
        raise errors.BadRequest(
            f"a command has at most {_WORDS_MAX} words, and no NUL in them", field="command"
        )
    tty = calls.flag(call, "tty")
    named = any(name in call.query for name in ("stdin", "stdout", "stderr"))
    stdin, stdout, stderr = (calls.flag(call, name) for name in ("stdin", "stdout", "stderr"))
    if not named:
        stdout = stderr = True
    columns, rows = calls.whole(call, "columns", 65535), calls.whole(call, "rows", 65535)
    seconds = calls.whole(call, "timeoutSeconds", _SECONDS_MAX)
    term = call.query.get("term") or "xterm"
    if not _TERM.fullmatch(term):
        raise errors.BadRequest("term is the name of a terminal, such as xterm", field="term")
    size = (columns, rows) if columns and rows else None
    return Asked(argv, stdin, stdout, stderr, tty, size, term, seconds or None)


async def _all(tasks: Sequence[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks)


def _task(work: Any, name: str) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(work, name=name)


def _encoded(status: Any) -> bytes:
    return json.dumps(status, ensure_ascii=False).encode("utf-8", "replace")
