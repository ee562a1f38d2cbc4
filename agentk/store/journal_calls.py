"""The calls of one agent as people ask for them: newest first, each with its result beside it, a page at a time.

Pure functions over a connection that only reads. A page costs what it shows, not what the journal holds: the chains
of the agent's runs are followed back from where the page before ended. Bounded in records, steps and bytes of bodies.
"""

import heapq
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from agentk.api import errors
from agentk.store import journal_bodies as bodies
from agentk.store import journal_chain as chain
from agentk.store import journal_reading as reading
from agentk.store import journal_words as words

_BEGINNINGS = ("intent", "local", "note")
# Some 10 µs each: a page that finds little answers with what it has, and how to go on.
_STEPS = 50_000
_BODIES_BYTES = 4 * 1024 * 1024
_CHAINS = 64  # runs of one agent that one cursor can be in the middle of; they come one after the other
# A clock that was set back must not hide what was written before it was.
_CLOCK_SLACK_SECONDS = 3600.0


@dataclass(frozen=True)
class Called:
    """One call: the record it began with, and the last word on how it ended (None: under way, or told at once)."""

    begun: words.Record
    ended: words.Record | None = None

    @property
    def last(self) -> words.Record:
        return self.ended or self.begun

    @property
    def status(self) -> str:
        """`running` while there is no result."""
        return self.last.status or "running"

    @property
    def meta(self) -> dict[str, Any]:
        return {**self.begun.meta, **self.last.meta}


@dataclass(frozen=True)
class Page:
    calls: list[Called]  # newest first
    cont: str = ""  # give it back for older ones; "" when there are none


@dataclass(frozen=True)
class Spent:
    """What an agent used up to a record."""

    through: int = 0
    amounts: tuple[int, ...] = (0,) * len(reading.AMOUNTS)


def page(
    conn: sqlite3.Connection,
    uid: str,
    *,
    run: str = "",
    since: float = 0.0,
    limit: int = 100,
    cont: str = "",
    with_bodies: bool = True,
) -> Page:
    """Calls that began at `since` (Unix seconds) or later. Raises BadRequest for a `cont` that no page gave."""
    pending = [-number for number in _frontier(conn, uid, run, cont)]
    heapq.heapify(pending)
    found: list[Called] = []
    size = steps = 0
    while pending and len(found) < limit and size < _BODIES_BYTES and steps < _STEPS:
        steps += 1
        number = -heapq.heappop(pending)
        row = conn.execute(
            "SELECT before, at, kind FROM records WHERE id = ? AND uid = ?", (number, uid)
        ).fetchone()
        if row is None or row[1] / 1e6 < since - _CLOCK_SLACK_SECONDS:
            continue  # let go of by retention, or too old, and so is all before it
        if row[0]:
            heapq.heappush(pending, -row[0])
        if row[2] in _BEGINNINGS and row[1] / 1e6 >= since:
            found.append(call(conn, number, with_bodies))
            size += _size(found[-1])
    return Page(found, ".".join(str(-number) for number in heapq.nsmallest(_CHAINS, pending)))


def unknown(conn: sqlite3.Connection, uid: str, limit: int, with_bodies: bool = True) -> Page:
    """Calls whose outcome nobody knows: what was under way when agentk ended, and was not done again."""
    rows = conn.execute(
        "SELECT of FROM records AS u WHERE status = 'unknown' AND uid = ? AND of IS NOT NULL AND NOT EXISTS ("
        "SELECT 1 FROM records AS r WHERE r.of = u.of AND r.id > u.id) ORDER BY id DESC LIMIT ?",
        (uid, limit),
    ).fetchall()
    return Page([call(conn, number, with_bodies) for (number,) in rows])


def call(conn: sqlite3.Connection, number: int, with_bodies: bool = True) -> Called:
    """The call that began with a record. Raises NotFound."""
    row = conn.execute(f"{chain.SELECT} WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise errors.NotFound(f"the journal has no record {number}")
    begun = reading.record(conn, row, with_bodies)
    if begun.kind != "intent":
        return Called(begun)
    row = conn.execute(f"{chain.SELECT} WHERE of = ? ORDER BY id DESC LIMIT 1", (number,)).fetchone()
    return Called(begun, reading.record(conn, row, with_bodies) if row else None)


def small_body(
    conn: sqlite3.Connection, record: words.Record, which: Literal["asked", "answer"], most_bytes: int
) -> bytes:
    """What was asked or answered, when it is stored in at most so many bytes; else nothing."""
    row = conn.execute(
        f"SELECT b.id FROM records AS r JOIN bodies AS b ON b.id = r.{which}"
        " WHERE r.id = ? AND length(b.data) <= ?",
        (record.id, most_bytes),
    ).fetchone()
    return (bodies.load(conn, row[0]) if row else None) or b""


def uids(conn: sqlite3.Connection, namespace: str, agent: str) -> list[str]:
    """Everyone who bore that name, the last one first: also of agents that are gone."""
    rows = conn.execute(
        "SELECT runs.uid FROM runs JOIN records ON records.id = last WHERE namespace = ? AND agent = ?"
        " GROUP BY runs.uid ORDER BY max(last) DESC LIMIT 100",
        (namespace, agent),
    )
    return [uid for (uid,) in rows]


def runs(conn: sqlite3.Connection, uid: str) -> list[str]:
    """The runs of an agent, the last one first."""
    rows = conn.execute("SELECT run FROM runs WHERE uid = ? ORDER BY last DESC LIMIT 1000", (uid,))
    return [run for (run,) in rows]


def spent(conn: sqlite3.Connection, uid: str, had: Spent | None = None) -> Spent:
    """What an agent used, ever. With what it `had` used before, only newer records are read."""
    if had is None:
        newest = max((last for last in _heads(conn, uid, "")), default=0)
        told = reading.spent(conn, uid)
        return Spent(newest, tuple(told[name] for name in reading.AMOUNTS))
    for number in _newer(conn, uid, had.through):
        had = replace(had, through=max(had.through, number), amounts=_added(conn, number, had.amounts))
    return had


def _added(conn: sqlite3.Connection, number: int, amounts: tuple[int, ...]) -> tuple[int, ...]:
    record = reading.record(
        conn, conn.execute(f"{chain.SELECT} WHERE id = ?", (number,)).fetchone(), with_bodies=False
    )
    if record.kind == "intent":
        return amounts
    before = None
    if record.of is not None:  # a better word on what was unknown takes the place of the first one
        before = conn.execute(
            f"{chain.SELECT} WHERE of = ? AND id < ? ORDER BY id DESC LIMIT 1", (record.of, number)
        ).fetchone()
    taken = reading.record(conn, before, with_bodies=False).amounts if before else {}
    return tuple(
        had + record.amounts.get(name, 0) - taken.get(name, 0)
        for had, name in zip(amounts, reading.AMOUNTS, strict=True)
    )


def _newer(conn: sqlite3.Connection, uid: str, through: int) -> Iterator[int]:
    """Ids of records after `through`, oldest first."""
    found = []
    for number in _heads(conn, uid, ""):
        while number > through:
            found.append(number)
            row = conn.execute("SELECT before FROM records WHERE id = ?", (number,)).fetchone()
            number = row[0] if row else 0
    yield from sorted(found)


def _frontier(conn: sqlite3.Connection, uid: str, run: str, cont: str) -> set[int]:
    """Where to go on in each chain: the newest record not shown yet."""
    heads = set(_heads(conn, uid, run))
    if not cont:
        return heads
    try:
        listed = {int(text) for text in cont.split(".")[:_CHAINS]}
    except ValueError:
        raise errors.BadRequest(
            f'continue: "{cont[:100]}" is of no page', hint="leave it out to begin anew"
        ) from None
    return listed | {last for last in heads if len(listed) == _CHAINS and last < min(listed)}


def _heads(conn: sqlite3.Connection, uid: str, run: str) -> list[int]:
    rows = conn.execute("SELECT last FROM runs WHERE uid = ? AND ? IN (run, '')", (uid, run))
    return [last for (last,) in rows]


def _size(one: Called) -> int:
    told = (one.begun.asked, one.begun.answer, one.ended.answer if one.ended else None)
    return sum(len(body) for body in told if body)
