"""M of a machine: what it remembers by name. It is searched and recalled; of what is in it only its size is in view."""

from __future__ import annotations

import json
import re
from typing import Any, List, Optional, Tuple

from agentk.programs import ends
from agentk.sdk import client, errors

FOUND = 8  # by one search
_ID = re.compile(r"p[0-9a-f]{16}")
_SNIPPET_LETTERS = 200
_VERSIONS = 50
EPISODE = "episode"


class Cells:
    def __init__(self, agent: client.Agent) -> None:
        self._agent = agent
        self._me: List[str] = []
        self.count = 0

    def open(self) -> None:
        """Raises Ended without a memory."""
        try:
            self.count = self._agent.memory_search(limit=1).pages
        except errors.Disconnected:
            raise
        except errors.CallError as error:
            raise ends.Ended(f"a machine needs its memory: {error.message}") from None

    def size(self) -> str:
        return f"M holds {self.count} cell{'' if self.count == 1 else 's'}."

    def remember(
        self, name: str, value: Any, *, routine: bool = False, tags: Optional[List[str]] = None
    ) -> None:
        """One value a name. Raises CallError."""
        kept = self._agent.memory_remember(
            text_of(value), name=name, kind="skill" if routine else "note", tags=tags
        )
        self.count += not kept.replaced

    def episode(self, text: str, tags: List[str]) -> str:
        """What happened, as a page without a name: its id. Raises CallError."""
        kept = self._agent.memory_remember(text, kind=EPISODE, tags=tags, importance=0.6)
        self.count += 1
        return kept.id

    def routine(self, name: str) -> Optional[str]:
        """As `recall`, but its own: what others wrote into a Memory that is shared is read, and never done. Raises
        CallError."""
        self._me = self._me or [self._agent.hello().agent]
        return self.recall(name, self._me)

    def recall(self, name: str, agents: Optional[List[str]] = None) -> Optional[str]:
        """By name or by id; None when it is not there. Raises CallError."""
        name = name.strip()
        if not name:
            return None
        ids, names = _which(name)
        found = self._agent.memory_recall(ids=ids, names=names, agents=agents).items
        if not found:
            return None
        return found[0].content if found[0].encoding != "base64" else "[This is no text.]"

    def search(self, query: str) -> List[Any]:
        """The best first; the newest without a query. Raises CallError."""
        found = self._agent.memory_search(query[:8000], limit=FOUND)
        self.count = found.pages
        return [
            {
                "name": one.name or one.id,
                "kind": "routine" if one.kind == "skill" else one.kind,
                "text": one.snippet[:_SNIPPET_LETTERS],
            }
            for one in found.items
        ]

    def forget(self, name: str) -> bool:
        ids, names = _which(name)
        gone = len(self._agent.memory_forget(ids=ids, names=names).forgotten)
        self.count = max(0, self.count - gone)
        return bool(gone)

    def keep_version(self, name: str, text: str) -> str:
        """What a name meant until now, under the first name NAME@N that is free: that name. Repeatable: a version
        that is kept already, by whoever was ended in the middle of this, is that one. Raises CallError."""
        names = [f"{name}@{number}" for number in range(1, _VERSIONS + 1)]
        mine = self._me or [self._agent.hello().agent]
        taken = {one.name: one.content for one in self._agent.memory_recall(names=names, agents=mine).items}
        for one in names:
            if taken.get(one) == text:
                return one
            if one not in taken:
                self.remember(one, text, routine=True, tags=["version"])
                return one
        self.remember(names[-1], text, routine=True, tags=["version"])
        return names[-1]


def _which(name: str) -> Tuple[List[str], List[str]]:
    """Ids and names."""
    return ([name], []) if _ID.fullmatch(name) else ([], [name])


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
