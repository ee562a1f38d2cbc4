"""Copies of every box's FIFOs and listening sockets, kept by the daemon so that nothing is refused or lost while the
launcher is away, and those who want to know which boxes listen.

The descriptors stay ours: whoever is told of one duplicates it at once, before control returns to the loop, for it
may be closed with the next message. A listener of the same socket under another number is not told again.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agentk.runtime.launcher import wire

LISTENERS = ("gate", "inside")  # of a box's five descriptors: its unix socket, its loopback
Heard = Callable[
    [str, str, Mapping[str, int]], None
]  # box id, agent's uid, what → descriptor; {} when they went


@dataclass(frozen=True)
class Key:
    """Names one descriptor."""

    box_id: str
    what: str


@dataclass(frozen=True)
class Held:
    uid: str  # the agent's
    fd: int


class Lent:
    """All that the launcher lent to this daemon."""

    def __init__(self) -> None:
        self._held: dict[Key, Held] = {}
        self._arriving: dict[Key, Held] | None = None
        self._told: dict[str, tuple[str, Mapping[str, int]]] = {}  # box id → uid, inodes
        self._callbacks: list[Heard] = []

    def close(self) -> None:
        """Let go of everything; who listens is told that all went. Repeatable."""
        for held in [*self._held.values(), *(self._arriving or {}).values()]:
            os.close(held.fd)
        self._held, self._arriving = {}, None
        self._tell()

    def of(self, box_id: str) -> dict[str, int]:
        """Every descriptor of one box."""
        return {key.what: held.fd for key, held in self._held.items() if key.box_id == box_id}

    def all(self) -> list[tuple[Key, Held]]:
        """Everything, to be given back to a launcher that lost it."""
        return list(self._held.items())

    # from the launcher

    def expect(self) -> None:
        """A new launcher is about to lend all it has: until `settle` what comes is put aside."""
        self._arriving = {}

    def settle(self, *, instead: bool) -> None:
        """What came is ours; `instead` of what we had, whose boxes may have ended meanwhile."""
        arrived, self._arriving = self._arriving or {}, None
        if instead:
            for held in self._held.values():
                os.close(held.fd)
            self._held = {}
        for key, held in arrived.items():
            _keep(self._held, key, held)
        self._tell()

    def take(self, message: wire.Message, fds: Sequence[int]) -> None:
        """A note with descriptors."""
        where = self._held if self._arriving is None else self._arriving
        for name, fd in zip(message.get("names", []), fds, strict=True):
            key = Key(str(name.get("box_id")), str(name.get("what")))
            _keep(where, key, Held(str(name.get("uid")), fd))
        if self._arriving is None:
            self._tell()

    def forget(self, box_id: str) -> None:
        """The box ended. Repeatable."""
        for where in (self._held, self._arriving or {}):
            for key in [key for key in where if key.box_id == box_id]:
                os.close(where.pop(key).fd)
        if self._arriving is None:
            self._tell()

    # to who listens

    def listeners(self) -> dict[str, tuple[str, dict[str, int]]]:
        """Box id → agent's uid and its listening sockets."""
        found: dict[str, tuple[str, dict[str, int]]] = {}
        for key, held in self._held.items():
            if key.what in LISTENERS and key.box_id:
                found.setdefault(key.box_id, (held.uid, {}))[1][key.what] = held.fd
        return found

    def on_listeners(self, callback: Heard) -> Callable[[], None]:
        """Tell of what is here now, and of every change. Answers what ends it; ending is repeatable."""
        self._callbacks.append(callback)
        for box_id, (uid, fds) in self.listeners().items():
            _call(callback, box_id, uid, fds)

        def end() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return end

    def _tell(self) -> None:
        """Everybody of what changed since the last time."""
        now = self.listeners()
        before, self._told = self._told, {box_id: (uid, _inodes(fds)) for box_id, (uid, fds) in now.items()}
        for box_id in before.keys() - now.keys():
            self._call_all(box_id, before[box_id][0], {})
        for box_id, (uid, fds) in now.items():
            if before.get(box_id) != self._told[box_id]:
                self._call_all(box_id, uid, fds)

    def _call_all(self, box_id: str, uid: str, fds: Mapping[str, int]) -> None:
        for callback in list(self._callbacks):
            _call(callback, box_id, uid, fds)


def _call(callback: Heard, box_id: str, uid: str, fds: Mapping[str, int]) -> None:
    try:
        callback(box_id, uid, fds)
    except Exception as error:  # noqa: BLE001 (one listener's surprise must not end the connection of all)
        context = {"message": f"a listener of {box_id}'s doors failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)


def _inodes(fds: Mapping[str, int]) -> dict[str, int]:
    """What tells one socket from another, whatever descriptors lead to it."""
    return {what: os.fstat(fd).st_ino for what, fd in fds.items()}


def _keep(where: dict[Key, Held], key: Key, held: Held) -> None:
    if key in where:
        os.close(where[key].fd)
    where[key] = held
