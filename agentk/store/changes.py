"""The change log: what a watcher reads from it, and what is let go of when it grows old or large.

A row's `prev` is the version of the object before it. Compaction keeps the rows that younger ones point to, so
the log can always tell what an object was at any resourceVersion above the floor.
"""

import sqlite3
from dataclasses import dataclass

from agentk.api import errors
from agentk.store import rows
from agentk.store.writer import Tx

# One round of compaction holds up writers for about 20 ms.
_DELETE_AT_ONCE = 5000


@dataclass(frozen=True)
class Retention:
    """How much of the log stays; whatever is reached first."""

    count: int = 50_000
    age_seconds: float = 3600.0
    size_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True)
class Entry:
    """One change; `before` is the body of the version before, where it was asked for and there was one."""

    rv: int
    type: str  # ADDED MODIFIED DELETED
    key: str
    namespace: str
    name: str
    uid: str
    body: str
    before: str | None


def since(
    conn: sqlite3.Connection, position: int, key: str | None, namespace: str, limit: int, before: bool
) -> tuple[list[Entry], int]:
    """Changes after `position`, oldest first, and up to where that is all there is.

    Raises Expired when the log no longer reaches back to `position`, or has never been there.
    """
    newest = rows.newest(conn)
    if position < rows.floor(conn) or position > newest:
        raise errors.Expired(
            f"resourceVersion {position} is too old or from another life of this store",
            hint="list again and watch from the list's resourceVersion",
        )
    joined = "LEFT JOIN changes p ON p.id = c.prev" if before else ""
    where, values = ["c.id > ?"], [position, *([key] if key else []), *([namespace] if namespace else [])]
    where += ["c.kind = ?"] if key else []
    where += ["c.namespace = ?"] if namespace else []
    found = conn.execute(
        f"SELECT c.id, c.type, c.kind, c.namespace, c.name, c.uid, c.body, {'p.body' if before else 'NULL'}"
        f" FROM changes c {joined} WHERE {' AND '.join(where)} ORDER BY c.id LIMIT ?",
        (*values, limit),
    ).fetchall()
    entries = [Entry(*row) for row in found]
    return entries, entries[-1].rv if len(entries) == limit else newest


def compact(tx: Tx, keep: Retention, now: float) -> int:
    """Raise the floor as `keep` asks and drop a bounded number of rows under it. Returns how many went."""
    conn = tx.conn
    old = rows.floor(conn)
    floor = max(old, rows.newest(conn) - keep.count, _too_old(conn, old, now - keep.age_seconds))
    floor = max(floor, _too_large(conn, floor, keep.size_bytes))
    if floor > old:
        conn.execute("UPDATE meta SET value = ? WHERE key = 'floor'", (floor,))
    gone = conn.execute(
        "DELETE FROM changes WHERE id IN (SELECT id FROM changes c WHERE id <= ?1 AND NOT EXISTS"
        " (SELECT 1 FROM changes n WHERE n.prev = c.id AND n.id > ?1) ORDER BY id LIMIT ?2)",
        (floor, _DELETE_AT_ONCE),
    )
    return gone.rowcount


def _too_old(conn: sqlite3.Connection, floor: int, oldest: float) -> int:
    found = conn.execute(
        "SELECT id FROM changes WHERE id > ? AND at >= ? LIMIT 1", (floor, oldest)
    ).fetchone()
    return int(found[0]) - 1 if found else rows.newest(conn)


def _too_large(conn: sqlite3.Connection, floor: int, size_bytes: int) -> int:
    """The floor above which the log has at most about `size_bytes`. `total` only grows, so halving finds it."""
    newest = rows.newest(conn)
    all_bytes = _total(conn, newest)
    low, high = floor, newest
    while low < high:
        middle = (low + high) // 2
        if all_bytes - _total(conn, middle) > size_bytes:
            low = middle + 1
        else:
            high = middle
    return low


def _total(conn: sqlite3.Connection, rv: int) -> int:
    """Bytes of all bodies up to a change, counted from the beginning of the log."""
    found = conn.execute(
        "SELECT total FROM changes WHERE id <= ? AND total > 0 ORDER BY id DESC LIMIT 1", (rv,)
    ).fetchone()
    return int(found[0]) if found else 0
