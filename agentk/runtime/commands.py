"""One command beside a box, as the daemon waits for it.

Output is handed on in order to whoever asked for it, and the launcher hears how much was taken: it sends only so much
ahead. A wait that is broken off ends the command: an effect that nobody waits for is not left running.
"""

import asyncio
import base64
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime.launcher import wire
from agentk.runtime.link import Link

VERSION = 2  # of the first launcher that knows more of a command than argv and a timeout
Hears = Callable[[str, bytes], Awaitable[None]]  # "out" or "err", and the bytes


@dataclass(frozen=True)
class Order:
    """What is asked for."""

    box_id: str
    argv: Sequence[str]
    timeout_seconds: float
    stdin: bytes
    env: Mapping[str, str] | None
    limits: words.Limits | None
    cwd: str
    output_bytes: int | None
    exec_id: str
    streams: bool

    @property
    def needs(self) -> int:
        """The oldest launcher that does all of it: one that ignored a limit would run the command without."""
        return VERSION if self._more() else 1

    def message(self, exec_id: str) -> wire.Message:
        """As it goes to the launcher. Raises TooLarge."""
        if len(self.stdin) > wire.STDIN_MAX_BYTES:
            raise errors.TooLarge(f"the input of a command is over {wire.STDIN_MAX_BYTES} bytes")
        told: wire.Message = {"verb": "exec", "box_id": self.box_id, "argv": list(self.argv)}
        return {**told, "timeout_seconds": self.timeout_seconds, "exec_id": exec_id, **self._more()}

    def _more(self) -> wire.Message:
        told: wire.Message = {}
        if self.stdin:
            told["stdin"] = base64.b64encode(self.stdin).decode()
        if self.env:
            told["env"] = dict(self.env)
        if self.limits is not None and self.limits != words.Limits():
            told["limits"] = wire.plain(self.limits)
        if self.cwd:
            told["cwd"] = self.cwd
        if self.output_bytes is not None:
            told["output_bytes"] = self.output_bytes
        if self.streams:
            told["stream"] = True
        return told


class Running:
    """One that was asked for."""

    def __init__(self, order: Order, hears: Hears | None) -> None:
        self._order, self._hears = order, hears
        self._exec_id = order.exec_id or uuid.uuid4().hex
        self._said: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue()  # None: that was all

    @property
    def key(self) -> tuple[str, str]:
        """Names it among all that run."""
        return self._order.box_id, self._exec_id

    def heard(self, stream: str, data: object) -> None:
        """The launcher sent some of its output."""
        self._said.put_nowait((stream, base64.b64decode(str(data))))

    async def run(self, link: Link) -> wire.Message:
        """The answer, when all output was taken. Raises the launcher's error, ConnectionError when it goes away."""
        asking = asyncio.create_task(
            link.ask(self._order.message(self._exec_id)), name=f"exec {self._exec_id}"
        )
        asking.add_done_callback(self._answered)
        try:
            await self._hand_on(link)
            return await asking
        except asyncio.CancelledError:
            self._tell(link, "exec_cancel")
            raise
        finally:
            if not asking.done():
                asking.cancel()

    def _answered(self, asking: "asyncio.Task[wire.Message]") -> None:
        self._said.put_nowait(None)
        if not asking.cancelled():
            asking.exception()  # it is nobody's concern when nobody waits any more

    async def _hand_on(self, link: Link) -> None:
        while (said := await self._said.get()) is not None:
            if self._hears is None:
                continue
            stream, data = said
            try:
                await self._hears(stream, data)
            except Exception:
                self._tell(link, "exec_cancel")
                raise
            self._tell(link, "exec_more", bytes=len(data))

    def _tell(self, link: Link, verb: str, **told: int) -> None:
        link.tell({"verb": verb, "box_id": self._order.box_id, "exec_id": self._exec_id, **told})
