"""Opening the database file: every way it can fail says which, and a damaged file is replaced, never used.

Order matters: nothing is written before the lock is held, and nothing is migrated before the file is known to be
whole and not newer than we are.
"""

import fcntl
import os
import re
import sqlite3
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path

from agentk.api import errors
from agentk.store import backups, schema

DATABASE = "state.db"

# SQLite's locks and shared memory are not reliable on these.
_NETWORK_TYPES = re.compile(
    r"nfs4?|cifs|smb3|smbfs|9p|ceph|afs|lustre|gpfs|beegfs|ocfs2|gfs2|orangefs|vboxsf|prl_fs|ncpfs|coda"
    r"|fuse\.(sshfs|s3fs|gcsfuse|goofys|rclone|glusterfs|davfs2?|curlftpfs|mfs|moosefs|juicefs|blobfuse2?|hdfs"
    r"|smbnetfs|ceph|cephfs|vmhgfs-fuse)"
)


@dataclass
class Opened:
    """A writable connection, the lock that goes with it, and what a person should be told."""

    conn: sqlite3.Connection
    lock_fd: int
    notices: list[str] = field(default_factory=list)


def open_database(folder: Path) -> Opened:
    """Open (first: make) `folder`/state.db. Raises Unavailable with the reason and what to do."""
    check_folder(folder)
    lock_fd = lock(folder)
    notices: list[str] = []
    conn: sqlite3.Connection | None = None
    try:
        backups.finish(folder)
        conn = _whole(folder, notices)
        _migrate(conn, folder, notices)
        return Opened(conn, lock_fd, notices)
    except BaseException as error:
        if conn is not None:
            conn.close()
        os.close(lock_fd)
        if isinstance(error, sqlite3.Error | OSError):
            raise errors.Unavailable(f"{folder / DATABASE} cannot be opened: {error}") from error
        raise


def check_folder(folder: Path) -> None:
    """Raises Unavailable when the directory is missing, not ours to write, or on a network file system."""
    try:
        info = folder.stat()
    except FileNotFoundError as error:
        raise errors.Unavailable(
            f"state directory {folder} does not exist", hint=f"mkdir -p -m 700 {folder}"
        ) from error
    except OSError as error:
        raise errors.Unavailable(f"state directory {folder} cannot be read: {error.strerror}") from error
    if not stat.S_ISDIR(info.st_mode):
        raise errors.Unavailable(f"state directory {folder} is not a directory")
    if not os.access(folder, os.W_OK | os.X_OK):
        reason = "its file system is read-only" if os.statvfs(folder).f_flag & os.ST_RDONLY else ""
        reason = reason or f"it belongs to uid {info.st_uid} and this process is uid {os.geteuid()}"
        raise errors.Unavailable(f"state directory {folder} is not writable: {reason}")
    device = f"{os.major(info.st_dev)}:{os.minor(info.st_dev)}"
    network = network_type(Path("/proc/self/mountinfo").read_text(errors="replace"), device)
    if network:
        raise errors.Unavailable(
            f"state directory {folder} is on a network file system ({network}), where SQLite loses data",
            hint="set AGENTK_STATE_DIR to a directory on a local disk",
        )
    if info.st_uid == os.geteuid() and info.st_mode & 0o077:
        folder.chmod(0o700)


def network_type(mountinfo: str, device: str) -> str:
    """The type of the file system with this "major:minor" when it is a network's, else ""."""
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        if head.split(" ")[2:3] != [device] or not tail:
            continue
        name = tail.split(" ")[0]
        if _NETWORK_TYPES.fullmatch(name):
            return name
    return ""


def lock(folder: Path, name: str = "state.lock") -> int:
    """Descriptor of `folder`/`name`, held by us alone until it is closed. Raises Unavailable naming the holder."""
    path = folder / name
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise errors.Unavailable(f"{path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError as error:
        pid = os.pread(fd, 20, 0).decode(errors="replace").strip()
        os.close(fd)
        raise errors.Unavailable(
            f"state directory {folder} is locked by {f'pid {pid}' if pid.isdigit() else 'another process'}",
            hint="one daemon at a time: agentk daemon status",
        ) from error
    except OSError as error:
        os.close(fd)
        raise errors.Unavailable(f"{path} cannot be written: {error.strerror}") from error
    return fd


def writable(path: Path) -> sqlite3.Connection:
    """The writer's connection: WAL, every commit synced, files 0600."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite gives -wal the same mode
    path.chmod(0o600)
    conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "busy_timeout = 5000",
            "secure_delete = FAST",  # deleted Secrets are overwritten where it costs no extra write
            "journal_size_limit = 67108864",
        ):
            conn.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        conn.close()
        raise
    return conn


def _whole(folder: Path, notices: list[str]) -> sqlite3.Connection:
    """A connection to a file that is sound: the one there is, else the newest backup's, else a new one."""
    path = folder / DATABASE
    damage = backups.damage(path) if path.exists() else ""
    if damage:
        notices.append(backups.replace_damaged(folder, damage, time.time()))
    return writable(path)


def _migrate(conn: sqlite3.Connection, folder: Path, notices: list[str]) -> None:
    newer = schema.unknown(conn)
    if newer:
        raise errors.Unavailable(
            f"{folder / DATABASE} was written by a newer agentk: it has the unknown migration {newer[0]}",
            hint="install that version again, or restore an older backup",
        )
    if schema.applied(conn) and schema.pending(conn):
        saved = backups.save(folder, time.time())
        notices.append(f"the database was upgraded; as it was before it is kept in {saved}")
    schema.migrate(conn)
