"""Reading what the kernel writes about cgroups and mounts. Pure: text in, data out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agentk.runtime import kernel

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Lack:
    """A controller that cannot be used."""

    why: str
    fix: str = ""  # the exact command that mends it

    def __str__(self) -> str:
        return f"{self.why}; {self.fix}" if self.fix else self.why


@dataclass(frozen=True)
class MountEntry:
    """One line of /proc/self/mountinfo."""

    root: str  # what of the file system is mounted: "/" for all of it
    point: Path
    fstype: str
    source: str
    options: frozenset[str]  # of this mount and of its file system


def mount_entries(mountinfo: str) -> list[MountEntry]:
    """Parse /proc/PID/mountinfo; lines that do not look like it are skipped."""
    entries = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        head, tail = before.split(" "), after.split(" ")
        if not separator or len(head) < 6 or len(tail) < 3:
            continue
        options = frozenset(head[5].split(",")) | frozenset(tail[2].split(","))
        entries.append(MountEntry(_plain(head[3]), Path(_plain(head[4])), tail[0], _plain(tail[1]), options))
    return entries


def _plain(escaped: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), escaped)


def own_groups(proc_cgroup: str) -> dict[str, str]:
    """/proc/PID/cgroup as controller → path. The v2 hierarchy is the empty name."""
    groups = {}
    for line in proc_cgroup.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                groups[controller] = parts[2]
    return groups


def keyed(text: str) -> dict[str, int]:
    """A flat keyed file (`memory.events`, `cpu.stat`, `memory.oom_control` …). Other lines are skipped."""
    pairs = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if value.strip().lstrip("-").isdigit():
            pairs[key] = int(value)
    return pairs


def number(text: str | None) -> int | None:
    """A file of one number. None for "max", for nothing and for anything else."""
    word = (text or "").strip()
    return int(word) if word.lstrip("-").isdigit() else None


def first(values: Mapping[str, int], *keys: str) -> int | None:
    """The value of the first key that is there."""
    return next((values[key] for key in keys if key in values), None)


def read(path: Path) -> str | None:
    """The file's text, None when it is not there or cannot be read."""
    try:
        return kernel.read(path).decode()
    except OSError:
        return None


def write(path: Path, value: str | int) -> str:
    """Write one value; the error's plain words, "" on success."""
    try:
        # One write(2): the kernel takes each as a command of its own. Never creates.
        with path.open("r+b", buffering=0) as file:
            file.write(str(value).encode())
    except OSError as error:
        return f"{path.name}: {error.strerror}"
    return ""
