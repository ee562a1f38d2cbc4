"""What agents said of their own end: kept from the call `exit` until the agent is gone.

It is on the disk before the box is stopped, so that whoever tells how the agent ended (its status, agent.wait) tells
this, also when the daemon died in between. The process that ends afterwards has nothing more to say.
"""

import sqlite3
import time
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from agentk.api import errors
from agentk.store import writer
from agentk.store.journal import Journal

# A status is written anew with each change: what is larger is told by agent.wait alone.
_RESULT_IN_STATUS_BYTES = 16 * 1024
_COUNTED_MAX = 50_000  # records of an attempt that are looked through
_ANSWERED = """
WITH RECURSIVE chain (before, kind, method, status, n) AS (
    SELECT r.before, r.kind, r.method, r.status, 1 FROM runs JOIN records r ON r.id = runs.last
    WHERE runs.uid = :uid AND r.attempt = :attempt
    UNION ALL
    SELECT r.before, r.kind, r.method, r.status, n + 1 FROM chain JOIN records r ON r.id = chain.before
    WHERE r.attempt = :attempt AND n < :most)
SELECT count(*) FROM chain WHERE kind = 'result' AND method = 'think' AND status = 'ok'
"""
FINAL = ("MaxSteps", "ApprovalDenied")  # starting again would come to the same end, and cost as much


@dataclass(frozen=True)
class Exit:
    """What one attempt said."""

    attempt: int
    code: int
    message: str
    result: bytes | None  # JSON; None: it gave none
    why: str = ""  # one word for why it failed
    steps: int | None = None

    @property
    def reason(self) -> str:
        return "Completed" if self.code == 0 else self.why or "Error"

    @property
    def for_status(self) -> dict[str, Any]:
        """`result`, JSON as text, when there is one and it is small, and `steps`, when they were told."""
        told: dict[str, Any] = {} if self.steps is None else {"steps": self.steps}
        if self.result is not None and len(self.result) <= _RESULT_IN_STATUS_BYTES:
            told["result"] = self.result.decode()
        return told


class Exits:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        rows = journal.read(lambda conn: conn.execute("SELECT uid, attempt FROM exits").fetchall())
        self._said: dict[str, int] = dict(rows)  # uid → attempt: most looks find nothing, and read nothing

    def of(self, uid: str, attempt: int) -> Exit | None:
        """What this attempt said, if it did."""
        if self._said.get(uid) != attempt:
            return None

        def read(conn: sqlite3.Connection) -> Exit | None:
            row = conn.execute(
                "SELECT attempt, code, message, result, why, steps FROM exits WHERE uid = ? AND attempt = ?",
                (uid, attempt),
            ).fetchone()
            return Exit(*row) if row else None

        return self._journal.read(read)

    async def answered(self, uid: str, attempt: int) -> int:
        """How often its model answered in this attempt, as far as that is still on record."""
        asked = {"uid": uid, "attempt": attempt, "most": _COUNTED_MAX}

        def count(conn: sqlite3.Connection) -> int:
            return int(conn.execute(_ANSWERED, asked).fetchone()[0])

        return await self._journal.read_apart(count)

    def note(self, uid: str, attempt: int) -> None:
        """What `write` wrote is on the disk."""
        self._said[uid] = attempt

    async def keep(self, uids: Set[str]) -> None:
        """Forget what agents said that are no more. Repeatable."""
        gone = [(uid,) for uid in self._said if uid not in uids]
        if gone:
            await self._journal.write(
                lambda tx: tx.conn.executemany("DELETE FROM exits WHERE uid = ?", gone) and None
            )
            for (uid,) in gone:
                self._said.pop(uid, None)


def write(tx: writer.Tx, uid: str, said: Exit) -> None:
    """In the transaction of the call. Raises Conflict when this attempt said how it ends before."""
    tx.conn.execute("DELETE FROM exits WHERE uid = ? AND attempt < ?", (uid, said.attempt))
    done = tx.conn.execute(
        "INSERT OR IGNORE INTO exits (uid, attempt, code, message, result, said_at, why, steps) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (uid, said.attempt, said.code, said.message, said.result, time.time(), said.why, said.steps),
    )
    if not done.rowcount:
        raise errors.Conflict("this agent has said how it ends already")
