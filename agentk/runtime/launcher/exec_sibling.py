"""The box of a command: the running box's files, uid and network, and its environment, read back from where it runs.

Nobody else keeps an environment and Secret files. What is read is the guest's to change, so no link of its making is
followed, and only what we gave to its uid is read.
"""

import base64
import dataclasses
import errno
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from typing import Protocol

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime import kernel, nsjail, process
from agentk.runtime.launcher import checking, child, entered, processes, starting
from agentk.runtime.launcher.exec_wanted import Wanted
from agentk.runtime.launcher.world import Live, World
from agentk.runtime.podman import spec

_FILES_MAX_BYTES = 64 * 1024 * 1024
_COMMAND_LINE_BYTES = 64 * 1024  # all that we look for is in its beginning
_ENVIRONMENT_BYTES = 4 * 1024 * 1024  # what a box is given, if every letter takes four
# Between looks at a box that has only just begun; after so many (4 s) a guest has emptied its environment itself.
_LOOK_SECONDS, _LOOK_MAX_SECONDS = 0.002, 0.1
_LOOKS = 45
_SHELLS_OWN = ("PWD", "OLDPWD", "SHLVL", "_")


def named(box: words.Box, number: int) -> words.Box:
    """The sibling of a box, as yet without what makes it run."""
    return dataclasses.replace(box, id=f"{box.id}-exec-{number}", leaf=f"exec-{number}")


def check_open(live: Live) -> None:
    """Whether a command can be run beside the box, or in it. Raises Conflict."""
    if live.phase != "Running" or live.guest is None:
        raise errors.Conflict(f"the box is {live.phase}, not Running")
    if live.frozen:
        raise errors.Conflict("the box is frozen")
    if live.box.build:
        raise errors.Conflict("an environment is being made in it")
    if live.box.waits:
        raise errors.Conflict("the box waits to be claimed")


class Newcomer(Protocol):
    """What is to be run as soon as its box stands."""

    needs_env: bool  # the box's own

    @property
    def is_over(self) -> bool: ...  # answered already
    def make(self, env: Mapping[str, str]) -> None: ...
    def fail(self, error: errors.AgentkError) -> None: ...


def when_it_stands(world: World, live: Live, one: Newcomer, looks: int = 0) -> None:
    """Make it as soon as the box has an environment; it fails with what keeps it from that. Never waits."""
    if one.is_over:
        return
    try:
        env = environment(live) if one.needs_env else {}
        if env is None and looks < _LOOKS and not live.is_bare:
            wait = min(_LOOK_SECONDS * 2**looks, _LOOK_MAX_SECONDS)
            world.loop.after(wait, lambda: when_it_stands(world, live, one, looks + 1))
            return
        if one.needs_env:
            live.is_bare = env is None
        if live.frozen:
            raise errors.Conflict("the box is frozen")
        one.make(env or {})
    except errors.AgentkError as error:
        one.fail(error)
    except (OSError, ValueError) as error:
        one.fail(errors.RuntimeRefused(str(error)))


def environment(live: Live) -> Mapping[str, str] | None:
    """The running box's own. None while its first process has not become what it is to be: before that some of it is
    missing, and while the kernel sets the new program up there is none at all."""
    # of a box that waited, PID 1 has what it waited with, and its main process what it became
    process = live.main or live.guest
    assert process is not None
    try:
        # first: of a new program it is there before the other is
        command_line = _told(process, "cmdline", _COMMAND_LINE_BYTES)
        data = _told(process, "environ", _ENVIRONMENT_BYTES + 1)
    except OSError:
        command_line = data = b""
    if not processes.is_alive(process):
        raise errors.Conflict("the box has just ended")  # what we read may be of another process
    if len(data) > _ENVIRONMENT_BYTES:
        raise errors.RuntimeRefused(f"its environment is over {_ENVIRONMENT_BYTES} bytes")
    if not command_line or not data or _is_first(command_line) or is_waiting(command_line):
        return None
    text = data.decode("utf-8", "surrogateescape")
    env = dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair)
    return {name: value for name, value in env.items() if name not in _SHELLS_OWN}


def _told(process: words.Process, name: str, most: int) -> bytes:
    """A process says itself where these are in its memory, and may mean all of it: so no more than `most` bytes."""
    return kernel.read(f"/proc/{process.pid}/{name}", most)


def _is_first(command_line: bytes) -> bool:
    return nsjail.is_bootstrap(command_line) or spec.is_waiting(command_line)


def is_waiting(command_line: bytes) -> bool:
    """Whether a process (by its /proc/PID/cmdline) is a waiting interpreter that has not become its program yet."""
    option, program = [*command_line.split(b"\0")[1:3], b"", b""][:2]
    return option == b"-c" and program in (starting.WAIT.encode(), starting.WAIT_AT.encode())


def fill(world: World, live: Live, box: words.Box, env: Mapping[str, str], wanted: Wanted) -> words.Box:
    """What is to run. Raises Conflict when the box has just ended, BadRequest for a directory it does not have."""
    mounts: tuple[words.Mount, ...] = ()
    try:
        if box.runtime != "podman":  # it runs in the box itself, where they are
            mounts = tuple(
                _read_back(world, live, at, mount) if mount.kind == "files" else mount
                for at, mount in enumerate(box.mounts)
            )
    finally:
        if not processes.is_alive(live.guest):
            raise errors.Conflict("the box has just ended")  # what we read may be of another process
    cwd = wanted.cwd or box.cwd
    if wanted.cwd and box.runtime == "process" and not process.leads_to(box, cwd):
        raise errors.BadRequest(f"without a jail there is only /workspace and what is mounted, not {cwd}")
    return dataclasses.replace(
        box,
        argv=tuple(wanted.argv),
        env={**env, **wanted.env},
        cwd=cwd,
        mounts=mounts,
        limits=dataclasses.replace(box.limits, open_files=wanted.limits.open_files or box.limits.open_files),
    )


def fork(world: World, live: Live, order: child.Order, channel: socket.socket) -> int:
    """The pid of its keeper: in the network of the box and, for an ordinary user, in the user namespace owning that."""
    keeper = live.keeper
    if not processes.is_alive(keeper) or keeper is None:
        raise errors.Conflict("the box has just ended")
    names = ["net", "user"] if world.settings.rootless else ["net"]
    spaces: list[int] = []
    try:
        for name in names:
            spaces.append(os.open(f"/proc/{keeper.pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC))
        return child.fork(
            world.site(network=spaces[0], users=spaces[1] if spaces[1:] else -1), order, channel
        )
    finally:
        for fd in spaces:
            os.close(fd)


def enter(
    world: World, live: Live, box: words.Box, ends: Sequence[int], wanted: Wanted, channel: socket.socket
) -> int:
    """Into a Podman box, which has no siblings: a process of its own. The pid of its keeper. Raises Conflict."""
    if live.guest is None or not processes.is_alive(live.guest):
        raise errors.Conflict("the box has just ended")
    order = entered.Order(
        guest=live.guest,
        entry_files=tuple(world.groups.entry_files(box.namespace, box.cgroup, box.leaf)),
        keeper_files=tuple(world.groups.keeper_files()),
        ends=ends,
        filter=seccomp_of(world, box),
        program=entered.Program(
            box.argv, tuple(box.env.items()), box.cwd, open_files=wanted.limits.open_files
        ),
        host_uid=box.host_uid,
    )
    return entered.fork(order, channel)


def seccomp_of(world: World, box: words.Box) -> bytes:
    """The filter of a box. Raises RuntimeRefused where this machine has none: never entered without."""
    if box.runtime == "process" or box.seccomp == "privileged":
        return b""
    if box.seccomp not in world.settings.filters:
        raise errors.RuntimeRefused(f"there is no seccomp filter {box.seccomp} for this machine")
    return world.settings.filters[box.seccomp]


def _read_back(world: World, live: Live, number: int, mount: words.Mount) -> words.Mount:
    """The files of a mount as the running box has them. No link of the guest's making is followed."""
    assert live.guest is not None
    place, inside = f"/proc/{live.guest.pid}/root", f"{mount.target}/"
    if live.box.runtime == "process":  # its root is the host's: what is at the target there was not ours
        place, inside = str(process.files_folder(world.records.path(live.box.id), number)), ""
        if not os.path.isdir(place):
            return mount  # the box does not see this one
    owner = live.box.host_uid if live.box.host_uid >= 0 else os.geteuid()
    files, left = {}, _FILES_MAX_BYTES
    root = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in mount.files:
            data = _read_beneath(root, f"{inside}{name}", owner, left)
            left -= len(data)
            files[name] = base64.b64encode(data).decode()
    finally:
        os.close(root)
    return dataclasses.replace(mount, files=files)


def _read_beneath(root: int, path: str, owner: int, limit: int) -> bytes:
    """Only what we gave to the box's uid: we may read more than it may, and it gets what we read."""
    handle = checking.open_beneath(path, root)
    try:
        seen = os.fstat(handle)
        if not stat.S_ISREG(seen.st_mode) or seen.st_uid != owner:
            raise OSError(errno.EACCES, "this is not the file that was put there", f"/{path.lstrip('/')}")
        fd = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(handle)
    try:
        return os.read(fd, limit)
    finally:
        os.close(fd)
