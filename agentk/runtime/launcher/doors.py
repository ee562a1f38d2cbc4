"""The two listening sockets of a box: `gate.sock` in its door directory, and 127.0.0.1:8700 inside of it.

The launcher never accepts on them. It keeps them open and hands copies to the daemon, so that a caller waits in the
backlog while either of the two is down. A socket's file may be made anew, for the box sees the directory.

A box without a jail has the first alone. Nothing shows it our run directory, which is closed to its uid, so its door
is a directory beside that, which nobody but root and this uid may pass; what else it needs of us lies in there too.
"""

import array
import os
import shutil
import socket
import stat
from pathlib import Path

from agentk.runtime import kernel

GATE = "gate.sock"
ORDER = "order"  # beside the FIFOs of a Podman box that waits: where its interpreter finds us
PORT = 8700
LIB = "lib"  # in the door directory of a box without a jail: what it may import of ours
INSIDE = "/run/agentk"  # where a box sees its door directory
OPEN = Path("/run/agentk-boxes")  # for root: doors of boxes without a jail, a directory for each instance
_BACKLOG = 128


def open_folder(run: Path, instance: str, rootless: bool) -> Path:
    """Where the doors of boxes without a jail are. Without root these boxes have our uid, which may pass `run`."""
    return run / "open" if rootless else OPEN / instance


def make(doors: Path, uid: str) -> Path:
    """The door directory of an agent. Repeatable."""
    folder = doors / uid
    if not folder.is_dir():
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
    return folder


def make_open(doors: Path, uid: str, host_uid: int) -> Path:
    """The same for a box without a jail: nobody but this uid passes. Raises OSError. Repeatable."""
    for above in (doors.parent, doors):
        above.mkdir(mode=0o700, exist_ok=True)
        if host_uid >= 0:
            _make_passable(above)
    folder = doors / uid
    folder.mkdir(mode=0o700, exist_ok=True)
    if host_uid >= 0:
        os.chown(folder, -1, host_uid)
        folder.chmod(0o710)
    return folder


def _make_passable(folder: Path) -> None:
    """For everybody who knows a name in it. Whoever else could write here could send us, who are root, anywhere."""
    seen = folder.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o022:
        raise PermissionError(f"{folder} must be a directory that nobody but root writes")
    folder.chmod(0o711)


def lend(folder: Path, lib: Path) -> None:
    """What a box without a jail may import, in its door directory: a new copy, for `lib` is closed to it."""
    shutil.rmtree(folder / LIB, ignore_errors=True)
    shutil.copytree(lib, folder / LIB)


def hand_over(doors: Path, giver: str, uid: str) -> None:
    """A door directory that a box sees already becomes this agent's, in place of any it had."""
    remove(doors, uid)
    (doors / giver).rename(doors / uid)


def open_gate(folder: Path, host_uid: int, name: str = GATE) -> socket.socket:
    """Make the socket in a door directory, or anew. Only the box's uid may connect."""
    path = folder / name
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        _bind(listener, folder, name)  # the launcher's umask leaves it 0600
        if host_uid >= 0:
            os.chown(path, host_uid, host_uid)
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _bind(listener: socket.socket, folder: Path, name: str) -> None:
    """The name it is bound by is what the box reads in /proc/net/unix: it must not tell where we are."""
    here = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{here}/{name}")
    finally:
        os.close(here)


def remove(doors: Path, uid: str) -> None:
    """Repeatable."""
    folder = doors / uid
    (folder / GATE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def listen_inside() -> socket.socket:
    """Listen on the loopback of the caller's network namespace."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", PORT))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def relisten(pid: int, rootless: bool) -> socket.socket:
    """Listen again in the network namespace of a box that runs, when no process kept its listener.

    Raises OSError.
    """
    child, ours = fork_relisten(pid, rootless)
    with ours:
        try:
            return received(ours)
        finally:
            os.waitpid(child, 0)


def fork_relisten(pid: int, rootless: bool) -> tuple[int, socket.socket]:
    """The pid of a child that joins that namespace, for one of the launcher's own must not change, and the channel on
    which it hands the listener over."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            _relisten_child(pid, rootless, theirs)
        finally:
            os._exit(1)
    theirs.close()
    return child, ours


def received(channel: socket.socket) -> socket.socket:
    """The listener that such a child handed over. Raises OSError."""
    data, ancillary, _, _ = channel.recvmsg(16, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    if not ancillary:
        number = int(data or b"5")
        raise OSError(number, os.strerror(number), "the network of a box")
    return socket.socket(fileno=array.array("i", ancillary[0][2])[0])


def _relisten_child(pid: int, rootless: bool, channel: socket.socket) -> None:
    try:
        if rootless:
            # the namespace between us and the box owns its network; the keeper lives in it
            with open(f"/proc/{pid}/ns/user") as user:
                kernel.setns(user.fileno(), kernel.CLONE_NEWUSER)
        with open(f"/proc/{pid}/ns/net") as network:
            kernel.setns(network.fileno(), kernel.CLONE_NEWNET)
        kernel.loopback_up()
        with listen_inside() as listener:
            socket.send_fds(channel, [b"ok"], [listener.fileno()])
        os._exit(0)
    except OSError as error:
        channel.send(str(error.errno).encode())
