"""Values that guests keep under keys. Whose a scope is, and who may ask, is the broker's business.

What has expired is not there, whether it was erased already or not.
"""

import sqlite3
from dataclasses import dataclass

from agentk.store import guest_rooms as rooms

_WHAT = "keys"
_STEP_ROWS = 100


@dataclass(frozen=True)
class Value:
    value: bytes
    version: int
    expires_at: float | None = None


@dataclass(frozen=True)
class Write:
    """What is to be kept."""

    scope: str
    key: str
    value: bytes
    now: float
    expires_at: float | None = None


def get(conn: sqlite3.Connection, scope: str, key: str, now: float) -> Value | None:
    row = conn.execute(
        "SELECT value, version, expires_at FROM kv WHERE scope = ? AND key = ?", (scope, key)
    ).fetchone()
    if row is None or (row[2] is not None and row[2] <= now):
        return None
    return Value(*row)


def put(conn: sqlite3.Connection, write: Write, bound: rooms.Bound) -> int:
    """The version it has now. Raises TooManyRequests when the scope is full."""
    _make_room(conn, write, bound)
    version = rooms.count(conn, write.scope, _WHAT)
    conn.execute(
        "INSERT INTO kv (scope, key, version, expires_at, value) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " version = excluded.version, expires_at = excluded.expires_at, value = excluded.value",
        (write.scope, write.key, version, write.expires_at, write.value),
    )
    return version


def swap(conn: sqlite3.Connection, write: Write, version: int, bound: rooms.Bound) -> Value | int | None:
    """Keep it if the key has this version (0: is not there). The new version, or else what is there."""
    there = get(conn, write.scope, write.key, write.now)
    if (there.version if there else 0) != version:
        return there
    return put(conn, write, bound)


def delete(conn: sqlite3.Connection, scope: str, key: str, now: float) -> bool:
    there = get(conn, scope, key, now) is not None
    conn.execute("DELETE FROM kv WHERE scope = ? AND key = ?", (scope, key))
    return there


def listed(
    conn: sqlite3.Connection, scope: str, prefix: str, after: str, limit: int, now: float
) -> list[tuple[str, int]]:
    """Keys and versions in order of their bytes, beginning after `after`; at most `limit`."""
    found: list[tuple[str, int]] = []
    rows = conn.execute(
        "SELECT key, version, expires_at FROM kv WHERE scope = ? AND key >= ? AND key > ? ORDER BY key",
        (scope, prefix, after),
    )
    for key, version, expires_at in rows:
        if len(found) == limit or not key.startswith(prefix):
            break
        if expires_at is None or expires_at > now:
            found.append((key, version))
    return found


def _make_room(conn: sqlite3.Connection, write: Write, bound: rooms.Bound) -> None:
    """A value that takes the place of a larger one always fits."""
    row = conn.execute(
        "SELECT length(value) FROM kv WHERE scope = ? AND key = ?", (write.scope, write.key)
    ).fetchone()
    if row:
        more = rooms.Bound(0, len(write.value) - row[0])
    else:
        more = rooms.Bound(1, len(write.key.encode()) + len(write.value))
    while not rooms.fits(conn, write.scope, _WHAT, more, bound):
        if not _forget_expired(conn, write):
            raise rooms.full("too much is kept here", bound, "state.delete what is no longer needed")


def _forget_expired(conn: sqlite3.Connection, write: Write) -> int:
    """Some of what expired, but for the key itself, whose size was counted on."""
    return conn.execute(
        "DELETE FROM kv WHERE rowid IN (SELECT rowid FROM kv WHERE scope = ? AND expires_at <= ? AND key <> ? LIMIT ?)",
        (write.scope, write.now, write.key, _STEP_ROWS),
    ).rowcount
