"""What is left of a command that was answered: its keeper for a moment, its leaf and its record.

All it started is dead by then, so nobody waits for this. Whoever comes after us ends it by its record, as any
command's. It must not be taken for a command that runs.
"""

import contextlib
import os
import shutil
import signal

from agentk.runtime import box as words
from agentk.runtime.launcher import ending, loop, wire
from agentk.runtime.launcher.world import Live, World


class Remains:
    """Of one command, until its keeper has ended."""

    exec_id = ""
    kept_bytes = fed_bytes = 0

    def __init__(self, world: World, box_id: str, box: words.Box, keeper_pid: int, keeper_fd: int) -> None:
        """Takes `keeper_fd`, which is watched, over."""
        self.box_id = box_id
        self._world, self._box, self._keeper_pid, self._keeper_fd = world, box, keeper_pid, keeper_fd
        world.commands[box.id] = self
        world.loop.watch(keeper_fd, loop.READ, lambda _: self._ended())

    def end(self) -> None:
        """Repeatable."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._keeper_fd, signal.SIGKILL)

    def allow(self, more: int) -> None:
        """It says nothing."""

    def freeze(self, frozen: bool) -> None:
        """There is nobody to stand still."""

    def _ended(self) -> None:
        world, box = self._world, self._box
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._keeper_pid, os.WNOHANG)
        world.loop.forget(self._keeper_fd)
        os.close(self._keeper_fd)
        del world.commands[box.id]
        sweep(world, box)


def sweep(world: World, box: words.Box) -> None:
    """Nothing of a command stays. Repeatable."""
    live = Live(box)
    ending.stop_all(world, live)
    ending.remove_leaf(world, live)
    world.records.forget(box.id)


def end_leftover(world: World, box_id: str) -> None:
    """A command whose launcher died: nobody waits for it any more."""
    box = world.records.box(box_id)
    told = world.records.handle(box_id) or {}
    if box is not None:
        live = Live(box, guest=wire.process_from(told.get("guest")), ours=False)
        ending.stop_all(world, live)
        ending.remove_leaf(world, live)
    shutil.rmtree(world.records.path(box_id), ignore_errors=True)
