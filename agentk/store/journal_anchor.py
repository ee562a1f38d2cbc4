"""Where the newest sealed head is kept, outside journal.db, so that a cut-off end or a swapped file is missed.

An anchor must survive the journal and be written only by the daemon. It need not be quick: it is told once a seal.
"""

import json
from collections.abc import Callable
from typing import Any, Protocol


class Anchor(Protocol):
    """Keeps one small JSON object."""

    def load(self) -> dict[str, Any] | None: ...

    def save(self, state: dict[str, Any]) -> None:
        """Called in the journal's writer thread, and by close(): it must not wait for the loop that closes."""


class StateAnchor:
    """An anchor in one row of another store: `load` reads that row's text, `save` writes it."""

    def __init__(self, load: Callable[[], str | None], save: Callable[[str], None]) -> None:
        self._load = load
        self._save = save

    def load(self) -> dict[str, Any] | None:
        """None when there is none, or what is there is not an anchor (then the journal says that it has none)."""
        try:
            state = json.loads(self._load() or "null")
        except ValueError:
            return None
        return state if isinstance(state, dict) else None

    def save(self, state: dict[str, Any]) -> None:
        self._save(json.dumps(state, sort_keys=True))
