"""Keeps the status of Memories true: what is in them, and how far they are embedded."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agentk.api import kinds
from agentk.control import queueing
from agentk.control.clock import Clock
from agentk.store import store as stores

# Whoever remembers much remembers it in a row; it is told once.
_GATHER_SECONDS = 1.0


@dataclass
class Source:
    """What tells of a memory by its id, and calls `changed` when something of that may be another."""

    stats: Callable[[str], Awaitable[Mapping[str, Any]]] | None = None
    changed: Callable[[str], None] = lambda memory: None


class Duty:
    def __init__(self, store: stores.Store, clock: Clock, source: Source) -> None:
        self._store, self._source = store, source
        self._keys: dict[str, tuple[str, str]] = {}  # by id
        self._queue = queueing.Queue(self._look, clock, workers=1, name="memories")
        source.changed = self._changed

    def hear(self, memory: Mapping[str, Any], gone: bool) -> None:
        metadata = memory["metadata"]
        key, uid = (str(metadata["namespace"]), str(metadata["name"])), f"memory/{metadata['uid']}"
        if gone:
            self._keys.pop(uid, None)
            self._queue.forget(key)
        else:
            self._keys[uid] = key
            self._queue.add(key)

    async def run(self) -> None:
        await self._queue.run()

    def _changed(self, memory: str) -> None:
        if memory in self._keys:
            self._queue.add_after(self._keys[memory], _GATHER_SECONDS)

    async def _look(self, key: tuple[str, str]) -> float | None:
        memory = await self._store.find(kinds.MEMORY, *key)
        if memory is not None and self._source.stats is not None:
            uid = str(memory["metadata"]["uid"])
            told = dict(await self._source.stats(f"memory/{uid}"))
            told["observedGeneration"] = memory["metadata"].get("generation", 0)
            if told != memory.get("status"):
                await self._store.set_status(kinds.MEMORY, *key, uid, told)
        return None
