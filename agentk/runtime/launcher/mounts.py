"""What a box sees of files, put together in its own mount namespace by its child, as the launcher's own user.

nsjail mounts as the box's mapped uid, which may not enter our 0700 directories. So everything of ours, and every
host path, is first bound into a private tmpfs; nothing of it is in the host's mount table, and all of it goes with
the process. Sources are opened before that tmpfs covers anything, and no link is followed on the way to them.
"""

import base64
import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentk.runtime import box as words
from agentk.runtime import kernel, nsjail
from agentk.runtime.launcher import checking

# nsjail makes its scratch directories in the first of these that is writable, so covering them keeps those off the
# host's disk as well.
_PLACES = ("/run/user", "/tmp", "/dev/shm")
_DOOR = "/run/agentk"
WORKSPACE = "/workspace"
_STAGE_BYTES = 64 * 1024 * 1024  # Secrets and ConfigMaps, at most 1 MiB each in the API
_DEVICE_LINKS = {"fd": "/proc/self/fd"} | {
    name: f"/proc/self/fd/{number}" for number, name in enumerate(("stdin", "stdout", "stderr"))
}
_ETC = {
    "passwd": f"agent:x:{nsjail.INSIDE_UID}:{nsjail.INSIDE_UID}:agent:/workspace:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/:/bin/false\n",
    "group": f"agent:x:{nsjail.INSIDE_UID}:\nnogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": "",
}
# What a box with the host's network needs beside, to find names as the host does.
_NAMES = {"resolv.conf": "/etc/resolv.conf", "hosts": "/etc/hosts"}
_NAMES_MAX_BYTES = 64 * 1024
_KEPT_FLAGS = 0x2 | 0x4 | 0x8 | 0x400 | 0x800  # nosuid nodev noexec noatime nodiratime: locked ones must stay
# Of the host's /etc, where present. Debian's tools are links into alternatives; the rest is certificates.
ETC_SHOWN = (
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/alternatives",
    "/etc/ld.so.cache",
)


@dataclass(frozen=True)
class Shown:
    """The parts of one box's tree that are the same whatever its manifest says."""

    staged: str  # the directory for /opt/agentk
    door: str  # for /run/agentk, "" for none
    prefix: str  # a Python prefix for /opt/python, "" when the host's own serves
    state: str  # what is below is shown without telling where it is
    owner: int  # uid that owns Secret files, in the numbering of the child


def place(state: Path) -> Path:
    """Where to stage: a directory everybody may pass, that does not cover our state."""
    for candidate in _PLACES:
        path = Path(candidate)
        if path.is_dir() and path not in state.parents and not path.is_symlink():
            return path
    raise FileNotFoundError(errno.ENOENT, f"none of {', '.join(_PLACES)} can be used to stage a box")


@dataclass(frozen=True)
class Stage:
    """The private tmpfs in which a box's tree is put together."""

    root: Path
    beneath: int  # what `root` covers: a source may be in there

    @classmethod
    def bare(cls, root: Path) -> "Stage":
        """Cover `root`."""
        beneath = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        flags = kernel.MS_NOSUID | kernel.MS_NODEV
        kernel.mount("none", root, "tmpfs", flags, f"size={_STAGE_BYTES},mode=1777")
        return cls(root, beneath)

    @classmethod
    def make(cls, root: Path) -> "Stage":
        """Cover `root`, and make what is the same for every box."""
        stage = cls.bare(root)
        os.mkdir(root / "none")
        _make_etc(f"{root}/etc")
        _make_dev(f"{root}/dev")
        return stage

    def show_door(self, door: Path) -> nsjail.Entry:
        """The directory of an agent's door."""
        return _bind(self._open(str(door)), self.root / "door", _DOOR, True)

    def fill(
        self, box: words.Box, shown: Shown, attach_workspace: Callable[[Path], None]
    ) -> list[nsjail.Entry]:
        """What this box is to see. Answers what nsjail is to mount, parents first. Raises OSError with a path."""
        root = self.root
        entries = [nsjail.Entry(f"{root}/dev", "/dev"), nsjail.Entry(f"{root}/etc", "/etc")]
        for name, text in _etc_of(box).items():
            _write(f"{root}/etc/{name}", text)
        for number, (source, target, read_only) in enumerate(self._open_sources(box, shown)):
            point = root / f"b{number}"
            ours = os.readlink(f"/proc/self/fd/{source}").startswith(f"{shown.state}/")
            # a socket of a lower layer cannot be connected to, so the door stays a bind
            if ours and read_only and target != _DOOR and _show_pathless(source, point, root / "none"):
                entries.append(nsjail.Entry(str(point), target))
            else:
                entries.append(_bind(source, point, target, read_only))
        if not box.waits:
            entries += self.fill_own(box, shown.owner, attach_workspace)
        return sorted(entries, key=lambda entry: entry.target.count("/"))

    def fill_own(
        self, box: words.Box, owner: int, attach_workspace: Callable[[Path], None]
    ) -> list[nsjail.Entry]:
        """What is one agent's alone, and a waiting box gets when it is claimed: its workspace and its files."""
        root = self.root
        workspace = root / "w"
        os.mkdir(workspace)
        attach_workspace(workspace)
        entries = [nsjail.Entry(str(workspace), WORKSPACE, read_only=False)]
        for number, mount in enumerate(box.mounts):
            if mount.kind == "files":
                folder = root / f"f{number}"
                _write_files(folder, mount, owner)
                entries.append(nsjail.Entry(str(folder), mount.target))
            elif mount.kind == "workspace" and mount.target != WORKSPACE:
                entries.append(nsjail.Entry(str(workspace), mount.target, mount.read_only))
        return entries

    def _open_sources(self, box: words.Box, shown: Shown) -> list[tuple[int, str, bool]]:
        wanted = [(shown.staged, "/opt/agentk", True)]
        if shown.door:
            wanted.append((shown.door, _DOOR, True))
        if shown.prefix:
            wanted.append((shown.prefix, "/opt/python", True))
        wanted += [
            (mount.source, mount.target, mount.read_only) for mount in box.mounts if mount.kind == "bind"
        ]
        opened = []
        for source, target, read_only in wanted:
            try:
                opened.append((self._open(source), target, read_only))
            except OSError as error:
                what = (
                    "a part of the path is a link"
                    if error.errno in (errno.ELOOP, errno.ENOTDIR)
                    else error.strerror
                )
                raise OSError(error.errno, f"cannot show it at {target}: {what}", source) from None
        return opened

    def _open(self, source: str) -> int:
        inside = os.path.relpath(source, self.root)
        if inside.startswith(".."):
            return checking.open_beneath(source)
        return checking.open_beneath(inside, self.beneath)


def _show_pathless(source: int, point: Path, nothing: Path) -> bool:
    """Show a directory of ours as a file system of its own: of a bind, mountinfo tells the path on the host's disk.

    Its contents never change (their name is their digest). False where the kernel has no overlay for us.
    """
    flags = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
    point.mkdir()
    os.chdir(nothing.parent)  # the words given here are shown inside as well
    try:
        kernel.mount("none", point, "overlay", flags, f"lowerdir=/proc/self/fd/{source}:{nothing.name}")
    except OSError:
        point.rmdir()
        return False
    os.close(source)
    return True


def _bind(source: int, point: Path, target: str, read_only: bool) -> nsjail.Entry:
    if os.path.isdir(f"/proc/self/fd/{source}"):
        point.mkdir()
    else:
        point.touch()
    path = f"/proc/self/fd/{source}"
    try:
        kernel.mount(path, point, flags=kernel.MS_BIND)
    except OSError as error:
        if error.errno != errno.EINVAL or read_only:
            raise OSError(
                error.errno, f"cannot show a file system that has others mounted in it at {target}"
            ) from None
        # in a user namespace a tree with mounts inside comes whole or not at all
        kernel.mount(path, point, flags=kernel.MS_BIND | kernel.MS_REC)
    flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_NOSUID | kernel.MS_NODEV
    flags |= kept_flags(point)
    kernel.mount("none", point, flags=flags | (kernel.MS_RDONLY if read_only else 0))
    os.close(source)
    return nsjail.Entry(str(point), target, read_only)


def kept_flags(point: str | Path) -> int:
    """What a mount has that it must keep when it is mounted anew."""
    return os.statvfs(point).f_flag & _KEPT_FLAGS


def _make_etc(folder: str) -> None:
    """A made-up /etc: what programs look up, certificates, and nothing of the host's users."""
    os.mkdir(folder, 0o755)
    for name, text in _ETC.items():
        _write(f"{folder}/{name}", text)
    for path in ETC_SHOWN:
        if os.path.exists(path):
            _show(path, folder + path.removeprefix("/etc"))
    if os.path.islink("/etc/localtime") and os.readlink("/etc/localtime").startswith("/usr/"):
        os.symlink(os.readlink("/etc/localtime"), f"{folder}/localtime")


def _show(path: str, point: str) -> None:
    """A part of the host, read-only."""
    if os.path.isdir(path):
        os.makedirs(point, exist_ok=True)
    else:
        _write(point, "")
    kernel.mount(path, point, flags=kernel.MS_BIND | kernel.MS_REC)
    flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_RDONLY
    kernel.mount("none", point, flags=flags | kept_flags(point))


def _make_dev(folder: str) -> None:
    os.mkdir(folder, 0o755)
    os.mkdir(f"{folder}/shm", 0o755)
    for path in nsjail.DEVICES:
        point = f"{folder}/{os.path.basename(path)}"
        _write(point, "")
        kernel.mount(path, point, flags=kernel.MS_BIND)
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"{folder}/{name}")


def etc_names(hostname: str) -> dict[str, str]:
    """Names and texts of the files in a box's /etc that tell its own name."""
    return {"hosts": f"127.0.0.1 localhost {hostname}\n::1 localhost\n", "hostname": f"{hostname}\n"}


def _etc_of(box: words.Box) -> dict[str, str]:
    texts = etc_names(box.hostname)
    if box.build.startswith("fetch-"):
        texts["nsswitch.conf"] = "passwd: files\ngroup: files\nhosts: files dns\n"
        for name, path in _NAMES.items():
            try:
                with open(path, "rb") as file:
                    text = file.read(_NAMES_MAX_BYTES).decode(errors="replace")
            except OSError:
                continue
            texts[name] = texts.get(name, "") + text
    return texts


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _write_files(folder: Path, mount: words.Mount, owner: int) -> None:
    folder.mkdir(mode=0o755)
    for name, content in mount.files.items():
        path = folder / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            path.write_bytes(base64.b64decode(content, validate=True))
        except ValueError:
            raise OSError(errno.EINVAL, "is not base64", f"{mount.target}/{name}") from None
        os.chown(path, owner, owner)
        path.chmod(mount.mode)
    flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_RDONLY
    kernel.mount(folder, folder, flags=kernel.MS_BIND)
    kernel.mount("none", folder, flags=flags)


def tmpfs(box: words.Box) -> Sequence[tuple[str, int]]:
    """Targets and sizes of the box's own tmpfs volumes."""
    wanted = [(mount.target, mount.size_bytes) for mount in box.mounts if mount.kind == "tmpfs"]
    return sorted(wanted, key=lambda entry: entry[0].count("/"))


def host(proc: Path = Path("/proc")) -> nsjail.Host:
    """What of this machine boxes are made of."""
    import resource

    links, folders = {}, ["/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        if os.path.islink(name):
            links[name] = os.readlink(name).removeprefix("/")
        elif os.path.isdir(name):
            folders.append(name)
    masks = (
        "kcore",
        "keys",
        "key-users",
        "timer_list",
        "sched_debug",
        "latency_stats",
        "kallsyms",
        "config.gz",
    )
    return nsjail.Host(
        links=links,
        folders=tuple(folders),
        masks=tuple(f"/proc/{name}" for name in masks if _is_open_to_all(proc / name)),
        hard_open_files=_hard(resource.RLIMIT_NOFILE, 1 << 20),
        hard_stack_bytes=resource.getrlimit(resource.RLIMIT_STACK)[1],
        nice=os.getpriority(os.PRIO_PROCESS, 0),
    )


def _is_open_to_all(file: Path) -> bool:
    """What a box's uid may not read anyway needs no mask, and cannot be given one."""
    try:
        return bool(file.stat().st_mode & 0o004)
    except OSError:
        return False


def _hard(which: int, endless: int) -> int:
    import resource

    limit = resource.getrlimit(which)[1]
    return endless if limit == resource.RLIM_INFINITY else limit
