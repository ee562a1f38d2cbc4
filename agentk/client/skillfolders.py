"""A folder with a SKILL.md on a person's machine, as the Skill it is. No link is followed, and nothing is left out
silently but what `.agentkignore` and the usual say."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentk.api import errors, skillspecs
from agentk.client import ignoring

_ENTRIES_MAX = 10_000


def is_skill(folder: Path) -> bool:
    return (folder / skillspecs.FILE).is_file()


def read(folder: Path) -> dict[str, Any]:
    """Raises Invalid naming the file that cannot be taken."""
    found: dict[str, bytes] = {}
    size = 0
    for path, name in _walk(folder, _rules(folder)):
        if why := skillspecs.bad_path(name):
            raise errors.Invalid(f"{path}: {why}")
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            data = file.read(skillspecs.MAX_BYTES + 1)
        size += len(data)
        if size > skillspecs.MAX_BYTES:
            raise errors.Invalid(
                f"{folder}: over 1 MiB of files",
                hint=f"name what is not needed in {folder / ignoring.FILE}, such as *.ttf",
            )
        found[name] = data
    try:
        return skillspecs.of_files(found)
    except errors.Invalid as error:
        error.file = error.file or str(folder / skillspecs.FILE)
        raise


def _rules(folder: Path) -> list[ignoring.Rule]:
    path = folder / ignoring.FILE
    return ignoring.rules(path.read_text(encoding="utf-8").splitlines() if path.is_file() else ())


def _walk(folder: Path, rules: list[ignoring.Rule]) -> Iterator[tuple[Path, str]]:
    waiting, entries = [folder], 0
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            name = path.relative_to(folder).as_posix()
            mode, entries = path.lstat().st_mode, entries + 1
            if entries > _ENTRIES_MAX:
                raise errors.Invalid(f"{folder}: over {_ENTRIES_MAX} files")
            if ignoring.ignored(name, stat.S_ISDIR(mode), rules):
                continue
            if stat.S_ISDIR(mode):
                waiting.append(path)
            elif stat.S_ISREG(mode):
                yield path, name
            else:
                what = "a link" if stat.S_ISLNK(mode) else "not a file"
                raise errors.Invalid(f"{path} is {what}: a Skill has files and folders")
