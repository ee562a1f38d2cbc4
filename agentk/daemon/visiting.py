"""People's hands in boxes that run: who may reach in, how many at once, and the record of every time they did.

A visit is told as an Event and kept in the journal: who, what, and how it ended. What was typed or copied is in
neither. A visit ends with its caller, with its box and with the daemon; nothing of it runs on.
"""

import asyncio
import contextlib
import json
import logging
import secrets
import shlex
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentk.api import errors, kinds, objects
from agentk.daemon import calls, desk, sockets
from agentk.runtime import box
from agentk.store import journal
from agentk.store.store import Store

_MOST = 64  # visits at once: each costs the daemon up to eight descriptors
_ABOUT_MAX = 160  # letters of a command in an Event
_WORDS_KEPT = 256  # of a command in the journal
_COMPONENT = "agentk-hands"
_BY_A_PERSON = "Suspended"  # of the reasons of the phase of that name
# Verb → reason of its Event. One that only looks what a path is has none.
_REASONS = {
    "exec": "Exec",
    "attach": "Attach",
    "portforward": "PortForward",
    "read": "CopyFrom",
    "write": "CopyTo",
}

_log = logging.getLogger(__name__)

Object = Mapping[str, Any]


class Hands(Protocol):
    """What of a runtime reaches into a box, as `runtime.hands.Hands`. Whoever cancels a call ends what it began."""

    async def enter(
        self,
        box_id: str,
        argv: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        tty: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        hand_id: str = "",
        timeout_seconds: float | None = None,
    ) -> box.Exit: ...
    async def connect(self, box_id: str, port: int) -> Any: ...
    async def pack(self, box_id: str, path: str, out: int, hand_id: str = "") -> Mapping[str, int]: ...
    async def unpack(self, box_id: str, path: str, source: int, hand_id: str = "") -> Mapping[str, int]: ...


@dataclass(frozen=True)
class Room:
    """What visits need of the rest of the daemon."""

    hands: Hands
    descriptors: Callable[[str], Mapping[str, int]]  # of a box by its id: `in` is what its program reads
    redact: Callable[[bytes], bytes]
    running: set[asyncio.Task[None]] = field(default_factory=set)
    visits: set[str] = field(default_factory=set)  # those that are being recorded

    def check(self) -> None:
        """Whether one more may come in. Raises TooManyRequests."""
        if len(self.visits) >= _MOST:
            raise errors.TooManyRequests(
                f"{_MOST} visits to boxes are as many as there may be at once", retry_after_seconds=1
            )

    async def close(self) -> None:
        """Ends every visit. Repeatable."""
        for task in list(self.running):
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)


@dataclass(frozen=True)
class Visit:
    """One, of one box."""

    room: Room
    store: Store
    desk: desk.Desk | None
    agent: Object
    box_id: str
    verb: str  # exec, attach, portforward, read, write or look
    about: Sequence[str]  # the command, the ports, or the path
    who: str
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def attempt(self) -> int:
        return int((self.agent.get("status") or {}).get("attempt") or 1)

    def start(self, serving: Coroutine[Any, Any, None]) -> None:
        """Serve it in a task of its own, which `Room.close` ends."""
        task = asyncio.get_running_loop().create_task(serving, name=f"{self.verb} {self.box_id}")
        self.room.running.add(task)
        task.add_done_callback(self._ended)

    @contextlib.asynccontextmanager
    async def recorded(self) -> AsyncIterator[dict[str, Any]]:
        """While it lasts. What is put into the answer is kept with how it ended. Raises when it cannot be kept."""
        told: dict[str, Any] = {}
        self.room.check()  # others may have come in since this one was let in
        self.room.visits.add(self.id)
        try:
            await self._event()
            effect, status = await self._intend(), "ok"
            try:
                yield told
            except (asyncio.CancelledError, GeneratorExit, errors.Cancelled):
                status = "cancelled"
                raise
            except BaseException:
                status = "error"
                raise
            finally:
                await self._settle(effect, status, told)
        finally:
            self.room.visits.discard(self.id)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.room.running.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("%s failed", task.get_name(), exc_info=error)

    async def _event(self) -> None:
        if self.verb not in _REASONS:
            return
        about = shlex.join(self.about) if self.verb == "exec" else " ".join(self.about)
        about = self.room.redact(about.encode("utf-8", "replace")).decode("utf-8", "replace")
        about = "".join(letter if letter.isprintable() else "?" for letter in about)
        if len(about) > _ABOUT_MAX:
            about = about[: _ABOUT_MAX - 1] + "…"
        message = f"{self.who}: {about}" if about else self.who
        with contextlib.suppress(errors.NotFound):
            await self.store.record_event(
                self.agent, "Normal", _REASONS[self.verb], message, calls.now(), _COMPONENT
            )

    async def _intend(self) -> str:
        if self.desk is None:
            return ""
        metadata, status = self.agent["metadata"], self.agent.get("status") or {}
        asked: dict[str, Any] = {"by": self.who}
        if self.verb == "exec":
            asked["argv"] = [word[:4096] for word in self.about[:_WORDS_KEPT]]
        else:
            asked["path"] = " ".join(self.about)
        first = (status.get("run") or {}).get("firstAttempt", 1)
        return await self.desk.journal.intend(
            journal.Intent(
                namespace=str(metadata["namespace"]),
                agent=str(metadata["name"]),
                uid=str(metadata["uid"]),
                attempt=self.attempt,
                run=f"{metadata['uid']}-{first}",
                method=f"people.{self.verb}",
                body=json.dumps(asked).encode(),
                meta={"dialect": "control"},
            )
        )

    async def _settle(self, effect: str, status: Any, told: Mapping[str, Any]) -> None:
        if self.desk is not None:
            outcome = journal.Outcome(status=status, body=json.dumps(told).encode())
            await self.desk.journal.settle(effect, outcome)


def _frozen(name: str, status: Mapping[str, Any]) -> errors.Conflict:
    """Only what a person has suspended goes on when a person says so."""
    reason = status.get("reason", _BY_A_PERSON)
    if reason == _BY_A_PERSON:
        return errors.Conflict(
            f'agent "{name}" is suspended', hint=f"agentk resume {name}", kind="agents", name=name
        )
    return errors.Conflict(
        f'agent "{name}" is frozen: {reason}',
        hint=f"agentk describe agent {name}  # says what it waits for",
        kind="agents",
        name=name,
    )


async def visit(call: calls.Call, verb: str, about: Sequence[str], *, running: bool = True) -> Visit:
    """Whether the caller may come in now. `running`: not while it is suspended, when nothing in it moves.

    Raises NotFound, Conflict for a box that does not run, TooManyRequests, Unavailable.
    """
    room = call.services.visits
    if room is None:
        raise errors.Unavailable("this daemon reaches into no box")
    room.check()
    name = call.target.name
    agent = await call.store.get(kinds.AGENT, call.target.namespace, name)
    status = agent.get("status") or {}
    phase = status.get("phase", "Pending")
    if objects.is_deleting(agent) or not status.get("boxID") or phase not in ("Running", "Suspended"):
        raise errors.Conflict(
            f'agent "{name}" is not running: {phase}',
            hint=f"agentk describe agent {name}  # says why",
            kind="agents",
            name=name,
        )
    if running and phase == "Suspended":
        raise _frozen(name, status)
    peer = call.request.scope.get("state", {}).get("peer")
    who = f"uid {peer.uid}" if isinstance(peer, sockets.Peer) else "somebody"
    return Visit(room, call.store, call.services.desk, agent, str(status["boxID"]), verb, list(about), who)
