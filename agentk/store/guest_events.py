"""Events of agents: the newest of each family, numbered without gaps, so that who listens later knows what it missed.

An event is heard by the agent that it is of and by those that spawned it, directly or not.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from agentk.api import errors
from agentk.store import guest_rooms as rooms

_WHAT = "events"


@dataclass(frozen=True)
class Happened:
    scope: str
    uid: str  # of the agent it is of
    above: Sequence[str]  # uids of those that spawned it
    source: str  # NAMESPACE/NAME
    type: str
    data: bytes
    at: float


@dataclass(frozen=True)
class Event:
    id: int
    type: str
    source: str
    data: bytes
    at: float


def add(conn: sqlite3.Connection, event: Happened, bound: rooms.Bound) -> int:
    """Its number. The oldest make room for it."""
    number = rooms.count(conn, event.scope, _WHAT)
    above = " ".join(event.above)
    conn.execute(
        "INSERT INTO events (scope, id, uid, above, source, type, at, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (event.scope, number, event.uid, above, event.source, event.type, event.at, event.data),
    )
    held = rooms.held(conn, event.scope, _WHAT)
    while held.items > bound.items or (held.bytes > bound.bytes and held.items > 1):
        conn.execute(
            "DELETE FROM events WHERE scope = ? AND id = (SELECT min(id) FROM events WHERE scope = ?)",
            (event.scope, event.scope),
        )
        held = rooms.held(conn, event.scope, _WHAT)
    return number


def newest(conn: sqlite3.Connection, scope: str) -> int:
    return rooms.counted(conn, scope, _WHAT)


def after(conn: sqlite3.Connection, scope: str, uid: str, last: int, most: int) -> tuple[list[Event], int]:
    """Events that `uid` hears, after number `last`, and how far that looked. Raises Expired when some are gone."""
    end = newest(conn, scope)
    if last == end:
        return [], last
    first = conn.execute("SELECT min(id) FROM events WHERE scope = ?", (scope,)).fetchone()[0]
    if first is None or last + 1 < first or last > end:  # a number of another family's, or of a lost journal
        raise errors.Expired(
            f"events after {last} are no longer kept", hint="subscribe without after, or with a newer one"
        )
    rows = conn.execute(
        "SELECT id, type, source, data, at FROM events WHERE scope = ? AND id > ?"
        " AND (uid = ? OR instr(' ' || above || ' ', ' ' || ? || ' ')) ORDER BY id LIMIT ?",
        (scope, last, uid, uid, most),
    ).fetchall()
    found = [Event(*row) for row in rows]
    return found, found[-1].id if len(found) == most else end
