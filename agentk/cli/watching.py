"""`get -w` and `events -w`: one line (or one document) for every change, until interrupted."""

import sys
from dataclasses import dataclass
from typing import Any

from agentk.api import tables
from agentk.cli import rows, show
from agentk.client import client, watching


@dataclass(frozen=True)
class Drawn:
    """How each change is shown."""

    form: show.Format
    with_namespace: bool = False
    with_labels: bool = False
    headers: bool = True


def follow(
    api: client.Client, selection: client.Selection, name: str, drawn: Drawn, only_changes: bool
) -> int:
    """Print what is there, then each change. Never returns by itself; Ctrl-C ends it."""
    if name:
        selection = client.Selection(selection.kind, selection.namespace, "", f"metadata.name={name}")
    listing = api.list(selection)
    if name and not listing.items:
        api.get(selection.kind, selection.namespace, name)  # raises the daemon's own NotFound
    pen = _Pen(selection, drawn)
    if not only_changes:
        pen.draw(listing.items)
    for event in watching.watch(api, selection, listing):
        pen.draw([event.obj])
    return 0


class _Pen:
    """Keeps the columns aligned with what was printed first."""

    def __init__(self, selection: client.Selection, drawn: Drawn) -> None:
        self._selection, self._drawn = selection, drawn
        self._rows: rows.Rows | None = None

    def draw(self, objs: list[dict[str, Any]]) -> None:
        if not objs:
            return
        if not self._drawn.form.is_table:
            for obj in objs:
                show.write(show.objects([obj], self._drawn.form, single=True, headers=self._rows is None))
        else:
            self._table(objs)
        sys.stdout.flush()

    def _table(self, objs: list[dict[str, Any]]) -> None:
        table = tables.table(self._selection.kind, objs, now())
        for row, obj in zip(table["rows"], objs, strict=True):
            row["object"] = obj
        first = self._rows is None
        if self._rows is None:
            with_namespace = self._drawn.with_namespace and self._selection.kind.namespaced
            wide = self._drawn.form.name == "wide"
            self._rows = rows.Rows(table, wide, with_namespace, self._drawn.with_labels)
        sys.stdout.write(self._rows.text(table["rows"], first and self._drawn.headers))


def now() -> str:
    """RFC 3339, UTC, whole seconds."""
    from datetime import UTC, datetime

    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
