"""Deleting what a guest made, as root, without following anything it left: links, depth, rights, numbers.

Every directory found is first moved up into the trash, so nothing is deeper than one level when it is emptied, and
no path of a guest's making is ever walked. The trash is ours alone; whatever is left is taken up the next time.
"""

import itertools
import os
import time
from pathlib import Path

_numbers = itertools.count()


def throw_away(path: Path, trash: Path) -> None:
    """Out of the way at once. `trash` is on the same file system; nothing there is success."""
    trash.mkdir(mode=0o700, exist_ok=True)
    try:
        path.rename(trash / _name())
    except FileNotFoundError:
        pass


def sweep(trash: Path, seconds: float) -> bool:
    """Delete what is in the trash for at most about so long; True when it is empty."""
    deadline = time.monotonic() + seconds
    try:
        base = os.open(trash, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        while names := os.listdir(base):
            for name in names:
                if not _clear(base, name, deadline):
                    return False
    finally:
        os.close(base)
    return True


def _clear(base: int, name: str, deadline: float) -> bool:
    try:
        os.unlink(name, dir_fd=base)
        return time.monotonic() < deadline
    except IsADirectoryError:
        pass
    folder = _open(base, name)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _move_up(folder, entry.name, base)
                else:
                    os.unlink(entry.name, dir_fd=folder)
                if time.monotonic() > deadline:
                    return False
    finally:
        os.close(folder)
    try:
        os.rmdir(name, dir_fd=base)
    except OSError:
        pass  # scandir skips entries while others go: the next round
    return time.monotonic() < deadline


def _open(base: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        folder = os.open(name, flags, dir_fd=base)
    except PermissionError:
        _allow(base, name)
        folder = os.open(name, flags, dir_fd=base)
    if os.geteuid() != 0:
        os.fchmod(folder, 0o700)  # entries are about to be removed
    return folder


def _move_up(folder: int, name: str, base: int) -> None:
    try:
        os.rename(name, _name(), src_dir_fd=folder, dst_dir_fd=base)
    except PermissionError:
        _allow(folder, name)  # a directory that moves is written to: its ".."
        os.rename(name, _name(), src_dir_fd=folder, dst_dir_fd=base)


def _allow(base: int, name: str) -> None:
    """A guest may have taken its own rights away; only without root does that stand in the way."""
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=base)
    try:
        os.chmod(f"/proc/self/fd/{handle}", 0o700)
    finally:
        os.close(handle)


def _name() -> str:
    """Unique across restarts as well."""
    return f"{time.time_ns():x}-{os.getpid()}-{next(_numbers)}"
