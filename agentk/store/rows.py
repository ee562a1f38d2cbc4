"""Objects as rows, and the change row each write leaves. Every function runs inside the writer's transaction.

The id of the change row is the object's resourceVersion. Rows hold bodies without it, as sorted compact JSON, so
that equal objects are equal text. Values of Secrets never enter the change log, nor do files of Skills: they are large.
"""

import json
import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, kinds
from agentk.store import indexes
from agentk.store.writer import Tx

Object = dict[str, Any]

# As etcd's limit on a request: an object is held in memory by everyone who watches it.
OBJECT_BYTES_MAX = 3 * 1024 * 1024 // 2

SECRETS = "secrets"
UNLOGGED = (SECRETS, indexes.SKILLS)  # the log has a part of them

_COMPACT = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)

_INSERT_CHANGE = (
    "INSERT INTO changes (at, type, kind, namespace, name, uid, prev, body, total) VALUES (?, ?, ?, ?, ?, ?, ?, ?,"
    " ? + coalesce((SELECT total FROM changes ORDER BY id DESC LIMIT 1), 0))"
)
_KEEP_CHANGE = "INSERT OR IGNORE INTO changes VALUES (?, ?, 'KEPT', ?, ?, ?, ?, NULL, 0, ?)"


@dataclass(frozen=True)
class Row:
    key: str
    namespace: str
    name: str
    uid: str
    rv: int
    generation: int
    body: str

    def object(self) -> Object:
        """A fresh copy, whole, that the caller may change."""
        return thaw(self.body, self.rv)


def key_of(kind: kinds.Kind) -> str:
    """How rows name a kind: "agents.agentk.dev", "secrets"."""
    return f"{kind.plural}.{kind.group}" if kind.group else kind.plural


def kinds_by_key() -> dict[str, kinds.Kind]:
    return {key_of(kind): kind for kind in kinds.KINDS}


def thaw(body: str, rv: int) -> Object:
    obj: Object = json.loads(body)
    obj["metadata"]["resourceVersion"] = str(rv)
    return obj


def freeze(obj: Object) -> str:
    """Raises Invalid for what JSON cannot hold, TooLarge above OBJECT_BYTES_MAX."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    try:
        body = _COMPACT.encode({**obj, "metadata": metadata})
    except (TypeError, ValueError, RecursionError) as error:
        raise errors.Invalid(f"{obj.get('kind', 'object')} cannot be stored: {error}") from error
    if len(body) > OBJECT_BYTES_MAX:
        raise errors.TooLarge(
            f"{obj.get('kind', 'object')} has {len(body)} bytes, at most {OBJECT_BYTES_MAX} can be stored",
            hint="move large files into spec.source.path",
        )
    return body


def load(conn: sqlite3.Connection, key: str, namespace: str, name: str) -> Row | None:
    found = conn.execute(
        "SELECT uid, rv, generation, body FROM objects WHERE kind = ? AND namespace = ? AND name = ?",
        (key, namespace, name),
    ).fetchone()
    return Row(key, namespace, name, *found) if found else None


def insert(tx: Tx, key: str, obj: Object, body: str = "") -> Object:
    """Write a new object; returns it with its resourceVersion. The name must be free, `body` is freeze(obj)."""
    metadata, body = obj["metadata"], body or freeze(obj)
    namespace, name, uid = metadata.get("namespace", ""), metadata["name"], metadata["uid"]
    rv = _change(tx, "ADDED", Row(key, namespace, name, uid, 0, 0, body), None)
    tx.conn.execute(
        "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)",
        (key, namespace, name, uid, rv, metadata.get("generation", 0), body),
    )
    indexes.put(tx.conn, key, obj, None)
    return _numbered(obj, rv)


def update(tx: Tx, old: Row, obj: Object) -> Object:
    """Write `obj` in place of `old`; writing what is there already changes nothing, not even resourceVersion."""
    body = freeze(obj)
    if body == old.body:
        return _numbered(obj, old.rv)
    generation = obj["metadata"].get("generation", 0)
    rv = _change(tx, "MODIFIED", Row(old.key, old.namespace, old.name, old.uid, 0, 0, body), old)
    tx.conn.execute(
        "UPDATE objects SET rv = ?, generation = ?, body = ? WHERE kind = ? AND namespace = ? AND name = ?",
        (rv, generation, body, old.key, old.namespace, old.name),
    )
    owned = '"ownerReferences"' in old.body
    indexes.put(tx.conn, old.key, obj, old.object() if owned else {"metadata": {}})
    return _numbered(obj, rv)


def remove(tx: Tx, old: Row, last: Object | None = None) -> Object:
    """Forget an object; `last` is what it was at the end (default: what is stored)."""
    obj = last if last is not None else old.object()
    rv = _change(tx, "DELETED", Row(old.key, old.namespace, old.name, old.uid, 0, 0, freeze(obj)), old)
    tx.conn.execute(
        "DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?",
        (old.key, old.namespace, old.name),
    )
    indexes.drop(tx.conn, old.key, old.namespace, old.name)
    return _numbered(obj, rv)


def floor(conn: sqlite3.Connection) -> int:
    """The oldest resourceVersion whose later changes are all still in the log."""
    found: int = conn.execute("SELECT value FROM meta WHERE key = 'floor'").fetchone()[0]
    return found


def newest(conn: sqlite3.Connection) -> int:
    """resourceVersion of the whole store."""
    found: int = conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()[0]
    return found


def epoch(conn: sqlite3.Connection) -> str:
    found: str = conn.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0]
    return found


def counts(conn: sqlite3.Connection) -> dict[str, int]:
    return dict(conn.execute("SELECT kind, count(*) FROM objects GROUP BY kind").fetchall())


def owned(conn: sqlite3.Connection, owner: str) -> list[Object]:
    found = conn.execute(
        "SELECT rv, body FROM owners JOIN objects USING (kind, namespace, name) WHERE owner = ?", (owner,)
    )
    return [thaw(body, rv) for rv, body in found]


def _change(tx: Tx, type_: str, row: Row, old: Row | None) -> int:
    if old is not None and old.rv <= floor(tx.conn):
        # Who follows the log needs the version before this one; compaction may have taken it.
        body = _logged(old.key, old.body)
        place = (old.key, old.namespace, old.name, old.uid)
        tx.conn.execute(_KEEP_CHANGE, (old.rv, 0.0, *place, body))
    body = _logged(row.key, row.body)
    values = (time.time(), type_, row.key, row.namespace, row.name, row.uid)
    prev = old.rv if old else None
    rv = tx.conn.execute(_INSERT_CHANGE, (*values, prev, body, len(body))).lastrowid or 0
    tx.changed.append((row.key, rv))
    return rv


def _logged(key: str, body: str) -> str:
    """What of a body may be kept in the log. kubectl writes whole Secrets into an annotation."""
    if key not in UNLOGGED:
        return body
    obj = json.loads(body)
    if key == indexes.SKILLS:
        return indexes.head(obj)
    for part in ("data", "stringData"):
        obj.pop(part, None)
    obj["metadata"].pop("annotations", None)
    return _COMPACT.encode(obj)


def _numbered(obj: Object, rv: int) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(rv)}}
