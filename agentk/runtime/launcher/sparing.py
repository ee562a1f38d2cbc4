"""A child that waits for a box to be asked for, with everything done that is the same for every box.

A fork of the launcher, two namespaces and a listening door cost as much as the rest of a start. One child is kept
ready, and the next is made when a box has started; when many are asked for at once, the others are made on demand.
"""

import os
import signal
import socket
from dataclasses import dataclass

from agentk.runtime.launcher import child
from agentk.runtime.launcher.world import World

_PAUSE_SECONDS = 0.05


@dataclass
class Spare:
    """It belongs to who takes it."""

    pid: int
    channel: socket.socket
    marks: tuple[int, ...]  # what it was made with; it must not be used with other workspaces than that

    def order(self, order: child.Order) -> None:
        """Say which box it becomes."""
        self.send(child.order_text(order))

    def send(self, text: bytes, *fds: int) -> None:
        """What it waits for. Raises OSError when it has ended."""
        file = os.memfd_create("order", os.MFD_CLOEXEC)
        try:
            with open(file, "wb", closefd=False) as writing:
                writing.write(text)
            os.lseek(file, 0, os.SEEK_SET)
            socket.send_fds(self.channel, [b"o"], [file, *fds])
        finally:
            os.close(file)

    def is_fit(self, marks: tuple[int, ...]) -> bool:
        """Whether it is there, and was made with what is used now."""
        return self.marks == marks and not _has_ended(self.pid)

    def end(self) -> None:
        """It leaves by itself, and this makes sure of it."""
        self.channel.close()
        try:
            os.kill(self.pid, signal.SIGKILL)  # our own child, not yet reaped: its pid is nobody else's
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


class Spares:
    """At most one."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._spare: Spare | None = None
        self._due = False

    def take(self) -> Spare:
        """The one that waits, or a new one. Raises OSError."""
        spare, self._spare = self._spare, None
        if spare is not None and not spare.is_fit(marks(self._world)):
            spare.end()
            spare = None
        return spare or self._make()

    def refill(self) -> None:
        """Make one soon, when the box that was started last has had its processor for a moment."""
        if not self._due:
            self._due = True
            self._world.loop.after(_PAUSE_SECONDS, self._fill)

    def close(self) -> None:
        """Nobody is asked for any more."""
        if self._spare:
            self._spare.end()
            self._spare = None

    def _fill(self) -> None:
        self._due = False
        if self._spare is None and self._world.settings.binary is not None and not self._world.starting:
            self._spare = self._make()

    def _make(self) -> Spare:
        ours, theirs = socket.socketpair()
        try:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            ours.setblocking(False)
            pid = child.fork_waiting(self._world.site(), theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return Spare(pid, ours, marks(self._world))


def marks(world: World) -> tuple[int, ...]:
    """What tells whether a child was made with the workspaces that are used now."""
    return world.workspaces.holder_fd, world.workspaces.users_fd


def _has_ended(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
