"""Keeps the status of Runtime objects true: whether this host can make boxes, and if not why and what mends it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from agentk.api import errors, kinds
from agentk.control import conditions, queueing
from agentk.control.clock import Clock
from agentk.control.conditions import Condition, truth
from agentk.runtime import box as boxes
from agentk.store import store as stores

Object = dict[str, Any]


class Duty:
    def __init__(
        self, store: stores.Store, runtimes: Mapping[str, boxes.Runtime], clock: Clock, every_seconds: float
    ) -> None:
        self._store, self._runtimes, self._clock, self._every = store, runtimes, clock, every_seconds
        self._queue = queueing.Queue(self._look, clock, workers=2, name="runtimes")
        self._seen: dict[str, tuple[str, int]] = {}

    def hear(self, obj: Object, gone: bool) -> None:
        metadata = obj["metadata"]
        name = str(metadata["name"])
        if gone:
            self._seen.pop(name, None)
            self._queue.forget(name)
            return
        asked = (str(metadata["uid"]), int(metadata.get("generation", 0)))
        if self._seen.get(name) != asked:
            self._seen[name] = asked
            self._queue.add(name)

    async def run(self) -> None:
        await self._queue.run()

    async def _look(self, name: str) -> float | None:
        obj = await self._store.find(kinds.RUNTIME, None, name)
        if obj is None:
            return None
        probe = await self._probe(str(obj["spec"].get("type")))
        now = self._clock.now().wall
        await self._store.set_status(
            kinds.RUNTIME, None, name, obj["metadata"]["uid"], status(obj, probe, now)
        )
        return self._every if probe.available else min(self._every, 30.0)

    async def _probe(self, kind: str) -> boxes.Probe:
        runtime = self._runtimes.get(kind)
        if runtime is None:
            return boxes.Probe(False, f"this daemon has no runtime of type {kind}")
        try:
            return await runtime.probe(kind)
        except errors.AgentkError as error:
            return boxes.Probe(False, error.message)


def status(obj: Object, probe: boxes.Probe, now: str) -> Object:
    """Pure: the status of a Runtime object after a probe."""
    old = obj.get("status") or {}
    generation = int(obj["metadata"].get("generation", 0))
    ready = Condition(
        "Ready", truth(probe.available), "Available" if probe.available else "Unavailable", probe.reason
    )
    made: Object = {
        "observedGeneration": generation,
        "available": probe.available,
        "findings": [dataclasses.asdict(finding) for finding in probe.findings],
        "conditions": conditions.merge(old.get("conditions") or [], [ready], generation, now),
    }
    if probe.reason:
        made["reason"] = probe.reason
    return made
