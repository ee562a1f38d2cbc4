"""A watch: everything that happens to a kind after a resourceVersion, in order, with no gap.

A watcher reads the log at its own pace, so a slow one holds one page in memory, however much happens; when the
log has moved on past it, it gets Expired and lists again. Between pages it sleeps on its bell.
"""

import functools
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentk.api import kinds
from agentk.store import bells, changes, listing, readers, rows

Object = dict[str, Any]
Type = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]

# Read where it runs: small enough not to hold up the loop for more than about a millisecond.
_PAGE = 50


@dataclass(frozen=True)
class Change:
    type: Type
    obj: Object
    kind: kinds.Kind | None  # None: a bookmark of a watch over every kind
    resource_version: str


@dataclass(frozen=True)
class Wanted:
    """What a watch is of."""

    kind: kinds.Kind | None
    namespace: str
    matches: Callable[[Mapping[str, Any]], bool] | None
    bookmark_seconds: float | None
    heads: bool = False

    @property
    def key(self) -> str | None:
        return rows.key_of(self.kind) if self.kind else None


async def watch(
    reader: readers.Readers, hung: bells.Bells, wanted: Wanted, since: str
) -> AsyncIterator[Change]:
    """See Store.watch."""
    bell = hung.hang(wanted.key)
    by_key = rows.kinds_by_key()
    try:
        if since in ("", "0"):
            position, found = await reader.apart(lambda conn: _everything(conn, wanted))
            for row in found:
                yield Change("ADDED", row.object(), by_key[row.key], str(row.rv))
            if wanted.bookmark_seconds is not None:
                yield _bookmark(wanted, position, initial=True)
        else:
            position = listing.number(since)
        caught_up = since in ("", "0")
        while not bell.closed:
            if caught_up:
                while not await bell.wait(wanted.bookmark_seconds):
                    position = max(position, bell.seen)
                    yield _bookmark(wanted, position)
                # We know everything up to `position`, so nothing of our kind lies between there and this ring.
                position = max(position, bell.take() - 1)
            page, position = reader.now(functools.partial(_page, wanted=wanted, position=position))
            caught_up = len(page) < _PAGE
            for entry, told in page:
                if told is not None and entry.key in by_key:
                    yield Change(*told, by_key[entry.key], str(entry.rv))
    finally:
        hung.remove(bell)


def _everything(conn: sqlite3.Connection, wanted: Wanted) -> tuple[int, list[rows.Row]]:
    found = [
        row
        for row in listing.stored(conn, wanted.key, wanted.namespace, heads=wanted.heads)
        if row.key in rows.kinds_by_key() and (wanted.matches is None or wanted.matches(json.loads(row.body)))
    ]
    return rows.newest(conn), found


_Told = tuple[Type, Object]


def _page(
    conn: sqlite3.Connection, *, wanted: Wanted, position: int
) -> tuple[list[tuple[changes.Entry, _Told | None]], int]:
    selecting = wanted.matches is not None
    entries, upto = changes.since(conn, position, wanted.key, wanted.namespace, _PAGE, selecting)
    return [(entry, _told(conn, wanted, entry)) for entry in entries], upto


def _told(conn: sqlite3.Connection, wanted: Wanted, entry: changes.Entry) -> _Told | None:
    """What the watcher hears of one change: leaving its selection is a deletion, entering it an addition."""
    obj, type_ = rows.thaw(entry.body, entry.rv), entry.type
    if wanted.matches is not None:
        was = entry.before is not None and wanted.matches(json.loads(entry.before))
        now = type_ != "DELETED" and wanted.matches(obj)
        if not was and not now:
            return None
        type_ = "MODIFIED" if was and now else "ADDED" if now else "DELETED"
        if type_ == "DELETED" and entry.type == "MODIFIED" and entry.before is not None:
            obj = rows.thaw(entry.before, entry.rv)
    if entry.key in rows.UNLOGGED and type_ != "DELETED" and not (wanted.heads and entry.key != rows.SECRETS):
        obj = _whole(conn, entry, obj)
    if type_ == "ADDED":
        return "ADDED", obj
    return ("DELETED", obj) if type_ == "DELETED" else ("MODIFIED", obj)


def _whole(conn: sqlite3.Connection, entry: changes.Entry, logged: Object) -> Object:
    """As it is now, because the log holds a part of it; if it is gone its deletion follows."""
    row = rows.load(conn, entry.key, entry.namespace, entry.name)
    return rows.thaw(row.body, entry.rv) if row and row.uid == entry.uid else logged


def _bookmark(wanted: Wanted, position: int, initial: bool = False) -> Change:
    metadata: Object = {"resourceVersion": str(position)}
    if initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    obj: Object = {"metadata": metadata}
    if wanted.kind:
        obj |= {"apiVersion": wanted.kind.api_version, "kind": wanted.kind.kind}
    return Change("BOOKMARK", obj, wanted.kind, str(position))
