"""Keeps the status of Quotas true: what the running agents of their namespace use."""

from typing import Any

from agentk.api import kinds, quantities
from agentk.control import admission, queueing
from agentk.control.clock import Clock
from agentk.store import store as stores

# Many agents start and end together; their Quota is told once.
_GATHER_SECONDS = 0.2


class Duty:
    def __init__(self, store: stores.Store, clock: Clock, ledger: admission.Ledger) -> None:
        self._store, self._ledger = store, ledger
        self._queue = queueing.Queue(self._look, clock, workers=1, name="quotas")
        self._names: dict[str, set[str]] = {}  # by namespace

    def hear(self, namespace: str, name: str, gone: bool) -> None:
        names = self._names.setdefault(namespace, set())
        if gone:
            names.discard(name)
            self._queue.forget((namespace, name))
        else:
            names.add(name)
            self._queue.add((namespace, name))

    def changed(self, namespace: str) -> None:
        """Something in the ledger did."""
        for name in self._names.get(namespace, ()):
            self._queue.add_after((namespace, name), _GATHER_SECONDS)

    async def run(self) -> None:
        await self._queue.run()

    async def _look(self, key: tuple[str, str]) -> float | None:
        quota = await self._store.find(kinds.QUOTA, *key)
        if quota is not None:
            told = status(quota, self._ledger.used(key[0]))
            await self._store.set_status(kinds.QUOTA, *key, quota["metadata"]["uid"], told)
        return None


def status(quota: dict[str, Any], used: admission.Amount) -> dict[str, Any]:
    """Pure."""
    return {
        "observedGeneration": quota["metadata"].get("generation", 0),
        "used": {
            "agents": used.agents,
            "cpu": quantities.format_cpu(used.cpu_millis),
            "memory": quantities.format_quantity(used.memory_bytes),
        },
    }
