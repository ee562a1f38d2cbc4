"""Environments: trees of packages that many boxes see and none may change. One directory each, below `state`.

Made as NAME.half by boxes that run fixed programs of ours as a uid of its own (`builder`), and kept as NAME by one
rename, so that half of one is never shown. What is in a tree is the builder's and only the jails' to read: no process
of ours opens a path in one. Removing moves it to the trash, which is emptied a little at a time.
"""

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

from agentk.api import errors
from agentk.runtime import box as words
from agentk.runtime import builder, finding, workspace_removal

PYTHON, NODE = "/opt/env/python", "/node_modules"
TARGETS = (PYTHON, NODE)
UID_PREFIX = "env-"
_PIP = "/opt/pip"
_NAME = re.compile(r"[0-9a-f]{32}")
_HALF = ".half"
_SWEEP_SECONDS = 0.02
_PROGRAMS = {"python": "pips.py", "node": "npms.py"}


def uid(name: str) -> str:
    """Of the boxes that make an environment."""
    return UID_PREFIX + check_name(name)


def check_name(name: object) -> str:
    """It names a directory. Raises Invalid."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise errors.Invalid("is not the name of an environment", field="environment")
    return name


class Environments:
    """The directories. `owner` is the builder's host uid, -1 for our own."""

    def __init__(self, folder: Path, owner: int) -> None:
        self._folder, self._trash, self._owner = folder, folder / ".trash", owner
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def kept(self) -> list[str]:
        """Names of those that are whole."""
        return sorted(entry.name for entry in os.scandir(self._folder) if _NAME.fullmatch(entry.name))

    def half(self) -> list[str]:
        """Names of those that were begun."""
        names = (entry.name for entry in os.scandir(self._folder) if entry.name.endswith(_HALF))
        return sorted(name.removesuffix(_HALF) for name in names)

    def path(self, name: str, read_only: bool) -> Path:
        """Of a whole one, or of the one being made. Raises RuntimeRefused when it is not there."""
        if not read_only:
            return self._begin(name)
        path = self._folder / check_name(name)
        if not path.is_dir():
            raise errors.RuntimeRefused(f"environment {name} is not here")
        return path

    def _begin(self, name: str) -> Path:
        """Repeatable: an install that is tried again goes on in the same directory."""
        path = self._folder / (check_name(name) + _HALF)
        if not path.is_dir():
            path.mkdir(mode=0o755)
            path.chmod(0o755)
            if self._owner >= 0:
                os.chown(path, self._owner, self._owner)
        return path

    def keep(self, name: str) -> None:
        """From now on it is whole. Repeatable. Raises NotFound when there is none."""
        final = self._folder / check_name(name)
        if final.is_dir():
            return
        try:
            (self._folder / (name + _HALF)).rename(final)
        except FileNotFoundError:
            raise errors.NotFound(f"environment {name} was not made") from None
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove(self, name: str) -> None:
        """Whole or half, out of the way at once. Repeatable."""
        for path in (self._folder / check_name(name), self._folder / (name + _HALF)):
            workspace_removal.throw_away(path, self._trash)

    def sweep(self) -> bool:
        """Delete a part of what was removed; True when nothing is left of it."""
        return workspace_removal.sweep(self._trash, _SWEEP_SECONDS)


def dressed(box: words.Box, path: Callable[[str, bool], Path], python: str) -> words.Box:
    """The box with its environments' paths, and for one that builds with the fixed program it runs.

    `path` answers where an environment is; `python` is the interpreter inside. Raises RuntimeRefused.
    """
    mounts = [_placed(mount, path) for mount in box.mounts]
    if not box.build:
        return dataclasses.replace(box, mounts=mounts) if mounts != list(box.mounts) else box
    step, _, language = box.build.partition("-")
    if not python:
        raise errors.RuntimeRefused("there is no Python for boxes", hint="apt-get install python3")
    if language == "python":
        pip = finding.pip()
        if pip is None:
            raise errors.RuntimeRefused(
                "there is no pip of version 22.2 or newer", hint="python3 -m pip install --upgrade pip"
            )
        mounts.append(words.Mount("bind", f"{_PIP}/{pip.name}", source=str(pip)))
    text = (Path(builder.__file__).parent / _PROGRAMS[language]).read_text()
    return dataclasses.replace(box, mounts=mounts, argv=[python, "-I", "-c", text, step, text])


def _placed(mount: words.Mount, path: Callable[[str, bool], Path]) -> words.Mount:
    if mount.kind != "environment":
        return mount
    return dataclasses.replace(mount, kind="bind", source=str(path(mount.source, mount.read_only)))
