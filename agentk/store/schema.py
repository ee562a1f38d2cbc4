"""The tables, as named migrations in order, each in one transaction with its record. Never edit one that shipped.

sqlite-utils records them (`_sqlite_migrations`); it costs 70 ms to import, so only a pending migration does so.
"""

import json
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

from agentk.store import indexes

if TYPE_CHECKING:
    from sqlite_utils import Database

SET = "state"


def objects(db: "Database") -> None:
    """Objects, what changed, who owns whom, and a few numbers."""
    _run(
        db,
        # `kind` is "agents.agentk.dev": without the version, which may move. `rv` is the id of the last change.
        """CREATE TABLE objects (
            kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
            uid TEXT NOT NULL UNIQUE, rv INTEGER NOT NULL, generation INTEGER NOT NULL, body TEXT NOT NULL,
            PRIMARY KEY (kind, namespace, name))""",
        # `body` is the object after the change (of a deletion: at last), `prev` the change before of that object,
        # `total` the bytes of all bodies up to this one. Small columns first: a scan need not read overflow pages.
        """CREATE TABLE changes (
            id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, type TEXT NOT NULL,
            kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL,
            prev INTEGER, total INTEGER NOT NULL, body TEXT NOT NULL)""",
        "CREATE INDEX changes_prev ON changes (prev) WHERE prev IS NOT NULL",
        """CREATE TABLE owners (
            owner TEXT NOT NULL, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
            PRIMARY KEY (owner, kind, namespace, name)) WITHOUT ROWID""",
        "CREATE INDEX owners_of ON owners (kind, namespace, name)",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
        # A resourceVersion of "0" means something else to clients.
        "INSERT INTO sqlite_sequence (name, seq) VALUES ('changes', 1)",
        "INSERT INTO meta VALUES ('floor', 1), ('epoch', lower(hex(randomblob(8))))",
    )


def events(db: "Database") -> None:
    """What finds an Event by what it says, and the oldest ones."""
    _run(
        db,
        """CREATE TABLE events (
            namespace TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,
            involved TEXT NOT NULL, last REAL NOT NULL,
            PRIMARY KEY (namespace, name)) WITHOUT ROWID""",
        "CREATE INDEX events_digest ON events (digest, last)",
        "CREATE INDEX events_involved ON events (involved, last)",
        "CREATE INDEX events_last ON events (last)",
    )


def host_uids(db: "Database") -> None:
    """One host uid an agent, until it is released."""
    _run(
        db,
        """CREATE TABLE host_uids (
            host_uid INTEGER PRIMARY KEY, agent TEXT NOT NULL UNIQUE, namespace TEXT NOT NULL)""",
    )


def heads(db: "Database") -> None:
    """Large objects without what makes them large, for those who list many."""
    _run(
        db,
        """CREATE TABLE heads (
            kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,
            PRIMARY KEY (kind, namespace, name))""",
    )
    found = db.conn.execute(
        "SELECT kind, namespace, name, body FROM objects WHERE kind = ?", (indexes.SKILLS,)
    )
    for kind, namespace, name, body in found.fetchall():
        db.conn.execute(
            "INSERT INTO heads VALUES (?, ?, ?, ?)", (kind, namespace, name, indexes.head(json.loads(body)))
        )


MIGRATIONS: tuple[Callable[["Database"], None], ...] = (objects, events, host_uids, heads)


def applied(conn: sqlite3.Connection) -> list[str]:
    """Names of the migrations this file has had, oldest first."""
    table = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlite_migrations'"
    if not conn.execute(table).fetchone():
        return []
    rows = conn.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = ? ORDER BY id", (SET,))
    return [name for (name,) in rows]


def unknown(conn: sqlite3.Connection) -> list[str]:
    """Migrations in the file that we do not know: a newer agentk made them."""
    known = {migration.__name__ for migration in MIGRATIONS}
    return [name for name in applied(conn) if name not in known]


def pending(conn: sqlite3.Connection) -> list[str]:
    had = set(applied(conn))
    return [migration.__name__ for migration in MIGRATIONS if migration.__name__ not in had]


def migrate(conn: sqlite3.Connection) -> None:
    """Apply what is pending; one that fails leaves no trace of itself."""
    if not pending(conn):
        return
    from sqlite_utils import Database
    from sqlite_utils.migrations import Migrations

    migrations = Migrations(SET)
    for migration in MIGRATIONS:
        migrations()(migration)
    migrations.apply(Database(conn))


# Statement by statement: executescript() would commit the transaction the record belongs to.
def _run(db: "Database", *statements: str) -> None:
    for statement in statements:
        db.conn.execute(statement)
