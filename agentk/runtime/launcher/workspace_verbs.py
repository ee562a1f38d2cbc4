"""A workspace out as a tar stream and in again, of an agent whose box runs, stands still, or is not there.

The reading and writing is done by a forked child that has the workspace alone for its root, the uid of its files and
no right beyond that; it is in no group of the agent's, so a box that runs can stand still meanwhile, and does when it
is asked to. What comes in takes the place of all that was there: whoever dies in the middle does it again.
"""

import contextlib
import json
import os
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from agentk.api import errors
from agentk.runtime import kernel
from agentk.runtime.launcher import (
    calling,
    checking,
    child,
    ending,
    entered,
    entering,
    handing,
    loop,
    mounts,
    packing,
    unpacking,
    wire,
)
from agentk.runtime.launcher.crash import crashpoint
from agentk.runtime.launcher.world import Live, World

_AT_ONCE = 4
_OPEN_FILES = 256
_TOLD_MAX_BYTES = 64 * 1024
_HERE = "."


@dataclass(frozen=True)
class _Order:
    site: child.Site
    owner: int  # host uid, -1: our own
    folder: Path | None  # of the files, where they are in a directory of ours
    attach: Callable[[Path], None]
    end: int
    filter: bytes
    act: Callable[[], dict[str, Any]]


def take(world: World, message: wire.Message, fds: Sequence[int], caller: calling.Caller) -> None:
    """Write the workspace of `uid` to `fds`; `still`: with its box, if one runs, standing still meanwhile. Answers as
    `pack`, and whether it stood still. Raises NotFound, TooManyRequests."""
    _, uid = checking.check_agent(message.get("namespace"), message.get("uid"))
    still = message.get("still", True)
    if not isinstance(still, bool):
        raise errors.BadRequest("still is true or false")
    _check(world, uid, fds)
    owner = world.workspaces.owner(uid)
    if owner is None:
        raise errors.NotFound("this agent has no workspace")
    running = [live for live in world.lives.values() if live.box.uid == uid and live.phase == "Running"]
    box = running[0] if running else None
    _begin(world, uid, owner, fds, caller, box if still else None, False, _packed)


def put(world: World, message: wire.Message, fds: Sequence[int], caller: calling.Caller) -> None:
    """Read a workspace from `fds`, in place of the one there was. Answers as `unpack`. Raises Conflict while a box of
    the agent is there, Invalid, TooManyRequests."""
    _, uid = checking.check_agent(message.get("namespace"), message.get("uid"))
    owner = checking.check_owner(message.get("host_uid"), world.settings.bounds)
    size = message.get("size_bytes")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or not 0 < size < 1 << 62):
        raise errors.BadRequest("size_bytes is a number above 0")
    if _is_busy(world, uid):
        raise errors.Conflict("the agent has a box")
    _check(world, uid, fds)
    before = world.workspaces.holder_fd
    world.workspaces.remove(uid)
    crashpoint("workspace.after-remove")
    world.workspaces.ensure(uid, owner, size)
    if world.workspaces.holder_fd != before:
        handing.lend_holder(world)
    crashpoint("workspace.after-make")
    _begin(world, uid, owner, fds, caller, None, True, _unpacked)


def _packed() -> dict[str, Any]:
    return packing.Packer(1, whole=True).pack(_HERE, packing.BELOW, _HERE)


def _unpacked() -> dict[str, Any]:
    return unpacking.Unpacker(0, whole=True).unpack(_HERE, packing.BELOW)


def holds(world: World, uid: str) -> bool:
    """Whether a box stands still until its workspace is taken."""
    return any(one.uid == uid and one.stands for one in world.carriers)


def _is_busy(world: World, uid: str) -> bool:
    begun = any(
        live.box.uid == uid and live.phase in ("Starting", "Running") for live in world.lives.values()
    )
    return begun or any(attempt.uid == uid for attempt in world.starting.values())


def _begin(
    world: World,
    uid: str,
    owner: int,
    fds: Sequence[int],
    caller: calling.Caller,
    still: Live | None,
    writes: bool,
    act: Callable[[], dict[str, Any]],
) -> None:
    Carrier(world, uid, owner, os.dup(fds[0]), caller, still, writes, act).begin()


def _check(world: World, uid: str, fds: Sequence[int]) -> None:
    checking.check_ends(fds, 1, False, entering.givers(world))
    if len(world.carriers) >= _AT_ONCE:
        raise errors.TooManyRequests(f"{_AT_ONCE} workspaces are being carried", retry_after_seconds=1)
    if any(one.uid == uid for one in world.carriers):
        raise errors.Conflict("the workspace is being carried already")


class Carrier:
    """One child."""

    def __init__(
        self,
        world: World,
        uid: str,
        owner: int,
        end: int,
        caller: calling.Caller,
        still: Live | None,
        writes: bool,
        act: Callable[[], dict[str, Any]],
    ) -> None:
        self.uid, self.writes, self.stands = uid, writes, still is not None
        self._world, self._owner, self._end, self._caller, self._act = world, owner, end, caller, act
        self._still, self._stood = still, False
        self._pid, self._pidfd = 0, -1
        self._channel: socket.socket | None = None
        self._told = b""

    def begin(self) -> None:
        """Answers by itself."""
        world = self._world
        world.carriers.append(self)
        try:
            self._freeze()
            self._fork()
        except BaseException:
            self._clean()
            raise
        self._caller.on_gone = self._stop

    def _freeze(self) -> None:
        live = self._still
        if live is None:
            return
        box = live.box
        self._stood = live.frozen or self._world.groups.freeze(box.namespace, box.cgroup, live.leaf)
        crashpoint("workspace.after-freeze")
        for command in self._world.commands_of(box.id):
            command.freeze(True)

    def _thaw(self) -> None:
        """Unless it is to stand still anyway."""
        live, self._still = self._still, None
        if live is None or live.frozen or live.phase != "Running":
            return
        self._world.groups.thaw(live.box.namespace, live.box.cgroup, live.leaf)
        for command in self._world.commands_of(live.box.id):
            command.freeze(False)

    def _fork(self) -> None:
        world, uid = self._world, self.uid
        site = world.site()
        order = _Order(
            site=site,
            owner=self._owner,
            folder=world.workspaces.folder(uid),
            attach=lambda target: site.attach_workspace(uid, target),
            end=self._end,
            filter=world.settings.filters.get("baseline", b""),
            act=self._act,
        )
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._channel = ours
        try:
            checking.lend_ends([self._end], self._owner)
            launcher = os.getpid()
            self._pid = child.fork_into(theirs, lambda: _carry(order, theirs, launcher))
        finally:
            theirs.close()
        crashpoint("workspace.after-fork")
        self._pidfd = os.pidfd_open(self._pid)
        world.loop.watch(self._pidfd, loop.READ, lambda _: self._ended())
        world.loop.watch(ours.fileno(), loop.READ, lambda _: self._heard())

    def _heard(self) -> None:
        if self._channel is None:
            return
        try:
            data = self._channel.recv(_TOLD_MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._world.loop.forget(self._channel.fileno())
        self._told = (self._told + data)[:_TOLD_MAX_BYTES]

    def _stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _ended(self) -> None:
        self._heard()
        stood, pid = self._stood, self._pid
        crashpoint("workspace.before-thaw")
        self._clean()
        ending.bury(self._world, pid)
        try:
            told = json.loads(self._told.partition(b"\n")[0])
        except ValueError:
            told = {}
        done = told.get("done") if isinstance(told, dict) else None
        if isinstance(done, dict):
            self._caller.answer({**done, "stood_still": stood})
        else:
            why = str(told.get("error", "")) if isinstance(told, dict) else ""
            self._caller.answer(errors.RuntimeRefused((why or "it was ended before it was done")[:500]))

    def _clean(self) -> None:
        world = self._world
        self._caller.on_gone = None
        self._thaw()
        if self in world.carriers:
            world.carriers.remove(self)
        if self._end >= 0:
            os.close(self._end)
            self._end = -1
        if self._pidfd >= 0:
            world.loop.forget(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._channel:
            world.loop.forget(self._channel.fileno())
            self._channel.close()
            self._channel = None


def _carry(order: _Order, channel: socket.socket, launcher: int) -> NoReturn:
    """One straight road: the workspace becomes our root, its owner becomes our uid, and nothing else is left."""
    site = order.site
    os.setsid()
    os.umask(0o022)
    child.usual_signals()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    child.close_all_but({channel.fileno(), order.end, site.users, *site.keep} - {-1})
    target = order.folder or _mounted(order)
    root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    for number in range(3):
        os.dup2(order.end, number)
    os.fchdir(root)
    child.close_all_but({channel.fileno()})
    child.seal()
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if order.owner >= 0 and os.geteuid() == 0 and not site.rootless:
        os.chroot(".")
        os.setgroups([])
        entered.be(order.owner)  # who stops being root has no right left
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    elif site.rootless and not order.folder:
        kernel.give_up_capabilities()  # those of a namespace that is ours alone
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
    if os.getppid() != launcher:
        os._exit(child.FAILED)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if order.filter:
        kernel.seccomp(order.filter)
    try:
        told: dict[str, Any] = {"done": order.act()}
    except OSError as error:
        told = {"error": error.strerror or str(error)}
    channel.send(json.dumps(told).encode() + b"\n")
    os._exit(0)


def _mounted(order: _Order) -> Path:
    """In a mount namespace of its own."""
    site = order.site
    uid, gid = os.getuid(), os.getgid()
    if site.users >= 0:
        kernel.setns(site.users, kernel.CLONE_NEWUSER)
    elif site.rootless:
        kernel.unshare(kernel.CLONE_NEWUSER)
        kernel.map_ids("self", child.ROOT_INSIDE, uid, child.ROOT_INSIDE, gid)
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
    stage = mounts.Stage.bare(site.stage_at)
    target = stage.root / "workspace"
    os.mkdir(target, 0o700)
    order.attach(target)
    return target
