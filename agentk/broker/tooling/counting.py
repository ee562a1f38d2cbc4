"""How often a Tool was called, as `maxCalls` bounds it: of an agent and of every agent above it, over all restarts.

A call is counted before it is done, in one transaction for all whose bound it is: parallel calls never pass the bound,
and a call that a crash cut off has been counted.
"""

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from agentk.api import errors
from agentk.broker import crash, granting
from agentk.broker.words import Guest
from agentk.store import guest_keys, guest_rooms, writer
from agentk.store.journal import Journal

_SCOPE = "tools"  # apart from what agents keep themselves: none of their calls reaches it
_BOUND = guest_rooms.Bound(1000, 1 << 20)  # Tools that one agent's spec ever named

Object = Mapping[str, Any]


def scope(uid: str) -> str:
    return f"{_SCOPE}/{uid}"


class Counts:
    def __init__(self, journal: Journal, agent_of: Callable[[str], Object | None]) -> None:
        """`agent_of` a uid."""
        self._journal, self._agent_of = journal, agent_of

    async def count(self, guest: Guest, tool: str) -> None:
        """One more. Raises BudgetExceeded when some bound is reached; nothing is counted then."""
        bounds = self._bounds(guest, tool)
        if not bounds:
            return

        def work(tx: writer.Tx) -> None:
            for uid, name, most in bounds:
                if _counted(tx.conn, uid, tool) >= most:
                    raise errors.BudgetExceeded(
                        f'agent "{name}" has called Tool "{tool}" {most} times, as often as it may',
                        hint=f"spec.tools[{tool}].maxCalls of agent {name}",
                    )
            for uid, _, _ in bounds:
                _add(tx.conn, uid, tool)

        await self._journal.write(work)
        crash.crashpoint("tool.counted")

    def counted(self, uid: str, tool: str) -> int:
        return self._journal.read(lambda conn: _counted(conn, uid, tool))

    def _bounds(self, guest: Guest, tool: str) -> list[tuple[str, str, int]]:
        found = []
        for uid in (guest.uid, *guest.parents):
            agent = self._agent_of(uid)
            spec = guest.spec if uid == guest.uid else (agent or {}).get("spec") or {}
            name = guest.name if uid == guest.uid else str(((agent or {}).get("metadata") or {}).get("name"))
            grant = granting.of(spec, tool)
            if grant is not None and grant.max_calls is not None:
                found.append((uid, name, grant.max_calls))
        return found


def _counted(conn: sqlite3.Connection, uid: str, tool: str) -> int:
    value = guest_keys.get(conn, scope(uid), tool, 0.0)
    return int(value.value) if value else 0


def _add(conn: sqlite3.Connection, uid: str, tool: str) -> None:
    count = str(_counted(conn, uid, tool) + 1).encode()
    guest_keys.put(conn, guest_keys.Write(scope(uid), tool, count, 0.0), _BOUND)
