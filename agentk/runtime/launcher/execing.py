"""One command beside a box that runs: a sibling jail with the same files, uid, network and limits.

It has its own process namespace, /tmp and /dev/shm; /workspace is shared. Its leaf is in the agent's group, so fifty
of them share the agent's limits. Environment and Secret files are read back from the running box: nobody else keeps
them. Output is bounded; a command that takes too long is killed with all it started.
"""

import array
import base64
import dataclasses
import errno
import os
import shutil
import signal
import socket
import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime import process
from agentk.runtime.launcher import checking, child, ending, loop, processes, reaping, starting, wire
from agentk.runtime.launcher.world import Live, World, now_text

OUTPUT_MAX_BYTES = 1024 * 1024  # of each stream
_TIMEOUT_MAX_SECONDS = 24 * 3600.0
_PIPE_BYTES = 64 * 1024
_FILES_MAX_BYTES = 64 * 1024 * 1024
_AT_ONCE = 64  # a box
Answer = Callable[[wire.Message | errors.AgentkError], None]


def run(world: World, live: Live, argv: Sequence[str], seconds: float, answer: Answer) -> None:
    """Answers with the result when the command has ended. Raises Conflict when the box does not run."""
    if live.phase != "Running" or live.guest is None:
        raise errors.Conflict(f"the box is {live.phase}, not Running")
    if live.frozen:
        raise errors.Conflict("the box is frozen")
    others = [key for key in world.starting if key.startswith(f"{live.box.id}-exec-")]
    if len(others) >= _AT_ONCE:
        raise errors.TooManyRequests(f"{_AT_ONCE} commands run in this box already", retry_after_seconds=1)
    world.exec_count += 1
    box = _sibling(world, live, argv, world.exec_count)
    Command(world, live, box, answer).begin(max(0.0, min(seconds, _TIMEOUT_MAX_SECONDS)))


class Command:
    """One that runs."""

    def __init__(self, world: World, live: Live, box: words.Box, answer: Answer) -> None:
        self._world, self._live, self._box, self._answer = world, live, box, answer
        self._keeper_pid, self._keeper_fd = 0, -1
        self._channel: socket.socket | None = None
        self._streams: dict[int, bytearray] = {}
        self._order: list[int] = []
        self._truncated = self._timed_out = False
        self._timer: loop.Timer | None = None
        self._guest: words.Process | None = None
        self._refused = ""

    def begin(self, seconds: float) -> None:
        """As far as the fork."""
        world, box = self._world, self._box
        world.starting[box.id] = self
        try:
            world.records.intend(box)  # so that a launcher that comes after us ends what we leave
            world.groups.make_leaf(box.namespace, box.uid, box.leaf)
            self._fork()
        except (OSError, ValueError, errors.AgentkError) as error:
            self._clean()
            self._answer(
                error if isinstance(error, errors.AgentkError) else errors.RuntimeRefused(str(error))
            )
            return
        self._timer = world.loop.after(seconds, self._too_long)

    def _fork(self) -> None:
        world, box = self._world, self._box
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.setblocking(False)
        self._channel = ours
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
        spaces = []
        try:
            order = dataclasses.replace(starting.make_order(world, box), output=(pipes[0][1], pipes[1][1]))
            if box.runtime == "process":
                folder = world.workspaces.ensure(box.uid, box.host_uid, None).path
                self._keeper_pid = process.fork(dataclasses.replace(order, folder=folder), theirs)
            else:
                spaces = self._namespaces()
                site = world.site(network=spaces[0], users=spaces[1] if spaces[1:] else -1)
                self._keeper_pid = child.fork(site, order, theirs)
        finally:
            theirs.close()
            for fd in [write for _, write in pipes] + spaces:
                os.close(fd)
            for read, _ in pipes:
                os.set_blocking(read, False)
                self._streams[read] = bytearray()
                self._order.append(read)
        self._keeper_fd = os.pidfd_open(self._keeper_pid)
        world.loop.watch(self._keeper_fd, loop.READ, lambda _: self._ended())
        world.loop.watch(ours.fileno(), loop.READ, lambda _: self._heard())
        for read in self._streams:
            world.loop.watch(read, loop.READ, partial(self._take, read))

    def _namespaces(self) -> list[int]:
        """The box's network, and for an ordinary user the user namespace that owns it."""
        keeper = self._live.keeper
        if not processes.is_alive(keeper) or keeper is None:
            raise errors.Conflict("the box has just ended")
        names = ["net", "user"] if self._world.settings.rootless else ["net"]
        return [os.open(f"/proc/{keeper.pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in names]

    def _heard(self) -> None:
        assert self._channel is not None
        try:
            data, ancillary, _, _ = self._channel.recvmsg(4096, socket.CMSG_SPACE(12))
        except BlockingIOError:
            return
        if not data:
            self._world.loop.forget(self._channel.fileno())
        for line in data.splitlines():
            if line == b"r":
                pid = array.array("i", ancillary[0][2])[0]
                self._release(pid)
            else:
                self._refused = str(starting.message_of(line).get("error", ""))

    def _release(self, pid: int) -> None:
        assert self._channel is not None
        self._guest = processes.identify(pid)
        try:
            self._world.records.write_handle(
                self._box.id, {"guest": dataclasses.asdict(self._guest or _GONE)}
            )
            self._channel.send(b"g\n")
        except OSError as error:
            self._refused = str(error)
            self._stop()

    def _take(self, read: int, events: int = 0) -> None:
        try:
            data = os.read(read, _PIPE_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._world.loop.forget(read)
            return
        kept = self._streams[read]
        room = OUTPUT_MAX_BYTES - len(kept)
        self._truncated = self._truncated or len(data) > room
        kept += data[:room]

    def _too_long(self) -> None:
        self._timed_out = True
        self._stop()

    def _stop(self) -> None:
        world, box = self._world, self._box
        processes.send(self._guest, signal.SIGKILL)
        world.groups.kill(box.namespace, box.uid, box.leaf, wait_seconds=0)
        if box.runtime == "process":
            process.kill_all(box.id)
        if self._guest is None and self._keeper_fd >= 0:
            signal.pidfd_send_signal(self._keeper_fd, signal.SIGKILL)

    def _ended(self) -> None:
        world, box = self._world, self._box
        _, status = os.waitpid(self._keeper_pid, os.WNOHANG)
        for read in self._order:
            before = -1
            while before != len(self._streams[read]):
                before = len(self._streams[read])
                self._take(read)
        log = ending.log_text(world, Live(box))
        counters = world.groups.counters(box.namespace, box.uid, box.leaf)
        ended = reaping.judge(status, log, None, counters, now_text())
        stdout, stderr = (bytes(self._streams[read]) for read in self._order)
        never_ran = self._guest is None and reaping.exit_in(log) is None
        refused = self._refused or (reaping.complaints(log) if never_ran else "")
        self._clean()
        if self._timed_out or not never_ran:
            result = words.ExecResult(ended, stdout, stderr, self._timed_out, self._truncated)
            self._answer(wire.exec_result(result))
        else:
            self._answer(
                errors.RuntimeRefused(f"cannot run a command in the box: {refused or 'it did not start'}")
            )

    def _clean(self) -> None:
        world, box = self._world, self._box
        if self._timer:
            self._timer.cancel()
        if self._keeper_fd >= 0:
            world.loop.forget(self._keeper_fd)
            os.close(self._keeper_fd)
            self._keeper_fd = -1
        if self._channel:
            world.loop.forget(self._channel.fileno())
            self._channel.close()
            self._channel = None
        for read in self._order:
            world.loop.forget(read)
            os.close(read)
        self._order = []
        world.starting.pop(box.id, None)
        live = Live(box)
        ending.stop_all(world, live)
        ending.remove_leaf(world, live)
        world.records.forget(box.id)


_GONE = words.Process(0, 0, "")


def _sibling(world: World, live: Live, argv: Sequence[str], number: int) -> words.Box:
    box, guest = live.box, live.guest
    assert guest is not None
    env = dict(
        pair.split("=", 1)
        for pair in Path(f"/proc/{guest.pid}/environ")
        .read_bytes()
        .decode("utf-8", "surrogateescape")
        .split("\0")
        if "=" in pair
    )
    mounts = tuple(
        _read_back(world, live, at, mount) if mount.kind == "files" else mount
        for at, mount in enumerate(box.mounts)
    )
    if not processes.is_alive(guest):
        raise errors.Conflict("the box has just ended")  # what we read may be of another process
    return dataclasses.replace(
        box,
        id=f"{box.id}-exec-{number}",
        leaf=f"exec-{number}",
        argv=tuple(argv),
        env={name: value for name, value in env.items() if name not in ("PWD", "OLDPWD", "SHLVL", "_")},
        mounts=mounts,
    )


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


def end_leftover(world: World, box_id: str) -> None:
    """A command whose launcher died: nobody waits for it any more."""
    box = world.records.box(box_id)
    told = world.records.handle(box_id) or {}
    if box is not None:
        live = Live(box, guest=wire.process_from(told.get("guest")), ours=False)
        ending.stop_all(world, live)
        ending.remove_leaf(world, live)
    shutil.rmtree(world.records.path(box_id), ignore_errors=True)
