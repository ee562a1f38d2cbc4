"""Events: what happened to an object, said once and counted, and forgotten after a while.

The same event (same object, type, reason, message and component) within ten minutes is the same Event object with
a higher count, so a crash loop leaves one line, not thousands.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentk.api import kinds, objects
from agentk.store import indexes, rows
from agentk.store.writer import Tx

Object = dict[str, Any]

_SAME_SECONDS = 600.0
_MESSAGE_MAX = 1024  # as Kubernetes

KIND = kinds.resource("events")


@dataclass(frozen=True)
class Retention:
    """How many Events stay; whatever is reached first."""

    age_seconds: float = 3600.0  # as Kubernetes
    count: int = 10_000
    per_object: int = 100  # so that one object cannot push out the others' history


@dataclass(frozen=True)
class Happening:
    involved: Mapping[str, Any]  # the object itself, or a reference to it
    type: str  # Normal | Warning
    reason: str
    message: str
    component: str


def record(tx: Tx, what: Happening, now: str, keep: Retention) -> Object:
    """Count an Event of the last ten minutes up, or make a new one."""
    made = _event(what, now)
    namespace, at = made["metadata"]["namespace"], indexes.seconds(now)
    found = tx.conn.execute(
        "SELECT name FROM events WHERE digest = ? AND namespace = ? AND last >= ? ORDER BY last DESC LIMIT 1",
        (indexes.digest(made), namespace, at - _SAME_SECONDS),
    ).fetchone()
    row = rows.load(tx.conn, indexes.EVENTS, namespace, found[0]) if found else None
    if row is not None:
        return rows.update(tx, row, _again(row.object(), now))
    inserted = rows.insert(tx, indexes.EVENTS, made)
    _oldest_go(
        tx,
        "SELECT namespace, name FROM events WHERE involved = ? ORDER BY last DESC LIMIT -1 OFFSET ?",
        indexes.involved_key(made),
        keep.per_object,
    )
    return inserted


def expire(tx: Tx, keep: Retention, now: float) -> int:
    """Forget Events that are too old or too many; at most 1000 at once. Returns how many went."""
    old = "SELECT namespace, name FROM events WHERE last < ? ORDER BY last LIMIT 1000"
    many = "SELECT namespace, name FROM events ORDER BY last DESC LIMIT 1000 OFFSET ?"
    return _oldest_go(tx, old, now - keep.age_seconds) + _oldest_go(tx, many, keep.count)


def _oldest_go(tx: Tx, query: str, *values: object) -> int:
    found = tx.conn.execute(query, values).fetchall()
    for namespace, name in found:
        row = rows.load(tx.conn, indexes.EVENTS, namespace, name)
        if row is not None:
            rows.remove(tx, row)
    return len(found)


def _event(what: Happening, now: str) -> Object:
    involved = reference(what.involved)
    uid = str(uuid.uuid4())
    namespace = involved.get("namespace") or "default"
    return objects.new_object(
        KIND,
        {
            "metadata": {"name": f"{involved['name'][:200]}.{uid[:8]}{uid[9:13]}", "namespace": namespace},
            "involvedObject": involved,
            "type": what.type,
            "reason": what.reason,
            "message": what.message[:_MESSAGE_MAX],
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": what.component},
            "reportingComponent": what.component,
            "reportingInstance": "",
        },
        now,
        uid,
    )


def _again(event: Object, now: str) -> Object:
    count = int(event.get("count") or 1) + 1
    return {
        **event,
        "count": count,
        "lastTimestamp": now,
        "series": {"count": count, "lastObservedTime": now},
    }


def reference(obj: Mapping[str, Any]) -> Object:
    """What an Event says of its object. References pass as they are."""
    metadata = obj.get("metadata")
    if not isinstance(metadata, Mapping):
        return {key: value for key, value in obj.items() if value}
    parts = {key: obj.get(key) for key in ("apiVersion", "kind")}
    parts |= {key: metadata.get(key) for key in ("name", "namespace", "uid", "resourceVersion")}
    return {key: value for key, value in parts.items() if value}
