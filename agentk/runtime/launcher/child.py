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
    entry_files: Sequence[Path]
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
    entries = open_entries(order.entry_files)
    null = os.open("/dev/null", os.O_RDWR)
    output = waiting(order.output)
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
        entries=staged,
        tmpfs=mounts.tmpfs(box),
    )
    config = _memory_file(nsjail.render(jail, order.host, order.base))
    arrange(null, output, order.channel.fileno(), keep=(config, log), entries=entries)
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
    """What the launcher ignores would stay ignored across exec."""
    for number in (
        signal.SIGHUP,
        signal.SIGPIPE,
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGCHLD,
        signal.SIGXFSZ,
    ):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # the launcher shields itself from the OOM killer; a box must not inherit that
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("0")


def open_entries(files: Sequence[Path]) -> list[int]:
    """Opened with the launcher's rights, written last: what is done before is not charged to the box."""
    return [high(os.open(file, os.O_WRONLY | os.O_CLOEXEC)) for file in files]


def enter(entries: Sequence[int]) -> None:
    """Go into the leaf."""
    for entry in entries:
        os.write(entry, b"0")


def waiting(output: tuple[int, int]) -> tuple[int, int]:
    """Our ends of FIFOs never wait, and that is a property of what was opened: the box opens its own."""
    first, second = (
        fd if os.get_blocking(fd) else os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        for fd in output
    )
    return first, second


def arrange(
    null: int, output: tuple[int, int], channel: int, keep: tuple[int, ...], entries: Sequence[int]
) -> None:
    """Descriptors 0 to 3 as the box has them, above them `keep`; then into the leaf."""
    for number, fd in enumerate([high(fd) for fd in (null, *output, channel)]):
        os.dup2(fd, number, inheritable=True)
    for fd in keep:
        os.set_inheritable(fd, True)
    enter(entries)


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
