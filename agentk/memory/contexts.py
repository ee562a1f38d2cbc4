"""Windows on the disk: which pages a conversation has, where each stands, and what became of them. Functions over a
connection; who calls has the rights.

A window is found again by what was said, never by anything a client names. All that a turn changes is one transaction,
so a daemon that dies in the middle of one has the window from before it, and the client says the same again.
"""

import json
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from agentk.memory import forgetting, keeping, tokens
from agentk.memory.driver import Conn, marks
from agentk.memory.window import Slot, Window

KEPT = 64  # windows of one room; those used longest ago go first
_WANTED = 64  # pages that are asked for and not yet there
_TRIED = 200  # beginnings of a conversation that are looked for at once
_PART = struct.Struct("<16sI")
_FIELDS = tuple(field.name for field in fields(Slot) if field.name != "id")
_COLUMNS = ", ".join(("page", *(f'"{name}"' for name in _FIELDS)))


@dataclass(frozen=True)
class Known:
    """A window as it was kept."""

    id: int
    window: Window
    made: float
    used: float
    budget: int  # tokens, when it was last used, as providers count them
    fixed: int  # tokens of what was sent besides it
    read: int = 0  # tokens that providers read of its prompts
    cached: int = 0  # of them, those that they had in a cache
    ratio: float | None = None  # what counts are corrected with; None: nobody told yet
    counter: str = tokens.ESTIMATE.name  # what its pages are counted with


def find(conn: Conn, room: int, chains: Sequence[bytes]) -> Known | None:
    """The window of who said the longest beginning of this. `chains` are in the order of what was said."""
    for end in range(len(chains), 0, -_TRIED):
        tried = chains[max(0, end - _TRIED) : end]
        row = conn.execute(
            "SELECT p.window FROM window_pages AS p JOIN windows AS w ON w.id = p.window"
            f" WHERE w.room = ? AND p.chain IN ({marks(tried)})"
            " ORDER BY p.place DESC, w.used DESC, w.id DESC LIMIT 1",
            (room, *tried),
        ).fetchone()
        if row:
            return load(conn, row[0])
    return None


def ended(conn: Conn, room: int, ends: Collection[bytes]) -> list[Known]:
    """The windows whose last message is one of these, the one used last first."""
    rows = conn.execute(
        "SELECT w.id, (SELECT p.digest FROM window_pages AS p WHERE p.window = w.id ORDER BY p.place DESC LIMIT 1)"
        " FROM windows AS w WHERE w.room = ? ORDER BY w.used DESC, w.id DESC",
        (room,),
    ).fetchall()
    wanted = [number for number, digest in rows if digest in ends]
    return [known for number in wanted if (known := load(conn, number))]


def load(conn: Conn, number: int) -> Known | None:
    row = conn.execute(
        "SELECT id, made, used, budget, fixed, counts, last, read, cached, ratio, learned, counter"
        " FROM windows WHERE id = ?",
        (number,),
    ).fetchone()
    if not row:
        return None
    rows = conn.execute(
        f"SELECT place, {_COLUMNS} FROM window_pages WHERE window = ? ORDER BY abs(place)", (number,)
    ).fetchall()
    window = Window(
        slots=tuple(_slot(one[1:]) for one in rows if one[0] > 0),
        notes=tuple(_slot(one[1:]) for one in rows if one[0] < 0),
        last=tuple((digest, size) for digest, size in _PART.iter_unpack(row[6])),
        counts=json.loads(row[5]),
    )
    told = {"read": row[7], "cached": row[8], "ratio": row[9] if row[10] else None, "counter": row[11]}
    return Known(row[0], window, *row[1:5], **told)


def newest(conn: Conn, rooms: Sequence[int], limit: int = KEPT) -> list[Known]:
    """Windows of these rooms, the one used last first."""
    rows = conn.execute(
        f"SELECT id FROM windows WHERE room IN ({marks(rooms)}) ORDER BY used DESC, id DESC LIMIT ?",
        (*rooms, limit),
    ).fetchall()
    return [known for (number,) in rows if (known := load(conn, number))]


def having(conn: Conn, rooms: Sequence[int], page: str) -> list[Known]:
    """The windows that have this page, the one used last first."""
    rows = conn.execute(
        "SELECT DISTINCT w.id, w.used FROM window_pages AS p JOIN windows AS w ON w.id = p.window"
        f" WHERE p.page = ? AND w.room IN ({marks(rooms)}) ORDER BY w.used DESC, w.id DESC",
        (page, *rooms),
    ).fetchall()
    return [known for number, _ in rows if (known := load(conn, number))]


def save(
    conn: Conn,
    room: int,
    before: Known | None,
    window: Window,
    now: float,
    *,
    budget: int = 0,
    fixed: int = 0,
    counter: str = tokens.ESTIMATE.name,
) -> int:
    """What became of a window, in place of what it was; without `before` it is a new one. Its number."""
    last = b"".join(_PART.pack(digest, min(size, 2**32 - 1)) for digest, size in window.last)
    told = (now, budget, fixed, json.dumps(dict(window.counts), sort_keys=True), last, counter)
    if before is None:
        row = conn.execute(
            "INSERT INTO windows (room, made, used, budget, fixed, counts, last, counter)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            (room, now, *told),
        ).fetchone()
        number = int(row[0])
    else:
        number = before.id
        conn.execute(
            "UPDATE windows SET used = ?, budget = ?, fixed = ?, counts = ?, last = ?, counter = ? WHERE id = ?",
            (*told, number),
        )
    was = _placed(before.window) if before else {}
    values = ", ".join("?" * (len(_FIELDS) + 3))
    for place, slot in _placed(window).items():
        before_it = was.get(place)
        if before_it is not slot and before_it != slot:
            conn.execute(
                f"INSERT OR REPLACE INTO window_pages (window, place, {_COLUMNS}) VALUES ({values})",
                (number, place, slot.id, *(_plain(getattr(slot, name)) for name in _FIELDS)),
            )
    return number


def used(conn: Conn, number: int, effect: str, read: int, cached: int, ratio: float | None) -> None:
    """A prompt of it was read by a model: which call of the journal has its words, what the provider counted, and by
    how much the estimate of the next one is corrected."""
    conn.execute(
        "UPDATE windows SET read = read + ?, cached = cached + ?, ratio = coalesce(?, ratio),"
        " learned = max(learned, ? IS NOT NULL) WHERE id = ?",
        (read, cached, ratio, ratio, number),
    )
    there = conn.execute("SELECT 1 FROM windows WHERE id = ?", (number,)).fetchone()
    if effect and there:
        conn.execute("INSERT OR IGNORE INTO window_calls VALUES (?, ?)", (number, effect))


def told_to(conn: Conn, memory: str, owner: str, root: bytes, effect: str, at: float) -> None:
    """A call of the journal has words of the conversation that begins so."""
    conn.execute("INSERT OR IGNORE INTO talks VALUES (?, ?, ?, ?, ?)", (memory, owner, root, effect, at))


def want(conn: Conn, room: int, ids: Sequence[str], now: float) -> None:
    """Pages that an agent asked for: those that left a window of its own come back with that one's next turn."""
    conn.execute(
        f"INSERT OR REPLACE INTO wanted SELECT DISTINCT w.room, p.page, ? FROM window_pages AS p"
        f" JOIN windows AS w ON w.id = p.window WHERE w.room = ? AND NOT p.resident AND p.page IN ({marks(ids)})",
        (now, room, *ids),
    )
    conn.execute(
        "DELETE FROM wanted WHERE room = ? AND page NOT IN"
        " (SELECT page FROM wanted WHERE room = ? ORDER BY at DESC, page LIMIT ?)",
        (room, room, _WANTED),
    )


def wanted(conn: Conn, room: int) -> tuple[str, ...]:
    """The one asked for last first."""
    rows = conn.execute("SELECT page FROM wanted WHERE room = ? ORDER BY at DESC, page", (room,)).fetchall()
    return tuple(page for (page,) in rows)


def had(conn: Conn, room: int, ids: Sequence[str]) -> None:
    """They are there, or there is no room for them."""
    conn.execute(f"DELETE FROM wanted WHERE room = ? AND page IN ({marks(ids)})", (room, *ids))


def let_go(conn: Conn, room: int, most: int = KEPT, but: int = 0) -> bool:
    """Windows beyond so many, with the pages that no other window has. Whether there was one."""
    rows = conn.execute(
        "SELECT id FROM windows WHERE room = ? AND id <> ? ORDER BY used DESC, id DESC LIMIT -1 OFFSET ?",
        (room, but, max(0, most - bool(but))),
    ).fetchall()
    for (number,) in rows:
        alone = conn.execute(
            "SELECT number FROM pages WHERE room = ? AND id IN (SELECT page FROM window_pages AS w WHERE window = ?"
            " AND NOT EXISTS (SELECT 1 FROM window_pages AS o WHERE o.page = w.page AND o.window <> w.window))",
            (room, number),
        ).fetchall()
        # Let go of, not forgotten: what the journal has of it stays.
        conn.execute("DELETE FROM window_calls WHERE window = ?", (number,))
        conn.execute("DELETE FROM windows WHERE id = ?", (number,))
        forgetting.let_go(conn, [page for (page,) in alone])
    return bool(rows)


def texts(conn: Conn, room: int, ids: Iterable[str]) -> dict[str, str]:
    return {page.id: page.text for page in keeping.get(conn, [room], list(ids))}


def _placed(window: Window) -> Mapping[int, Slot]:
    """Messages from one up; notes from minus one down."""
    said = {slot.seq: slot for slot in window.slots}
    return said | {-place: note for place, note in enumerate(window.notes, 1)}


def _slot(row: Sequence[Any]) -> Slot:
    return Slot(*row[:10], *map(bool, row[10:13]), *row[13:])


def _plain(value: object) -> object:
    return int(value) if isinstance(value, bool) else value
