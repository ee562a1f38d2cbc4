"""The root of a Podman box that is made of an image: a thin layer of ours over the image's own files, read-only.

Whoever made the image wrote what is below. So every place where something is mounted is a directory or file of the
layer, which hides a link of the same name; and a link is followed within the image alone.
"""

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from agentk.runtime import box as words
from agentk.runtime import kernel, nsjail
from agentk.runtime.launcher import mounts

_USER = f"agent:x:{nsjail.INSIDE_UID}:{nsjail.INSIDE_UID}:agent:/workspace:/bin/sh\n"
_GROUP = f"agent:x:{nsjail.INSIDE_UID}:\n"
_NAMES_MAX_BYTES = 256 * 1024
_SHELL = "/bin/sh"


def make(layer: Path, image: int, hostname: str) -> None:
    """What of /etc is ours; `image` is a descriptor of its mounted files."""
    etc = layer / "etc"
    etc.mkdir(mode=0o755)
    for name, text in mounts.etc_names(hostname).items():
        (etc / name).write_text(text)
    (etc / "resolv.conf").touch()
    (etc / "mtab").symlink_to("/proc/mounts")
    (etc / "passwd").write_bytes(_with_agent(image, "etc/passwd", _USER))
    (etc / "group").write_bytes(_with_agent(image, "etc/group", _GROUP))


def mount(tree: Path, layer: Path, image: int, grows: bool = False) -> None:
    """Show both as one at `tree`. Raises OSError for an image in which no box can begin.

    `grows`: by what we add later, into memory; for the box it is read-only as ever.
    """
    flags, shown = kernel.MS_NOSUID | kernel.MS_NODEV, f"lowerdir={layer.name}:/proc/self/fd/{image}"
    os.chdir(layer.parent)  # the words given here are shown inside as well
    if grows:
        for name in ("more", "work"):
            os.mkdir(name, 0o755)
        shown += ",upperdir=more,workdir=work"
    kernel.mount("none", tree, "overlay", flags | (0 if grows else kernel.MS_RDONLY), shown)
    if not _has(image, _SHELL):
        raise OSError(2, f"the image has no {_SHELL}, by which a box begins")


def open_image(path: str) -> int:
    """Its mounted files, as a descriptor that outlives what covers them."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def places(box: words.Box, entries: Sequence[nsjail.Entry], image: int) -> list[tuple[str, bool]]:
    """Where something of the box's own will be, and whether it is a directory. Parents first."""
    found = [(name, True) for name in ("/proc", "/sys", "/dev", "/tmp", "/run")]
    found += [
        (entry.target, os.path.isdir(entry.source))
        for entry in entries
        if entry.target not in ("/dev", "/etc")
    ]
    found += [(target, True) for target, _ in mounts.tmpfs(box)]
    if box.waits:
        found.append((mounts.WORKSPACE, True))
    if not _has(image, box.cwd):  # an image may name a directory that it does not bring
        found.append((box.cwd, True))
    return [*found, ("/run/.containerenv", False), ("/etc/hostname", False)]


def _with_agent(image: int, path: str, line: str) -> bytes:
    """The image's own names, and the agent's where its number has none."""
    text = _read(image, path)
    number = str(nsjail.INSIDE_UID).encode()
    if any(found.split(b":")[2:3] == [number] for found in text.splitlines()):
        return text
    return text + (b"" if not text or text.endswith(b"\n") else b"\n") + line.encode()


def _read(image: int, path: str) -> bytes:
    """A file of the image; nothing where there is none. What is no file is not opened: it may be a device."""
    with contextlib.suppress(OSError):
        found = _open(image, path)
        try:
            if stat.S_ISREG(os.fstat(found).st_mode):
                with open(f"/proc/self/fd/{found}", "rb") as file:
                    return file.read(_NAMES_MAX_BYTES)
        finally:
            os.close(found)
    return b""


def _has(image: int, path: str) -> bool:
    """Whether it is there, wherever links of the image lead within the image."""
    try:
        os.close(_open(image, path))
    except OSError:
        return False
    return True


def _open(image: int, path: str) -> int:
    """O_PATH, and links of the image lead to what they mean inside of it."""
    within = kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS
    return kernel.openat2(path, os.O_PATH | os.O_CLOEXEC, within, image)
