"""How many steps agents have taken, as their Checkpoints count them, and a wake-up for whoever waits for the next few.

What is counted is on the record, so a daemon that begins anew counts on; the wake-up alone is of this process.
"""

import sqlite3
from collections.abc import Callable

from agentk.store.journal import Journal

_COUNTED_MAX = 50_000  # records that are looked through
_COUNTED = """
WITH RECURSIVE chain (id, before, kind, method, status, n) AS (
    SELECT r.id, r.before, r.kind, r.method, r.status, 1 FROM runs JOIN records r ON r.id = runs.last
    WHERE runs.uid = :uid AND r.id > :since
    UNION ALL
    SELECT r.id, r.before, r.kind, r.method, r.status, n + 1 FROM chain JOIN records r ON r.id = chain.before
    WHERE r.id > :since AND n < :most)
SELECT count(*) FROM chain
WHERE kind = 'result' AND status = 'ok' AND (method = 'think' OR (:all AND method IN ('exec', 'tool.call')))
"""
_METHODS = frozenset({"think", "exec", "tool.call"})


def _nobody(uid: str) -> None:
    """Nobody listens."""


class Steps:
    def __init__(self) -> None:
        self._journal: Journal | None = None
        self._wake: Callable[[str], None] = _nobody
        self._left: dict[str, int] = {}  # by uid: calls until somebody wants to know

    def open(self, journal: Journal) -> None:
        """From now on counts are true."""
        self._journal = journal
        for uid in list(self._left):
            self._rouse(uid)

    def listen(self, wake: Callable[[str], None]) -> None:
        """Call `wake(uid)` when as many calls have ended as `expect` said. It must not wait."""
        self._wake = wake

    def expect(self, uid: str, calls: int) -> None:
        """Wake once, after so many calls from now on. Some of them may be no steps."""
        self._left[uid] = max(1, calls)

    def count_off(self, uid: str, calls: int) -> None:
        """So many of the expected ones had ended before."""
        if uid in self._left:
            self._left[uid] -= calls
            if self._left[uid] <= 0:
                self._rouse(uid)

    def forget(self, uid: str) -> None:
        self._left.pop(uid, None)

    def heard(self, uid: str, method: str) -> None:
        """A call has ended well, and that is on the disk."""
        if uid in self._left and method in _METHODS:
            self._left[uid] -= 1
            if self._left[uid] <= 0:
                self._rouse(uid)

    def _rouse(self, uid: str) -> None:
        del self._left[uid]
        self._wake(uid)

    async def since(self, uid: str, record: int, *, program: bool) -> int:
        """Steps of an agent after a record of the journal; `program`: whether only answers of its model are some."""
        if self._journal is None:
            return 0
        asked = {"uid": uid, "since": record, "all": not program, "most": _COUNTED_MAX}

        def count(conn: sqlite3.Connection) -> int:
            return int(conn.execute(_COUNTED, asked).fetchone()[0])

        return await self._journal.read_apart(count)
