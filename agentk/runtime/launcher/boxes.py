"""The records of boxes, one directory each. They say what we mean to do before we do it, and what came of it.

box.json     the intent: everything of the Box but values of its environment and contents of its files. A
             half-made box is never finished by another launcher, only removed, so Secrets need not be on disk.
handle.json  the box runs: its processes, by pid, start time and boot id
begun        it was told to go on
cut          of its output something may be lost
kill.json    why we ended it, written before the signal
exit.json    how it ended, with the counters read before its cgroup went
nsjail.log   the keeper's own words; the exit code of a box whose launcher died is in there
out, err     FIFOs

A record is whole against any death of ours as soon as it is written. Against a loss of power it is made whole soon
after, by a child (`settle`): boxes do not outlive the power, and waiting for the disk would be the longest part of a
start.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentk.runtime import box as words
from agentk.runtime.launcher import wire

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


class Records:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unsettled: set[str] = set()  # boxes whose records are not yet safe from a loss of power
        self.on_write: Callable[[], None] = lambda: None

    def path(self, box_id: str) -> Path:
        """The directory of one box."""
        return self.folder / box_id

    def all(self) -> list[str]:
        """Ids of every box that has a directory."""
        return sorted(entry.name for entry in os.scandir(self.folder) if entry.is_dir(follow_symlinks=False))

    def intend(self, box: words.Box) -> None:
        """Before anything is made."""
        path = self.path(box.id)
        path.mkdir(mode=0o700)
        self._write(box.id, "box.json", wire.plain(scrub(box)))

    def intend_claim(self, waiting_id: str, box: words.Box) -> None:
        """The waiting box is to become this one. Whoever finds its record under the other's name ends it."""
        (self.path(waiting_id) / "begun").unlink(missing_ok=True)
        self._write(waiting_id, "box.json", wire.plain(scrub(box)))

    def claimed(self, waiting_id: str, box_id: str) -> None:
        """All it has, its FIFOs and its keeper's log with it, is the other's from now on."""
        os.rename(self.path(waiting_id), self.path(box_id))
        self.unsettled.discard(waiting_id)

    def box(self, box_id: str) -> words.Box | None:
        """None when the intent was not written whole: then nothing else was made."""
        told = self._read(box_id, "box.json")
        return wire.box_from(told) if told else None

    def write_handle(self, box_id: str, handle: dict[str, Any]) -> None:
        """Before the box's first instruction."""
        self._write(box_id, "handle.json", handle)

    def handle(self, box_id: str) -> dict[str, Any] | None:
        """None: the box never ran."""
        return self._read(box_id, "handle.json")

    def mark_begun(self, box_id: str) -> None:
        """Its first process has our word to go on. A launcher that is killed just before leaves it unsaid."""
        self._mark(box_id, "begun")

    def has_begun(self, box_id: str) -> bool:
        """False: whether it ever heard the word is not known."""
        return (self.path(box_id) / "begun").exists()

    def mark_cut(self, box_id: str) -> None:
        """Of its output something may be lost."""
        self._mark(box_id, "cut")

    def unmark_cut(self, box_id: str) -> None:
        """It was not. Repeatable."""
        (self.path(box_id) / "cut").unlink(missing_ok=True)

    def is_cut(self, box_id: str) -> bool:
        """What any launcher before us found out."""
        return (self.path(box_id) / "cut").exists()

    def write_intent(self, box_id: str, intent: words.Intent) -> None:
        """Before the signal."""
        self._write(box_id, "kill.json", wire.plain(intent))

    def intent(self, box_id: str) -> words.Intent | None:
        """Why we meant to end it, if we did."""
        return wire.intent_from(self._read(box_id, "kill.json"))

    def write_exit(self, box_id: str, ended: words.Exit, lost: bool = False) -> None:
        """Before the cgroup that was counted goes."""
        self._write(box_id, "exit.json", {**wire.plain(ended), "lost": lost})

    def exit(self, box_id: str) -> tuple[words.Exit, bool] | None:
        """How it ended and whether it is Lost rather than Exited."""
        told = self._read(box_id, "exit.json")
        return (wire.exit_from(told), bool(told.get("lost"))) if told else None

    def write_counts(self, box_id: str, log_bytes: int, held_back_usec: int) -> None:
        """Not durable: only a launcher that is killed counts from older numbers."""
        path = self.path(box_id) / "counts.json"
        path.write_text(json.dumps([log_bytes, held_back_usec]))

    def counts(self, box_id: str) -> tuple[int, int]:
        """Log bytes and microseconds held back, as last written."""
        try:
            log_bytes, held_back = json.loads((self.path(box_id) / "counts.json").read_text())
        except (OSError, ValueError):
            return 0, 0
        return int(log_bytes), int(held_back)

    def forget(self, box_id: str) -> None:
        """Repeatable."""
        shutil.rmtree(self.path(box_id), ignore_errors=True)

    def settle(self) -> list[str]:
        """Make what was written durable. It waits for the disk, so it is for a child. Answers whose records."""
        for box_id in self.unsettled:
            try:
                for entry in os.scandir(self.path(box_id)):
                    if entry.name.endswith(".json"):
                        sync(Path(entry.path))
                sync(self.path(box_id))
            except OSError:
                continue  # forgotten meanwhile
        sync(self.folder)
        return sorted(self.unsettled)

    def _write(self, box_id: str, name: str, content: dict[str, Any]) -> None:
        path = self.path(box_id) / name
        scratch = f"{self.folder}/{box_id}/.{name}"
        fd = os.open(scratch, _WRITE, 0o600)
        try:
            os.write(fd, json.dumps(content).encode())
        finally:
            os.close(fd)
        os.rename(scratch, path)
        self.unsettled.add(box_id)
        self.on_write()

    def _mark(self, box_id: str, name: str) -> None:
        os.close(os.open(self.path(box_id) / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def _read(self, box_id: str, name: str) -> dict[str, Any] | None:
        try:
            content = json.loads((self.path(box_id) / name).read_text())
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None


def scrub(box: words.Box) -> words.Box:
    """The same box without what may be secret."""
    mounts = tuple(
        dataclasses.replace(mount, files=dict.fromkeys(mount.files, "")) if mount.files else mount
        for mount in box.mounts
    )
    return dataclasses.replace(box, env=dict.fromkeys(box.env, ""), mounts=mounts)


def sync(path: Path) -> None:
    """Make a file, or the names in a directory, durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
