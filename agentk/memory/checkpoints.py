"""A room as it was: taken at a moment, brought back into the same room or into another, and let go of.

Each is one transaction: whoever dies in the middle has what was there before it. Pages come back byte for byte. In
their own room they come back under their own ids; in another they get ids of that place, as pages do that are moved.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentk.memory import copies, forgetting, keeping, moving, pages
from agentk.memory.driver import Conn
from agentk.memory.keeping import Room
from agentk.memory.pages import Page

_COLUMNS = (
    "s.id, s.kind, s.content, s.text, s.tokens, s.importance, i.accesses, s.created, i.used, s.seq, s.unit,"
    " i.pinned, s.name, s.tags"
)


@dataclass(frozen=True)
class Taken:
    """What of a room is in a checkpoint."""

    pages: int
    bytes: int


@dataclass(frozen=True)
class Brought:
    pages: int  # that are in the room now
    gone: int  # of those that were made since, and are no more


@dataclass(frozen=True)
class _Copy:
    number: int
    page: Page
    told: keeping.Told


def take(conn: Conn, room: Room, uid: str, at: float, limits: keeping.Limits) -> Taken:
    """Keep the room as it is under the uid of a checkpoint. The same uid again is the same checkpoint: nothing is done.

    Copies count for the bytes of whose they are. Raises keeping.Full.
    """
    if (had := taken(conn, uid)) is not None:
        return had
    conn.execute("INSERT INTO checkpoints (uid, room, at) VALUES (?, ?, ?)", (uid, room.id, at))
    number = conn.execute("SELECT id FROM checkpoints WHERE uid = ?", (uid,)).fetchone()[0]
    copies.take(conn, room.id, number)
    keeping.check(conn, room, limits)
    found = taken(conn, uid)
    assert found is not None
    return found


def taken(conn: Conn, uid: str) -> Taken | None:
    """What a checkpoint has now: what was forgotten since is not in it."""
    row = conn.execute(
        "SELECT count(s.number), coalesce(sum(s.bytes), 0) FROM checkpoints AS c"
        " LEFT JOIN saved_in AS i ON i.checkpoint = c.id LEFT JOIN saved AS s ON s.number = i.saved"
        " WHERE c.uid = ? GROUP BY c.id",
        (uid,),
    ).fetchone()
    return Taken(int(row[0]), int(row[1])) if row else None


def all_of(conn: Conn) -> list[str]:
    """Uids of every checkpoint that has pages here, or had."""
    return [str(uid) for (uid,) in conn.execute("SELECT uid FROM checkpoints ORDER BY id").fetchall()]


def drop(conn: Conn, uid: str) -> None:
    """A checkpoint and what no other one has. Dropping nothing succeeds."""
    conn.execute("DELETE FROM checkpoints WHERE uid = ?", (uid,))


def bring(conn: Conn, uid: str, room: Room, limits: keeping.Limits) -> Brought:
    """The room becomes what the checkpoint has; what is not in it goes. Repeatable. Raises Unusable and keeping.Full.

    What goes is not forgotten: records of it stay as long as records do, and so do copies in other checkpoints.
    """
    row = conn.execute("SELECT id, room FROM checkpoints WHERE uid = ?", (uid,)).fetchone()
    if row is None:
        raise pages.Unusable("there is no such checkpoint")
    own = row[1] == room.id
    place = moving.Place(room.memory, room.owner)
    wanted = {copy.page.id: copy for copy in (_fit(one, own, place) for one in _copies(conn, row[0]))}
    there = {
        str(one): (int(number), str(name))
        for number, one, name in conn.execute(
            "SELECT number, id, name FROM pages WHERE room = ?", (room.id,)
        ).fetchall()
    }
    leaving = {one: told for one, told in there.items() if one not in wanted}
    copies.mentioned(conn, room.id)
    if not own:
        _quote(conn, int(row[1]), room, place)
    carried = {name: forgetting.told_by(conn, number) for number, name in leaving.values() if name}
    forgetting.drop(conn, [number for number, _ in leaving.values()])
    for one, copy in wanted.items():
        if one not in there:
            number = keeping.insert(conn, room, copy.page, copy.told)
            forgetting.carry(conn, number, _told_by(conn, copy) if own else ())
            forgetting.carry(conn, number, carried.get(copy.page.name, ()))
        keeping.used_as(conn, copy.page)
    keeping.check(conn, room, limits)
    return Brought(len(wanted), len(leaving))


def _quote(conn: Conn, source: int, room: Room, place: moving.Place) -> None:
    """Notes quote in their new place what they quoted in the old one."""
    rows = conn.execute("SELECT page, note FROM quoted WHERE room = ?", (source,)).fetchall()
    for page, note in rows:
        conn.execute(
            "INSERT OR IGNORE INTO quoted (room, page, note) VALUES (?, ?, ?)",
            (room.id, moving.moved_id(page, place), moving.moved_id(note, place)),
        )


def _copies(conn: Conn, checkpoint: int) -> list[_Copy]:
    rows = conn.execute(
        f"SELECT s.number, s.effect, s.origin, {_COLUMNS} FROM saved_in AS i JOIN saved AS s ON s.number = i.saved"
        " WHERE i.checkpoint = ? ORDER BY s.seq, s.number",
        (checkpoint,),
    ).fetchall()
    return [_Copy(row[0], keeping.page_of(row[3:]), _told(row[1], row[2])) for row in rows]


def _told(effect: str, origin: str) -> keeping.Told:
    return keeping.Told(effect, dict(json.loads(origin)))


def _fit(copy: _Copy, own: bool, place: moving.Place) -> _Copy:
    """As it goes into the room."""
    if own:
        return copy
    one, unit = moving.moved_id(copy.page.id, place), moving.moved_id(copy.page.unit, place)
    origin: dict[str, Any] = {"page": copy.page.id, **copy.told.origin}
    # The record of the call that brought it is the other agent's.
    return replace(copy, page=replace(copy.page, id=one, unit=unit), told=keeping.Told("", origin))


def _told_by(conn: Conn, copy: _Copy) -> Sequence[tuple[str, float]]:
    rows = conn.execute("SELECT effect, at FROM saved_mentions WHERE saved = ?", (copy.number,)).fetchall()
    return [(str(effect), float(at)) for effect, at in rows]
