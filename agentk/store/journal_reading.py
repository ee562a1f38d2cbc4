"""What the journal tells: pure functions over a connection that only reads, for the gate, `audit` and `trace`."""

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agentk.store import journal_bodies as bodies
from agentk.store import journal_chain as chain
from agentk.store import journal_words as words
from agentk.store import journal_writing as writing

# How far back an answer may still have been on its way when the process ended.
_JUST_RECORDS, _JUST_SECONDS = 5000, 10

AMOUNTS = ("tokens", "calls", "cost_micro_usd")

# Used amounts; of an effect that was unknown and then settled better, the better one.
_LAST_WORD = """kind IN ('result', 'unknown', 'local', 'note') AND NOT (u.status = 'unknown' AND EXISTS (
    SELECT 1 FROM records AS r WHERE r.of = u.of AND r.id > u.id))"""
SUMS = (
    ", ".join(
        f"coalesce(sum(CASE WHEN {_LAST_WORD} THEN json_extract(u.amounts, '$.{name}') END), 0)"
        for name in AMOUNTS
    )
    + " FROM records AS u"
)


# The records of an agent's runs (or of one run), from the newest back along `before`.
_LINE = """WITH RECURSIVE line (id) AS (
    SELECT last FROM runs WHERE :uid IN (uid, '') AND :run IN (run, '') AND last > :after
    UNION ALL SELECT r.before FROM line JOIN records AS r ON r.id = line.id WHERE r.before > :after)"""


def digest(method: str, body: bytes) -> str:
    """What a repeated call is compared by. `body` as it was stored: redacted."""
    return hashlib.sha256(method.encode("utf-8", "surrogatepass") + b"\0" + body).hexdigest()


def known(conn: sqlite3.Connection, slot: int) -> words.Known | None:
    row = conn.execute(f"{chain.SELECT} WHERE slot = ?", (slot,)).fetchone()
    if row is None:
        return None
    asked = record(conn, row)
    told, said = asked, asked.asked if asked.asked_digest else b""
    if asked.kind == "intent":
        row = conn.execute(f"{chain.SELECT} WHERE of = ? ORDER BY id DESC LIMIT 1", (asked.id,)).fetchone()
        if row is None:
            return words.Known(asked.effect, asked.method, _digest_of(asked.method, said), None)
        told = record(conn, row)
    status: Any = told.status
    outcome = words.Outcome(status, told.answer or b"", told.amounts, told.meta)
    erased = bool(told.answer_digest) and told.answer is None
    return words.Known(asked.effect, asked.method, _digest_of(asked.method, said), outcome, erased)


def records(
    conn: sqlite3.Connection,
    *,
    uid: str = "",
    run: str = "",
    since: float = 0.0,
    after: int = 0,
    limit: int = 1000,
    with_bodies: bool = True,
) -> list[words.Record]:
    """Records in order: of an agent, of a run, from a time (Unix seconds) on, after a record's id."""
    told = {"uid": uid, "run": run, "at": int(since * 1e6), "after": after, "limit": limit}
    where = "id > :after AND at >= :at" + (" AND id IN line" if uid or run else "")
    line = _LINE if uid or run else ""
    rows = conn.execute(f"{line} {chain.SELECT} WHERE {where} ORDER BY id LIMIT :limit", told)
    return [record(conn, row, with_bodies) for row in rows.fetchall()]


def newest(
    conn: sqlite3.Connection, uids: Iterable[str], *, after: int = 0, limit: int = 100
) -> list[words.Record]:
    """The last records of several agents, in order, without what was said. Reads no more of them than that."""
    line = """WITH RECURSIVE line (id) AS (
        SELECT last FROM runs WHERE uid IN (SELECT value FROM json_each(:uids)) AND last > :after
        UNION ALL SELECT r.before FROM line JOIN records AS r ON r.id = line.id WHERE r.before > :after
        ORDER BY 1 DESC LIMIT :limit)"""
    told = {"uids": json.dumps(list(uids)), "after": after, "limit": limit}
    rows = conn.execute(f"{line} {chain.SELECT} WHERE id IN line ORDER BY id", told)
    return [record(conn, row, False) for row in rows.fetchall()]


def spent(conn: sqlite3.Connection, uid: str) -> dict[str, int]:
    """What an agent used, ever: retention takes records away, and not this."""
    told = {"uid": uid, "run": "", "after": 0}
    row = conn.execute(f"{_LINE} SELECT {SUMS} WHERE id IN line", told).fetchone()
    before = writing.own_meta(conn, "checkpoint").get("spent", {}).get(uid, {})
    return {name: value + before.get(name, 0) for name, value in zip(AMOUNTS, row, strict=True)}


@dataclass(frozen=True)
class SpentRow:
    """What an agent used in one second."""

    uid: str
    namespace: str  # "" when only its sum is left
    parents: tuple[str, ...]  # uids of those that spawned it, nearest first
    at: float  # Unix seconds
    tokens: int
    calls: int
    cost_micro_usd: int


def spent_by_second(conn: sqlite3.Connection) -> list[SpentRow]:
    """What every agent used, ever, also those that are gone. Reads all records."""
    lineage = {
        uid: tuple(parents.split()) for uid, parents in conn.execute("SELECT uid, parents FROM lineage")
    }
    kept = conn.execute(
        f"""SELECT u.uid, u.namespace, u.at / 1000000, {SUMS} WHERE u.uid <> '' AND u.kind <> 'intent'
        GROUP BY 1, 2, 3 ORDER BY 3"""
    )
    rows = [
        SpentRow(uid, namespace, lineage.get(uid, ()), float(at), *used) for uid, namespace, at, *used in kept
    ]
    sums: dict[str, dict[str, int]] = writing.own_meta(conn, "checkpoint").get("spent", {})
    old = [
        SpentRow(uid, "", lineage.get(uid, ()), 0.0, *(used.get(name, 0) for name in AMOUNTS))
        for uid, used in sums.items()
    ]
    return [row for row in (*old, *rows) if row.tokens or row.calls or row.cost_micro_usd]


def just_ended(conn: sqlite3.Connection) -> list[tuple[str, int, str]]:
    """uid, attempt and key of the calls that were answered in the last moments of the process before: whether the
    guest got the answer nobody knows."""
    rows = conn.execute(
        """WITH last (id) AS (SELECT max(id) FROM records)
        SELECT i.uid, i.attempt, i.key FROM last, records AS r JOIN records AS i ON i.id = r.of
        WHERE r.id > last.id - ? AND r.kind = 'result' AND r.status = 'ok' AND i.key <> ''
        AND r.at > (SELECT max(at) FROM records AS n, last WHERE n.id > last.id - ? AND n.uid <> '') - ?
        ORDER BY r.id""",
        (_JUST_RECORDS, _JUST_RECORDS, _JUST_SECONDS * 1_000_000),
    )
    return rows.fetchall()


def bodies_of(conn: sqlite3.Connection, what: str) -> set[int]:
    """Ids of the bodies of an effect, or of a digest (hex). Reads all records."""
    rows = conn.execute("SELECT asked, answer FROM records WHERE effect = ?", (what,)).fetchall()
    found = {number for row in rows for number in row if number is not None}
    try:
        told = bytes.fromhex(what)
    except ValueError:
        return found
    for name in ("asked", "answer"):
        found |= {
            row[0] for row in conn.execute(f"SELECT {name} FROM records WHERE {name}_digest = ?", (told,))
        }
    return found


def record(conn: sqlite3.Connection, row: tuple[Any, ...], with_bodies: bool = True) -> words.Record:
    told = dict(zip((*chain.COLUMNS, "hash"), row, strict=True))
    del told["before"], told["slot"]
    told["at"] /= 1e6
    for name in ("amounts", "meta"):
        told[name] = json.loads(told[name])
    for name in ("asked", "answer"):
        told[name] = bodies.load(conn, told[name]) if with_bodies else None
        told[f"{name}_digest"] = (told[f"{name}_digest"] or b"").hex()
    told["hash"] = told["hash"].hex()
    return words.Record(**told)


def _digest_of(method: str, body: bytes | None) -> str:
    return "" if body is None else digest(method, body)
