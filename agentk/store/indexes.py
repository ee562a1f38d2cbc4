"""What finds objects by something other than their name: owners, and Events by what they say. And Skills without their
files, for lists: nobody who asks what there is has to read megabytes.

Kept in the same transaction as the object, whoever writes it.
"""

import hashlib
import json
import sqlite3
import time
from datetime import datetime
from typing import Any

from agentk.api import objects, skillspecs

EVENTS, SKILLS = "events", "skills.agentk.dev"


def put(conn: sqlite3.Connection, key: str, obj: dict[str, Any], old: dict[str, Any] | None) -> None:
    """After `obj` of kind `key` was written in place of `old`."""
    place = (key, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
    owners = objects.owner_uids(obj)
    if old is not None and owners != objects.owner_uids(old):
        conn.execute("DELETE FROM owners WHERE kind = ? AND namespace = ? AND name = ?", place)
    elif old is not None:
        owners = []
    for owner in owners:
        conn.execute("INSERT OR IGNORE INTO owners VALUES (?, ?, ?, ?)", (owner, *place))
    if key == EVENTS:
        row = (place[1], place[2], digest(obj), involved_key(obj), last_seen(obj))
        conn.execute("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?)", row)
    elif key == SKILLS:
        conn.execute("INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?)", (*place, head(obj)))


def drop(conn: sqlite3.Connection, key: str, namespace: str, name: str) -> None:
    """After an object was removed."""
    conn.execute("DELETE FROM owners WHERE kind = ? AND namespace = ? AND name = ?", (key, namespace, name))
    if key == EVENTS:
        conn.execute("DELETE FROM events WHERE namespace = ? AND name = ?", (namespace, name))
    elif key == SKILLS:
        conn.execute(
            "DELETE FROM heads WHERE kind = ? AND namespace = ? AND name = ?", (key, namespace, name)
        )


def head(skill: dict[str, Any]) -> str:
    return json.dumps(skillspecs.head(skill), separators=(",", ":"))


def digest(event: dict[str, Any]) -> str:
    """Equal for two Events that say the same of the same object."""
    source = event.get("source")
    said = (
        involved_key(event),
        event.get("type"),
        event.get("reason"),
        event.get("message"),
        source.get("component") if isinstance(source, dict) else None,
    )
    return hashlib.sha256(repr(said).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def involved_key(event: dict[str, Any]) -> str:
    involved = event.get("involvedObject")
    if not isinstance(involved, dict):
        return ""
    names = "/".join(str(involved.get(part) or "") for part in ("kind", "namespace", "name"))
    return f"{names}/{involved.get('uid') or ''}"


def last_seen(event: dict[str, Any]) -> float:
    """Unix seconds of its last time."""
    metadata = event["metadata"]
    for stamp in (event.get("lastTimestamp"), event.get("eventTime"), metadata.get("creationTimestamp")):
        if stamp:
            return seconds(stamp)
    return time.time()


def seconds(stamp: object) -> float:
    """Unix seconds of an RFC 3339 time; now when it is none (a guest may have written it)."""
    try:
        return datetime.fromisoformat(str(stamp)).timestamp()
    except (ValueError, OverflowError):
        return time.time()
