"""Takes every Checkpoint once, and lets go of what a deleted one held.

How it is done is handed in. Whatever dies in between is done again: taking the same Checkpoint twice is taking it once.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, kinds
from agentk.control import acting, queueing
from agentk.control.clock import Clock
from agentk.store import store as stores

_AGAIN_SECONDS = 5.0
_FOR_NOW = (errors.Unavailable, errors.OutcomeUnknown, errors.TooManyRequests)

_log = logging.getLogger(__name__)

Object = Mapping[str, Any]


@dataclass
class Source:
    """What takes them, lets go of them, and brings one back before an agent's next start."""

    take: Callable[[Object], Awaitable[Mapping[str, Any]]] | None = None
    drop: Callable[[str], Awaitable[None]] | None = None  # by uid
    begin: acting.Restore | None = None
    sweep: Callable[[], Awaitable[None]] | None = None  # lets go of what was deleted while nobody listened


class Duty:
    def __init__(self, store: stores.Store, clock: Clock, source: Source) -> None:
        self._store, self._source = store, source
        self._gone: dict[tuple[str, str], set[str]] = {}  # uids of deleted ones
        self._queue = queueing.Queue(self._look, clock, workers=2, name="checkpoints")

    def hear(self, checkpoint: Object, gone: bool) -> None:
        metadata = checkpoint["metadata"]
        key = str(metadata["namespace"]), str(metadata["name"])
        if gone:
            self._gone.setdefault(key, set()).add(str(metadata["uid"]))
        self._queue.add(key)

    async def run(self) -> None:
        if self._source.sweep is not None:
            try:
                await self._source.sweep()
            except (errors.AgentkError, OSError) as error:
                _log.warning("deleted checkpoints are let go of later: %s", error)
        await self._queue.run()

    async def _look(self, key: tuple[str, str]) -> float | None:
        if self._source.take is None or self._source.drop is None:
            return None
        for uid in tuple(self._gone.get(key, ())):
            await self._source.drop(uid)
            self._gone[key].discard(uid)
        self._gone.pop(key, None)
        checkpoint = await self._store.find(kinds.CHECKPOINT, *key)
        if checkpoint is None or (checkpoint.get("status") or {}).get("phase") in ("Ready", "Failed"):
            return None
        again: float | None = None
        try:
            told = {**await self._source.take(checkpoint), "phase": "Ready"}
        except _FOR_NOW as error:
            again, told = _AGAIN_SECONDS, {"phase": "Pending", "message": error.message}
        except errors.AgentkError as error:
            told = {"phase": "Failed", "message": error.message}
        told["observedGeneration"] = checkpoint["metadata"].get("generation", 0)
        if told != checkpoint.get("status"):
            uid = str(checkpoint["metadata"]["uid"])
            await self._store.set_status(kinds.CHECKPOINT, *key, uid, told)
        return again
