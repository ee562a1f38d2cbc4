"""Pages kept in rooms: put, got, listed, touched, within limits. Functions over a connection; who calls has the rights.

A room is one agent's part of one Memory. Nothing here reaches a room that it was not given, and every list is bounded.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentk.memory import forgetting, pages, vectors
from agentk.memory.driver import Conn, marks
from agentk.memory.pages import Page

LISTED = 1000  # most pages of one answer
ROOMS = 1000  # that are searched together
_COLUMNS = (
    "id, kind, content, text, tokens, importance, accesses, created, used, seq, unit, pinned, name, tags"
)
# For a list: without what it holds, and with the beginning of its text alone.
_BRIEFLY = _COLUMNS.replace("content, text", "NULL, substr(text, 1, 16384)")


class Full(Exception):
    """A limit is reached, and which."""


@dataclass(frozen=True)
class Limits:
    """Of an agent, all that it spawned included, and of everything in one Memory."""

    pages: int
    bytes: int
    total_pages: int
    total_bytes: int


@dataclass(frozen=True)
class Room:
    id: int
    memory: str
    owner: str  # "NAME" of an agent that people made, "NAME.UID" of any other
    account: str
    pages: int
    bytes: int
    lost: float = 0.0  # since when nobody knows whose it is


@dataclass(frozen=True)
class Filter:
    """What a page has to be to be found; nothing set lets all pass."""

    kinds: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()  # all of them
    since: float | None = None  # of when it was made
    until: float | None = None

    @property
    def given(self) -> bool:
        return bool(self.kinds or self.tags) or self.since is not None or self.until is not None

    def where(self) -> tuple[str, list[Any]]:
        """As SQL over `pages`, to be put behind other conditions."""
        parts, values = list[str](), list[Any]()
        if self.kinds:
            parts.append(f"kind IN ({marks(self.kinds)})")
            values += self.kinds
        for tag in self.tags:
            parts.append("EXISTS (SELECT 1 FROM json_each(pages.tags) AS t WHERE t.value = ?)")
            values.append(tag)
        if self.since is not None:
            parts.append("created >= ?")
            values.append(self.since)
        if self.until is not None:
            parts.append("created < ?")
            values.append(self.until)
        return "".join(f" AND {part}" for part in parts), values


NO_FILTER = Filter()


@dataclass(frozen=True)
class Kept:
    page: Page
    replaced: str = ""  # id of the page that had its name before


@dataclass(frozen=True)
class Told:
    """Where a page came from, beside it."""

    effect: str = ""  # the call of the journal that brought it
    origin: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Vector:
    embedder: str
    values: bytes  # 32-bit floats


def room(conn: Conn, memory: str, owner: str, account: str) -> Room:
    """The room of an agent, made when there is none."""
    conn.execute(
        "INSERT INTO rooms (memory, owner, account) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (memory, owner, account),
    )
    found = find(conn, memory, owner)
    assert found is not None
    return found


def find(conn: Conn, memory: str, owner: str) -> Room | None:
    row = conn.execute(
        "SELECT id, memory, owner, account, pages, bytes FROM rooms WHERE memory = ? AND owner = ?",
        (memory, owner),
    ).fetchone()
    return Room(*row) if row else None


def rooms(conn: Conn, memory: str) -> list[Room]:
    """Every room of a Memory, by owner."""
    select = "SELECT id, memory, owner, account, pages, bytes FROM rooms WHERE memory = ? ORDER BY owner"
    return [Room(*row) for row in conn.execute(select, (memory,)).fetchall()]


def every(conn: Conn) -> list[Room]:
    """Of every Memory."""
    select = "SELECT id, memory, owner, account, pages, bytes, lost FROM rooms ORDER BY id"
    return [Room(*row) for row in conn.execute(select).fetchall()]


def there(conn: Conn, at: int, number: int) -> bool:
    row = conn.execute("SELECT 1 FROM pages WHERE number = ? AND room = ?", (number, at)).fetchone()
    return row is not None


def owners(conn: Conn, ids: Sequence[str]) -> dict[str, str]:
    """Whose room each page is in."""
    rows = conn.execute(
        f"SELECT p.id, r.owner FROM pages AS p JOIN rooms AS r ON r.id = p.room WHERE p.id IN ({marks(ids)})",
        tuple(ids),
    ).fetchall()
    return {str(one): str(owner) for one, owner in rows}


def put(
    conn: Conn, at: Room, page: Page, limits: Limits, told: Told | None = None, vector: Vector | None = None
) -> Kept:
    """Keep a page, in place of the one of its name, if any. The same id again is the same page: nothing is done.

    `seq` 0 is the next place. Raises Unusable or Full.
    """
    page, told = pages.checked(page), told or Told()
    there = conn.execute("SELECT room FROM pages WHERE id = ?", (page.id,)).fetchone()
    if there:
        if there[0] != at.id:
            raise pages.Unusable("this id is taken")
        return Kept(get(conn, [at.id], [page.id])[0])
    before = _named(conn, at, page)
    if before is not None:
        carried = forgetting.told_by(conn, before[0])
        forgetting.drop(conn, [before[0]])
    size = pages.size(page)
    _within(conn, at, size, limits)
    number, seq = _insert(conn, at, page, size, told)
    if before is not None:
        forgetting.carry(conn, number, carried)
    if vector is not None:
        vectors.shelve(conn, at.id, number, vector.embedder, vector.values)
    return Kept(replace(page, seq=seq), before[1] if before else "")


def get(conn: Conn, among: Sequence[int], ids: Sequence[str], briefly: bool = False) -> list[Page]:
    """Those of these rooms, in the order asked for; what is not there is left out.

    `briefly`: to be listed. What such a page holds, and its text, is not the whole of it.
    """
    return _ordered(conn, among, "id", ids, briefly)


def named(conn: Conn, among: Sequence[int], names: Sequence[str], briefly: bool = False) -> list[Page]:
    """Those remembered by these names, in the order asked for; of one name in the order of the rooms."""
    return _ordered(conn, among, "name", [name for name in names if name], briefly)


def numbered(conn: Conn, numbers: Sequence[int], briefly: bool = False) -> list[tuple[Page, int]]:
    """With the room of each, in the order given."""
    rows = conn.execute(
        f"SELECT number, room, {_BRIEFLY if briefly else _COLUMNS} FROM pages WHERE number IN ({marks(numbers)})",
        tuple(numbers),
    ).fetchall()
    there = {row[0]: (page_of(row[2:]), int(row[1])) for row in rows}
    return [there[number] for number in numbers if number in there]


def listed(
    conn: Conn, among: Sequence[int], only: Filter, limit: int, before: int = 0
) -> list[tuple[int, Page, int]]:
    """The newest first, briefly, with the number and the room of each; `before`: only those of lower number."""
    where, values = only.where()
    if before:
        where += " AND number < ?"
        values.append(before)
    rows = conn.execute(
        f"SELECT number, room, {_BRIEFLY} FROM pages WHERE room IN ({marks(among)}){where}"
        " ORDER BY number DESC LIMIT ?",
        (*among, *values, min(limit, LISTED)),
    ).fetchall()
    return [(int(row[0]), page_of(row[2:]), int(row[1])) for row in rows]


def following(conn: Conn, among: Sequence[int], after: int, limit: int) -> list[tuple[int, Page]]:
    """The oldest first, with their numbers, from the one after `after` on."""
    rows = conn.execute(
        f"SELECT number, {_COLUMNS} FROM pages WHERE room IN ({marks(among)}) AND number > ? ORDER BY number LIMIT ?",
        (*among, after, min(limit, LISTED)),
    ).fetchall()
    return [(int(row[0]), page_of(row[1:])) for row in rows]


def conversation(conn: Conn, at: int) -> list[Page]:
    """Every page of a room, in its order."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM pages WHERE room = ? ORDER BY seq, number", (at,)).fetchall()
    return [page_of(row) for row in rows]


def touched(conn: Conn, ids: Sequence[str], now: float) -> None:
    """They were used."""
    conn.execute(
        f"UPDATE pages SET accesses = accesses + 1, used = max(used, ?) WHERE id IN ({marks(ids)})",
        (now, *ids),
    )


def used_as(conn: Conn, page: Page) -> None:
    """How it was used is told by somebody who knows."""
    conn.execute(
        "UPDATE pages SET accesses = ?, used = ?, pinned = ? WHERE id = ?",
        (page.accesses, page.used, int(page.pinned), page.id),
    )


def pin(conn: Conn, among: Sequence[int], one: str, pinned: bool) -> None:
    conn.execute(
        f"UPDATE pages SET pinned = ? WHERE id = ? AND room IN ({marks(among)})", (int(pinned), one, *among)
    )


def origin(conn: Conn, one: str) -> dict[str, str]:
    row = conn.execute("SELECT origin FROM pages WHERE id = ?", (one,)).fetchone()
    return dict(json.loads(row[0])) if row else {}


def count(conn: Conn, at: int, more: Mapping[str, int]) -> None:
    """Add to what is counted of a room: faults, evictions, searches and what they found."""
    for what, value in more.items():
        conn.execute(
            "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
            (at, what, value),
        )


def counts(conn: Conn, among: Sequence[int]) -> dict[str, int]:
    rows = conn.execute(
        f"SELECT what, sum(value) FROM counts WHERE room IN ({marks(among)}) GROUP BY what", tuple(among)
    ).fetchall()
    return {str(what): int(value) for what, value in rows}


def kinds(conn: Conn, among: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Pages and tokens of each kind."""
    rows = conn.execute(
        f"SELECT kind, count(*), sum(tokens) FROM pages WHERE room IN ({marks(among)}) GROUP BY kind ORDER BY kind",
        tuple(among),
    ).fetchall()
    return {str(kind): (int(many), int(tokens or 0)) for kind, many, tokens in rows}


def fresh(kind: str, text: str, tokens: int, **more: Any) -> Page:
    """A page of plain text that is made now."""
    made, now = pages.new_id(), time.time()
    plain = {"importance": 0.5, "accesses": 0, "seq": 0, "pinned": False, "name": "", "tags": ()}
    fields = {"id": made, "unit": made, "created": now, "used": now, "content": text.encode(), "text": text}
    return Page(**{**plain, **fields, "kind": kind, "tokens": tokens, **more})


def _named(conn: Conn, at: Room, page: Page) -> tuple[int, str] | None:
    """Number and id of the page that has its name."""
    if not page.name:
        return None
    row = conn.execute(
        "SELECT number, id FROM pages WHERE room = ? AND name = ?", (at.id, page.name)
    ).fetchone()
    return (int(row[0]), str(row[1])) if row else None


def check(conn: Conn, at: Room, limits: Limits) -> None:
    """Whether a room is within its limits as it is. Raises Full."""
    _within(conn, at, 0, limits, pages=0)


def _within(conn: Conn, at: Room, size: int, limits: Limits, pages: int = 1) -> None:
    sums = "SELECT coalesce(sum(pages), 0), coalesce(sum(bytes + saved), 0) FROM rooms WHERE memory = ?"
    own = conn.execute(f"{sums} AND account = ?", (at.memory, at.account)).fetchone()
    whole = conn.execute(sums, (at.memory,)).fetchone()
    for used, more, most, what in (
        (own[0], pages, limits.pages, "pages of an agent and all that it spawned (limits.pages)"),
        (own[1], size, limits.bytes, "bytes of an agent and all that it spawned (limits.bytes)"),
        (whole[0], pages, limits.total_pages, "pages of the Memory (limits.totalPages)"),
        (whole[1], size, limits.total_bytes, "bytes of the Memory (limits.totalBytes)"),
    ):
        if used + more > most:
            raise Full(f"{used} of {most} {what} are taken, and this needs {more}")


def insert(conn: Conn, at: Room, page: Page, told: Told) -> int:
    """A page that was kept before, in its place; its number. Whoever asks looks at the limits."""
    return _insert(conn, at, page, pages.size(page), told)[0]


def _insert(conn: Conn, at: Room, page: Page, size: int, told: Told) -> tuple[int, int]:
    seq = page.seq
    if not seq:
        seq = conn.execute("SELECT next FROM rooms WHERE id = ?", (at.id,)).fetchone()[0]
    conn.execute("UPDATE rooms SET next = max(next, ? + 1) WHERE id = ?", (seq, at.id))
    same = page.content == page.text.encode()
    columns = f"{_COLUMNS}, room, bytes, effect, origin, stem"
    values = (
        *(page.id, page.kind, None if same else page.content, page.text, page.tokens, page.importance),
        *(page.accesses, page.created, page.used, seq, page.unit, int(page.pinned), page.name),
        json.dumps(page.tags),
        *(at.id, size, told.effect, json.dumps(dict(told.origin)), stem(at.id)),
    )
    conn.execute(f"INSERT INTO pages ({columns}) VALUES ({marks(values)})", values)
    number = conn.execute("SELECT number FROM pages WHERE id = ?", (page.id,)).fetchone()[0]
    return int(number), int(seq)


def stem(at: int) -> str:
    """The word that stands for a room in the index."""
    return f"room{at}x"


def _ordered(
    conn: Conn, among: Sequence[int], column: str, wanted: Sequence[str], briefly: bool
) -> list[Page]:
    if len(wanted) > LISTED:
        raise pages.Unusable(f"at most {LISTED} pages at once")
    columns = _BRIEFLY if briefly else _COLUMNS
    rows = conn.execute(
        f"SELECT room, {columns} FROM pages WHERE {column} IN ({marks(wanted)}) AND room IN ({marks(among)})",
        (*wanted, *among),
    ).fetchall()
    found: dict[str, list[Page]] = {}
    place = {room: at for at, room in enumerate(among)}
    for row in sorted(rows, key=lambda row: place[row[0]]):
        page = page_of(row[1:])
        found.setdefault(page.id if column == "id" else page.name, []).append(page)
    return [page for one in dict.fromkeys(wanted) for page in found.get(one, ())]


def page_of(row: Sequence[Any]) -> Page:
    one, kind, content, text, tokens, importance, accesses, created, used, seq, unit, pinned, name, tags = row
    kept = text.encode() if content is None else bytes(content)
    marked = bool(pinned), name, tuple(json.loads(tags))
    return Page(one, kind, kept, text, tokens, importance, accesses, created, used, seq, unit, *marked)
