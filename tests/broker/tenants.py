"""A gate over a real journal with a few agents of one namespace, and a clock that only the test moves."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from agentk.api import kinds
from agentk.broker import gate, policy
from agentk.broker.budgets import Budgets
from agentk.broker.budgets_limits import Limits
from agentk.broker.budgets_node import Owner
from agentk.broker.calling import events, locks, messages, queues, state
from agentk.broker.calling.waiting import Waiting
from agentk.broker.guests import SPAWNED_BY, Guests
from agentk.broker.words import Call, Guest
from agentk.store import guest_rooms as rooms
from agentk.store.journal import Journal
from agentk.store.journal_anchor import StateAnchor

ALL = [{"name": "all", "effect": "Allow", "methods": ["*"]}]


def agent(
    name: str, parent: str = "", labels: dict[str, str] | None = None, namespace: str = "d"
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{name}",
        "labels": labels or {},
    }
    if parent:
        metadata["annotations"] = {SPAWNED_BY: f"uid-{parent}"}
    return {"metadata": metadata, "spec": {}, "status": {"attempt": 1}}


class Tenants:
    """Use `close`."""

    def __init__(
        self, folder: Path, *, rules: list[dict[str, Any]] | None = None, bounds: rooms.Bounds | None = None
    ) -> None:
        self.now = 1_700_000_000.0
        self.anchor: list[str] = []
        self.journal = Journal.open(
            folder, StateAnchor(lambda: self.anchor[-1] if self.anchor else None, self.anchor.append)
        )
        self.guests, self.budgets = Guests(), Budgets()
        self.guests.hear(kinds.POLICY, {"metadata": {"name": "baseline"}, "spec": {}}, False)
        self.waiting = Waiting(lambda: self.now)
        compiled = policy.read("test", {"level": "baseline", "rules": rules or ALL})
        given: dict[str, Any] = {"journal": self.journal, "waiting": self.waiting}
        bound = {"bounds": bounds} if bounds else {}
        self.methods = {
            **state.methods(journal=self.journal, now=lambda: self.now, **bound),
            **locks.methods(**given, **bound),
            **queues.methods(**given, **bound),
            **events.methods(**given, **bound),
            **messages.methods(**given, guests=self.guests, rules=lambda guest: compiled, **bound),
        }
        self.gate = gate.Gate(
            gate.Rooms(
                self.methods,
                lambda guest: compiled,
                self.journal,
                self.budgets,
                _path,
                lambda *about: no_turn(),
            )
        )

    def hear(self, obj: dict[str, Any], gone: bool = False) -> None:
        metadata = obj["metadata"]
        self.budgets.put(f"namespace/{metadata['namespace']}", Owner("quota", "q"), Limits(), 0.0)
        self.budgets.put(metadata["uid"], Owner("agent", metadata["name"]), Limits(), 0.0)
        self.guests.hear(kinds.AGENT, obj, gone)

    async def call(
        self,
        who: str,
        method: str,
        *,
        attempt: int = 1,
        once: str = "",
        heard: list[Any] | None = None,
        **params: Any,
    ) -> Any:
        async def emit(item: Any) -> None:
            if heard is not None:
                heard.append(item)

        guest = self.guests.find(f"uid-{who}-{attempt}")
        return await self.gate.call(Call(guest, method, params, key=once), emit)

    def begun(self, who: str, method: str, **params: Any) -> "asyncio.Task[Any]":
        """A call under way."""
        return asyncio.get_running_loop().create_task(self.call(who, method, **params))

    def records(self, method: str = "%") -> list[tuple[str, str]]:
        def read(conn: Any) -> list[tuple[str, str]]:
            rows = conn.execute(
                "SELECT kind, status FROM records WHERE method LIKE ? AND uid <> '' ORDER BY id", (method,)
            )
            return [tuple(row) for row in rows]

        return self.journal.read(read)

    async def settled(self) -> None:
        """All that is under way has got as far as it can."""
        for _ in range(20):
            await asyncio.sleep(0)
        await self.journal.write(lambda tx: None)
        for _ in range(20):
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        await self.waiting.close()
        self.journal.close()


@contextlib.asynccontextmanager
async def no_turn() -> Any:
    yield gate._NO_TURN


def _path(guest: Guest) -> tuple[str, ...]:
    return (f"namespace/{guest.namespace}", guest.uid)
