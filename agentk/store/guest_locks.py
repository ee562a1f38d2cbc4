"""Locks that guests hold: for a while, by a token, with a fence that grows with every holder.

A free lock leaves no row: its fence comes from a counter of the scope, which never goes back.
"""

import sqlite3
from dataclasses import dataclass

from agentk.store import guest_rooms as rooms

_WHAT = "locks"


@dataclass(frozen=True)
class Grant:
    token: str
    fence: int
    expires_at: float


@dataclass(frozen=True)
class Wish:
    """Who wants a lock, and with which token it would be held."""

    scope: str
    name: str
    token: str
    holder: str  # uid
    now: float
    expires_at: float


def held_until(conn: sqlite3.Connection, scope: str, name: str, now: float) -> float:
    """When its holder has to give it up; 0 when nobody holds it."""
    row = conn.execute("SELECT expires_at FROM locks WHERE scope = ? AND name = ?", (scope, name)).fetchone()
    return float(row[0]) if row and row[0] > now else 0.0


def acquire(conn: sqlite3.Connection, wish: Wish, bound: rooms.Bound) -> Grant | None:
    """None when somebody holds it. Raises TooManyRequests when the scope holds as many as it may."""
    if held_until(conn, wish.scope, wish.name, wish.now):
        return None
    conn.execute("DELETE FROM locks WHERE scope = ? AND name = ?", (wish.scope, wish.name))
    one = rooms.Bound(1, 0)
    if not rooms.fits(conn, wish.scope, _WHAT, one, bound):
        conn.execute("DELETE FROM locks WHERE scope = ? AND expires_at <= ?", (wish.scope, wish.now))
        if not rooms.fits(conn, wish.scope, _WHAT, one, bound):
            raise rooms.full("too many locks are held", bound, "release some, or let them expire")
    fence = rooms.count(conn, wish.scope, _WHAT)
    conn.execute(
        "INSERT INTO locks (scope, name, token, holder, fence, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
        (wish.scope, wish.name, wish.token, wish.holder, fence, wish.expires_at),
    )
    return Grant(wish.token, fence, wish.expires_at)


def renew(conn: sqlite3.Connection, wish: Wish) -> Grant | None:
    """With the token of a lock that is still held; None when it is not."""
    row = conn.execute(
        "UPDATE locks SET expires_at = ? WHERE scope = ? AND name = ? AND token = ? AND expires_at > ? RETURNING fence",
        (wish.expires_at, wish.scope, wish.name, wish.token, wish.now),
    ).fetchone()
    return Grant(wish.token, int(row[0]), wish.expires_at) if row else None


def release(conn: sqlite3.Connection, scope: str, name: str, token: str, now: float) -> bool:
    """False when it was no longer theirs."""
    row = conn.execute(
        "DELETE FROM locks WHERE scope = ? AND name = ? AND token = ? RETURNING expires_at",
        (scope, name, token),
    ).fetchone()
    return row is not None and row[0] > now
