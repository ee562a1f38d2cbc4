"""Opening journal.db: every way it can fail says which; a damaged file is set aside, never deleted and never used.

Intents that an earlier process left without a result become `unknown` here and are never done again. What they had
reserved counts as used, or less where less is known: what may have been spent must not be spent once more.
"""

import json
import os
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentk.api import errors
from agentk.store import backups, opening, writer
from agentk.store import journal_chain as chain
from agentk.store import journal_schema as schema
from agentk.store import journal_verifying as verifying
from agentk.store import journal_writing as writing

DATABASE = "journal.db"
_DAMAGED = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})

# Pages written at each commit are mostly the same ones: a longer log writes them to their place less often (32 MiB).
_LOG_PAGES = 8000

# Of an intent: what `_open_intents` selects, in the order of writing.Draft up to `meta`.
_DRAFT = "kind, at, uid, run, attempt, namespace, agent, method, parent, key, trace, status, amounts, meta"


@dataclass
class Opened:
    """A writable connection, the lock that goes with it, and what a person should be told."""

    conn: sqlite3.Connection
    lock_fd: int
    ledger: writing.Ledger
    sealed: chain.Head | None
    notices: list[str] = field(default_factory=list)


def open_journal(folder: Path, anchored: dict[str, Any] | None) -> Opened:
    """Open (first: make) `folder`/journal.db. Raises Unavailable with the reason and what to do."""
    opening.check_folder(folder)
    lock_fd = opening.lock(folder, "journal.lock")
    conn: sqlite3.Connection | None = None
    try:
        path, damage = folder / DATABASE, ""
        if path.exists():
            damage = _damage(path)
        notices = [_set_aside(folder, damage)] if damage else []
        conn = opening.writable(path)
        conn.execute("PRAGMA secure_delete = ON")  # what is erased is overwritten, whatever it costs
        conn.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}").fetchall()
        _migrate(conn, path)
        # Tampering is verify's to tell, and no reason not to start.
        conn.text_factory = lambda data: data.decode("utf-8", "replace")
        ledger = _ledger(conn)
        sealed = _begin(conn, ledger, anchored, notices)
        conn.text_factory = str
        return Opened(conn, lock_fd, ledger, sealed, notices)
    except BaseException as error:
        if conn is not None:
            conn.close()
        os.close(lock_fd)
        if isinstance(error, sqlite3.Error | OSError):
            raise errors.Unavailable(f"{folder / DATABASE} cannot be opened: {error}") from error
        raise


def _damage(path: Path) -> str:
    """What is wrong with the file, "" when nothing."""
    damage = backups.damage(path)
    if damage or not path.stat().st_size:
        return damage
    conn = sqlite3.connect(path, isolation_level=None, timeout=5)
    try:
        had = schema.applied(conn)
        if not had and conn.execute("SELECT 1 FROM sqlite_master").fetchone():
            return "it is no journal"
        if (
            had
            and len(conn.execute("SELECT value FROM meta WHERE key IN ('key', 'journal')").fetchall()) != 2
        ):
            return "its key is missing"
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "") in _DAMAGED or isinstance(error, sqlite3.OperationalError):
            return str(error)
        raise
    finally:
        conn.close()
    return ""


def _set_aside(folder: Path, damage: str) -> str:
    name = f"{DATABASE}.damaged-{backups.stamp(time.time())}"
    for ending in ("-wal", "-shm", ""):  # the log first: SQLite would replay it into the new file
        file = folder / f"{DATABASE}{ending}"
        if file.exists():
            file.rename(folder / f"{name}{ending}")
    backups.sync(folder)
    return f"journal.db was damaged ({damage}); it was set aside as {name}, and a new journal was begun"


def _migrate(conn: sqlite3.Connection, path: Path) -> None:
    newer = schema.unknown(conn)
    if newer:
        raise errors.Unavailable(
            f"{path} was written by a newer agentk: it has the unknown migration {newer[0]}",
            hint="install that version again",
        )
    schema.migrate(conn)


def _ledger(conn: sqlite3.Connection) -> writing.Ledger:
    key, journal = identity(conn)
    ledger = writing.Ledger(key, journal)
    ledger.open.update(_unknown(conn))
    ledger.open.update(_open_intents(conn))
    return ledger


def identity(conn: sqlite3.Connection) -> tuple[bytes, str]:
    """The key of a journal and its name."""
    rows = dict(conn.execute("SELECT key, value FROM meta WHERE key IN ('key', 'journal')"))
    return bytes(rows["key"]), str(rows["journal"])


def _begin(
    conn: sqlite3.Connection, ledger: writing.Ledger, anchored: dict[str, Any] | None, notices: list[str]
) -> chain.Head | None:
    """Say that the journal was opened and what was found, settle what was left, and seal it."""
    meta: dict[str, Any] = {"pid": os.getpid()}
    if notices:
        meta["notice"] = notices[0]
    broken = verifying.at_opening(conn, ledger.key, ledger.journal, anchored)
    if broken:
        meta |= {"broken": broken, "anchor": anchored}
        notices.append(f"journal.db: {broken}")
    left = {effect: one for effect, one in ledger.open.items() if one.in_flight}
    if left:
        notices.append(f"{len(left)} calls were under way when agentk ended; their outcome is unknown")
    at = time.time_ns() // 1000
    tx = writer.Tx(conn)

    def work(tx: writer.Tx) -> None:
        if broken:  # go on from what is there; that something is not, the next record says for good
            tx.conn.execute("DELETE FROM runs")
            tx.conn.execute(
                "INSERT INTO runs SELECT uid, run, id, seq, hash FROM records"
                " WHERE id IN (SELECT max(id) FROM records GROUP BY uid, run)"
            )
        ledger.own(tx, "opened", at, meta)
        for effect, one in left.items():
            amounts = chain.text(counted(one.draft))
            told = writing.Settlement(at, "unknown", amounts, '{"reason":"agentk ended"}', None)
            ledger.settle(tx, effect, told, kind="unknown")
        ledger.seal(tx, at)

    conn.execute("BEGIN IMMEDIATE")
    ledger.job(work)(tx)
    ledger.finish(tx)
    conn.execute("COMMIT")
    return ledger.committed()


def counted(draft: writing.Draft) -> dict[str, int]:
    """The most that an intent of unknown outcome used: what it had reserved, unless less was counted before."""
    reserved, meta = _numbers(draft.amounts), _numbers(draft.meta)
    return {
        "calls": reserved.get("calls", 0),
        "tokens": meta.get("counted_tokens", reserved.get("tokens", 0)),
        "cost_micro_usd": meta.get("counted_cost_micro_usd", reserved.get("cost_micro_usd", 0)),
    }


def _numbers(text: str) -> dict[str, int]:
    """The whole numbers of a JSON object; {} when somebody changed it (verifying says so)."""
    try:
        told = json.loads(text)
    except ValueError:
        return {}
    return (
        {key: value for key, value in told.items() if isinstance(value, int)}
        if isinstance(told, dict)
        else {}
    )


def _open_intents(conn: sqlite3.Connection) -> dict[str, writing.Open]:
    """Intents without a result: those the last seal lists, and those after it."""
    since = writing.newest_own(conn, "seal")
    listed = writing.own_meta(conn, "seal").get("open")
    if not isinstance(listed, list):
        since, listed = 0, []
    select = (
        f"SELECT id, effect, {_DRAFT} FROM records AS i WHERE kind = 'intent'"
        " AND NOT EXISTS (SELECT 1 FROM records AS r WHERE r.of = i.id) AND "
    )
    rows = conn.execute(f"{select} id > ?", (since,)).fetchall()
    for number in listed:
        rows += conn.execute(f"{select} id = ?", (number,)).fetchall()
    return {row[1]: writing.Open(row[0], writing.Draft(*row[2:]), in_flight=True) for row in rows}


def _unknown(conn: sqlite3.Connection) -> dict[str, writing.Open]:
    """Effects whose last word is `unknown`."""
    rows = conn.execute(
        f"""SELECT id, effect, {_DRAFT} FROM records WHERE id IN (
            SELECT u.of FROM records AS u WHERE u.status = 'unknown' AND u.of IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM records AS r WHERE r.of = u.of AND r.id > u.id))"""
    )
    return {row[1]: writing.Open(row[0], writing.Draft(*row[2:]), in_flight=False) for row in rows}
