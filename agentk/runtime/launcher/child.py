"""What the launcher's forked child does on its way to becoming a box: one straight road, no way back.

It runs with the launcher's rights until it becomes nsjail. Anything that fails is told over the channel in one JSON
line, and the child is gone with all it mounted. It must not touch the launcher's state: that is a copy.
"""

import contextlib
import fcntl
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from agentk.runtime import box as words
from agentk.runtime import kernel, nsjail
from agentk.runtime.launcher import doors, mounts, wire

FAILED = 125
_LOWEST_FREE = 16  # above every descriptor the box itself has
_FDS_END = 1 << 20
_BESIDE_MAX = 3  # descriptors that come with an order
HOST_NETWORK = -2  # for the one fixed program that fetches packages
ROOT_INSIDE = 0  # what an ordinary user is in the namespace between it and the box


@dataclass(frozen=True)
class Site:
    """What is known of every box before it is asked for."""

    rootless: bool
    binary: Path  # nsjail
    stage_at: Path
    host: nsjail.Host
    base: str  # text of base.cfg
    policies: Mapping[str, str]  # seccomp name → kafel text, quoted
    attach_workspace: Callable[[str, Path], None]
    users: int = -1  # the user namespace to join, for an ordinary user; -1 makes one
    network: int = -1  # the network namespace to join; -1 makes one, HOST_NETWORK stays in the launcher's
    door: bool = True  # whether the door listens in the one that is made
    keep: Sequence[int] = ()  # descriptors that `attach_workspace` uses


@dataclass(frozen=True)
class Order:
    """One box. Plain data: a child that was forked before it was asked for reads it from a descriptor."""

    box: words.Box
    record: Path  # the box's directory
    entry_files: Sequence[Path]  # of the box's leaf
    keeper_files: Sequence[Path]  # of the group for those that watch
    shown: mounts.Shown
    output: tuple[int, int] | None = None  # descriptors for 1 and 2; None: the FIFOs in the record
    listens: bool = False  # its program hears on the channel what to become
    stdin: int = -1  # a descriptor for 0; -1: nothing to read
    folder: Path | None = None  # the workspace's directory, for a box without a jail

    @property
    def log(self) -> Path:
        """The keeper's."""
        return self.record / "nsjail.log"


def order_text(order: Order) -> bytes:
    """An order for a child that waits. It has no descriptors."""
    told = {"box": wire.plain(order.box), "record": str(order.record), "shown": wire.plain(order.shown)}
    told["listens"] = order.listens
    files = {name: [str(file) for file in getattr(order, name)] for name in ("entry_files", "keeper_files")}
    return json.dumps({**told, **files}).encode()


def order_from(text: bytes) -> Order:
    """The inverse of `order_text`."""
    told = json.loads(text)
    return Order(
        box=wire.box_from(told["box"]),
        record=Path(told["record"]),
        entry_files=tuple(map(Path, told["entry_files"])),
        keeper_files=tuple(map(Path, told["keeper_files"])),
        shown=mounts.Shown(**told["shown"]),
        listens=bool(told["listens"]),
    )


def own_text(box: words.Box, door: str) -> bytes:
    """What one agent has for itself, for a child that brings it to a box that waited."""
    return json.dumps({"box": wire.plain(box), "door": door}).encode()


def own_from(text: bytes) -> tuple[words.Box, str]:
    """The inverse of `own_text`."""
    told = json.loads(text)
    return wire.box_from(told["box"]), str(told["door"])


def fork(site: Site, order: Order, channel: socket.socket) -> int:
    """The pid of a child that becomes this box's keeper at once. The child never returns."""
    return fork_into(channel, lambda: _begin(site, order, channel))


def fork_waiting(site: Site, channel: socket.socket) -> int:
    """The pid of a child that has done all that is the same for every box, and waits for its order."""
    return fork_into(channel, lambda: _wait(site, channel))


def fork_into(channel: socket.socket, act: Callable[[], NoReturn]) -> int:
    """The pid of a child that does `act` and tells what fails."""
    pid = os.fork()
    if pid:
        return pid
    try:
        gc.disable()
        act()
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _tell(channel, {"error": f"{error.strerror or error}{where}"})
    except BaseException as error:  # noqa: BLE001 (nothing may return into the launcher's loop)
        _tell(channel, {"error": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(FAILED)


def _begin(site: Site, order: Order, channel: socket.socket) -> NoReturn:
    # with the launcher's end of the channel open in here, it would wait for ever for the word of one that was killed
    ends = {order.stdin, *(order.output or ())}
    close_all_but({channel.fileno(), site.users, site.network, *ends, *site.keep})
    _become(site, order, _prepare(site, channel), channel)


def _wait(site: Site, channel: socket.socket) -> NoReturn:
    close_all_but({channel.fileno(), site.users, *site.keep})
    stage = _prepare(site, channel)
    order = order_from(receive_order(channel)[0])
    _become(site, order, stage, channel)


def seal() -> None:
    """Before paths are the guest's: an import would look for its file in there, so from here on it fails."""
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()
    sys.path_importer_cache.clear()


def close_all_but(kept: set[int]) -> None:
    """A child that lives for a while must hold nothing open that others believe closed when the launcher is gone."""
    lowest = 3
    for fd in sorted(fd for fd in kept if fd >= lowest):
        os.closerange(lowest, fd)
        lowest = fd + 1
    os.closerange(lowest, _FDS_END)


def receive_order(channel: socket.socket) -> tuple[bytes, list[int]]:
    """The order, in a file that has no name, and the descriptors beside it. The end of the channel is ours."""
    word, fds, _, _ = socket.recv_fds(channel, 1, _BESIDE_MAX + 1)
    if not word or not fds:
        os._exit(0)
    with open(fds[0], "rb") as file:
        return file.read(), fds[1:]


def _prepare(site: Site, channel: socket.socket) -> mounts.Stage:
    """Namespaces, the door that listens in them, and the empty stage."""
    os.setsid()
    os.umask(0o022)
    usual_signals()
    uid, gid = os.getuid(), os.getgid()
    if site.users >= 0:
        kernel.setns(site.users, kernel.CLONE_NEWUSER)
    elif site.rootless:
        kernel.unshare(kernel.CLONE_NEWUSER)
        kernel.map_ids("self", ROOT_INSIDE, uid, ROOT_INSIDE, gid)
    kernel.unshare(kernel.CLONE_NEWNS)
    # what the host unmounts goes here too: a box must not keep a disk busy
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
    _network(site, channel)
    return mounts.Stage.make(site.stage_at)


def _become(site: Site, order: Order, stage: mounts.Stage, channel: socket.socket) -> NoReturn:
    """From a copy of the launcher to nsjail."""
    box = order.box
    binary = high(os.open(site.binary, os.O_RDONLY | os.O_CLOEXEC))
    outside = open_entries(order.keeper_files)
    staged = stage.fill(box, order.shown, lambda target: site.attach_workspace(box.uid, target))
    jail = nsjail.Jail(
        argv=box.argv,
        hostname=box.hostname,
        cwd="/" if order.listens else box.cwd,
        env=box.env,
        outside_uid=ROOT_INSIDE if site.rootless else box.host_uid,
        open_files=box.limits.open_files or 1024,
        tmp_bytes=box.tmp_bytes,
        seccomp=site.policies.get(box.seccomp, ""),
        groups=len(order.entry_files),
        entries=staged,
        tmpfs=mounts.tmpfs(box),
        waits=order.listens,
    )
    config = _memory_file(nsjail.render(jail, site.host, site.base))
    # From here on we need what the launcher makes at the same time: record, cgroup and FIFOs.
    if order.output is None and not channel.recv(1):
        os._exit(0)  # the box was given up
    log = high(os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600))
    leaf = open_entries(order.entry_files)
    stdin, *output = (order.stdin, *order.output) if order.output else nameless(order.record, box.stdin)
    own_cgroup_namespace(leaf, outside)
    arrange(output, channel.fileno(), leaf, keep=(config, log), stdin=stdin)
    arguments = ["nsjail", "--config", f"/proc/self/fd/{config}", "--log", f"/proc/self/fd/{log}"]
    os.execve(binary, arguments, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


def _network(site: Site, channel: socket.socket) -> None:
    if site.network == HOST_NETWORK:
        return
    if site.network >= 0:
        kernel.setns(site.network, kernel.CLONE_NEWNET)
        return
    kernel.unshare(kernel.CLONE_NEWNET)
    kernel.loopback_up()
    if not site.door:
        return
    with doors.listen_inside() as listener:
        socket.send_fds(channel, [b'{"listener": true}\n'], [listener.fileno()])


def usual_signals() -> None:
    """What the launcher ignores would stay ignored across exec; what it handles is not for a child to handle."""
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    # the launcher shields itself from the OOM killer; a box must not inherit that
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(b"0")


def open_entries(files: Sequence[Path]) -> list[int]:
    """Opened with the launcher's rights, for a process with fewer to write "0" into.

    On v1 we move by threads: a process with one thread that moves itself need not wait for every CPU, which takes
    the kernel ten milliseconds.
    """
    opened = []
    for file in files:
        tasks = file.parent / "tasks"  # v1 only
        opened.append(high(os.open(tasks if tasks.exists() else file, os.O_WRONLY | os.O_CLOEXEC)))
    return opened


def own_cgroup_namespace(leaf: Sequence[int], outside: Sequence[int]) -> None:
    """The box's cgroup namespace begins at its leaf. Its keeper stays outside: an OOM takes the guest only."""
    enter(leaf)
    kernel.unshare(kernel.CLONE_NEWCGROUP)
    enter(outside)


def enter(entries: Sequence[int]) -> None:
    """Go into a group."""
    for entry in entries:
        os.write(entry, b"0")


def nameless(record: Path, stdin: bool) -> tuple[int, int, int]:
    """The box's own ends of its FIFOs, which wait (ours never do, and that is a property of what was opened).

    It reads their names in /proc/self/fd: opened in a mount that is nowhere, they are /out and /err and no paths
    of the host.
    """
    tree = kernel.open_tree(record)
    try:
        return open_ends(tree, stdin)
    finally:
        os.close(tree)


def open_ends(folder: int, stdin: bool) -> tuple[int, int, int]:
    """The FIFOs of a box for 0, 1 and 2, by its record's descriptor; -1 when it has none to read.

    Each is opened to read and to write, the first one too: then no death of ours is the end of what the box reads.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    read = os.open("in", flags, dir_fd=folder) if stdin else -1
    return read, os.open("out", flags, dir_fd=folder), os.open("err", flags, dir_fd=folder)


def arrange(
    output: Sequence[int], channel: int, leaf: Sequence[int], keep: tuple[int, ...], stdin: int = -1
) -> None:
    """Descriptors as the first process of the box has them: 0 to 2, the channel, its leaf's; above them `keep`."""
    if stdin < 0:
        stdin = os.open("/dev/null", os.O_RDWR)
    for number, fd in enumerate([high(fd) for fd in (stdin, *output, channel, *leaf)]):
        os.dup2(fd, number, inheritable=True)
    for fd in keep:
        os.set_inheritable(fd, True)


def high(fd: int) -> int:
    """A copy that is out of the way of 0 to 3; closed by exec."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FREE)


def _memory_file(text: str) -> int:
    fd = high(os.memfd_create("box", os.MFD_CLOEXEC))
    data = memoryview(text.encode("utf-8", "surrogateescape"))
    while data:
        data = data[os.write(fd, data) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _tell(channel: socket.socket, message: dict[str, str]) -> None:
    try:
        channel.send(json.dumps(message).encode() + b"\n")
    except OSError as error:
        print(f"agentk launcher: {message} {error}", file=sys.stderr, flush=True)
