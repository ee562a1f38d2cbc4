"""What the launcher's forked child does on its way to becoming a box: one straight road, no way back.

It runs with the launcher's rights until it becomes nsjail. Anything that fails is told over the channel in one JSON
line, and the child is gone with all it mounted. It must not touch the launcher's state: that is a copy.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from agentk.runtime import box as words
from agentk.runtime import kernel, nsjail
from agentk.runtime.launcher import doors, mounts

FAILED = 125
_LOWEST_FREE = 16  # above every descriptor the box itself has
ROOT_INSIDE = 0  # what an ordinary user is in the namespace between it and the box


@dataclass(frozen=True)
class Order:
    """Everything the child needs; made before the fork."""

    box: words.Box
    channel: socket.socket  # the child's end
    entry_files: Sequence[Path]  # of the box's leaf
    keeper_files: Sequence[Path]  # of the group for those that watch
    output: tuple[int, int]  # descriptors for 1 and 2
    log: Path  # nsjail's
    rootless: bool
    binary: Path
    shown: mounts.Shown
    stage_at: Path
    host: nsjail.Host
    base: str  # text of base.cfg
    seccomp: str  # kafel text, "" for none
    attach_workspace: Callable[[str, Path], None]
    network: int = -1  # a network namespace to join; -1 makes one, with the door listening in it
    users: int = -1  # and the user namespace that owns it, for an ordinary user
    folder: Path | None = None  # the workspace's directory, for a box without a jail


def fork(order: Order) -> int:
    """The child's pid. The child never returns."""
    return fork_into(order, become)


def fork_into(order: Order, act: Callable[[Order], NoReturn]) -> int:
    """The pid of a child that does `act` and tells what fails."""
    pid = os.fork()
    if pid:
        return pid
    try:
        act(order)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _tell(order.channel, {"error": f"{error.strerror or error}{where}"})
    except BaseException as error:  # noqa: BLE001 (nothing may return into the launcher's loop)
        _tell(order.channel, {"error": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(FAILED)


def become(order: Order) -> NoReturn:
    """From a copy of the launcher to nsjail."""
    os.setsid()
    os.umask(0o022)
    usual_signals()
    leaf, outside = open_entries(order.entry_files), open_entries(order.keeper_files)
    null = os.open("/dev/null", os.O_RDWR)
    log = high(os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600))
    binary = high(os.open(order.binary, os.O_RDONLY | os.O_CLOEXEC))
    uid, gid = os.getuid(), os.getgid()
    if order.users >= 0:
        kernel.setns(order.users, kernel.CLONE_NEWUSER)
    elif order.rootless:
        kernel.unshare(kernel.CLONE_NEWUSER)
        kernel.map_ids("self", ROOT_INSIDE, uid, ROOT_INSIDE, gid)
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    output = nameless(order.log.parent, order.output)
    _network(order)
    box = order.box
    staged = mounts.stage(
        box, order.shown, order.stage_at, lambda target: order.attach_workspace(box.uid, target)
    )
    jail = nsjail.Jail(
        argv=box.argv,
        hostname=box.hostname,
        cwd=box.cwd,
        env=box.env,
        outside_uid=ROOT_INSIDE if order.rootless else box.host_uid,
        open_files=box.limits.open_files or 1024,
        tmp_bytes=box.tmp_bytes,
        seccomp=order.seccomp,
        groups=len(leaf),
        entries=staged,
        tmpfs=mounts.tmpfs(box),
    )
    config = _memory_file(nsjail.render(jail, order.host, order.base))
    own_cgroup_namespace(leaf, outside)
    arrange(null, output, order.channel.fileno(), leaf, keep=(config, log))
    arguments = ["nsjail", "--config", f"/proc/self/fd/{config}", "--log", f"/proc/self/fd/{log}"]
    os.execve(binary, arguments, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


def _network(order: Order) -> None:
    if order.network >= 0:
        kernel.setns(order.network, kernel.CLONE_NEWNET)
        return
    kernel.unshare(kernel.CLONE_NEWNET)
    kernel.loopback_up()
    with doors.listen_inside() as listener:
        socket.send_fds(order.channel, [b'{"listener": true}\n'], [listener.fileno()])


def usual_signals() -> None:
    """What the launcher ignores would stay ignored across exec; what it handles would not."""
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
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


def nameless(folder: Path, output: tuple[int, int]) -> tuple[int, int]:
    """The box's own ends of its FIFOs. Pipes stay as they are.

    Ours never wait, and that is a property of what was opened, so the box opens its own. It reads their names in
    /proc/self/fd: opened in a mount that is nowhere, they are /out and /err and no paths of the host.
    """
    if all(os.get_blocking(fd) for fd in output):
        return output
    tree = kernel.open_tree(folder)
    try:
        first, second = (
            os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=tree) for name in ("out", "err")
        )
    finally:
        os.close(tree)
    return first, second


def waiting(output: tuple[int, int]) -> tuple[int, int]:
    """The same for a box without a jail: ends that wait."""
    first, second = (
        fd if os.get_blocking(fd) else os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        for fd in output
    )
    return first, second


def arrange(
    null: int, output: tuple[int, int], channel: int, leaf: Sequence[int], keep: tuple[int, ...]
) -> None:
    """Descriptors as the first process of the box has them: 0 to 2, the channel, its leaf's; above them `keep`."""
    for number, fd in enumerate([high(fd) for fd in (null, *output, channel, *leaf)]):
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
