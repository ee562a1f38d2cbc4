"""What is known of an environment that was made: a small file for each, beside the store.

Its time is when an agent was last seen with it. The tree itself is the launcher's; this is what people are shown.
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentk.control import environment_boxes

_SHOWN_MAX = 256  # packages in an agent's status


@dataclass(frozen=True)
class Record:
    name: str
    language: str
    interpreter: str
    lock: Sequence[str]  # one line a package, with the hash of what was installed
    size_bytes: int

    def told(self) -> dict[str, Any]:
        """For status.environment."""
        shown: dict[str, Any] = {"name": self.name, "packages": len(self.lock), "sizeBytes": self.size_bytes}
        if self.interpreter:
            shown["interpreter"] = self.interpreter
        return shown | {"lock": list(self.lock[:_SHOWN_MAX])}


class Records:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, Record] = {}

    def read(self, name: str) -> Record | None:
        """None when there is none that can be read."""
        if name not in self._read:
            try:
                told: Mapping[str, Any] = json.loads(self._path(name).read_text())
                record = Record(
                    name, told["language"], told["interpreter"], tuple(told["lock"]), told["sizeBytes"]
                )
            except (OSError, ValueError, KeyError, TypeError):
                return None
            self._read[name] = record
        return self._read[name]

    def write(self, order: environment_boxes.Order, lock: Sequence[str], size_bytes: int) -> None:
        """Durable when it returns."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        told: dict[str, Any] = {
            "language": order.language,
            "interpreter": order.interpreter_text,
            "request": order.wanted,
        }
        told |= {"lock": list(lock), "sizeBytes": size_bytes}
        scratch = self._path(order.name).with_suffix(".new")
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump(told, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(self._path(order.name))
        self._read.pop(order.name, None)

    def touch(self, name: str) -> None:
        """An agent is seen with it."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._path(name))

    def age(self, name: str) -> float:
        """Seconds since an agent was seen with it; endless without a record."""
        try:
            return time.time() - self._path(name).stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    def remove(self, name: str) -> None:
        """Repeatable."""
        self._read.pop(name, None)
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
