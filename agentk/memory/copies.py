"""Pages that checkpoints keep: each once, however many checkpoints have it, and gone with the last of them.

Whoever forgets a page forgets it here as well, in the same transaction, with what it was under its name before. Nothing
here is searched, and no copy is ever changed.
"""

from collections.abc import Sequence

from agentk.memory.driver import EACH, Conn, each, marks

_INTO = "kind, tokens, importance, created, seq, unit, name, tags, bytes, effect, origin, text, content"


def take(conn: Conn, room: int, checkpoint: int) -> None:
    """Every page of a room as it is now."""
    conn.execute(
        f"INSERT OR IGNORE INTO saved (room, id, {_INTO}) SELECT room, id, {_INTO} FROM pages WHERE room = ?",
        (room,),
    )
    conn.execute(
        "INSERT INTO saved_in (checkpoint, saved, accesses, used, pinned)"
        " SELECT ?, s.number, p.accesses, p.used, p.pinned FROM pages AS p"
        " JOIN saved AS s ON s.room = p.room AND s.id = p.id WHERE p.room = ?",
        (checkpoint, room),
    )
    mentioned(conn, room)


def mentioned(conn: Conn, room: int) -> None:
    """Calls that have told of pages so far, and notes that quote them: they go when a copy is forgotten, too."""
    conn.execute(
        "INSERT OR IGNORE INTO quoted (room, page, note) SELECT p.room, w.page, w.note FROM window_pages AS w"
        " JOIN pages AS p ON p.id = w.page WHERE p.room = ? AND w.note <> ''",
        (room,),
    )
    conn.execute(
        "INSERT OR IGNORE INTO saved_mentions (saved, effect, at) SELECT s.number, m.effect, m.at"
        " FROM mentions AS m JOIN pages AS p ON p.number = m.page"
        " JOIN saved AS s ON s.room = p.room AND s.id = p.id WHERE p.room = ?",
        (room,),
    )


def units(conn: Conn, rooms: Sequence[int], ids: Sequence[str], names: Sequence[str]) -> set[str]:
    """Of the copies of these ids or names, and of what had the names of these ids."""
    inside = f"room IN ({marks(rooms)})"
    named = {*names}
    for table in ("saved", "pages"):
        rows = conn.execute(
            f"SELECT name FROM {table} WHERE id IN ({marks(ids)}) AND {inside}", (*ids, *rooms)
        ).fetchall()
        named |= {name for (name,) in rows if name}
    found = set[str]()
    for column, wanted in (("id", tuple(ids)), ("name", tuple(named))):
        rows = conn.execute(
            f"SELECT unit FROM saved WHERE {column} IN ({marks(wanted)}) AND {inside}", (*wanted, *rooms)
        ).fetchall()
        found.update(unit for (unit,) in rows)
    return found


def of_units(conn: Conn, rooms: Sequence[int], units: Sequence[str]) -> list[int]:
    rows = conn.execute(
        f"SELECT number FROM saved WHERE unit IN ({EACH}) AND room IN ({marks(rooms)})",
        (each(units), *rooms),
    ).fetchall()
    return [number for (number,) in rows]


def of_ids(conn: Conn, rooms: Sequence[int], ids: Sequence[str]) -> list[int]:
    rows = conn.execute(
        f"SELECT number FROM saved WHERE id IN ({EACH}) AND room IN ({marks(rooms)})", (each(ids), *rooms)
    ).fetchall()
    return [number for (number,) in rows]


def ids_of(conn: Conn, numbers: Sequence[int]) -> set[str]:
    rows = conn.execute(f"SELECT id FROM saved WHERE number IN ({EACH})", (each(numbers),)).fetchall()
    return {one for (one,) in rows}


def notes(conn: Conn, rooms: Sequence[int], ids: Sequence[str]) -> set[str]:
    """Ids of notes that quote these pages."""
    rows = conn.execute(
        f"SELECT note FROM quoted WHERE page IN ({EACH}) AND room IN ({marks(rooms)})", (each(ids), *rooms)
    ).fetchall()
    return {note for (note,) in rows}


def of_room(conn: Conn, room: int, limit: int) -> list[int]:
    rows = conn.execute("SELECT number FROM saved WHERE room = ? LIMIT ?", (room, limit)).fetchall()
    return [number for (number,) in rows]


def old(conn: Conn, room: int, before: float, limit: int) -> list[int]:
    """Copies of what is not there any more and was not used since then in any checkpoint; of a unit all, or none."""
    rows = conn.execute(
        "SELECT number FROM saved AS s WHERE room = ? AND unit NOT IN (SELECT unit FROM pages WHERE room = ?)"
        " AND unit NOT IN (SELECT o.unit FROM saved AS o JOIN saved_in AS i ON i.saved = o.number"
        " WHERE o.room = ? AND (i.used >= ? OR i.pinned)) LIMIT ?",
        (room, room, room, before, limit),
    ).fetchall()
    return [number for (number,) in rows]


def drop(conn: Conn, numbers: Sequence[int]) -> tuple[list[str], set[str], int]:
    """Out of every checkpoint: their ids, the calls that have words of theirs, and how many checkpoints had them."""
    ids = conn.execute(f"SELECT id FROM saved WHERE number IN ({EACH})", (each(numbers),)).fetchall()
    effects = conn.execute(
        f"SELECT effect FROM saved WHERE number IN ({EACH}) UNION"
        f" SELECT effect FROM saved_mentions WHERE saved IN ({EACH})",
        (each(numbers),) * 2,
    ).fetchall()
    had = conn.execute(
        f"SELECT count(DISTINCT checkpoint) FROM saved_in WHERE saved IN ({EACH})", (each(numbers),)
    ).fetchone()
    conn.execute(f"DELETE FROM saved WHERE number IN ({EACH})", (each(numbers),))
    return [one for (one,) in ids], {effect for (effect,) in effects if effect}, int(had[0])
