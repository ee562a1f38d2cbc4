"""/workspace as a directory with a project quota: the cheapest limit, where the file system has it switched on."""

import errno
import fcntl
import os
import struct
from pathlib import Path

from agentk.runtime import kernel

_FSXATTR = struct.Struct("IIIII8x")  # flags, extsize, nextents, project, cowextsize
_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
_PROJECT_INHERITED = 0x200
_DQBLK = struct.Struct(
    "QQQQQQQQI4x"
)  # hard and soft blocks, space, hard and soft inodes, inodes, 2 times, valid
_BLOCK = 1024  # limits are counted in it, whatever the file system's own block is
_BLOCK_LIMITS = 1
_PROJECT = 2
_GET_QUOTA = 0x800007 << 8 | _PROJECT
_SET_QUOTA = 0x800008 << 8 | _PROJECT
_GET_STATE = 0x5805 << 8 | _PROJECT
_ENFORCED = 1 << 5  # of a project's quota, in fs_quota_stat.qs_flags
_FIX = "tune2fs -O project,quota DEVICE (unmounted), then mount with prjquota"


def why_not(folder: Path) -> str:
    """Why project quotas do not hold below `folder`; "" when they do."""
    state = bytearray(256)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        kernel.quotactl(fd, _GET_STATE, 0, state)
        _get_flags(fd)
    except OSError as error:
        return f"no project quota: {error.strerror}; {_FIX}"
    finally:
        os.close(fd)
    (flags,) = struct.unpack_from("H", state, 2)
    return "" if flags & _ENFORCED else f"project quota is counted but not enforced; {_FIX}"


def limit(folder: Path, project: int, size: int) -> None:
    """Hold everything in `folder`, now empty or of this project already, to `size` bytes. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags, extsize, nextents, _, cow = _get_flags(fd)
        wanted = _FSXATTR.pack(flags | _PROJECT_INHERITED, extsize, nextents, project, cow)
        fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, wanted)
        _set(fd, project, size)
        found = _get_flags(fd)
        if found[3] != project or not found[0] & _PROJECT_INHERITED or _get(fd, project)[0] != _blocks(size):
            raise OSError(errno.EIO, "the project quota reads back otherwise")
    finally:
        os.close(fd)


def used(folder: Path, project: int) -> int:
    """Bytes that the project holds."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _get(fd, project)[2]
    finally:
        os.close(fd)


def forget(folder: Path, project: int) -> None:
    """No limit for this project any more."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _set(fd, project, 0)
    finally:
        os.close(fd)


def _blocks(size: int) -> int:
    return -(-size // _BLOCK)


def _get_flags(fd: int) -> tuple[int, ...]:
    return _FSXATTR.unpack(fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size)))


def _get(fd: int, project: int) -> tuple[int, ...]:
    record = bytearray(_DQBLK.size)
    kernel.quotactl(fd, _GET_QUOTA, project, record)
    return _DQBLK.unpack(record)


def _set(fd: int, project: int, size: int) -> None:
    record = bytearray(_DQBLK.pack(_blocks(size), _blocks(size), 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS))
    kernel.quotactl(fd, _SET_QUOTA, project, record)
