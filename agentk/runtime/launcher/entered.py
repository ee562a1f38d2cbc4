"""What goes into a box that runs: a forked child on its way to a program of the box, with the box's rights and never
more. One straight road, no way back.

Two processes. The keeper joins the box's namespaces and cgroup, forks, leaves the cgroup and waits; nothing in the
box can see it. What it forks has a pid in the box, so from its first moment the guest may try things on it: until it
is another program nobody may look into it (it is not dumpable), it gives up every right that the box does not have,
and the seccomp filter is the last thing before.

After the namespaces are joined every path is the guest's. So nothing is imported, no name is looked up and no file is
opened by then but what the box's own uid asked for. A step that fails ends it: nothing is skipped.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import socket
import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from agentk.runtime import box as words
from agentk.runtime import kernel, nsjail
from agentk.runtime.launcher import child, processes

_SPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWCGROUP
)
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_ARG_START, _ARG_END = 45, 46  # of the fields after the name in /proc/PID/stat
_SEALED_FILES = 256  # open at a time, in a program of ours
_RESOURCES = {  # by their names in /proc/PID/limits; another's prlimit(2) would need a right that not every root has
    "Max cpu time": resource.RLIMIT_CPU,
    "Max file size": resource.RLIMIT_FSIZE,
    "Max data size": resource.RLIMIT_DATA,
    "Max stack size": resource.RLIMIT_STACK,
    "Max core file size": resource.RLIMIT_CORE,
    "Max resident set": resource.RLIMIT_RSS,
    "Max processes": resource.RLIMIT_NPROC,
    "Max open files": resource.RLIMIT_NOFILE,
    "Max locked memory": resource.RLIMIT_MEMLOCK,
    "Max address space": resource.RLIMIT_AS,
    "Max pending signals": resource.RLIMIT_SIGPENDING,
    "Max msgqueue size": resource.RLIMIT_MSGQUEUE,
    "Max nice priority": resource.RLIMIT_NICE,
    "Max realtime priority": resource.RLIMIT_RTPRIO,
}
_LIMIT_NAME_LETTERS = 26
Sealed = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Program:
    """One of the box's own."""

    argv: Sequence[str]
    env: Sequence[tuple[str, str]]
    cwd: str
    tty: bool = False
    open_files: int | None = None  # fewer than the box's


@dataclass(frozen=True)
class Order:
    """Who goes where."""

    guest: words.Process  # the first process of the box
    entry_files: Sequence[Path]  # of the leaf
    keeper_files: Sequence[Path]  # of the group for those that watch
    ends: Sequence[int]  # what becomes 0 to 2; the last serves for those that are missing
    filter: bytes  # seccomp; b"" for a box that has none
    program: Program | None  # None: `sealed` is run instead
    sealed: Sealed | None = None  # of ours, with these rights; what it answers is told
    host_uid: int = -1  # of a box without a jail, whose namespaces are the host's
    jailed: bool = True
    go_to_folder: Callable[[], None] = lambda: None  # of a box without a jail, while we still may


def fork(order: Order, channel: socket.socket) -> int:
    """The keeper's pid. It ends as the program does, 128+N for a signal. What fails is told over the channel."""
    launcher = os.getpid()
    return child.fork_into(channel, lambda: _keep(order, channel, launcher))


def _keep(order: Order, channel: socket.socket, launcher: int) -> NoReturn:
    os.setsid()
    os.umask(0o022)
    child.usual_signals()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    _nameless()
    leaf, outside = child.open_entries(order.entry_files), child.open_entries(order.keeper_files)
    limits = _limits_of(order.guest.pid)
    spaces = _open_spaces(order) if order.jailed else None
    order.go_to_folder()
    child.close_all_but({channel.fileno(), *order.ends, *leaf, *outside, *(spaces or ())})
    child.seal()
    if os.geteuid() == 0:
        os.setgroups([])
    child.enter(leaf)
    if spaces:
        guest, root = spaces
        kernel.setns(guest, _SPACES)
        with contextlib.suppress(PermissionError):  # where it is forbidden, the box has our groups too
            os.setgroups([])
        os.fchdir(root)
        os.chroot(".")
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # who one is was changed, which may have set it
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
    if os.getppid() != launcher:
        os._exit(child.FAILED)
    pid = _forked()
    if pid == 0:
        _guarded(order, channel, limits)
    child.enter(outside)
    child.close_all_but(set())
    for number in range(3):
        os.close(number)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os._exit(code if code >= 0 else 128 - code)


def _forked() -> int:
    """Counted for the agent, as we are in its group by now."""
    try:
        return os.fork()
    except BlockingIOError:
        raise OSError(errno.EAGAIN, "the agent has as many processes as it may have") from None


def _open_spaces(order: Order) -> tuple[int, int]:
    """The guest itself and its root, when it is still the one that was meant."""
    guest = processes.open_pidfd(order.guest)
    if guest is None:
        raise OSError(errno.ESRCH, "the box has just ended")
    root = os.open(f"/proc/{order.guest.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if not processes.is_alive(order.guest):
        raise OSError(errno.ESRCH, "the box has just ended")
    return guest, root


def _nameless() -> None:
    """Our own command line tells where we are on this host, and a guest reads it of all that it sees."""
    fields = processes.stat(os.getpid())
    if fields is None:
        raise OSError(errno.ESRCH, "cannot read our own place")
    start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)
    name = ctypes.create_string_buffer(b"entering")
    kernel.prctl(kernel.PR_SET_NAME, ctypes.addressof(name))


def _guarded(order: Order, channel: socket.socket, limits: Sequence[tuple[int, tuple[int, int]]]) -> NoReturn:
    """Never returns into the keeper's road."""
    try:
        _become(order, channel, limits)
    except OSError as error:
        _tell(channel, {"error": error.strerror or str(error), "errno": error.errno})
    except BaseException as error:  # noqa: BLE001 (a traceback would read files of the guest's)
        _tell(channel, {"error": type(error).__name__})
    finally:
        os._exit(child.FAILED)


def _become(order: Order, channel: socket.socket, limits: Sequence[tuple[int, tuple[int, int]]]) -> NoReturn:
    program = order.program
    os.setsid()
    for number in range(3):
        os.dup2(order.ends[min(number, len(order.ends) - 1)], number, inheritable=True)
    if program and program.tty:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    child.close_all_but({channel.fileno()})
    _limit(limits, sealed=program is None, most_files=program.open_files if program else None)
    if order.jailed:
        _give_up(nsjail.INSIDE_UID)
    elif order.host_uid >= 0:
        be(order.host_uid)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
    if order.jailed:
        _enter_folder(program.cwd if program else "/")
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        if order.filter:
            kernel.seccomp(order.filter)
    if program is None:
        assert order.sealed is not None
        _tell(channel, {"done": order.sealed()})
        os._exit(0)
    _execute(program)


def _give_up(uid: int) -> None:
    """Capabilities go last: as long as we have some that the guest lacks, it may not look into us, whatever happens
    to being dumpable."""
    be(uid)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.give_up_capabilities()


def be(uid: int) -> None:
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (uid, uid, uid):
        raise OSError(errno.EPERM, "cannot become who the box is")


def _limits_of(pid: int) -> list[tuple[int, tuple[int, int]]]:
    found = []
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]:
        which = _RESOURCES.get(line[:_LIMIT_NAME_LETTERS].strip())
        soft, hard = (
            resource.RLIM_INFINITY if word == "unlimited" else int(word)
            for word in line[_LIMIT_NAME_LETTERS:].split()[:2]
        )
        if which is not None:
            found.append((which, (soft, hard)))
    if len(found) != len(_RESOURCES):
        raise OSError(errno.EINVAL, "cannot read the limits of the box")
    return found


def _limit(
    limits: Sequence[tuple[int, tuple[int, int]]], sealed: bool, most_files: int | None = None
) -> None:
    """As the box's first process has them; never above our own."""
    for which, (soft, hard) in limits:
        bound = resource.getrlimit(which)[1]
        if sealed and which == resource.RLIMIT_NOFILE:
            soft = hard = max(_SEALED_FILES, hard)
        elif most_files and which == resource.RLIMIT_NOFILE:
            soft = hard = _lower(hard, most_files)
        hard = _lower(hard, bound)
        resource.setrlimit(which, (_lower(soft, hard), hard))


def _lower(one: int, other: int) -> int:
    known = [value for value in (one, other) if value != resource.RLIM_INFINITY]
    return min(known, default=resource.RLIM_INFINITY)


def _enter_folder(cwd: str) -> None:
    try:
        os.chdir(cwd)
    except OSError as error:
        raise OSError(error.errno, f"cannot enter {cwd}: {error.strerror}") from None


def _execute(program: Program) -> NoReturn:
    """Found as a shell finds it, in the box's own PATH."""
    env = dict(program.env)
    name = program.argv[0]
    paths = [name]
    if "/" not in name:
        paths = [f"{folder or '.'}/{name}" for folder in env.get("PATH", "/usr/bin:/bin").split(":")]
    told, code = "not found", _NOT_FOUND
    for path in paths:
        try:
            os.execve(path, list(program.argv), env)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                told, code = "cannot be executed", _NOT_EXECUTABLE
    os.write(2, f"agentk: {name}: {told}\n".encode("utf-8", "surrogateescape"))
    os._exit(code)


def _tell(channel: socket.socket, message: dict[str, Any]) -> None:
    try:
        channel.send(json.dumps(message).encode() + b"\n")
    except OSError:
        os._exit(child.FAILED)
