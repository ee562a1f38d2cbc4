"""The two listening sockets of a box: `gate.sock` in its door directory, and 127.0.0.1:8700 inside of it.

The launcher never accepts on them. It keeps them open and hands copies to the daemon, so that a caller waits in the
backlog while either of the two is down. A socket's file may be made anew, for the box sees the directory.
"""

import array
import os
import socket
from pathlib import Path

from agentk.runtime import kernel

GATE = "gate.sock"
PORT = 8700
_BACKLOG = 128


def make(doors: Path, uid: str) -> Path:
    """The door directory of an agent. Repeatable."""
    folder = doors / uid
    if not folder.is_dir():
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
    return folder


def open_gate(doors: Path, uid: str, host_uid: int) -> socket.socket:
    """Make the door of an agent, or its socket anew. Only the box's uid may connect."""
    folder = make(doors, uid)
    path = folder / GATE
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        _bind(listener, folder)  # the launcher's umask leaves it 0600
        if host_uid >= 0:
            os.chown(path, host_uid, host_uid)
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _bind(listener: socket.socket, folder: Path) -> None:
    """The name it is bound by is what the box reads in /proc/net/unix: it must not tell where we are."""
    here = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{here}/{GATE}")
    finally:
        os.close(here)


def remove(doors: Path, uid: str) -> None:
    """Repeatable."""
    folder = doors / uid
    (folder / GATE).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except FileNotFoundError:
        pass


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

    Joins it in a forked child, for a namespace of the launcher's own must not change. Raises OSError.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            _relisten_child(pid, rootless, theirs)
        finally:
            os._exit(1)
    theirs.close()
    with ours:
        data, ancillary, _, _ = ours.recvmsg(16, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    os.waitpid(child, 0)
    if not ancillary:
        raise OSError(int(data or b"5"), os.strerror(int(data or b"5")), f"network of process {pid}")
    return socket.socket(fileno=array.array("i", ancillary[0][2])[0])


def _relisten_child(pid: int, rootless: bool, channel: socket.socket) -> None:
    try:
        if rootless:
            # the namespace between us and the box owns its network; the keeper lives in it
            with open(f"/proc/{pid}/ns/user") as user:
                kernel.setns(user.fileno(), kernel.CLONE_NEWUSER)
        with open(f"/proc/{pid}/ns/net") as network:
            kernel.setns(network.fileno(), kernel.CLONE_NEWNET)
        with listen_inside() as listener:
            socket.send_fds(channel, [b"ok"], [listener.fileno()])
        os._exit(0)
    except OSError as error:
        channel.send(str(error.errno).encode())
