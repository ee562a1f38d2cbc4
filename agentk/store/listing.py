"""Lists in pages that agree with each other: every page shows the store as it was at the first one.

Order is namespace, then name. A continue token carries the resourceVersion of the first page and the last name.
"""

import base64
import heapq
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, kinds, selectors
from agentk.store import rows

Object = dict[str, Any]
Match = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Page:
    items: list[Object]
    resource_version: str
    cont: str  # "" on the last page
    remaining: int | None  # objects after this page; None on the last page and with selectors


def matcher(labels: str, fields: str) -> Match | None:
    """Both selectors as one; None when everything matches. Raises BadRequest on bad grammar."""
    if not labels and not fields:
        return None
    by_label, by_field = selectors.labels(labels), selectors.fields(fields)
    return lambda obj: by_label(obj) and by_field(obj)


def number(resource_version: str) -> int:
    """Raises BadRequest for what is no resourceVersion."""
    if not (resource_version.isascii() and resource_version.isdigit() and len(resource_version) < 19):
        raise errors.BadRequest(f'"{resource_version[:40]}" is no resourceVersion')
    return int(resource_version)


def page(
    conn: sqlite3.Connection,
    kind: kinds.Kind,
    namespace: str,
    matches: Match | None,
    limit: int,
    cont: str,
    heads: bool = False,
) -> Page:
    """One page of at most `limit` objects (0: all). Raises Expired for a token the log no longer reaches."""
    key, newest = rows.key_of(kind), rows.newest(conn)
    version, after = _token(cont) if cont else (newest, ("", ""))
    if cont and not rows.floor(conn) <= version <= newest:
        raise errors.Expired("the continue token is too old", hint="list again from the start")
    found = (
        stored(conn, key, namespace, after, heads)
        if version == newest
        else _at(conn, key, namespace, after, version)
    )
    items: list[Object] = []
    for row in found:
        if matches is not None and not matches(json.loads(row.body)):
            continue
        if limit and len(items) == limit:
            last = items[-1]["metadata"]
            token = _make_token(version, last.get("namespace", ""), last["name"])
            # `row` is the first that is left, `found` the rest.
            remaining = None if matches else 1 + sum(1 for _ in found)
            return Page(items, str(version), token, remaining)
        items.append(row.object())
    return Page(items, str(version), "", None)


def stored(
    conn: sqlite3.Connection,
    key: str | None,
    namespace: str,
    after: tuple[str, str] = ("", ""),
    heads: bool = False,
) -> Iterator[rows.Row]:
    """Objects of a kind (None: all) as they are now, in order, behind `after`. `heads`: large ones without what makes
    them large."""
    if key and namespace:
        where, values = "kind = ? AND namespace = ? AND name > ?", [key, namespace, after[1]]
    elif key:
        where, values = "kind = ? AND (namespace, name) > (?, ?)", [key, *after]
    else:
        where, values = "? IN ('', namespace)", [namespace]
    # A body that is not asked for is not read.
    body, joined = ("objects.body", "")
    if heads:
        body, joined = "coalesce(heads.body, objects.body)", "LEFT JOIN heads USING (kind, namespace, name)"
    found = conn.execute(
        f"SELECT kind, namespace, name, uid, rv, generation, {body} FROM objects {joined}"
        f" WHERE {where} ORDER BY kind, namespace, name",
        values,
    )
    for row in found:
        yield rows.Row(*row)


def _at(
    conn: sqlite3.Connection, key: str, namespace: str, after: tuple[str, str], version: int
) -> Iterator[rows.Row]:
    """As `stored`, at an older resourceVersion: what has not changed since, and of the rest what was before."""
    untouched = (row for row in stored(conn, key, namespace, after) if row.rv <= version)
    found = conn.execute(
        # SQLite takes the bare column from the row with the minimum.
        "SELECT c.namespace, c.name, p.uid, p.id, p.body FROM"
        " (SELECT namespace, name, min(id), prev FROM changes WHERE id > ? AND kind = ?"
        "  AND (namespace, name) > (?, ?) GROUP BY namespace, name) c"
        " JOIN changes p ON p.id = c.prev WHERE ? IN ('', c.namespace) ORDER BY c.namespace, c.name",
        (version, key, *after, namespace),
    )
    before = (rows.Row(key, ns, name, uid, rv, 0, body) for ns, name, uid, rv, body in found)
    if key in rows.UNLOGGED:  # the log holds no values: as it is now, if it still is
        before = (now for row in before if (now := rows.load(conn, key, row.namespace, row.name)))
    return heapq.merge(untouched, before, key=lambda row: (row.namespace, row.name))


def _make_token(version: int, namespace: str, name: str) -> str:
    text = json.dumps([version, namespace, name], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _token(cont: str) -> tuple[int, tuple[str, str]]:
    try:
        padded = cont.encode("ascii") + b"=" * (-len(cont) % 4)
        version, namespace, name = json.loads(base64.urlsafe_b64decode(padded))
        if not isinstance(namespace, str) or not isinstance(name, str):
            raise TypeError("names are text")
        return int(version), (namespace, name)
    except (ValueError, TypeError, OverflowError) as error:
        raise errors.BadRequest("the continue token is not one of ours", hint="list again") from error
