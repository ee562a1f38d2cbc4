"""Letting go of what is old, or too much: bodies first, then whole prefixes of records.

Everything is cut at a seal, and said in the chain before it goes: `trimmed` allows bodies to be absent, and
`checkpoint` takes the place of the records before it: the hash they ended in, the heads of runs that go on, and what
each agent had used. What is in flight is never cut, nor what came after the last seal but one. The file does not
shrink: its free pages are used again.
"""

import sqlite3
from dataclasses import dataclass
from typing import Any

from agentk.store import journal_chain as chain
from agentk.store import journal_reading as reading
from agentk.store import journal_writing as writing
from agentk.store import writer

# One step's share, so that writers are not held up for long.
_STEP_RECORDS = 5000


@dataclass(frozen=True)
class Retention:
    bodies_seconds: float = 7 * 86400.0  # what was asked and answered
    records_seconds: float = 90 * 86400.0  # that it was
    total_bytes: int = 512 * 1024 * 1024  # of the database, without what guests keep; bodies go first


def step(tx: writer.Tx, ledger: writing.Ledger, kept: Retention, at: int) -> bool:
    """Let go of one piece that is due at `at` (microseconds); False when nothing is."""
    conn = tx.conn
    in_flight = [one.record for one in ledger.open.values() if one.in_flight]
    limit = min([writing.newest_own(conn, "seal"), *in_flight]) - 1
    over = used_bytes(conn) > kept.total_bytes
    gone, trimmed = writing.own_meta(conn, "checkpoint"), writing.own_meta(conn, "trimmed")
    floor = max(gone.get("through", 0), trimmed.get("through", 0))
    cut = _cut(conn, floor, limit, at - int(kept.bodies_seconds * 1e6), over)
    if cut:
        bodies = _newest_body(conn, floor, cut, max(gone.get("bodies", 0), trimmed.get("bodies", 0)))
        ledger.own(tx, "trimmed", at, {"through": cut, "bodies": bodies})
        conn.execute("DELETE FROM bodies WHERE id <= ?", (bodies,))
        return True
    cut = _cut(conn, gone.get("through", 0), limit, at - int(kept.records_seconds * 1e6), over)
    if cut:
        _checkpoint(tx, ledger, gone, cut, at)
    return bool(cut)


def used_bytes(conn: sqlite3.Connection) -> int:
    pages, free, size = (
        conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    guests = conn.execute(
        "SELECT coalesce(sum(bytes), 0) FROM holdings WHERE what NOT LIKE 'from/%'"
    ).fetchone()[0]
    return max(0, int((pages - free) * size) - int(guests))


def _cut(conn: sqlite3.Connection, floor: int, limit: int, before: int, over: bool) -> int:
    """The seal to cut at: the first after `floor` when there is too much, else the last of this step that is due."""
    seals = conn.execute(
        "SELECT id, at FROM records WHERE uid = '' AND kind = 'seal' AND id > ? AND id <= ? ORDER BY id LIMIT 100",
        (floor, limit),
    ).fetchall()
    due = 0
    for number, at in seals:
        if at >= before and not (over and not due):
            break
        if due and number > floor + _STEP_RECORDS:
            break
        due = number
        if at >= before:
            break
    return due


def _newest_body(conn: sqlite3.Connection, floor: int, cut: int, before: int) -> int:
    row = conn.execute(
        "SELECT max(max(coalesce(asked, 0), coalesce(answer, 0))) FROM records WHERE id > ? AND id <= ?",
        (floor, cut),
    ).fetchone()
    return max(row[0] or 0, before)


def _checkpoint(tx: writer.Tx, ledger: writing.Ledger, gone: dict[str, Any], cut: int, at: int) -> None:
    conn, floor = tx.conn, gone.get("through", 0)
    ledger.forget_heads(tx)
    bodies = _newest_body(conn, floor, cut, gone.get("bodies", 0))
    digest = conn.execute("SELECT hash FROM records WHERE id = ?", (cut,)).fetchone()[0]
    meta: dict[str, Any] = {
        "through": cut,
        "hash": digest.hex(),
        "bodies": bodies,
        "runs": _going_on(conn, gone, cut),
        "spent": _spent(conn, gone, cut),
    }
    ledger.own(tx, "checkpoint", at, {**meta, "mac": chain.meta_mac(ledger.key, meta).hex()})
    ledger.drop(lambda one: one.record <= cut)
    conn.execute("DELETE FROM records WHERE id <= ?", (cut,))
    conn.execute("DELETE FROM bodies WHERE id <= ?", (bodies,))
    conn.execute("DELETE FROM runs WHERE last <= ?", (cut,))  # each would begin anew
    ledger.seal(tx, at)


def _going_on(conn: sqlite3.Connection, gone: dict[str, Any], cut: int) -> list[list[Any]]:
    """Heads at the cut of the runs that have records after it. A run without any would begin anew."""
    heads = {(uid, run): [uid, run, seq, digest] for uid, run, seq, digest in gone.get("runs", ())}
    rows = conn.execute("SELECT uid, run, seq, hash FROM records WHERE id <= ? ORDER BY id", (cut,))
    heads |= {(uid, run): [uid, run, seq, digest.hex()] for uid, run, seq, digest in rows}
    later = "SELECT 1 FROM runs WHERE uid = ? AND run = ? AND last > ?"
    return [head for owner, head in sorted(heads.items()) if conn.execute(later, (*owner, cut)).fetchone()]


def _spent(conn: sqlite3.Connection, gone: dict[str, Any], cut: int) -> dict[str, dict[str, int]]:
    """What each agent used, from the beginning to the cut."""
    total: dict[str, dict[str, int]] = {uid: dict(used) for uid, used in gone.get("spent", {}).items()}
    rows = conn.execute(f"SELECT uid, {reading.SUMS} WHERE id <= ? AND uid <> '' GROUP BY uid", (cut,))
    for uid, *used in rows:
        had = total.get(uid, {})
        added = zip(reading.AMOUNTS, used, strict=True)
        total[uid] = {name: had.get(name, 0) + value for name, value in added}
    return total
