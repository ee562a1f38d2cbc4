"""Who waits for something that takes a while: told what comes, and how it ended.

One that does not read is given no more until it does, so that what waits for it stays bounded; one that is gone lets
what it asked for end.
"""

import os
from collections.abc import Callable, Sequence
from typing import Protocol

from agentk.api import errors
from agentk.runtime.launcher import wire

FULL_BYTES = 1024 * 1024  # waiting on one connection: enough to keep it busy


class Line(Protocol):
    """The connection of who asked."""

    @property
    def waiting_bytes(self) -> int: ...
    def send(self, message: wire.Message, fds: Sequence[int] = ()) -> None:
        """Now or when there is room; never waits. To one that is gone: does nothing."""
        ...


class Caller:
    """One question on one connection."""

    def __init__(self, line: Line, number: object) -> None:
        self._line, self._number = line, number
        self._late: wire.Message | None = None
        self._late_fds: list[int] = []
        self.answered = False
        self.on_room: Callable[[], None] | None = None  # there is room again
        self.on_gone: Callable[[], None] | None = None  # nobody waits any more

    @property
    def is_full(self) -> bool:
        """Whether what was sent waits to be read."""
        return self._line.waiting_bytes >= FULL_BYTES

    def note(self, message: wire.Message) -> None:
        """Something on the way."""
        self._line.send(message)

    def answer(self, result: wire.Message | errors.AgentkError, fds: Sequence[int] = ()) -> None:
        """The end. It waits for room, for results of many commands may be more than a connection is let wait for.
        Descriptors that go with it are taken over."""
        told: wire.Message = {"id": self._number}
        if isinstance(result, errors.AgentkError):
            told["error"] = result.to_status()
        else:
            told["ok"] = result
        if self.answered:  # nobody waits any more
            _close(fds)
            return
        self._late, self._late_fds = told, list(fds)
        self.room()

    def room(self) -> None:
        """What waited is sent on."""
        if self.is_full:
            return
        if self.on_room:
            self.on_room()
        if self._late is not None:
            told, fds = self._late, self._late_fds
            self._late, self._late_fds, self.answered = None, [], True
            try:
                self._line.send(told, fds)
            finally:
                _close(fds)

    def gone(self) -> None:
        """The connection ended. Repeatable."""
        _close(self._late_fds)
        self._late, self._late_fds, self.answered = None, [], True
        if self.on_gone:
            self.on_gone()


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
