"""The few system calls that Python does not offer, by ctypes. Each raises OSError with the kernel's errno.

Importing this file calls nothing, so it may be imported on any platform; calling needs Linux. It must stay
free of other imports of ours: it runs in forked children that hold root.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Any

# mount(2)
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
# umount2(2)
MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8
# unshare(2), setns(2)
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
# prctl(2)
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2
_READ_BYTES = 1 << 14
# ioctl_pidfd(2): struct pidfd_info in its first form, whose last field is the status
_PIDFD_INFO_EXIT, _PIDFD_INFO_BYTES = 0x8, 64
_PIDFD_GET_INFO = 3 << 30 | _PIDFD_INFO_BYTES << 16 | 0xFF << 8 | 11
_STATFS_BYTES = 256  # more than the structure has anywhere
_CAPABILITIES_VERSION = 0x20080522
# open_tree(2), move_mount(2), openat2(2), mount_setattr(2), quotactl_fd(2): the same numbers on every architecture
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442
_SYS_QUOTACTL_FD = 443
# openat2(2)
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
MOUNT_ATTR_RDONLY = 0x1
# netdevice(7)
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_IFREQ = struct.Struct("16sH22x")

_AT_FDCWD = -100
StrPath = str | os.PathLike[str]

_libc: ctypes.CDLL | None = None


def _call(function: str, *arguments: Any, path: str = "") -> int:
    """Call one libc function that answers -1 and errno on failure."""
    global _libc
    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(_libc, function, None)
    if call is None:
        raise OSError(errno.ENOSYS, f"{function}: not in this C library")
    call.restype = ctypes.c_int  # every call here answers 0, a small flag or a descriptor
    answer = int(call(*arguments))
    if answer == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{function}: {os.strerror(code)}", path or None)
    return answer


def _text(value: StrPath) -> bytes:
    return os.fsencode(value)


def mount(source: StrPath, target: StrPath, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    options = data.encode() if data else None
    _call(
        "mount",
        _text(source),
        _text(target),
        fstype.encode() if fstype else None,
        ctypes.c_ulong(flags),
        options,
        path=str(target),
    )


def umount(target: StrPath, flags: int = 0) -> None:
    """umount2(2); never follows a symbolic link at the end of the path."""
    _call("umount2", _text(target), ctypes.c_int(flags | UMOUNT_NOFOLLOW), path=str(target))


def pivot_root(new_root: StrPath, put_old: StrPath) -> None:
    """pivot_root(2)."""
    _call("pivot_root", _text(new_root), _text(put_old), path=str(new_root))


def unshare(flags: int) -> None:
    """unshare(2). CLONE_NEWUSER needs a process with one thread."""
    _call("unshare", ctypes.c_int(flags))


def setns(fd: int, flags: int = 0) -> None:
    """setns(2) into a namespace descriptor, or (with flags) into several of a pidfd's."""
    _call("setns", ctypes.c_int(fd), ctypes.c_int(flags))


def prctl(option: int, first: int = 0, second: int = 0, third: int = 0, fourth: int = 0) -> int:
    """prctl(2) with plain numbers."""
    return _call("prctl", ctypes.c_int(option), *(ctypes.c_ulong(n) for n in (first, second, third, fourth)))


def give_up_capabilities() -> None:
    """Everything, for good: bounding, ambient, inheritable, permitted and effective."""
    number = 0
    while True:
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno != errno.EINVAL or not number:  # EINVAL: this kernel knows no more
                raise
            break
        number += 1
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("Ii", _CAPABILITIES_VERSION, 0)
    _call("capset", ctypes.c_char_p(header), ctypes.c_char_p(bytes(24)))


def seccomp(program: bytes) -> None:
    """Install a filter: an array of struct sock_filter. Needs no_new_privs."""
    held = ctypes.create_string_buffer(program, len(program))
    told = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(held))
    place = ctypes.create_string_buffer(told, len(told))
    prctl(PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(place))


def openat2(path: StrPath, flags: int, resolve: int, dir_fd: int = _AT_FDCWD, mode: int = 0) -> int:
    """openat2(2): a descriptor of what `path` leads to by no other way than `resolve` lets it."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _syscall(
        _SYS_OPENAT2,
        "openat2",
        ctypes.c_int(dir_fd),
        ctypes.c_char_p(_text(path)),
        ctypes.c_char_p(how),
        ctypes.c_size_t(len(how)),
    )


def file_system(fd: int) -> int:
    """The kind of file system that a descriptor is of, as fstatfs(2) tells it."""
    told = ctypes.create_string_buffer(_STATFS_BYTES)
    _call("fstatfs", ctypes.c_int(fd), told)
    return int(struct.unpack_from("l", told)[0])


def quotactl(fd: int, command: int, identity: int, record: bytearray) -> None:
    """quotactl_fd(2) on the file system of `fd`; `record` is read, or filled in place."""
    _syscall(
        _SYS_QUOTACTL_FD,
        "quotactl_fd",
        ctypes.c_uint(fd),
        ctypes.c_uint(command),
        ctypes.c_uint(identity),
        (ctypes.c_char * len(record)).from_buffer(record),
    )


def _syscall(number: int, name: str, *arguments: Any) -> int:
    try:
        return _call("syscall", ctypes.c_long(number), *arguments)
    except OSError as error:
        raise OSError(error.errno, f"{name}: {os.strerror(error.errno or 0)}") from None


def open_tree(
    path: StrPath, flags: int = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC, dir_fd: int = _AT_FDCWD
) -> int:
    """open_tree(2): with OPEN_TREE_CLONE, a descriptor of a detached copy of the mount at `path`."""
    return _syscall(
        _SYS_OPEN_TREE, "open_tree", ctypes.c_int(dir_fd), ctypes.c_char_p(_text(path)), ctypes.c_uint(flags)
    )


def move_mount(tree: int, target: StrPath) -> None:
    """move_mount(2): attach a detached mount at `target`."""
    _syscall(
        _SYS_MOVE_MOUNT,
        "move_mount",
        ctypes.c_int(tree),
        ctypes.c_char_p(b""),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(_text(target)),
        ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH),
    )


def move_mount_onto(tree: int, folder: int) -> None:
    """move_mount(2): attach a detached mount over the directory that `folder` is a descriptor of."""
    _syscall(
        _SYS_MOVE_MOUNT,
        "move_mount",
        ctypes.c_int(tree),
        ctypes.c_char_p(b""),
        ctypes.c_int(folder),
        ctypes.c_char_p(b""),
        ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH),
    )


def writable_copy(folder: int) -> int:
    """A descriptor of the same directory in a mount that is nowhere, and that may be written where that one may not."""
    # with what is mounted in it, for a mount that came from another user namespace is not copied without
    tree = open_tree("", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE, folder)
    try:
        make_read_only(tree, False)
    except OSError:
        os.close(tree)
        raise
    return tree


def make_read_only(tree: int, read_only: bool) -> None:
    """mount_setattr(2) of a detached mount."""
    given, taken = (MOUNT_ATTR_RDONLY, 0) if read_only else (0, MOUNT_ATTR_RDONLY)
    attributes = struct.pack("=QQQQ", given, taken, 0, 0)
    _syscall(
        _SYS_MOUNT_SETATTR,
        "mount_setattr",
        ctypes.c_int(tree),
        ctypes.c_char_p(b""),
        ctypes.c_uint(AT_EMPTY_PATH),
        ctypes.c_char_p(attributes),
        ctypes.c_size_t(len(attributes)),
    )


def loopback_up() -> None:
    """Bring `lo` up in the caller's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
        flags = _IFREQ.unpack(answer)[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))


def map_ids(pid: int | str, inside_uid: int, outside_uid: int, inside_gid: int, outside_gid: int) -> None:
    """Write the one-line uid and gid maps of a new user namespace (`pid` may be "self")."""
    base = Path("/proc") / str(pid)
    # setgroups must be denied before an unprivileged process may write gid_map.
    (base / "setgroups").write_text("deny")
    (base / "uid_map").write_text(f"{inside_uid} {outside_uid} 1")
    (base / "gid_map").write_text(f"{inside_gid} {outside_gid} 1")


def read(path: str | Path, most: int = 1 << 62) -> bytes:
    """What the kernel tells in a file, or its first `most` bytes: with a third of the calls that open() makes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while len(data) < most and (more := os.read(fd, min(most - len(data), _READ_BYTES))):
            data += more
        return data
    finally:
        os.close(fd)


def reaped_status(pidfd: int) -> int | None:
    """The wait status of a process whose parent has waited for it. None before that, and of kernels before 6.15."""
    told = bytearray(_PIDFD_INFO_BYTES)
    struct.pack_into("Q", told, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, told)
    except OSError:
        return None
    known, status = struct.unpack_from("Q", told)[0], struct.unpack_from("i", told, _PIDFD_INFO_BYTES - 4)[0]
    return int(status) if known & _PIDFD_INFO_EXIT else None


def boot_id() -> str:
    """The running kernel's boot id, "" where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def capabilities() -> int:
    """The effective capability bits of this process, 0 where the kernel does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
