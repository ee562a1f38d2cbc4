"""The tables of journal.db, as named migrations in order. Never edit one that shipped.

`records`, `bodies`, `runs` and `head` are the journal itself: only `journal_writing` and `journal_retention` write
them, and `journal_verifying` proves every column of theirs. The other tables are guests' state, which lives in
this file so that a call's effect on it commits in one transaction with the call's record.
"""

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

from agentk.store import guest_schema as guests

if TYPE_CHECKING:
    from sqlite_utils import Database

SET = "journal"


def records(db: "Database") -> None:
    """What happened, what was said, and how far the chain goes."""
    _run(
        db,
        # `id` has no gaps. `seq` counts within the chain of (uid, run); the journal's own records have both empty.
        # `before` is the id of the record before it in that chain (0: none): readers follow it. An index on uid and run
        # would cost a page of the disk for each agent at each commit, which halves what can be journalled.
        # `of` is the intent's id, `slot` stands for (uid, attempt, key) where the key is taken, `at` is in µs.
        # `amounts` (reserved of an intent, used of the others) and `meta` are JSON objects. `asked` and `answer` are
        # ids of bodies, with the salted digests that they must have.
        """CREATE TABLE records (
            id INTEGER PRIMARY KEY, before INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL,
            kind TEXT NOT NULL, uid TEXT NOT NULL, run TEXT NOT NULL, attempt INTEGER NOT NULL,
            namespace TEXT NOT NULL, agent TEXT NOT NULL, method TEXT NOT NULL,
            effect TEXT NOT NULL, of INTEGER, parent TEXT NOT NULL, key TEXT NOT NULL, slot INTEGER,
            trace TEXT NOT NULL, status TEXT NOT NULL, amounts TEXT NOT NULL, meta TEXT NOT NULL,
            asked INTEGER, asked_digest BLOB, answer INTEGER, answer_digest BLOB,
            hash BLOB NOT NULL)""",
        "CREATE INDEX records_of ON records (of) WHERE of IS NOT NULL",
        # One call a key: the second writer of a race is refused here.
        "CREATE UNIQUE INDEX records_slot ON records (slot) WHERE slot IS NOT NULL",
        "CREATE INDEX records_unknown ON records (id) WHERE status = 'unknown'",
        "CREATE INDEX records_own ON records (kind, id) WHERE uid = ''",
        # `codec`: 0 as it is, 1 zlib, 2 erased. The digest covers salt, codec and data as they are stored.
        """CREATE TABLE bodies (
            id INTEGER PRIMARY KEY, codec INTEGER NOT NULL, salt BLOB NOT NULL, data BLOB NOT NULL)""",
        # The newest record of each chain that has any.
        """CREATE TABLE runs (
            uid TEXT NOT NULL, run TEXT NOT NULL, last INTEGER NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL,
            PRIMARY KEY (uid, run)) WITHOUT ROWID""",
        # The newest record, keyed, so that one cut off the end is missed.
        """CREATE TABLE head (
            one INTEGER PRIMARY KEY CHECK (one = 1), last INTEGER NOT NULL, hash BLOB NOT NULL,
            mac BLOB NOT NULL)""",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        # `key` makes effect ids and keyed heads; `journal` names this file in its anchor.
        "INSERT INTO meta VALUES ('key', randomblob(32)), ('journal', lower(hex(randomblob(16))))",
    )


def guest_state(db: "Database") -> None:
    """What budgets were given. Times are Unix seconds."""
    _run(
        db,
        # What `agentk budget add` gave to a node of the tree of budgets (an agent's uid, a quota's).
        """CREATE TABLE grants (
            uid TEXT NOT NULL, tokens INTEGER NOT NULL, calls INTEGER NOT NULL, cost_micro_usd INTEGER NOT NULL,
            wall_seconds REAL NOT NULL, at REAL NOT NULL)""",
        # Whose budget an agent that was spawned counts for, nearest first and separated by spaces: what it used is
        # not given back when it is gone.
        """CREATE TABLE lineage (uid TEXT PRIMARY KEY, parents TEXT NOT NULL) WITHOUT ROWID""",
    )


def exits(db: "Database") -> None:
    """What the newest attempt of an agent said of its own end."""
    _run(
        db,
        """CREATE TABLE exits (
            uid TEXT PRIMARY KEY, attempt INTEGER NOT NULL, code INTEGER NOT NULL, message TEXT NOT NULL,
            result BLOB, said_at REAL NOT NULL)""",
    )


def wall_times(db: "Database") -> None:
    """Wall time that nodes of the tree of budgets used in a window, up to `at`; `runs`: and went on then."""
    _run(
        db,
        """CREATE TABLE wall_times (
            key TEXT PRIMARY KEY, window INTEGER NOT NULL, seconds REAL NOT NULL, runs INTEGER NOT NULL,
            at REAL NOT NULL) WITHOUT ROWID""",
    )


def guest_things(db: "Database") -> None:
    """What guests keep."""
    _run(db, *guests.TABLES, *guests.TRIGGERS)


def jobs(db: "Database") -> None:
    """Runs in the background: `ended_at` and `answer` (JSON) are empty while one goes on."""
    _run(
        db,
        """CREATE TABLE jobs (
            uid TEXT NOT NULL, id TEXT NOT NULL, began_at REAL NOT NULL, ended_at REAL, answer BLOB,
            PRIMARY KEY (uid, id))""",
        "CREATE INDEX jobs_ended ON jobs (ended_at)",
    )


def exits_in_steps(db: "Database") -> None:
    """Why an attempt failed, in a word, and how many steps it took."""
    _run(
        db,
        "ALTER TABLE exits ADD COLUMN why TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE exits ADD COLUMN steps INTEGER",
    )


MIGRATIONS: tuple[Callable[["Database"], None], ...] = (
    records,
    guest_state,
    exits,
    wall_times,
    guest_things,
    jobs,
    exits_in_steps,
)


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


def migrate(conn: sqlite3.Connection) -> None:
    """Apply what is pending; one that fails leaves no trace of itself."""
    had = set(applied(conn))
    if all(migration.__name__ in had for migration in MIGRATIONS):
        return
    from sqlite_utils import Database  # 70 ms to import: only when there is something to do
    from sqlite_utils.migrations import Migrations

    migrations = Migrations(SET)
    for migration in MIGRATIONS:
        migrations()(migration)
    migrations.apply(Database(conn))


# Statement by statement: executescript() would commit the transaction the record belongs to.
def _run(db: "Database", *statements: str) -> None:
    for statement in statements:
        db.conn.execute(statement)
