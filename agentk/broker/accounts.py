"""The tree of budgets as the objects say it is: Quotas of a namespace → agents → the agents they spawned.

Hears Agents and Quotas and keeps `Budgets` like them; after a restart it counts again what the journal knows was used.
A budget that cannot be read bounds everything to nothing: better too little than too much.
"""

import datetime
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agentk.api import errors, kinds
from agentk.broker import budgets_limits as limits
from agentk.broker.budgets import Budgets, Granted, Spent
from agentk.broker.budgets_node import Owner
from agentk.broker.guests import Guests
from agentk.broker.words import Amount, Guest
from agentk.store import journal_reading, writer
from agentk.store.journal import Journal

WATCHED = (kinds.AGENT, kinds.QUOTA)
_NOTHING_AT_ALL = limits.Limits(tokens=0, calls=0, cost_micro_usd=0)

Object = Mapping[str, Any]


class Accounts:
    """Hears objects after `guests` did, so that it knows who spawned whom."""

    def __init__(self, budgets: Budgets, guests: Guests, journal: Journal, now: Callable[[], float]) -> None:
        self._budgets, self._guests, self._journal, self._now = budgets, guests, journal, now
        self._quotas: dict[str, dict[str, str]] = {}  # namespace → name → uid

    def hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        if kind not in WATCHED:
            return
        metadata = obj["metadata"]
        uid, namespace, name = str(metadata["uid"]), str(metadata["namespace"]), str(metadata["name"])
        quotas = self._quotas.setdefault(namespace, {})
        if gone:
            if kind is kinds.QUOTA and quotas.get(name) == uid:
                del quotas[name]
            self._budgets.drop(uid, self._now())
            return
        if kind is kinds.QUOTA:
            quotas[name] = uid
        owner = Owner("quota" if kind is kinds.QUOTA else "agent", name, namespace)
        try:
            spec = obj["spec"]
            allowed = limits.of_quota(spec) if kind is kinds.QUOTA else limits.of_agent(spec.get("budget"))
        except errors.AgentkError:
            allowed = _NOTHING_AT_ALL
        self._budgets.put(uid, owner, allowed, self._now(), since=_made_at(metadata))

    def path(self, guest: Guest) -> tuple[str, ...]:
        """The budgets a call of this guest counts for: its namespace's, those of who spawned it, its own."""
        return self._path(guest.namespace, guest.parents, guest.uid)

    def path_of(self, agent: Object) -> tuple[str, ...]:
        """The same of an Agent object."""
        metadata = agent["metadata"]
        return self._path(str(metadata["namespace"]), tuple(self._guests.above(agent)), str(metadata["uid"]))

    def _path(self, namespace: str, parents: Sequence[str], uid: str) -> tuple[str, ...]:
        quotas = self._quotas.get(namespace, {})
        return (*(quotas[name] for name in sorted(quotas)), *reversed(parents), uid)

    async def load(self) -> None:
        await self._remember_all()
        await self._load()

    async def _remember_all(self) -> None:
        """Of agents spawned just before a crash, who did it may not be written down yet."""
        agents = self._guests.all()
        told = [(str(one["metadata"]["uid"]), " ".join(self._guests.above(one))) for one in agents]
        spawned = [one for one in told if one[1]]
        if spawned:
            await self._journal.write(
                lambda tx: (
                    tx.conn.executemany("INSERT OR IGNORE INTO lineage VALUES (?, ?)", spawned) and None
                )
            )

    async def _load(self) -> None:
        """What was used and given before. Once, when every object was heard and before the first call."""
        spent, granted = await self._journal.read_apart(
            lambda conn: (journal_reading.spent_by_second(conn), _granted(conn))
        )
        self._budgets.load(self._spent(spent), self._now(), granted)

    def _spent(self, rows: Sequence[journal_reading.SpentRow]) -> Iterator[Spent]:
        for row in rows:
            agent = self._guests.of(row.uid)
            parents = row.parents if agent is None else tuple(self._guests.above(agent))
            namespace = row.namespace or ("" if agent is None else str(agent["metadata"]["namespace"]))
            used = Amount(row.tokens, row.calls, row.cost_micro_usd)
            yield Spent(self._path(namespace, parents, row.uid), used, row.at)

    async def remember(self, uid: str, parents: Sequence[str]) -> None:
        """Who spawned an agent, nearest first: what it used counts for them also when it is gone. Repeatable."""
        told = (uid, " ".join(parents))
        await self._journal.write(
            lambda tx: tx.conn.execute("INSERT OR REPLACE INTO lineage VALUES (?, ?)", told) and None
        )

    async def add(self, uid: str, amount: Amount, wall_seconds: float = 0.0) -> None:
        """`agentk budget add`: on the disk when it returns. Raises Invalid and Unavailable."""
        now = self._now()
        self._budgets.add(uid, amount, now, wall_seconds=wall_seconds)
        told = (uid, *amount, wall_seconds, now)

        def keep(tx: writer.Tx) -> None:
            tx.conn.execute("INSERT INTO grants VALUES (?, ?, ?, ?, ?, ?)", told)

        await self._journal.write(keep)


def _granted(conn: sqlite3.Connection) -> list[Granted]:
    rows = conn.execute("SELECT uid, tokens, calls, cost_micro_usd, wall_seconds, at FROM grants ORDER BY at")
    return [Granted(uid, Amount(*amount), at, wall) for uid, *amount, wall, at in rows]


def _made_at(metadata: Object) -> float:
    try:
        return datetime.datetime.fromisoformat(str(metadata.get("creationTimestamp"))).timestamp()
    except ValueError:
        return 0.0
