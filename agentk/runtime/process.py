"""The process runtime: the same verbs and records, and no isolation whatever. For tests, and hosts without a jail.

A shell takes the keeper's part: it stays outside the agent's cgroup, survives signals meant for the agent, and writes
the agent's exit code in nsjail's words to the same file, so that everything else need not know the difference.
The agent runs as its own host uid (as root; without root as the daemon's owner), in its workspace's directory; of its
mounts it sees only those that its working directory leads into. Its door is where AGENTK_SOCKET says, in a directory
that its uid alone may pass, and what it may import of ours beside it. Nothing of it listens on the host's loopback.
"""

import base64
import os
import posixpath
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from agentk.runtime import box as words
from agentk.runtime import nsjail
from agentk.runtime.launcher import checking, child, doors

_WORKSPACE = "/workspace"
MARK = "AGENTK_BOX"  # in the agent's environment: finds what left its session
_ENVIRONMENT_BYTES = 4 * 1024 * 1024  # more than any program is started with
_INPUT_FD = 9  # above the channel and the cgroups'; shells know one digit
# Only the inner shell becomes the agent: the outer one waits for it, whatever signal its session gets. A shell gives
# /dev/null to what it does not wait for, so the agent's input comes by another number, and the log has the outer's 0.
_KEEPER = f"""
trap '' TERM INT HUP QUIT USR1 USR2
log() {{ printf '[I][agentk] pid=%s ([PROCESS]) exited with status: %s\\n' "$1" "$2" >&0; }}
(trap - TERM INT HUP QUIT USR1 USR2; exec <&{_INPUT_FD} {_INPUT_FD}<&-; exec "$@") &
exec 3<&- 4>&- 5>&- 6>&- 7>&- 8>&- {_INPUT_FD}<&-
wait $!
code=$?
log $! $code
exit $code
"""


def fork(order: child.Order, channel: socket.socket) -> int:
    """As `child.fork`, without a jail."""
    return child.fork_into(channel, lambda: _become(order, channel))


def _become(order: child.Order, channel: socket.socket) -> NoReturn:
    """From a copy of the launcher to the keeping shell."""
    box = order.box
    os.setsid()
    os.umask(0o022)
    child.usual_signals()
    leaf, outside = child.open_entries(order.entry_files), child.open_entries(order.keeper_files)
    stdin, *output = (order.stdin, *order.output) if order.output else _open_ends(order.record, box.stdin)
    log = child.high(os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600))
    enter_folder(box, order.folder, lambda number, mount: _write_files(order, number, mount))
    child.enter(outside)
    child.arrange(output, channel.fileno(), leaf, keep=(), stdin=stdin)
    os.dup2(0, _INPUT_FD, inheritable=True)
    os.dup2(log, 0, inheritable=True)
    _limit(box)
    if box.host_uid >= 0:
        os.setgroups([])
        os.setresgid(box.host_uid, box.host_uid, box.host_uid)
        os.setresuid(box.host_uid, box.host_uid, box.host_uid)
    home = str(order.folder) if order.folder else "/"
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", **box.env, **_of_ours(order), "HOME": home, MARK: box.id}
    inner = nsjail.bootstrap(_as_jail(box, len(leaf)), init="")
    os.execve("/bin/sh", ["sh", "-c", _KEEPER, "sh", *inner], env)


def _of_ours(order: child.Order) -> dict[str, str]:
    """Where its door and the SDK are. Only we know: nothing is mounted for it."""
    door, told = order.shown.door, order.box.env.get("PYTHONPATH", "")
    lib = f"{door}/{doors.LIB}"
    path = told if lib in told.split(":") else ":".join(filter(None, (lib, told)))
    return {"AGENTK_SOCKET": f"{door}/{doors.GATE}", "PYTHONPATH": path}


def _open_ends(record: Path, stdin: bool) -> tuple[int, int, int]:
    folder = os.open(record, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return child.open_ends(folder, stdin)
    finally:
        os.close(folder)


def _as_jail(box: words.Box, groups: int) -> nsjail.Jail:
    return nsjail.Jail(box.argv, box.hostname, box.cwd, {}, box.host_uid, 0, 0, groups=groups)


def _limit(box: words.Box) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(box.limits.open_files or soft, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def enter_folder(box: words.Box, home: Path | None, files: Callable[[int, words.Mount], Path]) -> None:
    """The working directory, entered while we still may: its parents are closed to the agent's uid.

    `home` is its workspace; `files` says where the files of a mount are.
    """
    for number, mount in enumerate(box.mounts):
        inside = posixpath.relpath(box.cwd, mount.target)
        if inside.startswith("..") or mount.kind not in ("bind", "files"):
            continue
        if mount.kind == "files":
            os.chdir(files(number, mount) / inside)
        else:  # whoever writes there must not lead us, who may be root, elsewhere
            os.fchdir(checking.open_beneath(inside, checking.open_beneath(mount.source)))
        return
    if home and _is_in_workspace(box.cwd):
        folder = child.high(os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        os.fchdir(checking.open_beneath(posixpath.relpath(box.cwd, _WORKSPACE), folder))
        return
    os.chdir(home or "/")


def leads_to(box: words.Box, cwd: str) -> bool:
    """Whether there is such a directory for a box without a jail."""
    targets = [mount.target for mount in box.mounts if mount.kind in ("bind", "files")]
    return _is_in_workspace(cwd) or any(
        not posixpath.relpath(cwd, target).startswith("..") for target in targets
    )


def _is_in_workspace(cwd: str) -> bool:
    return not posixpath.relpath(cwd, _WORKSPACE).startswith("..")


def files_folder(record: Path, number: int) -> Path:
    """Where the files of a box's mount of that number are."""
    return record / "files" / str(number)


def _write_files(order: child.Order, number: int, mount: words.Mount) -> Path:
    """Beside the box's record, and gone with it."""
    folder = files_folder(order.record, number)
    for name, content in mount.files.items():
        path = folder / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(content))
        path.chmod(mount.mode)
        if order.box.host_uid >= 0:
            os.chown(path, order.box.host_uid, order.box.host_uid)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def kill_all(box_id: str) -> None:
    """SIGKILL to every process that carries the box's mark, also one that made a session of its own."""
    mark = f"{MARK}={box_id}".encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            pidfd = os.pidfd_open(int(entry.name))
        except OSError:
            continue
        try:
            with open(f"{entry.path}/environ", "rb", buffering=0) as file:
                told = file.read(_ENVIRONMENT_BYTES)  # a process may mean all of its memory by it
            if mark in told.split(b"\0"):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except OSError:
            continue
        finally:
            os.close(pidfd)
