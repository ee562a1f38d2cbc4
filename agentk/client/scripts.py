"""A script of the host with what it imports from beside it, as inline files of an Agent's spec.

What it may expect beside itself: the other files of its directory, a `python_sdk` directory next to that one, and what
PYTHONPATH names. Text only, and bounded; links are not followed and hidden files not read.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agentk.api import errors

FILES_MAX = 400
BYTES_MAX = 700 * 1024  # of all texts: an Agent made by another has at most 1 MiB
_SKIPPED = frozenset({"__pycache__", "node_modules", "venv", "site-packages"})
_SDK = "python_sdk"
_DEPTH_MAX = 6


def brought(script: str, folder: Path, env: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """What of an Agent's spec brings the script, and where it is then. Raises BadRequest when there is none.

    `folder`: what a relative path is below.
    """
    path = (folder / script).absolute()
    found = _Found()
    home = path.parent.name or "root"
    text = _text(path)
    if text is None:
        raise errors.BadRequest(f"{script[:200]}: no such script, or no text")
    found.add(f"{home}/{path.name}", text)
    found.take(path.parent.parent / _SDK, _SDK)
    search = [Path(one) for one in env.get("PYTHONPATH", "").split(os.pathsep) if one]
    for at, one in enumerate(search):
        found.take((folder / one).absolute(), f".pythonpath/{at}")
    found.take(path.parent, home)
    spec: dict[str, Any] = {"source": {"inline": {"files": found.files}}}
    if search:
        places = os.pathsep.join(f"/app/.pythonpath/{at}" for at in range(len(search)))
        spec["env"] = [{"name": "PYTHONPATH", "value": places}]
    return spec, f"/app/{home}/{path.name}"


def placed(script: str, folder: Path, env: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """The same for one that runs where it is, and finds there what is beside it. Raises BadRequest when it is not."""
    path = (folder / script).absolute()
    if not path.is_file():
        raise errors.BadRequest(f"{script[:200]}: no such script")
    search = [str((folder / one).absolute()) for one in env.get("PYTHONPATH", "").split(os.pathsep) if one]
    spec = (
        {"env": [{"name": "PYTHONPATH", "value": os.pathsep.join(search).replace("$", "$$")}]}
        if search
        else {}
    )
    return spec, str(path)


class _Found:
    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self._bytes = 0

    def add(self, name: str, text: str) -> bool:
        """False when there is no room for it."""
        if name in self.files:
            return True
        size = len(text.encode()) + len(name)
        if len(self.files) >= FILES_MAX or self._bytes + size > BYTES_MAX:
            return False
        self._bytes += size
        self.files[name] = text
        return True

    def take(self, folder: Path, prefix: str) -> None:
        """The programs first: data may be large, and then it is left out."""
        paths = sorted(_walk(folder, 0), key=lambda path: (path.suffix != ".py", str(path)))
        for path in paths:
            text = _text(path)
            if text is not None:
                self.add(f"{prefix}/{path.relative_to(folder)}", text)


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    try:
        found = sorted(os.scandir(folder), key=lambda item: item.name)
    except OSError:
        return
    seen = 0
    for item in found:
        if item.name.startswith(".") or item.name in _SKIPPED:
            continue
        if item.is_dir(follow_symlinks=False):
            if depth < _DEPTH_MAX:
                yield from _walk(Path(item.path), depth + 1)
        elif item.is_file(follow_symlinks=False):
            seen += 1
            if seen > FILES_MAX:
                return
            yield Path(item.path)


def _text(path: Path) -> str | None:
    """None for what is no file, too large, unreadable or no text."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(BYTES_MAX + 1)
    finally:
        os.close(fd)
    if len(data) > BYTES_MAX or b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
