"""Copies of the database: the daily ones beside it, and what happens when the database itself is damaged.

A file takes the database's place by one rename, after everything about it is done and synced, so a crash at any
moment leaves either the old database or the new one.
"""

import os
import secrets
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from agentk.api import errors
from agentk.store import readers, rows, schema

DATABASE = "state.db"
FOLDER = "backups"
SCRATCH = ".backup-"  # directories of a copy on its way into an archive
_NEW = ".new"  # behind the name of a database that is to take its place
_DAMAGED = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})


def save(folder: Path, now: float) -> Path:
    """Copy the open database to `folder`/backups/state-TIME.db (0600). Writers are not held up."""
    backups = folder / FOLDER
    backups.mkdir(mode=0o700, exist_ok=True)
    final = backups / f"state-{stamp(now)}.db"
    try:
        copy_to(folder / DATABASE, final)
    except (OSError, sqlite3.Error) as error:
        raise errors.Unavailable(f"backup to {final} failed: {error}") from error
    return final


def copy_to(database: Path, final: Path) -> None:
    """One consistent copy of a database, complete in a single file or absent."""
    half = final.with_name(f".{final.name}.{secrets.token_hex(4)}")
    os.close(os.open(half, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(readers.connect(database)) as source, closing(_alone(half)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE").fetchall()  # the copy says WAL, as its source
        sync(half)
        half.rename(final)
        sync(final.parent)
    finally:
        half.unlink(missing_ok=True)


def save_if_due(folder: Path, now: float, every_seconds: float, keep: int) -> Path | None:
    """A backup when the newest is older than `every_seconds`; then all but the newest `keep` go."""
    had = saved(folder)
    if had and now - had[0].stat().st_mtime < every_seconds:
        return None
    made = save(folder, now)
    for old in saved(folder)[max(keep, 1) :]:
        old.unlink(missing_ok=True)
    return made


def saved(folder: Path) -> list[Path]:
    """The backups beside the database, newest first."""
    return sorted((folder / FOLDER).glob("state-*.db"), reverse=True)


def damage(database: Path) -> str:
    """What is wrong with a file, "" when nothing. An empty one is new, unless there are backups of it."""
    if not database.stat().st_size:
        return "it is empty" if saved(database.parent) else ""
    try:
        with closing(sqlite3.connect(database, isolation_level=None, timeout=5)) as conn:
            found = conn.execute("PRAGMA quick_check(1)").fetchone()
            return "" if found == ("ok",) else str(found[0]).splitlines()[-1]
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "") in _DAMAGED:
            return str(error)
        raise


def replace_damaged(folder: Path, why: str, now: float) -> str:
    """Set the damaged database aside and put the newest sound backup, else a new one, in its place.

    Returns what to tell a person.
    """
    made, source = staged(folder), None
    for candidate in saved(folder):
        shutil.copyfile(candidate, made)
        made.chmod(0o600)
        if not damage(made) and _is_ours(made):
            source = candidate
            break
        made.unlink()
    if source is None:
        os.close(os.open(made, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    begin_epoch(made, 0)
    aside = swap(folder, f"state.db.damaged-{stamp(now)}")
    told = f"state.db was damaged ({why}); it was set aside as {aside.name}"
    if source is None:
        return f"{told}; there was no backup, so the store is empty"
    return f"{told}, and the backup {source.name} was put in its place: what was written since is lost"


def begin_epoch(database: Path, at_least: int) -> None:
    """Bring a database that goes back in time up to our schema and make every earlier resourceVersion Expired.

    Versions go on from the microseconds of now, which no store that writes fewer than a million rows a second can
    have reached before: they stay growing integers, as Kubernetes' clients expect, and are never given twice.
    """
    with closing(_alone(database)) as conn:
        conn.execute("PRAGMA journal_mode = DELETE").fetchall()
        schema.migrate(conn)
        start = max(rows.newest(conn), at_least, time.time_ns() // 1000)
        conn.execute("BEGIN IMMEDIATE")
        conn.execute("DELETE FROM changes")
        conn.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'changes'", (start,))
        conn.execute("UPDATE meta SET value = ? WHERE key = 'floor'", (start,))
        conn.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (secrets.token_hex(8),))
        conn.execute("COMMIT")
    sync(database)


def swap(folder: Path, aside_name: str, database: str = DATABASE) -> Path:
    """Put the staged database in place; the one there was is kept under another name, which is returned."""
    current, aside = folder / database, folder / aside_name
    for ending in ("-wal", "-shm"):  # SQLite would replay an old log into the new file
        log = folder / f"{database}{ending}"
        if log.exists():
            log.rename(folder / f"{aside_name}{ending}")
    if current.exists():
        os.link(current, aside)
    os.replace(staged(folder, database), current)
    sync(folder)
    return aside


def staged(folder: Path, database: str = DATABASE) -> Path:
    return folder / f"{database}{_NEW}"


def finish(folder: Path) -> None:
    """Remove what a crash during a copy or a restore left half done."""
    half = [one for ending in ("", "-journal", "-wal", "-shm") for one in folder.glob(f"*.db{_NEW}{ending}")]
    for left in (*half, *(folder / FOLDER).glob(".state-*")):
        left.unlink(missing_ok=True)
    for scratch in folder.glob(f"{SCRATCH}*"):
        shutil.rmtree(scratch)


def stamp(now: float) -> str:
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_ours(database: Path) -> bool:
    with closing(_alone(database)) as conn:
        return "objects" in schema.applied(conn) and not schema.unknown(conn)


def _alone(database: Path) -> sqlite3.Connection:
    conn = sqlite3.connect(database, isolation_level=None, timeout=5)
    conn.execute("PRAGMA synchronous = FULL")
    return conn
