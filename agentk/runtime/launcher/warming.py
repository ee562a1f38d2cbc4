"""A waiting Python beside a box that runs, for the next command that is one: made after the first such command, used
once, ended when nobody asks for a while.

It is a command's sibling jail like any other, with the agent's uid, files, network and group, so a command in it may
do exactly what it might in a cold one. It is made only while the agent has room for it below its own limits, is the
first that an OOM takes, and is counted nowhere until it is used.
"""

import array
import contextlib
import dataclasses
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime.launcher import checking, claiming, exec_sibling, loop, processes, remains, starting
from agentk.runtime.launcher.exec_wanted import Wanted
from agentk.runtime.launcher.world import Live, World

_PAUSE_SECONDS = 0.03  # the command that was asked for has the processor first
_IDLE_SECONDS = 60.0
# What an agent must have left, for one that takes 12 MiB and two.
_ROOM_BYTES, _ROOM_PIDS = 48 * 1024 * 1024, 8
_PYTHONS = ("python", "python3")
_FIRST_TO_GO, _AS_ALL = b"1000", b"0"  # oom_score_adj
_MESSAGE_BYTES = 4096


def serves(live: Live, wanted: Wanted) -> bool:
    """Whether a waiting Python could be this command."""
    return live.box.runtime == "nsjail" and wanted.argv[0] in _PYTHONS and wanted.limits == words.Limits()


def take(world: World, live: Live, wanted: Wanted) -> "Warm | None":
    """The one that waits, if it can be this command. It is the caller's then."""
    found = _of(world, live) if serves(live, wanted) and _has_folder(live, wanted.cwd) else None
    return found if found is not None and found.leave() else None


def refill(world: World, live: Live) -> None:
    """Make one soon, if there is none then. Repeatable."""
    if not live.warms:
        live.warms = True
        world.loop.after(_PAUSE_SECONDS, lambda: _fill(world, live))


def _fill(world: World, live: Live) -> None:
    live.warms = False
    if live.phase != "Running" or live.frozen or _of(world, live) is not None or not has_room(world, live):
        return
    world.exec_count += 1
    warm = Warm(world, live, world.exec_count)
    try:
        warm.make()
    except (OSError, ValueError, errors.AgentkError):
        warm.clean()  # the next command is a cold one, which says what is wrong


def has_room(world: World, live: Live) -> bool:
    """Whether the agent is far enough below its limits."""
    limits, counted = live.box.limits, world.counters(live)
    memory = (counted.memory_bytes or 0) + _ROOM_BYTES
    pids = (counted.pids or 0) + _ROOM_PIDS
    return (limits.memory_bytes is None or memory <= limits.memory_bytes) and (
        limits.pids is None or pids <= limits.pids
    )


def _of(world: World, live: Live) -> "Warm | None":
    return next((one for one in world.commands_of(live.box.id) if isinstance(one, Warm)), None)


def _has_folder(live: Live, cwd: str) -> bool:
    """What a cold command is told when it is not there is told by a cold command."""
    if not cwd or live.guest is None:
        return True
    try:
        root = os.open(f"/proc/{live.guest.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        folder = checking.open_beneath(cwd, root)
        found = os.path.isdir(f"/proc/self/fd/{folder}")
        os.close(folder)
        return found
    except OSError:
        return False
    finally:
        os.close(root)


class Warm:
    """One that waits, or is on its way to."""

    exec_id = ""
    kept_bytes = fed_bytes = 0

    def __init__(self, world: World, live: Live, number: int) -> None:
        self.box_id, self.box = live.box.id, exec_sibling.named(live.box, number)
        self.keeper_pid, self.keeper_fd = 0, -1
        self.guest: words.Process | None = None
        self._main: words.Process | None = None
        self._channel: socket.socket | None = None
        self._world, self._live = world, live
        self._timer: loop.Timer | None = None

    def make(self) -> None:
        """As far as the fork. Raises what `clean` must follow."""
        world, live = self._world, self._live
        env = exec_sibling.environment(live)
        if env is None:
            raise errors.Conflict("the box has only just begun")
        self.box = box = exec_sibling.fill(world, live, self.box, env, Wanted(("python",), 0.0))
        world.commands[box.id] = self
        world.records.intend(box)
        world.groups.make_leaf(box.namespace, box.cgroup, box.leaf)
        live.idle_leaf = box.leaf
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.setblocking(False)
        self._channel = ours
        nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            order = starting.make_order(world, box)
            waits = dataclasses.replace(order.box, argv=["python", "-c", starting.WAIT])
            order = dataclasses.replace(order, box=waits, output=(nothing, nothing), listens=True)
            self.keeper_pid = exec_sibling.fork(world, live, order, theirs)
        finally:
            theirs.close()
            os.close(nothing)
        self.keeper_fd = os.pidfd_open(self.keeper_pid)
        self.box = dataclasses.replace(box, env={})  # nobody but the guest keeps it
        world.loop.watch(self.keeper_fd, loop.READ, lambda _: self._ended())
        world.loop.watch(ours.fileno(), loop.READ, lambda _: self._heard())
        self._timer = world.loop.after(_IDLE_SECONDS, self.end)

    def leave(self) -> bool:
        """It is another's to watch and to end. False when it is not ready."""
        if self._main is None or not processes.is_alive(self._main) or not self._score(_AS_ALL):
            return False
        world = self._world
        if self._timer:
            self._timer.cancel()
        world.loop.forget(self.keeper_fd)
        del world.commands[self.box.id]
        self._live.idle_leaf = ""
        return True

    def tell(self, box: words.Box, streams: Sequence[int]) -> None:
        """What to become. Raises OSError when it is gone."""
        assert self._channel is not None
        claiming.tell(self._channel, box, tuple(streams))
        self._channel = None

    def end(self) -> None:
        """Repeatable."""
        box = self.box
        processes.send(self.guest, signal.SIGKILL)
        self._world.groups.kill(box.namespace, box.cgroup, box.leaf, wait_seconds=0)
        if self.guest is None and self.keeper_fd >= 0:
            signal.pidfd_send_signal(self.keeper_fd, signal.SIGKILL)

    def allow(self, more: int) -> None:
        """It says nothing."""

    def freeze(self, frozen: bool) -> None:
        """Stand still with its box, or go on."""
        box, groups = self.box, self._world.groups
        (groups.freeze if frozen else groups.thaw)(box.namespace, box.cgroup, box.leaf)

    def _heard(self) -> None:
        assert self._channel is not None
        try:
            data, ancillary, _, _ = self._channel.recvmsg(_MESSAGE_BYTES, socket.CMSG_SPACE(12))
            sender = processes.identify(array.array("i", ancillary[0][2])[0]) if data else None
        except BlockingIOError:
            return
        except OSError:
            data, sender = b"", None
        if data == b"r\n" and self.guest is None:
            self._release(sender)
            return
        # Code of the agent's own may be at the other end by now: of all it says one message is read.
        self._world.loop.forget(self._channel.fileno())
        if data == b"w\n" and self.guest is not None:
            self._main = sender
            self._score(_FIRST_TO_GO)
        else:
            self.end()

    def _release(self, guest: words.Process | None) -> None:
        world, box = self._world, self.box
        self.guest = guest
        inside = world.groups.pids(box.namespace, box.cgroup, box.leaf)
        if guest is None or (world.groups.version != "none" and guest.pid not in inside):
            self.end()
            return
        world.records.write_handle(box.id, {"guest": dataclasses.asdict(guest)})
        assert self._channel is not None
        self._channel.send(b"g\n")

    def _score(self, adjustment: bytes) -> bool:
        assert self._main is not None
        try:
            Path(f"/proc/{self._main.pid}/oom_score_adj").write_bytes(adjustment)
        except OSError:
            return False
        return True

    def _ended(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.keeper_pid, os.WNOHANG)
        self.clean()

    def clean(self) -> None:
        """Nothing of it stays. Repeatable."""
        world, box = self._world, self.box
        if self._timer:
            self._timer.cancel()
        if self.keeper_fd >= 0:
            world.loop.forget(self.keeper_fd)
            os.close(self.keeper_fd)
            self.keeper_fd = -1
        if self._channel:
            world.loop.forget(self._channel.fileno())
            self._channel.close()
            self._channel = None
        world.commands.pop(box.id, None)
        self._live.idle_leaf = ""
        remains.sweep(world, box)
