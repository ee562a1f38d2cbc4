"""The tables of memory.db, as named migrations in order, each in one transaction with its record.

Never edit one that shipped. Tables of vectors are made when the first vector of a length comes (`vectors`).
"""

import time
from collections.abc import Callable

from agentk.memory.driver import Conn


def pages(conn: Conn) -> None:
    """Rooms, what is kept in them, and the index of its words."""
    _run(
        conn,
        # One agent's part of one Memory. `memory` is the uid of the Memory, or of the agent whose own it is; `account`
        # the room whose limits this one shares: that of who spawned the agent first. `lost`: since when it is nobody's.
        """CREATE TABLE rooms (
            id INTEGER PRIMARY KEY AUTOINCREMENT, memory TEXT NOT NULL, owner TEXT NOT NULL,
            account TEXT NOT NULL, pages INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
            next INTEGER NOT NULL DEFAULT 1, lost REAL NOT NULL DEFAULT 0, UNIQUE (memory, owner))""",
        "CREATE INDEX rooms_account ON rooms (memory, account)",
        "CREATE TABLE counts (room INTEGER NOT NULL, what TEXT NOT NULL, value INTEGER NOT NULL,"
        " PRIMARY KEY (room, what)) WITHOUT ROWID",
        # Calls whose records still have the words of a page that is gone.
        "CREATE TABLE erasures (effect TEXT PRIMARY KEY, again REAL NOT NULL DEFAULT 0) WITHOUT ROWID",
        # Calls that told of a page, or kept what it replaced.
        "CREATE TABLE mentions (page INTEGER NOT NULL, effect TEXT NOT NULL, at REAL NOT NULL,"
        " PRIMARY KEY (page, effect)) WITHOUT ROWID",
        "CREATE INDEX mentions_at ON mentions (at)",
        # A shelf holds a room's vectors of one embedder; its number is their partition.
        """CREATE TABLE shelves (
            id INTEGER PRIMARY KEY AUTOINCREMENT, room INTEGER NOT NULL, embedder TEXT NOT NULL,
            dims INTEGER NOT NULL, UNIQUE (room, embedder))""",
        # `content` NULL: the same as `text`. `stem` makes a room a word of the index, so that no other room's words
        # are counted. Rows have numbers of their own, never used again.
        """CREATE TABLE pages (
            number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, room INTEGER NOT NULL,
            kind TEXT NOT NULL, tokens INTEGER NOT NULL, importance REAL NOT NULL, accesses INTEGER NOT NULL,
            created REAL NOT NULL, used REAL NOT NULL, seq INTEGER NOT NULL, unit TEXT NOT NULL,
            pinned INTEGER NOT NULL, name TEXT NOT NULL, tags TEXT NOT NULL, bytes INTEGER NOT NULL,
            shelf INTEGER NOT NULL DEFAULT 0, effect TEXT NOT NULL DEFAULT '', origin TEXT NOT NULL DEFAULT '{}',
            stem TEXT NOT NULL, text TEXT NOT NULL, content BLOB)""",
        "CREATE INDEX pages_seq ON pages (room, seq)",
        "CREATE INDEX pages_created ON pages (room, created)",
        "CREATE INDEX pages_shelf ON pages (room, shelf)",
        "CREATE INDEX pages_unit ON pages (unit)",
        "CREATE UNIQUE INDEX pages_name ON pages (room, name) WHERE name <> ''",
        """CREATE VIRTUAL TABLE words USING fts5 (
            stem, name, text, content = 'pages', content_rowid = 'number', columnsize = 0,
            tokenize = 'porter unicode61 remove_diacritics 2')""",
        # Words that are taken out leave nothing behind in the index.
        "INSERT INTO words (words, rank) VALUES ('secure-delete', 1)",
        """CREATE TRIGGER pages_in AFTER INSERT ON pages BEGIN
            INSERT INTO words (rowid, stem, name, text) VALUES (new.number, new.stem, new.name, new.text);
            UPDATE rooms SET pages = pages + 1, bytes = bytes + new.bytes WHERE id = new.room;
        END""",
        """CREATE TRIGGER pages_out AFTER DELETE ON pages BEGIN
            INSERT INTO words (words, rowid, stem, name, text)
                VALUES ('delete', old.number, old.stem, old.name, old.text);
            UPDATE rooms SET pages = pages - 1, bytes = bytes - old.bytes WHERE id = old.room;
        END""",
    )


def windows(conn: Conn) -> None:
    """What models are shown of conversations (`contexts`)."""
    _run(
        conn,
        """CREATE TABLE windows (
            id INTEGER PRIMARY KEY AUTOINCREMENT, room INTEGER NOT NULL, made REAL NOT NULL, used REAL NOT NULL,
            budget INTEGER NOT NULL, fixed INTEGER NOT NULL, counts TEXT NOT NULL, last BLOB NOT NULL,
            read INTEGER NOT NULL DEFAULT 0, cached INTEGER NOT NULL DEFAULT 0, ratio REAL NOT NULL DEFAULT 1)""",
        "CREATE INDEX windows_room ON windows (room, used)",
        # Messages have places from 1 up, notes from -1 down. `chain` is a digest of all that was said up to there.
        """CREATE TABLE window_pages (
            window INTEGER NOT NULL, place INTEGER NOT NULL, page TEXT NOT NULL, kind TEXT NOT NULL,
            digest BLOB NOT NULL, chain BLOB NOT NULL, tokens INTEGER NOT NULL, quoted INTEGER NOT NULL,
            importance REAL NOT NULL, seq INTEGER NOT NULL, unit TEXT NOT NULL, used REAL NOT NULL,
            pinned INTEGER NOT NULL, media INTEGER NOT NULL, resident INTEGER NOT NULL, at INTEGER NOT NULL,
            note TEXT NOT NULL, accesses INTEGER NOT NULL, faults INTEGER NOT NULL, evictions INTEGER NOT NULL,
            score REAL NOT NULL, PRIMARY KEY (window, place)) WITHOUT ROWID""",
        "CREATE INDEX window_pages_chain ON window_pages (chain)",
        "CREATE INDEX window_pages_page ON window_pages (page)",
        # Calls of the journal whose records have the words of a window: when a page of it is forgotten, so are they.
        "CREATE TABLE window_calls (window INTEGER NOT NULL, effect TEXT NOT NULL, PRIMARY KEY (window, effect))"
        " WITHOUT ROWID",
        "CREATE TRIGGER windows_out AFTER DELETE ON windows BEGIN"
        " INSERT OR IGNORE INTO erasures (effect) SELECT effect FROM window_calls WHERE window = old.id;"
        " DELETE FROM window_calls WHERE window = old.id;"
        " DELETE FROM window_pages WHERE window = old.id; END",
        # A window of which a page was forgotten is another one: it is made anew from what its client says next.
        "CREATE TRIGGER pages_of_windows AFTER DELETE ON pages BEGIN"
        " DELETE FROM windows WHERE id IN (SELECT window FROM window_pages WHERE page = old.id); END",
        "CREATE TRIGGER rooms_of_windows AFTER DELETE ON rooms BEGIN"
        " DELETE FROM windows WHERE room = old.id; END",
    )


def checkpoints(conn: Conn) -> None:
    """Rooms as they were (`checkpoints`, `copies`)."""
    _run(
        conn,
        # Bytes of what checkpoints keep of a room: they count for its limits.
        "ALTER TABLE rooms ADD COLUMN saved INTEGER NOT NULL DEFAULT 0",
        # `uid`: of the Checkpoint.
        "CREATE TABLE checkpoints (id INTEGER PRIMARY KEY AUTOINCREMENT, uid TEXT NOT NULL UNIQUE,"
        " room INTEGER NOT NULL, at REAL NOT NULL)",
        "CREATE INDEX checkpoints_room ON checkpoints (room)",
        # A page as it was kept, once. What changes of a page while it is there is in `saved_in`.
        """CREATE TABLE saved (
            number INTEGER PRIMARY KEY AUTOINCREMENT, room INTEGER NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL,
            tokens INTEGER NOT NULL, importance REAL NOT NULL, created REAL NOT NULL, seq INTEGER NOT NULL,
            unit TEXT NOT NULL, name TEXT NOT NULL, tags TEXT NOT NULL, bytes INTEGER NOT NULL, effect TEXT NOT NULL,
            origin TEXT NOT NULL, text TEXT NOT NULL, content BLOB, UNIQUE (room, id))""",
        "CREATE INDEX saved_unit ON saved (unit)",
        "CREATE INDEX saved_name ON saved (room, name) WHERE name <> ''",
        """CREATE TABLE saved_in (
            checkpoint INTEGER NOT NULL, saved INTEGER NOT NULL, accesses INTEGER NOT NULL, used REAL NOT NULL,
            pinned INTEGER NOT NULL, PRIMARY KEY (checkpoint, saved)) WITHOUT ROWID""",
        "CREATE INDEX saved_in_saved ON saved_in (saved)",
        "CREATE TABLE saved_mentions (saved INTEGER NOT NULL, effect TEXT NOT NULL, at REAL NOT NULL,"
        " PRIMARY KEY (saved, effect)) WITHOUT ROWID",
        # Notes on episodes, and the pages that they quote: windows that knew may be gone when either is forgotten.
        "CREATE TABLE quoted (room INTEGER NOT NULL, page TEXT NOT NULL, note TEXT NOT NULL,"
        " PRIMARY KEY (room, page, note)) WITHOUT ROWID",
        "CREATE TRIGGER copies_in AFTER INSERT ON saved BEGIN"
        " UPDATE rooms SET saved = saved + new.bytes WHERE id = new.room; END",
        "CREATE TRIGGER copies_out AFTER DELETE ON saved BEGIN"
        " DELETE FROM saved_in WHERE saved = old.number;"
        " DELETE FROM saved_mentions WHERE saved = old.number;"
        " UPDATE rooms SET saved = saved - old.bytes WHERE id = old.room; END",
        "CREATE TRIGGER checkpoints_out AFTER DELETE ON checkpoints BEGIN"
        " DELETE FROM saved WHERE room = old.room"
        " AND number IN (SELECT saved FROM saved_in WHERE checkpoint = old.id)"
        " AND number NOT IN (SELECT saved FROM saved_in WHERE checkpoint <> old.id);"
        " DELETE FROM saved_in WHERE checkpoint = old.id; END",
        "CREATE TRIGGER rooms_of_checkpoints AFTER DELETE ON rooms BEGIN"
        " DELETE FROM quoted WHERE room = old.id;"
        " DELETE FROM checkpoints WHERE room = old.id; END",
    )


def counters(conn: Conn) -> None:
    """What the pages of a window are counted with, and whether a provider said anything about it."""
    _run(
        conn,
        "ALTER TABLE windows ADD COLUMN counter TEXT NOT NULL DEFAULT 'estimate'",
        "ALTER TABLE windows ADD COLUMN learned INTEGER NOT NULL DEFAULT 0",
        "UPDATE windows SET learned = 1 WHERE read > 0",
    )


def talks(conn: Conn) -> None:
    """Calls whose records have words of a conversation, whether or not a window was kept of it by then."""
    _run(
        conn,
        # Of whom a room is, or will be when there is something to keep. `root` is the chain of the first message: all
        # windows of a conversation, and of what parted from it, have it.
        "CREATE TABLE talks (memory TEXT NOT NULL, owner TEXT NOT NULL, root BLOB NOT NULL, effect TEXT NOT NULL,"
        " at REAL NOT NULL, PRIMARY KEY (memory, owner, root, effect)) WITHOUT ROWID",
        "CREATE INDEX talks_at ON talks (at)",
        "CREATE TRIGGER rooms_of_talks AFTER DELETE ON rooms BEGIN"
        " DELETE FROM talks WHERE memory = old.memory AND owner = old.owner; END",
    )


def asked_for(conn: Conn) -> None:
    """Pages that agents asked for by their ids, which come back with the next turn of their window."""
    _run(
        conn,
        "CREATE TABLE wanted (room INTEGER NOT NULL, page TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (room, page))"
        " WITHOUT ROWID",
        "CREATE TRIGGER pages_wanted AFTER DELETE ON pages BEGIN"
        " DELETE FROM wanted WHERE room = old.room AND page = old.id; END",
    )


MIGRATIONS: tuple[Callable[[Conn], None], ...] = (pages, windows, checkpoints, counters, talks, asked_for)


def migrate(conn: Conn) -> str:
    """Apply what is pending; one that fails leaves no trace. The name of one we do not know: a newer agentk's."""
    conn.execute(
        "CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID"
    )
    had = {name for (name,) in conn.execute("SELECT name FROM migrations").fetchall()}
    unknown = sorted(had - {one.__name__ for one in MIGRATIONS})
    if unknown:
        return str(unknown[0])
    for one in MIGRATIONS:
        if one.__name__ not in had:
            conn.execute("BEGIN IMMEDIATE")
            try:
                one(conn)
                conn.execute("INSERT INTO migrations VALUES (?, ?)", (one.__name__, time.time()))
            except BaseException:
                conn.execute("ROLLBACK")
                raise
            conn.execute("COMMIT")
    return ""


def _run(conn: Conn, *statements: str) -> None:
    for statement in statements:
        conn.execute(statement)
