"""From where packages are fetched, as the owner's command line last said it. Kept for whatever is fetched later.

A file of the daemon's own, for it may hold credentials. Until a command has said something, what the daemon itself may
read of the machine's configuration serves.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentk.api import errors
from agentk.api import indexes as words
from agentk.client import indexes as reading
from agentk.control import environment_boxes


class Indexes:
    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, told: Mapping[str, Any]) -> None:
        """Raises BadRequest for what is none."""
        text = json.dumps(words.parse(told).to_dict())
        scratch = self._path.with_suffix(".new")
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)
        scratch.rename(self._path)

    def sources(self) -> environment_boxes.Sources:
        """For the box that fetches."""
        try:
            found = words.parse(json.loads(self._path.read_text()))
        except (OSError, ValueError, errors.BadRequest):
            found = reading.read(os.environ)
        return environment_boxes.Sources(found.env, found.npmrc, found.paths)
