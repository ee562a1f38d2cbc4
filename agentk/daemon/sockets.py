"""The unix sockets of the daemon: bound narrow from their first instant, and who is at the other end.

uvicorn's own `uds=` opens its socket to everybody, so it is never used. Standard library only: the keeper, which
may be root, binds.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agentk.api import errors

_BACKLOG = 1024  # callers wait here while the daemon is started again
_PATH_MAX = 107  # bytes in sun_path, less its NUL
_UCRED = struct.Struct("iII")


@dataclass(frozen=True)
class Peer:
    """Who connected, as the kernel says: credentials at the time of connect()."""

    pid: int
    uid: int
    gid: int


def bind(path: Path) -> socket.socket:
    """A listening socket at `path`, 0600, in a directory that is nobody else's (made 0700 when missing).

    What an ended process left at `path` is replaced in one step. Raises AlreadyExists when somebody listens
    there, Invalid when the path is too long, Forbidden when the directory is open to others.
    """
    if len(os.fsencode(path)) > _PATH_MAX:
        raise errors.Invalid(
            f"the socket path is too long: {path} ({len(os.fsencode(path))} bytes)",
            hint=f"set AGENTK_RUN_DIR so that it has at most {_PATH_MAX} bytes",
        )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(path.parent) as directory:
        _check_directory(path.parent, os.fstat(directory))
        _check_unused(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Short, for it must fit where `path` fits; one binder at a time holds the lock, so one name is enough.
        fresh = path.parent / ".s"
        try:
            with contextlib.suppress(FileNotFoundError):
                fresh.unlink()
            os.fchmod(listener.fileno(), 0o600)  # Linux gives the file the mode of the unbound socket
            listener.bind(os.fspath(fresh))
            fresh.chmod(0o600)
            listener.listen(_BACKLOG)
            fresh.rename(path)
        except BaseException:
            listener.close()
            raise
    return listener


def adopt(fd: int) -> socket.socket:
    """The listening unix socket that was inherited as `fd`. Raises Invalid when it is something else."""
    try:
        listener = socket.socket(fileno=fd)
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise errors.Invalid(f"descriptor {fd} is no socket: {error.strerror}") from None
    if listener.family != socket.AF_UNIX or not listening:
        listener.detach()
        raise errors.Invalid(f"descriptor {fd} is no listening unix socket")
    listener.set_inheritable(False)
    return listener


def peer(connection: socket.socket) -> Peer | None:
    """Who connected; None when it is no unix socket (a kernel answer of uid -1 counts as nobody)."""
    if connection.family != socket.AF_UNIX:
        return None
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(told)
    return Peer(pid, uid, gid) if uid != 0xFFFFFFFF else None


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[int]:
    """Two binders must not both find the same stale socket."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _check_directory(directory: Path, seen: os.stat_result) -> None:
    if seen.st_uid != os.geteuid():
        raise errors.Forbidden(
            f"{directory} belongs to uid {seen.st_uid}, not to uid {os.geteuid()}",
            hint="set AGENTK_RUN_DIR to a directory of your own",
        )
    if seen.st_mode & 0o027:  # a group may pass through (the daemon's own uid), others nothing
        raise errors.Forbidden(
            f"{directory} is open to others (mode {stat.S_IMODE(seen.st_mode):04o})",
            hint=f"chmod 700 {directory}",
        )


def _check_unused(path: Path) -> None:
    try:
        seen = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(seen.st_mode):
        raise errors.AlreadyExists(
            f"{path} is in the way: it is no socket", hint=f"move it away: mv {path} …"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog answers EAGAIN, and means that somebody listens
        try:
            probe.connect(os.fspath(path))
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return
            if error.errno not in (errno.EAGAIN, errno.EINPROGRESS):
                raise
    raise errors.AlreadyExists(f"somebody already listens on {path}", hint="end it with: agentk daemon stop")
