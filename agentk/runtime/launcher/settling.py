"""Records made safe from a loss of power, soon after they are written, by a child that may wait for the disk."""

import os

from agentk.runtime.launcher import child, loop
from agentk.runtime.launcher.world import World

_SOON_SECONDS = 0.3  # one child for all that is written meanwhile


class Settler:
    def __init__(self, world: World) -> None:
        self._world = world
        self._busy = False

    def watch(self) -> None:
        """From now on."""
        self._world.records.on_write = self._written

    def _written(self) -> None:
        if not self._busy:
            self._busy = True
            self._world.loop.after(_SOON_SECONDS, self._settle)

    def _settle(self) -> None:
        records = self._world.records
        pid = os.fork()
        if pid == 0:
            try:
                child.close_all_but(set())
                records.settle()
            finally:
                os._exit(0)
        records.unsettled = set()
        pidfd = os.pidfd_open(pid)
        self._world.loop.watch(pidfd, loop.READ, lambda _: self._settled(pid, pidfd))

    def _settled(self, pid: int, pidfd: int) -> None:
        self._world.loop.forget(pidfd)
        os.close(pidfd)
        os.waitpid(pid, 0)
        self._busy = False
        if self._world.records.unsettled:
            self._written()
