"""Embedding that no agent asked for: what waits for vectors of another embedder, and what a person looks for.

To a ModelRoute it is a guest like any other, one for each namespace, called @memory: it waits for its turn there,
counts for the Quotas of its namespace, and is in the journal. Never the words: the journal has nothing to forget.
"""

import asyncio
import json
from collections.abc import Callable, Sequence

from agentk.api import errors, memoryspecs
from agentk.broker.budgets import Budgets
from agentk.broker.budgets_limits import Limits
from agentk.broker.budgets_node import Owner
from agentk.broker.calling import memory
from agentk.broker.methods import ONE_CALL
from agentk.broker.words import Amount, Guest
from agentk.memory import pages
from agentk.store import journal_words as entries
from agentk.store.journal import Journal

NAME = "@memory"


class Unasked:
    def __init__(
        self,
        embedders: memory.Embedders,
        journal: Journal,
        budgets: Budgets,
        path: Callable[[Guest], tuple[str, ...]],
        now: Callable[[], float],
    ) -> None:
        """`path`: whose budgets a guest's call counts for. `now`: their clock."""
        self._embedders, self._journal, self._budgets = embedders, journal, budgets
        self._path, self._now = path, now

    async def embed(
        self, namespace: str, embedder: memoryspecs.Embedder, texts: Sequence[str], memory_id: str
    ) -> memory.Embedded:
        """Raises AgentkError, BudgetExceeded among them, or Unusable for an answer that has no vectors."""
        if not embedder.route:
            return await self._embedders.embed(namespace, embedder, texts, None)
        guest = self._guest(namespace)
        bound = self._embedders.bound(namespace, embedder, texts, guest)
        held = self._budgets.reserve(self._path(guest), bound, self._now())
        used = Amount()
        try:
            effect = await self._journal.intend(_intent(guest, embedder, len(texts), memory_id, bound))
            used = bound  # of one that is cancelled nobody knows better
            try:
                made = await self._embedders.embed(namespace, embedder, texts, guest)
                used, outcome = made.used, entries.Outcome("ok", b"{}", made.used._asdict())
            except (errors.AgentkError, pages.Unusable) as error:
                used, told = ONE_CALL, json.dumps({"message": str(error)[:500]}).encode()
                await self._journal.settle(effect, entries.Outcome("error", told, used._asdict()))
                raise
            except asyncio.CancelledError:
                taken_back = entries.Outcome("cancelled", b"{}", used._asdict())
                await asyncio.shield(self._journal.settle(effect, taken_back))
                raise
            await self._journal.settle(effect, outcome)
            return made
        finally:
            self._budgets.settle(held, used, self._now())

    def _guest(self, namespace: str) -> Guest:
        uid = f"memory/{namespace}"
        self._budgets.put(uid, Owner("agent", NAME, namespace), Limits(), self._now())
        return Guest(uid, namespace, NAME, 1, uid, "")


def _intent(
    guest: Guest, embedder: memoryspecs.Embedder, texts: int, memory_id: str, bound: Amount
) -> entries.Intent:
    return entries.Intent(
        namespace=guest.namespace,
        agent=guest.name,
        uid=guest.uid,
        attempt=guest.attempt,
        run=guest.run_id,
        method="embed",
        body=json.dumps({"memory": memory_id, "model": embedder.model, "texts": texts}).encode(),
        reserved=bound._asdict(),
        meta={"dialect": "control", "route": embedder.route, "model": embedder.model},
    )
