"""How much guests may keep, what has run out of time, and letting go of everything that was somebody's.

`holdings` is the truth of it (see `guest_schema`). Everything here is small steps: a scope of ten thousand items must
not hold up those who write beside it.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from agentk.api import errors

_STEP_ROWS = 500
_STEP_BYTES = 8 * 1024 * 1024  # what is erased is overwritten: some 10 ms of the writer
_SIZES = {"kv": "length(value)", "items": "length(body)", "events": "length(data)"}


@dataclass(frozen=True)
class Bound:
    """Most that a scope holds of one kind."""

    items: int
    bytes: int


@dataclass(frozen=True)
class Bounds:
    keys: Bound = Bound(10_000, 32 << 20)  # of one agent, one attempt, one family
    locks: Bound = Bound(1_000, 1)  # held at once
    mail: Bound = Bound(1_000, 16 << 20)  # of one mailbox …
    mail_from_one: Bound = Bound(500, 8 << 20)  # … so that one sender cannot shut it to the others
    queued: Bound = Bound(10_000, 32 << 20)  # of all queues of one agent, or one family
    events: Bound = Bound(5_000, 8 << 20)  # of one family; the oldest make room


def held(conn: sqlite3.Connection, scope: str, what: str) -> Bound:
    row = conn.execute(
        "SELECT items, bytes FROM holdings WHERE scope = ? AND what = ?", (scope, what)
    ).fetchone()
    return Bound(*row) if row else Bound(0, 0)


def fits(conn: sqlite3.Connection, scope: str, what: str, more: Bound, bound: Bound) -> bool:
    if more.items <= 0 and more.bytes <= 0:
        return True
    now = held(conn, scope, what)
    return (more.items <= 0 or now.items + more.items <= bound.items) and (
        more.bytes <= 0 or now.bytes + more.bytes <= bound.bytes
    )


def full(what: str, bound: Bound, hint: str) -> errors.TooManyRequests:
    size = f" or {bound.bytes >> 20} MiB" if bound.bytes >= 1 << 20 else ""
    return errors.TooManyRequests(f"{what}: there is room for {bound.items}{size}", hint=hint)


def count(conn: sqlite3.Connection, scope: str, what: str) -> int:
    """The next number of a scope: larger than any before, whatever was deleted since."""
    row = conn.execute(
        "INSERT INTO holdings (scope, what, counter) VALUES (?, ?, 1)"
        " ON CONFLICT DO UPDATE SET counter = counter + 1 RETURNING counter",
        (scope, what),
    ).fetchone()
    return int(row[0])


def counted(conn: sqlite3.Connection, scope: str, what: str) -> int:
    """The last of these numbers, 0 when there was none."""
    row = conn.execute("SELECT counter FROM holdings WHERE scope = ? AND what = ?", (scope, what)).fetchone()
    return int(row[0]) if row else 0


def scopes(conn: sqlite3.Connection) -> list[str]:
    """Every scope that anything was ever kept in, until it is erased."""
    return [scope for (scope,) in conn.execute("SELECT DISTINCT scope FROM holdings")]


def expire(conn: sqlite3.Connection, scope: str, now: float) -> bool:
    """Forget values whose time is over, one step of them; False when there were none."""
    rows = conn.execute(
        "SELECT rowid, length(value) FROM kv WHERE scope = ? AND expires_at <= ? LIMIT ?",
        (scope, now, _STEP_ROWS),
    )
    gone = _delete(conn, "kv", rows)
    ended = conn.execute("DELETE FROM locks WHERE scope = ? AND expires_at <= ?", (scope, now)).rowcount
    return bool(gone or ended)


def erase(conn: sqlite3.Connection, scope: str) -> bool:
    """Let go of a scope, one step of it; False when nothing of it is left."""
    conn.execute("DELETE FROM locks WHERE scope = ?", (scope,))
    for table in ("kv", "items", "events"):
        rows = conn.execute(
            f"SELECT rowid, {_SIZES[table]} FROM {table} WHERE scope = ? LIMIT ?", (scope, _STEP_ROWS)
        )
        if _delete(conn, table, rows):
            return True
    conn.execute("DELETE FROM holdings WHERE scope = ?", (scope,))
    return False


def _delete(conn: sqlite3.Connection, table: str, rows: Iterable[tuple[int, int]]) -> int:
    chosen: list[tuple[int]] = []
    size = 0
    for rowid, length in rows:
        chosen.append((rowid,))
        size += length
        if size > _STEP_BYTES:
            break
    conn.executemany(f"DELETE FROM {table} WHERE rowid = ?", chosen)
    return len(chosen)
