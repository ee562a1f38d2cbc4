"""Keeps the status of Quotas true: what the running agents of their namespace use."""

from collections.abc import Callable, Mapping
from typing import Any

from agentk.api import kinds, quantities
from agentk.control import admission, checkpoints, claims, queueing
from agentk.control.clock import Clock
from agentk.store import store as stores

# Many agents start and end together; their Quota is told once.
_GATHER_SECONDS = 0.2
_BUDGETS = ("tokens", "calls", "costUsd")

Usage = Callable[[str], Mapping[str, Any] | None]


class Duty:
    def __init__(
        self,
        store: stores.Store,
        clock: Clock,
        ledger: admission.Ledger,
        usage: Usage,
        checkpointed: checkpoints.Source | None = None,
    ) -> None:
        self._kept = checkpointed.used if checkpointed else None
        self._store, self._ledger, self._usage = store, ledger, usage
        self._keys: dict[str, tuple[str, str]] = {}  # by uid
        self._queue = queueing.Queue(self._look, clock, workers=1, name="quotas")
        self._names: dict[str, set[str]] = {}  # by namespace

    def hear(self, quota: Mapping[str, Any], gone: bool) -> None:
        metadata = quota["metadata"]
        namespace, name = str(metadata["namespace"]), str(metadata["name"])
        self._keys[str(metadata["uid"])] = (namespace, name)
        names = self._names.setdefault(namespace, set())
        if gone:
            names.discard(name)
            del self._keys[str(metadata["uid"])]
            self._queue.forget((namespace, name))
        else:
            names.add(name)
            self._queue.add((namespace, name))

    def changed(self, namespace: str) -> None:
        """Something in the ledger did."""
        for name in self._names.get(namespace, ()):
            self._queue.add_after((namespace, name), _GATHER_SECONDS)

    def used(self, uid: str) -> None:
        """Something of its tokens, calls or money."""
        if uid in self._keys:
            self._queue.add_after(self._keys[uid], _GATHER_SECONDS)

    async def run(self) -> None:
        await self._queue.run()

    async def _look(self, key: tuple[str, str]) -> float | None:
        quota = await self._store.find(kinds.QUOTA, *key)
        if quota is not None:
            usage = self._usage(str(quota["metadata"]["uid"]))
            kept = await self._kept(key[0]) if self._kept else (0, 0)
            told = status(quota, self._ledger.used(key[0]), usage or {}, kept)
            await self._store.set_status(kinds.QUOTA, *key, quota["metadata"]["uid"], told)
        return None


def status(
    quota: dict[str, Any], used: claims.Amount, usage: Mapping[str, Any], kept: tuple[int, int] = (0, 0)
) -> dict[str, Any]:
    """Pure. `usage`: of the gate; what is not bounded there is not told."""
    hard = quota["spec"].get("hard") or {}
    ends = {"windowEnds": usage["windowEnds"]} if "windowEnds" in usage else {}
    return ends | {
        "observedGeneration": quota["metadata"].get("generation", 0),
        "used": {
            "agents": used.agents,
            "cpu": quantities.format_cpu(used.cpu_millis),
            "memory": quantities.format_quantity(used.memory_bytes),
            **{key: usage.get(key, "0.00" if key == "costUsd" else 0) for key in _BUDGETS if key in hard},
            **({"checkpoints": kept[0]} if "checkpoints" in hard else {}),
            **({"checkpointBytes": quantities.format_quantity(kept[1])} if "checkpointBytes" in hard else {}),
        },
    }
