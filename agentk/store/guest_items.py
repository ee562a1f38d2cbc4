"""Mailboxes and queues: items in order, taken for a while, gone when acknowledged. At least once, never less.

What was put first is taken first. What was taken and not acknowledged comes again when its lease is over, in its old
place; so does what was put with a delay.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from agentk.store import guest_rooms as rooms

_WHAT = "items"


@dataclass(frozen=True)
class Item:
    id: str
    body: bytes
    put_at: float
    deliveries: int


@dataclass(frozen=True)
class Put:
    scope: str
    name: str
    id: str
    sender: str  # uid
    body: bytes
    now: float
    hidden_until: float = 0.0


@dataclass(frozen=True)
class Take:
    scope: str
    name: str
    most: int
    most_bytes: int  # but always one
    most_values: int  # of their JSON, about; the same
    now: float
    hidden_until: float


def put(
    conn: sqlite3.Connection, put: Put, bound: rooms.Bound, from_one: rooms.Bound | None = None
) -> rooms.Bound | None:
    """At the end. The bound it would have broken, when it was not put."""
    one = rooms.Bound(1, len(put.body))
    if not rooms.fits(conn, put.scope, _WHAT, one, bound):
        return bound
    if from_one and not rooms.fits(conn, put.scope, f"from/{put.sender}", one, from_one):
        return from_one
    conn.execute(
        "INSERT INTO items (scope, name, id, sender, put_at, hidden_until, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (put.scope, put.name, put.id, put.sender, put.now, put.hidden_until, put.body),
    )
    return None


def next_at(conn: sqlite3.Connection, scope: str, name: str) -> float | None:
    """When there is something to take: a time that may be past; None when there is nothing at all."""
    row = conn.execute(
        "SELECT min(hidden_until) FROM items WHERE scope = ? AND name = ?", (scope, name)
    ).fetchone()
    return None if row[0] is None else float(row[0])


def take(conn: sqlite3.Connection, take: Take) -> list[Item]:
    """The oldest, hidden from now on."""
    conn.execute(
        "UPDATE items SET hidden_until = 0 WHERE scope = ? AND name = ? AND hidden_until > 0 AND hidden_until <= ?",
        (take.scope, take.name, take.now),
    )
    rows = conn.execute(
        "SELECT seq, id, length(body), body, put_at, deliveries FROM items"
        " WHERE scope = ? AND name = ? AND hidden_until = 0 ORDER BY seq LIMIT ?",
        (take.scope, take.name, take.most),
    )
    taken: list[Item] = []
    chosen: list[tuple[float, int]] = []
    size = values = 0
    for seq, id, length, body, put_at, deliveries in rows:
        size += length
        values += sum(map(body.count, (b",", b"[", b"{")))
        if taken and (size > take.most_bytes or values > take.most_values):
            break
        taken.append(Item(id, body, put_at, deliveries + 1))
        chosen.append((take.hidden_until, seq))
    conn.executemany("UPDATE items SET hidden_until = ?, deliveries = deliveries + 1 WHERE seq = ?", chosen)
    return taken


def give_back(conn: sqlite3.Connection, take: Take, ids: Sequence[str]) -> None:
    """Nobody heard that these were taken: as if they had not been. Not if they came again meanwhile."""
    conn.executemany(
        "UPDATE items SET hidden_until = 0, deliveries = deliveries - 1"
        " WHERE scope = ? AND name = ? AND id = ? AND hidden_until = ?",
        [(take.scope, take.name, id, take.hidden_until) for id in ids],
    )


def acknowledge(conn: sqlite3.Connection, scope: str, name: str, ids: Sequence[str]) -> int:
    """How many of them were still there."""
    return sum(
        conn.execute("DELETE FROM items WHERE scope = ? AND name = ? AND id = ?", (scope, name, id)).rowcount
        for id in ids
    )
