"""Let the daemon's uid read the interpreter and our code although root keeps them under a closed directory.

A Python under /root is the usual case. In a mount namespace of its own the closed directory is covered with an
empty one, and only the trees the daemon needs are bound back at their old paths: nothing else under it shows.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from agentk.data.places import Places
from agentk.runtime import kernel


def trees(places: Places) -> list[Path]:
    """Every directory the daemon reads: the interpreter, our code and data, state and run. No one inside another."""
    wanted = {Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve().parent.parent.parent}
    wanted |= {Path(entry) for entry in sys.path if entry and Path(entry).is_dir()}
    wanted |= {places.state, places.run}
    real = {Path(os.path.realpath(path)) for path in wanted} | {
        Path(os.path.abspath(path)) for path in wanted
    }
    return sorted(path for path in real if not any(other in path.parents for other in real))


def closed(path: Path, uid: int) -> Path | None:
    """The topmost directory above `path` that `uid` may not enter, or None."""
    for directory in reversed(path.parents):
        seen = directory.stat()
        if seen.st_uid != uid and not seen.st_mode & 0o001:
            return directory
    return None


def reveal(paths: Sequence[Path], uid: int) -> None:
    """Cover what is closed to `uid` and bind `paths` back. Does nothing when all can be entered already.

    Call it in a forked child that still holds root. Raises OSError with the path that could not be bound.
    """
    covers: dict[Path, list[Path]] = {}
    for path in paths:
        directory = closed(path, uid)
        if directory is not None and path.is_dir():
            covers.setdefault(directory, []).append(path)
    if not covers:
        return
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    for directory, hidden in covers.items():
        # Opened here: a descriptor from before the unshare is of another namespace and cannot be bound.
        held = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in hidden]
        kernel.mount(
            "tmpfs", str(directory), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755,size=1m"
        )
        for path, fd in held:
            path.mkdir(parents=True, exist_ok=True)
            kernel.mount(f"/proc/self/fd/{fd}", str(path), "", kernel.MS_BIND | kernel.MS_REC)
