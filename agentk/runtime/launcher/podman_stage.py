"""The tree of a Podman box, put together by a forked child of ours in the mount namespace of Podman's service.

It is made of the same parts as a jail's: the stage is a private tmpfs, and beneath its `root` everything is mounted
already when Podman hears of it. As soon as the container stands it has mounts of its own, and the stage is let go. Of
one that waits its tree stays within our reach, for what an agent brings is put in there.
"""

import os
import socket
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from agentk.runtime import box as words
from agentk.runtime import kernel, nsjail
from agentk.runtime.launcher import child, mounts, podman_root
from agentk.runtime.podman import spec

MADE = b"s"  # what the child says when the stage is whole
_READ_ONLY = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_RDONLY


@dataclass(frozen=True)
class Order:
    """One stage."""

    box: words.Box
    point: Path  # where it is mounted
    host: nsjail.Host
    shown: mounts.Shown
    door: str  # the folder of FIFOs, inside
    image: str  # where the files of its image are mounted; "" shows the host's own
    attach_workspace: Callable[[str, Path], None]
    workspace: int = -1  # its mount, when it cannot be attached from the namespaces that the stage is in


def spaces(pid: int, rootless: bool) -> list[int]:
    """The namespaces of Podman's service, to be joined in this order. Raises OSError when it is gone."""
    names = ["user", "mnt"] if rootless else ["mnt"]
    return [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in names]


def fork(joined: Sequence[int], order: Order, channel: socket.socket) -> int:
    """The pid of a child that makes the stage, says MADE or what failed, and is gone."""
    return child.fork_into(channel, lambda: _make(joined, order, channel))


def fork_removal(joined: Sequence[int], points: Sequence[Path], channel: socket.socket) -> int:
    """The pid of a child that unmounts stages. Repeatable."""
    return child.fork_into(channel, lambda: _remove(joined, points, channel))


def _make(joined: Sequence[int], order: Order, channel: socket.socket) -> NoReturn:
    os.umask(0o022)
    _join(joined)
    box, point = order.box, order.point
    stage = mounts.Stage.make(point)
    entries = stage.fill(box, order.shown, lambda target: _attach(order, target))
    tree = point / "root"
    tree.mkdir(mode=0o755)
    if order.image:
        entries = [entry for entry in entries if entry.target != "/etc"]  # it has its own
        _image_tree(tree, point, order, entries)
    else:
        _host_tree(tree, order.host)
        os.symlink("/proc/mounts", point / "etc" / "mtab")  # or Podman would make it, and cannot
        _point(tree, "/run", is_folder=True)
        _write_start(tree, order)
    _furnish(tree, point, box, entries)
    kept = [os.open(at, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for at in (tree, point) if box.waits]
    socket.send_fds(channel, [MADE], kept)
    os._exit(0)


def _attach(order: Order, target: Path) -> None:
    if order.workspace >= 0:
        kernel.move_mount(order.workspace, target)
    else:
        order.attach_workspace(order.box.uid, target)


def _remove(joined: Sequence[int], points: Sequence[Path], channel: socket.socket) -> NoReturn:
    _join(joined)
    for point in points:
        while point.is_mount():
            kernel.umount(point, kernel.MNT_DETACH)
    channel.send(MADE)
    os._exit(0)


def _join(joined: Sequence[int]) -> None:
    for space in joined:
        kernel.setns(space)


def _host_tree(tree: Path, host: nsjail.Host) -> None:
    """What a box without an image is made of: the same as a jail's."""
    for path, target in host.links.items():
        os.symlink(target, f"{tree}{path}")
    for folder in host.folders:
        _bind(folder, _point(tree, folder, is_folder=True), read_only=True)


def _image_tree(tree: Path, point: Path, order: Order, entries: Sequence[nsjail.Entry]) -> None:
    """What a box with an image is made of; nothing can be made in it any more."""
    image, layer = podman_root.open_image(order.image), point / "layer"
    layer.mkdir(mode=0o755)
    podman_root.make(layer, image, order.box.hostname)
    for target, is_folder in podman_root.places(order.box, entries, image):
        _point(layer, target, is_folder)
    _write_start(layer, order)
    podman_root.mount(tree, layer, image, grows=order.box.waits)
    os.close(image)


def _furnish(tree: Path, point: Path, box: words.Box, entries: Sequence[nsjail.Entry]) -> None:
    """Everything that is the box's own, parents first."""
    for name in ("/proc", "/sys", "/dev", "/tmp"):
        _point(tree, name, is_folder=True)
    _tmpfs(tree / "tmp", box.tmp_bytes)
    os.chmod(point / "dev" / "shm", 0o1777)  # the OCI runtime gives what it mounts there the same mode
    for entry in entries:
        if entry.target != "/dev":  # Podman mounts that one, or it would make another
            _bind(entry.source, _point(tree, entry.target, os.path.isdir(entry.source)), entry.read_only)
    if box.waits:
        _point(tree, mounts.WORKSPACE, is_folder=True)
    for target, size in mounts.tmpfs(box):
        _tmpfs(_point(tree, target, is_folder=True), size)
    for path in nsjail.GATE_LINKS:
        os.symlink(nsjail.GATE, f"{tree}{path}")
    (point / "name").write_text(f"{box.hostname}\n")
    (point / "mark").touch()
    _point(tree, "/run/.containerenv", is_folder=False)


def _write_start(tree: Path, order: Order) -> None:
    """It holds the environment, which may hold Secrets: for the box's uid alone, in memory that goes with it."""
    path = f"{tree}{spec.START}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o400)
    with open(fd, "wb") as file:
        file.write(spec.start_script(order.box, order.door))
        os.fchown(file.fileno(), order.shown.owner, order.shown.owner)


def _point(tree: Path, target: str, is_folder: bool) -> Path:
    """A place to mount something at. No link is followed: every part of the way is a directory, or made one."""
    at = tree
    parts = target.strip("/").split("/")
    for number, part in enumerate(parts, 1):
        at = at / part
        try:
            mode = at.lstat().st_mode
        except FileNotFoundError:
            if number < len(parts) or is_folder:
                at.mkdir(mode=0o755)
            else:
                at.touch(mode=0o644)
            continue
        if stat.S_ISLNK(mode) or (number < len(parts) and not stat.S_ISDIR(mode)):
            raise NotADirectoryError(20, "there is a link on the way", target)
    return at


def _bind(source: str, point: Path, read_only: bool) -> None:
    kernel.mount(source, point, flags=kernel.MS_BIND | kernel.MS_REC)
    if read_only:
        flags = kernel.MS_REMOUNT | kernel.MS_BIND | _READ_ONLY
        kernel.mount("none", point, flags=flags | mounts.kept_flags(point))


def _tmpfs(point: Path, size: int) -> None:
    kernel.mount("none", point, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, f"size={size},mode=1777")
