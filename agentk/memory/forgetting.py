"""Forgetting: what is forgotten is gone from pages, words, vectors and checkpoints, and then from the log and records.

In one transaction the rows go (SQLite overwrites what they were), and what the journal has to erase is written down;
`Database.truncate` then cuts the log, and the journal's bodies get tombstones. A daemon that dies in between finishes
when it starts. What is on backups, and in blocks that a disk itself replaced, nobody here can reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agentk.memory import copies, vectors
from agentk.memory.driver import EACH, Conn, each, marks

_STEP = 200  # pages of one transaction: others wait meanwhile


@dataclass(frozen=True)
class Gone:
    ids: tuple[str, ...]
    effects: tuple[str, ...]  # calls of the journal that have words of theirs
    checkpoints: int = 0  # that had some of them


NOTHING = Gone((), ())


def forget(conn: Conn, rooms: Sequence[int], ids: Sequence[str], names: Sequence[str] = ()) -> Gone:
    """The pages of these ids or names in these rooms, each with all of its unit, and what checkpoints have of them and
    had by the same names. Forgetting nothing succeeds."""
    names = [name for name in names if name]
    units = copies.units(conn, rooms, ids, names)
    inside = f"room IN ({marks(rooms)})"
    for column, wanted in (("id", ids), ("name", names)):
        rows = conn.execute(
            f"SELECT unit FROM pages WHERE {column} IN ({marks(wanted)}) AND {inside}", (*wanted, *rooms)
        ).fetchall()
        units.update(unit for (unit,) in rows)
    found = conn.execute(
        f"SELECT number FROM pages WHERE unit IN ({EACH}) AND {inside}", (each(units), *rooms)
    ).fetchall()
    gone = let_go(conn, [number for (number,) in found])
    return _copies(conn, rooms, copies.of_units(conn, rooms, tuple(units)), gone)


def old(conn: Conn, room: int, before: float) -> Gone:
    """A step's worth of the pages that nobody used since then. Pinned ones stay, and units of which one stays."""
    rows = conn.execute(
        "SELECT number FROM pages AS p WHERE room = ? AND unit NOT IN"
        " (SELECT unit FROM pages WHERE room = ? AND (used >= ? OR pinned)) ORDER BY number LIMIT ?",
        (room, room, before, _STEP),
    ).fetchall()
    gone = let_go(conn, [number for (number,) in rows])
    return _copies(conn, [room], copies.old(conn, room, before, _STEP), gone)


def lost(conn: Conn, number: int, now: float) -> float:
    """Nobody knows whose a room is; since when that is so."""
    conn.execute("UPDATE rooms SET lost = ? WHERE id = ? AND lost = 0", (now, number))
    return float(conn.execute("SELECT lost FROM rooms WHERE id = ?", (number,)).fetchone()[0])


def found(conn: Conn, number: int) -> None:
    conn.execute("UPDATE rooms SET lost = 0 WHERE id = ?", (number,))


def room(conn: Conn, number: int) -> Gone:
    """A step's worth of everything in a room; the room itself once it is empty."""
    if (gone := step(conn, number)).ids:
        return gone
    for table, column in (("counts", "room"), ("shelves", "room"), ("rooms", "id")):
        conn.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))
    return NOTHING


def step(conn: Conn, number: int) -> Gone:
    """A step's worth of everything in a room, which stays."""
    rows = conn.execute("SELECT number FROM pages WHERE room = ? LIMIT ?", (number, _STEP)).fetchall()
    gone = let_go(conn, [page for (page,) in rows])
    return _copies(conn, [number], copies.of_room(conn, number, _STEP), gone)


def let_go(conn: Conn, numbers: Sequence[int]) -> Gone:
    """These pages, and a note of what the journal has to erase."""
    numbers = [*numbers, *_notes(conn, numbers)]
    rows = conn.execute(f"SELECT id FROM pages WHERE number IN ({EACH})", (each(numbers),)).fetchall()
    effects = _effects(conn, numbers)
    _note(conn, effects)
    drop(conn, numbers)
    return Gone(tuple(one for (one,) in rows), effects)


def told_by(conn: Conn, number: int) -> list[tuple[str, float]]:
    """Calls that have words of a page, its own among them, with when they were noted."""
    rows = conn.execute(
        "SELECT effect, created FROM pages WHERE number = ? AND effect <> '' UNION ALL"
        " SELECT effect, at FROM mentions WHERE page = ?",
        (number, number),
    ).fetchall()
    return [(str(effect), float(at)) for effect, at in rows]


def carry(conn: Conn, number: int, calls: Sequence[tuple[str, float]]) -> None:
    """A page takes another's place: whoever forgets it forgets what it said before."""
    for effect, at in calls:
        conn.execute("INSERT OR REPLACE INTO mentions VALUES (?, ?, ?)", (number, effect, at))


def mention(conn: Conn, ids: Sequence[str], effect: str, at: float) -> None:
    """A call tells of these pages: what it told goes when they do, and at once when one went since it was read."""
    conn.execute(
        f"INSERT OR REPLACE INTO mentions SELECT number, ?, ? FROM pages WHERE id IN ({marks(ids)})",
        (effect, at, *ids),
    )
    if conn.execute("SELECT changes()").fetchone()[0] < len({*ids}):
        conn.execute("INSERT OR IGNORE INTO erasures (effect) VALUES (?)", (effect,))


def unmention(conn: Conn, before: float) -> None:
    """The journal has let go of what was told then by itself."""
    conn.execute("DELETE FROM mentions WHERE at < ?", (before,))
    conn.execute("DELETE FROM talks WHERE at < ?", (before,))


def drop(conn: Conn, numbers: Sequence[int]) -> None:
    """The rows and all that was made of them."""
    vectors.lift(conn, numbers)
    for table, column in (("mentions", "page"), ("pages", "number")):
        conn.execute(f"DELETE FROM {table} WHERE {column} IN ({EACH})", (each(numbers),))


def pending(conn: Conn, now: float, limit: int = 1000) -> list[str]:
    """Effects whose bodies the journal still has to erase, or to look for once more."""
    rows = conn.execute(
        "SELECT effect FROM erasures WHERE again <= ? ORDER BY effect LIMIT ?", (now, limit)
    ).fetchall()
    return [effect for (effect,) in rows]


def erased(conn: Conn, effects: Sequence[str], again: float) -> None:
    """The bodies there were are gone. A call that was under way may write another, so each is looked for once more."""
    conn.execute(f"DELETE FROM erasures WHERE again > 0 AND effect IN ({EACH})", (each(effects),))
    conn.execute(f"UPDATE erasures SET again = ? WHERE effect IN ({EACH})", (again, each(effects)))


def _copies(conn: Conn, rooms: Sequence[int], numbers: Sequence[int], gone: Gone) -> Gone:
    """Copies as well, which may be of pages that were not there any more, and notes that quoted any of them."""
    known = {*gone.ids, *copies.ids_of(conn, numbers)}
    notes = copies.notes(conn, rooms, tuple(known))
    there = conn.execute(
        f"SELECT number FROM pages WHERE id IN ({EACH}) AND room IN ({marks(rooms)})",
        (each(notes), *rooms),
    ).fetchall()
    more = let_go(conn, [number for (number,) in there])
    known |= {*notes, *more.ids}
    numbers = sorted({*numbers, *copies.of_ids(conn, rooms, tuple(known))})
    ids, effects, had = copies.drop(conn, numbers)
    _note(conn, sorted(effects))
    every = tuple(dict.fromkeys((*gone.ids, *more.ids, *ids)))
    return Gone(every, tuple(sorted({*gone.effects, *more.effects, *effects})), had)


def _note(conn: Conn, effects: Sequence[str]) -> None:
    for effect in effects:
        conn.execute(
            "INSERT INTO erasures (effect) VALUES (?) ON CONFLICT DO UPDATE SET again = 0", (effect,)
        )


def _effects(conn: Conn, numbers: Sequence[int]) -> tuple[str, ...]:
    rows = conn.execute(
        f"SELECT effect FROM pages WHERE number IN ({EACH}) UNION"
        f" SELECT effect FROM mentions WHERE page IN ({EACH}) UNION"
        " SELECT effect FROM window_calls WHERE window IN (SELECT w.window FROM window_pages AS w"
        f" JOIN pages AS p ON p.id = w.page WHERE p.number IN ({EACH}))"
        " UNION SELECT t.effect FROM pages AS p JOIN rooms AS r ON r.id = p.room"
        " JOIN window_pages AS w ON w.page = p.id"
        " JOIN window_pages AS f ON f.window = w.window AND f.place = 1"
        " JOIN talks AS t ON t.memory = r.memory AND t.owner = r.owner AND t.root = f.chain"
        f" WHERE p.number IN ({EACH})",
        (each(numbers),) * 4,
    ).fetchall()
    return tuple(sorted(effect for (effect,) in rows if effect))


def _notes(conn: Conn, numbers: Sequence[int]) -> list[int]:
    """Notes on episodes of conversations, which quote these pages."""
    rows = conn.execute(
        "SELECT DISTINCT n.number FROM window_pages AS w JOIN pages AS p ON p.id = w.page JOIN pages AS n"
        f" ON n.id = w.note AND n.room = p.room WHERE p.number IN ({EACH}) AND n.number NOT IN ({EACH})",
        (each(numbers),) * 2,
    ).fetchall()
    return [number for (number,) in rows]
