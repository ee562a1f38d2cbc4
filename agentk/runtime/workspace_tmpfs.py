"""/workspace as a sized tmpfs, held in a mount namespace of its own.

Nobody lives in that namespace; a descriptor keeps it. So the mounts of five hundred agents are copied into no jail
(attached, each copy of a mount table costs 1 ms more, a jail 2; see tests/bench/mounts.py), and a launcher that is
replaced can be handed them all as that one descriptor. A box gets a copy of its mount.

Without root it belongs to a user namespace made for it (`users`): a box's child has to enter that one instead of
making its own, for nobody can take a mount out of a namespace that a sibling owns.

Children forked here run with nothing but a tmpfs below "/": they import nothing.
"""

import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

from agentk.runtime import kernel

_INODES_MIN = 1024
_PAGE = 4096
_SYS_ADMIN = 21
_NS_GET_USERNS = 0xB701


class Holder:
    """The namespace, opened at first use. `fd` is one that an earlier launcher left."""

    def __init__(self, scratch: Path, fd: int = -1) -> None:
        self._scratch = scratch  # any directory: it is covered in the new namespace only
        self._roots: dict[str, int] = {}
        self.fd = fd
        self.users = _owner(fd)

    def why_not(self) -> str:
        """Why no tmpfs can be mounted here; "" when one can."""
        try:
            self._open()
        except OSError as error:
            return f"cannot mount: {error.strerror}"
        return ""

    def make(self, uid: str, host_uid: int, size: int) -> None:
        """Mount one, or change its size. Raises OSError."""
        self._open()
        inodes = max(_INODES_MIN, size // _PAGE)

        def mount() -> None:
            point = Path("/") / uid
            if point.is_mount():
                options = f"size={size},nr_inodes={inodes}"
                kernel.mount(
                    "none", point, "tmpfs", kernel.MS_REMOUNT | kernel.MS_NOSUID | kernel.MS_NODEV, options
                )
                return
            point.mkdir(exist_ok=True)
            owner = 0 if self.users >= 0 else host_uid
            options = f"size={size},nr_inodes={inodes},mode=0700,uid={owner},gid={owner}"
            kernel.mount("none", point, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)

        self._inside(mount)

    def has(self, uid: str) -> bool:
        """Whether it is mounted now."""
        try:
            return self._root(uid) >= 0
        except OSError:
            return False

    def attach(self, uid: str, target: Path) -> None:
        """Called in a box's child, in a mount namespace of its own, and in `users` when there is one."""
        here = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        kernel.setns(self.fd, kernel.CLONE_NEWNS)
        tree = kernel.open_tree(Path("/") / uid)
        kernel.setns(here, kernel.CLONE_NEWNS)  # the working directory is "/" now
        kernel.move_mount(tree, target)
        os.close(here)
        os.close(tree)

    def tree(self, uid: str) -> int:
        """Its mount, as a descriptor that is mounted nowhere yet: for who is in a user namespace of another family."""
        return self._in_child(lambda: kernel.open_tree(Path("/") / uid))[1]

    def used(self, uid: str) -> int:
        """Bytes in it. Raises OSError."""
        stat = os.fstatvfs(self._root(uid))
        return (stat.f_blocks - stat.f_bfree) * stat.f_frsize

    def remove(self, uid: str) -> None:
        """Unmount it; what a box still has mounted goes with the box."""
        root = self._roots.pop(uid, -1)
        if root >= 0:
            os.close(root)
        if self.fd < 0:
            return

        def unmount() -> None:
            point = Path("/") / uid
            if point.is_mount():
                kernel.umount(point, kernel.MNT_DETACH)
            if point.exists():
                point.rmdir()

        self._inside(unmount)

    def names(self) -> list[str]:
        """Those that are mounted."""
        if self.fd < 0:
            return []
        return self._inside(lambda: "\n".join(os.listdir("/"))).split()

    def close(self) -> None:
        """Let go: the last holder's close unmounts all."""
        for root in self._roots.values():
            os.close(root)
        self._roots.clear()
        for fd in (self.fd, self.users):
            if fd >= 0:
                os.close(fd)
        self.fd = self.users = -1

    def _open(self) -> None:
        if self.fd >= 0:
            return
        near, far = socket.socketpair()
        with near, far:
            child = os.fork()
            if child == 0:
                _report(far, self._build)
            far.close()
            try:
                self.fd = _answer(near)[1]
            finally:
                os.waitpid(child, 0)
        self.users = _owner(self.fd)

    def _build(self) -> int:
        if not kernel.capabilities() >> _SYS_ADMIN & 1:
            uid, gid = os.geteuid(), os.getegid()
            kernel.unshare(kernel.CLONE_NEWUSER)
            kernel.map_ids("self", 0, uid, 0, gid)
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
        kernel.mount("none", self._scratch, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=0700")
        space = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        os.chdir(self._scratch)
        kernel.pivot_root(".", ".")
        # The old root is stacked on the new one; without it no mount of the host is kept busy from here.
        kernel.umount(".", kernel.MNT_DETACH)
        return space

    def _root(self, uid: str) -> int:
        if uid not in self._roots:
            if self.fd < 0:
                raise FileNotFoundError(uid)

            def open_root() -> int:
                point = Path("/") / uid
                if not point.is_mount():
                    raise FileNotFoundError(uid)
                return os.open(point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

            self._roots[uid] = self._in_child(open_root)[1]
        return self._roots[uid]

    def _inside(self, act: Callable[[], str | None]) -> str:
        return self._in_child(lambda: act() or "")[0]

    def _in_child(self, act: Callable[[], str | int]) -> tuple[str, int]:
        def enter() -> str | int:
            if self.users >= 0:
                kernel.setns(self.users, kernel.CLONE_NEWUSER)
            kernel.setns(self.fd, kernel.CLONE_NEWNS)
            return act()

        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with near, far:
            child = os.fork()
            if child == 0:
                _report(far, enter)
            far.close()
            try:
                return _answer(near)
            finally:
                os.waitpid(child, 0)


def _owner(space: int) -> int:
    """The user namespace that owns `space`, -1 when that is our own (or above, where we need not enter)."""
    if space < 0:
        return -1
    try:
        users = fcntl.ioctl(space, _NS_GET_USERNS)
    except OSError:
        return -1
    os.set_inheritable(users, False)
    if os.fstat(users).st_ino == os.stat("/proc/self/ns/user").st_ino:
        os.close(users)
        return -1
    return users


def _report(channel: socket.socket, act: Callable[[], str | int]) -> None:
    """In the child: tell the parent the words, the descriptor or the error, and end."""
    try:
        done = act()
        if isinstance(done, int):
            socket.send_fds(channel, [b"0 "], [done])
        else:
            channel.sendall(b"0 " + done.encode())
    except OSError as error:
        channel.sendall(f"{error.errno or 5} {error.strerror}".encode())
    finally:
        os._exit(0)


def _answer(channel: socket.socket) -> tuple[str, int]:
    """In the parent: words and descriptor (-1 for none). Raises the child's OSError."""
    data, descriptors, _, _ = socket.recv_fds(channel, 65536, 1)
    while piece := channel.recv(65536):
        data += piece
    number, _, words = data.decode().partition(" ")
    if number != "0":
        raise OSError(int(number or 5), words or "the child died")
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return words, descriptors[0] if descriptors else -1
