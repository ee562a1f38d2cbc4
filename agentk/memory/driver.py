"""Which SQLite opens memory.db: one that can load sqlite-vec, in one dialect of Python for all of them.

Many a Python's own `sqlite3` was built without extensions, so apsw comes first: it carries an SQLite of its own. Where
there is no apsw the standard module serves, if it can. One process must never open the same file through two of them:
their locks would not see each other.
"""

import importlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from agentk.api import errors

BUSY_MILLISECONDS = 5000
EACH = "SELECT value FROM json_each(?)"
# A look at every vector of an agent reads them once, in order: mapped, that costs half of what reads do. What is not
# there is not mapped, and what is mapped is the page cache's. One page that is looked up is another matter: a first
# touch of a mapped file reads ahead as far as the disk's setting says, which may be megabytes for 4 KiB.
_MAPPED_BYTES = 1 << 30
_PIECE = 1024  # blocks of a copy at a time: some milliseconds


class Conn(Protocol):
    """What apsw's and the standard module's connections have in common."""

    def execute(self, sql: str, params: Any = (), /) -> Any: ...
    def close(self) -> None: ...


class Missing(Exception):
    """No SQLite here can search vectors, and how to mend it."""


def error_types() -> tuple[type[Exception], ...]:
    """What a database raises."""
    import sqlite3

    apsw = _apsw()
    return (sqlite3.Error,) if apsw is None else (sqlite3.Error, apsw.Error)


def connect(path: Path, *, reading: bool = False, mapped: bool = False) -> Conn:
    """A connection that searches vectors; `mapped`: it looks at many. Raises Missing, or what the database says."""
    apsw = _apsw()
    conn: Any = _standard(path, reading) if apsw is None else _own(apsw, path, reading)
    try:
        pragmas = [f"mmap_size = {_MAPPED_BYTES if mapped else 0}"]
        if reading:
            pragmas.append("query_only = ON")
        else:
            # What is deleted is overwritten: forgetting is what this database is for, too.
            pragmas += ["journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"]
            pragmas += ["foreign_keys = ON", "journal_size_limit = 67108864", "recursive_triggers = ON"]
        for pragma in pragmas:
            conn.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        conn.close()
        raise
    made: Conn = conn
    return made


def plain(path: Path | None, *, reading: bool = False) -> Any:
    """The same SQLite with nothing loaded into it; None: in memory."""
    import sqlite3

    apsw, name = _apsw(), ":memory:" if path is None else os.fspath(path.absolute())
    if apsw is not None:
        flags = apsw.SQLITE_OPEN_READONLY if reading else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        return apsw.Connection(name, flags=flags)
    if reading and path is not None:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    return sqlite3.connect(name, isolation_level=None)


class Copying:
    """A copy of a database on its way into one new file (0600), a piece at a time, by the connection that writes: so
    what is written meanwhile is in it, what is deleted is not, and nobody waits for more than a piece."""

    def __init__(self, source: Any, final: Path) -> None:
        os.close(os.open(final, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self._source, self._target = source, plain(final)
        self._going = None if _apsw() is None else self._target.backup("main", source, "main")

    def step(self) -> bool:
        """Outside of any transaction; whether there is more. The standard module copies all in one."""
        if self._going is None:
            self._source.backup(self._target)
            return False
        self._going.step(_PIECE)
        return not self._going.done

    def close(self) -> None:
        if self._going is not None:
            self._going.finish()
        self._target.execute("PRAGMA journal_mode = DELETE").fetchall()  # the copy says WAL, as its source
        self._target.close()


def damaged(error: Exception) -> bool:
    """Whether the file is at fault, and not the disk or a lock."""
    name = str(getattr(error, "sqlite_errorname", "")) or type(error).__name__
    return name in ("SQLITE_CORRUPT", "SQLITE_NOTADB", "CorruptError", "NotADBError")


def refused(error: Exception) -> errors.AgentkError:
    """What the database said, as an error a person can act on."""
    full = "full" in str(error).lower() or type(error).__name__ == "FullError"
    hint = "free some space on the disk that holds the state directory" if full else ""
    return errors.Unavailable(f"memory.db refused: {error}", hint=hint, retry_after_seconds=1)


def marks(values: Sequence[Any]) -> str:
    """A place for each value in a statement."""
    return ", ".join("?" * len(values))


def each(values: Iterable[Any]) -> str:
    """However many values as one, for `IN (EACH)`: a statement has 32,766 places, and a room may have more pages."""
    return json.dumps(list(values))


def _apsw() -> Any:
    try:
        return importlib.import_module("apsw")
    except ImportError:
        return None


def _vec() -> str:
    try:
        found: str = importlib.import_module("sqlite_vec").loadable_path()
    except ImportError as error:
        raise Missing("sqlite-vec is not installed: pip install sqlite-vec") from error
    return found


def _own(apsw: Any, path: Path, reading: bool) -> Any:
    flags = apsw.SQLITE_OPEN_READONLY if reading else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    _private(path, reading)
    conn = apsw.Connection(os.fspath(path), flags=flags)
    try:
        conn.set_busy_timeout(BUSY_MILLISECONDS)
        conn.enable_load_extension(True)
        conn.load_extension(_vec())
        conn.enable_load_extension(False)
    except BaseException:
        conn.close()
        raise
    return conn


def _standard(path: Path, reading: bool) -> Any:
    import sqlite3

    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        raise Missing("this Python's sqlite3 loads no extensions, and there is no apsw: pip install apsw")
    _private(path, reading)
    uri = f"{path.absolute().as_uri()}?mode={'ro' if reading else 'rwc'}"
    conn = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_MILLISECONDS / 1000
    )
    try:
        conn.enable_load_extension(True)
        conn.load_extension(_vec())
        conn.enable_load_extension(False)
    except BaseException:
        conn.close()
        raise
    return conn


def _private(path: Path, reading: bool) -> None:
    """0600 before anything is in it: SQLite gives -wal and -shm the same mode."""
    if not reading:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        path.chmod(0o600)
