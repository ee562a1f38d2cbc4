"""Interpreters that stay between the calls of exec that name them, so that what one step made is there for the next.

Each is a program in its agent's own box, put there by hands: it has the rights and the limits of that box and ends with
it, and with this daemon. Of what it says only the first and the last is held here, and it is never parsed: the end of a
step is told by a word that was made for it. A step is never sent twice. Whoever hangs up, or takes too long, ends the
whole session, for nobody could say what is left in it.
"""

import asyncio
import functools
import os
import secrets
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from agentk.api import errors
from agentk.broker import exec_orders, pipes
from agentk.broker.words import Guest
from agentk.runtime import box, hands
from agentk.runtime.ends import Ends

PER_AGENT = 1  # at once: each keeps all that its code made
IDLE_SECONDS = 600.0
HELD_LETTERS, HELD_PIECES = 256 * 1024, 5000  # of the code that one had
_READ_BYTES = 64 * 1024
_PROGRAM = "import sys; sys.path = [one for one in sys.path if one]; import agentk.sdk.session as _; _.main()"
_ARGV = ("python3", "-u", "-c", _PROGRAM)

State = Literal["New", "Kept", "Ended"]
Hears = Callable[[str, bytes], Awaitable[None]]


@dataclass(frozen=True)
class Step:
    code: str
    timeout_seconds: float
    output_bytes: int
    on_output: Hears | None = None


class Sessions:
    def __init__(self, reach: hands.Hands, idle_seconds: float = IDLE_SECONDS) -> None:
        self._reach, self._idle_seconds = reach, idle_seconds
        self._open: dict[tuple[str, str], _Session] = {}  # by box and name

    async def run(self, guest: Guest, name: str, step: Step) -> tuple[box.ExecResult, State]:
        """Raises TooManyRequests, RuntimeRefused when there is no Python, OutcomeUnknown."""
        while True:
            session = self._session(guest, name)
            async with session.turn:
                if not session.is_over:
                    return await self._run(session, step)

    def had(self, box_id: str) -> list[str] | None:
        """The pieces of code that a box's session was given; None when they are more than it holds."""
        found = [session.had for session in self._of(box_id)]
        return None if None in found else [one for had in found for one in had or ()]

    def retire(self, box_id: str) -> None:
        """End a box's session as soon as nothing runs in it; what comes then begins another. Repeatable."""
        for session in self._of(box_id):
            session.retire()

    async def close(self) -> None:
        """End all of them. Repeatable."""
        sessions, self._open = list(self._open.values()), {}
        for session in sessions:
            session.leave()
        await asyncio.gather(*(session.left() for session in sessions))

    async def _run(self, session: "_Session", step: Step) -> tuple[box.ExecResult, State]:
        state: State = "Kept" if session.steps else "New"
        session.idle.cancel()
        try:
            result = await session.run(step)
        finally:
            idle = asyncio.get_running_loop().call_later(self._idle_seconds, session.leave)
            session.idle = idle
            if session.retires:
                session.leave()
            if session.is_over:
                idle.cancel()
        if exec_orders.exit_code(result) == exec_orders.NOT_FOUND and not session.began:
            hint = "its image needs a python3 in its PATH; on the host it is found below /usr"
            raise errors.RuntimeRefused("there is no python3 in this jail", hint=hint, field="params.session")
        return result, "Ended" if session.is_over else state

    def _of(self, box_id: str) -> list["_Session"]:
        return [one for (where, _), one in self._open.items() if where == box_id and not one.is_over]

    def _session(self, guest: Guest, name: str) -> "_Session":
        known = self._open.get((guest.box_id, name))
        if known is not None and not known.is_over:
            return known
        for key in [key for key, session in self._open.items() if session.is_over]:
            del self._open[key]
        if sum(box_id == guest.box_id for box_id, _ in self._open) >= PER_AGENT:
            others = ", ".join(one for box_id, one in self._open if box_id == guest.box_id)
            raise errors.TooManyRequests(
                f"this agent has its session already: {others}",
                hint="use that one, or end it: its code calls exit()",
            )
        made = self._open[guest.box_id, name] = _Session(self._reach, guest.box_id)
        return made


class _Session:
    """One interpreter, from its start to its end."""

    def __init__(self, reach: hands.Hands, box_id: str) -> None:
        self.turn = asyncio.Lock()
        self.steps = 0
        self.began = False  # it has said something of ours
        self.had: dict[str, None] | None = {}
        self._had_letters = 0
        self.retires = False
        self._reach, self._box_id, self._hand_id = reach, box_id, uuid.uuid4().hex
        self._left = self._taken = False
        ends = self._ends = pipes.Pipes.made()
        enter = reach.enter(
            box_id, _ARGV, stdin=ends.stdin, stdout=ends.stdout, stderr=ends.stderr,
            cwd=exec_orders.directory("."), hand_id=self._hand_id,
        )  # fmt: skip
        self._entering = asyncio.create_task(enter, name="exec-session")
        self._entering.add_done_callback(self._ended)
        self._said: dict[str, _Said] = {}
        self._orders: asyncio.WriteTransport | None = None
        self.idle = asyncio.get_running_loop().call_later(0, lambda: None)

    @property
    def is_over(self) -> bool:
        return self._left or self._entering.done()

    def retire(self) -> None:
        """End it when nothing runs in it. Repeatable."""
        self.retires = True
        if not self.turn.locked():
            self.leave()

    def leave(self) -> None:
        """End it, and wait for nothing. Repeatable."""
        self._left = True
        self._entering.cancel()

    async def left(self) -> None:
        """It was ended, however that went."""
        await asyncio.wait((self._entering,))

    async def end(self) -> None:
        """It is dead when this returns. Repeatable."""
        self._left = True
        await self._reach.cancel(self._box_id, self._hand_id)
        await asyncio.wait((self._entering,))

    async def run(self, step: Step) -> box.ExecResult:
        kept = {"out": Ends(step.output_bytes), "err": Ends(step.output_bytes)}
        word, timed_out = secrets.token_hex(16).encode(), False
        self.steps += 1
        self._hold(step.code)
        try:
            async with asyncio.timeout(step.timeout_seconds):
                failed = None
                if not self._entering.done():
                    orders = await self._connected()
                    data = step.code.encode()
                    orders.write(b"%s %d\n%s" % (word, len(data), data))
                    hearing = (self._hear(name, word, kept[name], step.on_output) for name in kept)
                    failed, _ = await asyncio.gather(*hearing)
        except TimeoutError:
            failed, timed_out = None, True
            await self.end()
        except BaseException:
            self.leave()
            raise
        finally:
            if self.is_over:
                self._drop()
        ended = box.Exit(int(bool(failed)), None, "none", "") if failed is not None else await self._entering
        out, err = kept["out"], kept["err"]
        return box.ExecResult(ended, out.kept(), err.kept(), timed_out, out.truncated, err.truncated)

    def _hold(self, code: str) -> None:
        if self.had is None or code in self.had:
            return
        self.had[code] = None
        self._had_letters += len(code)
        if self._had_letters > HELD_LETTERS or len(self.had) > HELD_PIECES:
            self.had = None

    async def _hear(self, name: str, word: bytes, kept: Ends, tell: Hears | None) -> bool | None:
        """Whether the step failed; None when the interpreter is dead."""
        said = self._said[name]
        while True:
            data, failed, done = await said.read(word)
            if data:
                kept.add(data)
                if tell is not None:
                    await tell(name, data)
            if done:
                self.began = self.began or failed is not None
                return failed

    async def _connected(self) -> asyncio.WriteTransport:
        if self._orders is None:
            loop, self._taken = asyncio.get_running_loop(), True
            for name, fd in (("out", self._ends.says), ("err", self._ends.said)):
                reader = asyncio.StreamReader(limit=_READ_BYTES)
                file = os.fdopen(fd, "rb", 0)
                protocol = functools.partial(asyncio.StreamReaderProtocol, reader)
                transport, _ = await loop.connect_read_pipe(protocol, file)
                self._said[name] = _Said(reader, transport)
            self._orders, _ = await loop.connect_write_pipe(
                asyncio.Protocol, os.fdopen(self._ends.hears, "wb", 0)
            )
        return self._orders

    def _ended(self, entering: "asyncio.Task[box.Exit]") -> None:
        self._ends.close_theirs(None)
        self.idle.cancel()
        if not entering.cancelled():
            entering.exception()  # told by the step that waits, if any does
        if not self._taken:
            os.close(self._ends.said)
            self._ends.close_ours()
        elif not self.turn.locked():  # else who reads comes to the end first
            self._drop()

    def _drop(self) -> None:
        if self._orders is not None and not self._orders.is_closing():
            self._orders.abort()
        for said in self._said.values():
            said.close()


class _Said:
    """What an interpreter says on one stream, as far as the end of a step."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.BaseTransport) -> None:
        self._reader, self._transport = reader, transport
        self._held = b""

    async def read(self, word: bytes) -> tuple[bytes, bool | None, bool]:
        """The next of it; whether the step failed; whether that was all."""
        mark = b"\0" + word + b":"
        at = self._held.find(mark)
        end = at + len(mark) + 2  # one digit, one line end
        if at >= 0 and len(self._held) >= end:
            data, failed = self._held[:at], self._held[end - 2 : end - 1] != b"0"
            self._held = self._held[end:]
            return data, failed, True
        # what may be the beginning of a mark is not told yet
        at = self._held.find(b"\0", max(0, len(self._held) - len(mark) - 1))
        data, self._held = (self._held, b"") if at < 0 else (self._held[:at], self._held[at:])
        if data:
            return data, None, False
        more = await self._reader.read(_READ_BYTES)
        if not more:
            data, self._held = self._held, b""
            return data, None, True
        self._held += more
        return b"", None, False

    def close(self) -> None:
        self._transport.close()
