"""A process of ours beside the daemon: starting it, speaking with it, and telling whoever waits how it ended.

It must never be left behind: the end of its socket is its signal to end, the kernel ends it with the daemon, and a
start that is taken back ends what had begun. What it is told is on no command line and in no environment.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agentk.apart import frames
from agentk.apart.frames import Message
from agentk.api import errors

START_SECONDS = 120.0  # imports take up to 4 s, and far longer on an emulated machine
END_SECONDS = 2.0  # what it is given to end by itself

PASSED = ("PATH", "LANG", "LC_ALL")  # what it needs to find its libraries


class NotStarted(errors.Unavailable):
    """The process did not come so far as to say that it is ready."""


@dataclass(frozen=True)
class Role:
    """What a process is. `title` is how errors call it, `module` what Python runs as it."""

    title: str
    module: str
    passed: Sequence[str] = PASSED  # of the daemon's environment …
    fixed: Mapping[str, str] = field(default_factory=dict)  # … and beside it: it has no other
    said_bytes_max: int = frames.BYTES_MAX  # of one message
    hand: bool = False  # it is given descriptors, through a socket of their own

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """The process's whole environment."""
        return {name: given[name] for name in self.passed if name in given} | dict(self.fixed)


class Child:
    """A started process."""

    def __init__(
        self,
        role: Role,
        process: asyncio.subprocess.Process,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        hand: socket.socket | None,
    ) -> None:
        self._role, self._process, self._hand = role, process, hand
        self._reader, self._writer = streams
        self._closed = False
        self._how = ""  # known before it ended: why we end it
        self._listening: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def gone(self) -> bool:
        """There is no speaking with it any more."""
        return self._closed or self._reader.at_eof()

    @classmethod
    async def spawn(cls, role: Role, python: str = sys.executable) -> "Child":
        """Start a process and wait until it has said that it is ready. Raises NotStarted."""
        ours, theirs = socket.socketpair()
        hand, hands = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) if role.hand else (None, None)
        if hand:
            hand.setblocking(False)
        streams = await asyncio.open_connection(sock=ours)
        try:
            process = await _execute(role, python, [theirs, hands] if hands else [theirs])
        except BaseException as error:
            streams[1].close()
            if hand:
                hand.close()
            if isinstance(error, OSError):
                raise NotStarted(f"{role.title} cannot be started: {error}") from None
            raise
        finally:
            theirs.close()
            if hands:
                hands.close()
        child = cls(role, process, streams, hand)
        try:
            await child._greet()
        except BaseException:
            await child.end()
            raise
        return child

    def listen(self, hear: Callable[[Message], None], died: Callable[[str], None]) -> None:
        """From here on `hear` is given what it says, and `died` is told once how it ended."""
        self._listening = asyncio.create_task(self._listen(hear, died), name=self._role.module)

    async def hear(self) -> Message | None:
        """Of one that is not listened to: what it says next; None when it is gone. ValueError for nonsense."""
        return await frames.read(self._reader, self._role.said_bytes_max)

    def tell(self, message: Message | bytes) -> None:
        """A message, or one packed already. Nothing, to one that is gone. Raises TooLarge."""
        frame = message if isinstance(message, bytes) else frames.pack(message)
        if not self.gone:
            self._writer.write(frame)

    async def flush(self) -> None:
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def give(self, note: str, *fds: int) -> None:
        """Hand descriptors over. They stay the caller's to close. Raises OSError."""
        if self._hand is None or self.gone:
            raise BrokenPipeError(f"{self._role.title} takes nothing")
        socket.send_fds(self._hand, [note.encode()], fds)

    async def end(self, seconds: float = END_SECONDS) -> None:
        """End the process, kindly first, and return when all is told. Safe to call twice."""
        self._how = self._how or f"{self._role.title} was shut down"
        self._close()  # the end of its socket is its signal
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            self._kill()
        await self._process.wait()
        await self.told()

    async def told(self) -> None:
        """Return when whoever listens to it was told of its end. One that lives is waited for."""
        if self._listening:
            await asyncio.wait((self._listening,))

    async def _greet(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                first = await self.hear()
        except TimeoutError:
            raise NotStarted(f"{self._role.title} was not ready in {START_SECONDS:.0f} s") from None
        except ValueError:
            self._kill()
            raise NotStarted(f"{self._role.title} cannot be started: it speaks no sense") from None
        if not first or first.get("t") != "ready":
            self._close()
            why = (first or {}).get("message") or await self._ended()
            raise NotStarted(f"{self._role.title} cannot be started: {why}")

    async def _listen(self, hear: Callable[[Message], None], died: Callable[[str], None]) -> None:
        try:
            while message := await self.hear():
                hear(message)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            self._how = f"{self._role.title} spoke no sense, and was ended"
            self._kill()
        finally:
            self._close()
            died(await self._ended())

    async def _ended(self) -> str:
        """How the process ended; one that only closed its socket is ended."""
        try:
            async with asyncio.timeout(END_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            self._kill()
            code = await self._process.wait()
        if self._how:
            return self._how
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"{self._role.title} died ({how})"

    def _close(self) -> None:
        self._closed = True
        self._writer.close()
        if self._hand:
            self._hand.close()

    def _kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


async def _execute(role: Role, python: str, sockets: Sequence[socket.socket]) -> asyncio.subprocess.Process:
    numbers = [one.fileno() for one in sockets]
    return await asyncio.create_subprocess_exec(
        python,
        "-I",
        "-m",
        role.module,
        *map(str, numbers),
        pass_fds=numbers,
        env=role.environment(os.environ),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # a traceback may quote a key, or what a stranger said
        start_new_session=True,
    )
