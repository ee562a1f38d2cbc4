"""Vectors of pages, on shelves: one shelf for each embedder of a room, which is a partition of sqlite-vec's table.

Vectors of one length share a table. A page is on one shelf at a time, or on none; so while a room is embedded anew its
pages move from the old shelf to the new one, and both are searched. Nothing but finite numbers gets in.
"""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentk.memory import pages
from agentk.memory.driver import EACH, Conn, each, marks

DIMS = 8192  # most numbers of one vector: sqlite-vec's own bound
_NEAREST = 4096  # and that of its answers
# Rows of one chunk. A partition has a chunk to begin with, so large chunks are dear where many rooms hold little: 1,024
# rows (the default) of 1,536 numbers are 6 MB; 64 are 0.4 MB, and are searched as fast.
_CHUNK = 64


@dataclass(frozen=True)
class Shelf:
    id: int
    room: int
    embedder: str
    dims: int


def packed(values: Sequence[float]) -> bytes:
    """A vector of length one, as it is kept; b"" when it has no direction. Raises Unusable for what is no vector."""
    if not 1 <= len(values) <= DIMS:
        raise pages.Unusable(f"a vector has 1 to {DIMS} numbers, not {len(values)}")
    try:
        floats = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise pages.Unusable("a vector is made of numbers") from None
    largest = max(abs(value) for value in floats)
    if not math.isfinite(largest) or any(value != value for value in floats):
        raise pages.Unusable("a vector is made of finite numbers")
    if largest == 0:
        return b""
    scaled = [value / largest for value in floats]  # so that no square is too large
    length = math.sqrt(math.fsum(value * value for value in scaled))
    return array("f", [value / length for value in scaled]).tobytes()


def shelve(conn: Conn, room: int, number: int, embedder: str, vector: bytes) -> None:
    """Put a page's vector where its embedder's are, in place of the one it had. b"" is on the shelf, and found by
    words alone. Raises Unusable when the embedder's others have another length."""
    dims = len(vector) // 4
    shelf = _shelf(conn, room, embedder, dims)
    lift(conn, [number])
    if vector:
        _table(conn, dims)
        conn.execute(
            f"INSERT INTO {_name(dims)} (rowid, shelf, embedding) VALUES (?, ?, ?)",
            (number, shelf.id, vector),
        )
    conn.execute("UPDATE pages SET shelf = ? WHERE number = ?", (shelf.id, number))


def lift(conn: Conn, numbers: Sequence[int]) -> None:
    """Take the vectors of these pages away: what is left of them is zeros."""
    for number in numbers:
        row = conn.execute(
            "SELECT s.dims FROM pages AS p JOIN shelves AS s ON s.id = p.shelf WHERE p.number = ?", (number,)
        ).fetchone()
        if row and row[0]:
            conn.execute(f"DELETE FROM {_name(row[0])} WHERE rowid = ?", (number,))
    conn.execute(f"UPDATE pages SET shelf = 0 WHERE number IN ({EACH})", (each(numbers),))


def shelves(conn: Conn, rooms: Sequence[int]) -> list[Shelf]:
    rows = conn.execute(
        f"SELECT id, room, embedder, dims FROM shelves WHERE room IN ({marks(rooms)}) ORDER BY id",
        tuple(rooms),
    ).fetchall()
    return [Shelf(*row) for row in rows]


def bare(conn: Conn, room: int) -> None:
    """Let go of shelves that nothing is on."""
    conn.execute(
        "DELETE FROM shelves WHERE room = ? AND id NOT IN (SELECT shelf FROM pages WHERE room = ?)",
        (room, room),
    )


def nearest(
    conn: Conn, on: Sequence[Shelf], vector: bytes, limit: int, only: tuple[str, Sequence[Any]] | None
) -> list[tuple[int, float]]:
    """Numbers of the pages nearest to `vector` on these shelves, nearest first, with their distance (0 to 2).

    `only`: a selection of numbers, as SQL and its values.
    """
    dims = len(vector) // 4
    ids = [shelf.id for shelf in on if shelf.dims == dims]
    if not ids or not vector:
        return []
    condition, values = "", list[Any]()
    if only is not None:
        condition, values = f" AND rowid IN ({only[0]})", list(only[1])
    shelf = "shelf = ?" if len(ids) == 1 else f"shelf IN ({marks(ids)})"
    rows = conn.execute(
        f"SELECT rowid, distance FROM {_name(dims)} WHERE embedding MATCH ? AND k = ? AND {shelf}{condition}",
        (vector, min(limit, _NEAREST), *ids, *values),
    ).fetchall()
    return sorted(((int(number), float(far)) for number, far in rows), key=lambda one: (one[1], -one[0]))


def progress(conn: Conn, rooms: Sequence[int], embedder: str) -> tuple[int, int]:
    """How many pages of these rooms are on the embedder's shelves, and how many there are."""
    row = conn.execute(
        f"SELECT count(*), coalesce(sum(shelf IN (SELECT id FROM shelves WHERE embedder = ?)), 0)"
        f" FROM pages WHERE room IN ({marks(rooms)})",
        (embedder, *rooms),
    ).fetchone()
    return int(row[1]), int(row[0])


def behind(conn: Conn, room: int, embedder: str, limit: int) -> list[tuple[int, str]]:
    """Numbers and texts of pages that the embedder has not seen, oldest first."""
    rows = conn.execute(
        "SELECT number, name, text FROM pages WHERE room = ?"
        " AND shelf NOT IN (SELECT id FROM shelves WHERE room = ? AND embedder = ?) ORDER BY number LIMIT ?",
        (room, room, embedder, limit),
    ).fetchall()
    return [(int(number), told(name, text)) for number, name, text in rows]


def told(name: str, text: str) -> str:
    """What of a page is embedded."""
    return f"{name}\n{text}" if name else text


def _shelf(conn: Conn, room: int, embedder: str, dims: int) -> Shelf:
    select = "SELECT id, room, embedder, dims FROM shelves WHERE room = ? AND embedder = ?"
    row = conn.execute(select, (room, embedder)).fetchone()
    if row is None:
        conn.execute("INSERT INTO shelves (room, embedder, dims) VALUES (?, ?, ?)", (room, embedder, dims))
        row = conn.execute(select, (room, embedder)).fetchone()
    shelf = Shelf(*row)
    if dims and not shelf.dims:
        conn.execute("UPDATE shelves SET dims = ? WHERE id = ?", (dims, shelf.id))
    elif dims and shelf.dims != dims:
        raise pages.Unusable(f"{embedder} gave {dims} numbers, and {shelf.dims} before")
    return shelf


def _name(dims: int) -> str:
    return f"vectors_{int(dims)}"


def _table(conn: Conn, dims: int) -> None:
    conn.execute(
        f"CREATE VIRTUAL TABLE IF NOT EXISTS {_name(dims)} USING vec0(shelf INTEGER PARTITION KEY,"
        f" embedding float[{int(dims)}] distance_metric=cosine, chunk_size={_CHUNK})"
    )
