"""The tables of what guests keep: values, locks, mailboxes, queues and events, with a count of all that is held.

They are in journal.db so that a call's effect and its record commit in one transaction. `scope` says whose a row is
(`agent/UID`, `attempt/UID/N`, `family/UID`, `mail/UID`); only the broker knows what that means. Times are Unix seconds.
"""

TABLES: tuple[str, ...] = (
    # How much a scope holds of one kind, kept by the triggers below, so that no count is ever scanned for. `counter`
    # numbers writes, holders and events for good: what was deleted gives no number back. The row stays when all else
    # went, so the scopes of this table are all there are.
    """CREATE TABLE holdings (
        scope TEXT NOT NULL, what TEXT NOT NULL, items INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
        counter INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (scope, what)) WITHOUT ROWID""",
    # `version` comes from the counter, so that no value has one that an earlier value of its key had.
    """CREATE TABLE kv (
        scope TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, expires_at REAL, value BLOB NOT NULL,
        PRIMARY KEY (scope, key))""",
    "CREATE INDEX kv_expires ON kv (scope, expires_at) WHERE expires_at IS NOT NULL",
    # Held by who knows the token. `fence` comes from the counter.
    """CREATE TABLE locks (
        scope TEXT NOT NULL, name TEXT NOT NULL, token TEXT NOT NULL, holder TEXT NOT NULL, fence INTEGER NOT NULL,
        expires_at REAL NOT NULL, PRIMARY KEY (scope, name)) WITHOUT ROWID""",
    # Mailboxes and queues. At least once: an item goes when it is acknowledged; `hidden_until` is when it comes
    # (again), 0 for now. Oldest first by `seq`, which is never used twice. `sender` is a uid.
    """CREATE TABLE items (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, scope TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL,
        sender TEXT NOT NULL, put_at REAL NOT NULL, deliveries INTEGER NOT NULL DEFAULT 0,
        hidden_until REAL NOT NULL DEFAULT 0, body BLOB NOT NULL)""",
    "CREATE INDEX items_waiting ON items (scope, name, hidden_until, seq)",
    "CREATE UNIQUE INDEX items_id ON items (scope, name, id)",
    # The newest events of a family. `uid` is whose it is, `above` who spawned it, separated by spaces.
    """CREATE TABLE events (
        scope TEXT NOT NULL, id INTEGER NOT NULL, uid TEXT NOT NULL, above TEXT NOT NULL, source TEXT NOT NULL,
        type TEXT NOT NULL, at REAL NOT NULL, data BLOB NOT NULL, PRIMARY KEY (scope, id))""",
)


def _counted(table: str, size: str, what: str) -> list[str]:
    """Triggers that keep `holdings` true of a table. `size` and `what` are SQL over {row}, which is NEW or OLD."""
    new_size, old_size = size.format(row="NEW"), size.format(row="OLD")
    new_what, old_what = what.format(row="NEW"), what.format(row="OLD")
    label = "".join(letter for letter in what if letter.isalpha())
    return [
        f"""CREATE TRIGGER {table}_in_{label} AFTER INSERT ON {table} BEGIN
            INSERT INTO holdings (scope, what, items, bytes) VALUES (NEW.scope, {new_what}, 1, {new_size})
            ON CONFLICT DO UPDATE SET items = items + 1, bytes = bytes + excluded.bytes; END""",
        f"""CREATE TRIGGER {table}_out_{label} AFTER DELETE ON {table} BEGIN
            UPDATE holdings SET items = items - 1, bytes = bytes - {old_size}
            WHERE scope = OLD.scope AND what = {old_what}; END""",
    ]


_KEY_BYTES = "(length(CAST({row}.key AS BLOB)) + length({row}.value))"
_ITEM_BYTES = "length({row}.body)"

TRIGGERS: tuple[str, ...] = (
    *_counted("kv", _KEY_BYTES, "'keys'"),
    f"""CREATE TRIGGER kv_changed AFTER UPDATE OF value ON kv BEGIN
        UPDATE holdings SET bytes = bytes + {_KEY_BYTES.format(row="NEW")} - {_KEY_BYTES.format(row="OLD")}
        WHERE scope = NEW.scope AND what = 'keys'; END""",
    *_counted("locks", "0", "'locks'"),
    *_counted("items", _ITEM_BYTES, "'items'"),
    *_counted("items", _ITEM_BYTES, "'from/' || {row}.sender"),
    """CREATE TRIGGER items_of_nobody AFTER UPDATE OF items ON holdings
        WHEN NEW.items = 0 AND NEW.what LIKE 'from/%' BEGIN
        DELETE FROM holdings WHERE scope = NEW.scope AND what = NEW.what; END""",
    *_counted("events", "(length({row}.data) + length({row}.above))", "'events'"),
)
