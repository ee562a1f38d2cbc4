"""Which Checkpoints agents have that are Ready, as their status tells it. Heard of, never asked for."""

from collections.abc import Callable, Mapping
from typing import Any

Object = Mapping[str, Any]


class Kept:
    def __init__(self, wake: Callable[[str], None]) -> None:
        """`wake(uid)`: an agent whose newest one may be another."""
        self._wake = wake
        self._of: dict[str, tuple[str, str, str]] = {}  # uid of one → of its agent, when, its name
        self._by: dict[str, set[str]] = {}  # uid of an agent → those of its own

    def hear(self, checkpoint: Object, gone: bool) -> None:
        uid, status = str(checkpoint["metadata"]["uid"]), checkpoint.get("status") or {}
        if gone:
            known = self._of.pop(uid, None)
            if known is not None:
                self._by[known[0]].discard(uid)
                if not self._by[known[0]]:
                    del self._by[known[0]]
                self._wake(known[0])
        elif status.get("phase") == "Ready" and uid not in self._of:
            agent = str(status.get("agentUID"))
            self._of[uid] = (agent, str(status.get("takenAt")), str(checkpoint["metadata"]["name"]))
            self._by.setdefault(agent, set()).add(uid)
            self._wake(agent)

    def newest(self, agent: str) -> dict[str, str] | None:
        """As status.lastCheckpoint."""
        found = self._by.get(agent)
        if not found:
            return None
        _, at, name = max(self._of[uid] for uid in found)
        return {"name": name, "takenAt": at}
