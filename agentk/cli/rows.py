"""A Table of the API on its way to text, for every verb that lists. Fetching is the verbs' business."""

import sys
from collections.abc import Sequence
from typing import Any

from agentk.cli import columns, show


class Rows:
    """A Kubernetes Table on its way to text: which columns, in which widths."""

    def __init__(self, table: dict[str, Any], wide: bool, with_namespace: bool, with_labels: bool) -> None:
        definitions = table["columnDefinitions"]
        self._shown = [at for at, one in enumerate(definitions) if wide or not one.get("priority")]
        self._with_namespace, self._with_labels = with_namespace, with_labels
        names = [definitions[at]["name"] for at in self._shown]
        self._headers = (
            (["Namespace"] if with_namespace else []) + names + (["Labels"] if with_labels else [])
        )
        self._drawn: columns.Columns | None = None

    def text(self, rows: Sequence[dict[str, Any]], headers: bool, prefix: str = "") -> str:
        cells = [self._cells(row, prefix) for row in rows]
        if self._drawn is None:
            self._drawn = columns.Columns(self._headers, cells, columns.wants_colour(sys.stdout))
        return self._drawn.text(cells, headers)

    def _cells(self, row: dict[str, Any], prefix: str) -> list[Any]:
        metadata = row.get("object", {}).get("metadata", {})
        cells = [row["cells"][at] for at in self._shown]
        if prefix:
            cells[0] = prefix + str(cells[0])
        if self._with_namespace:
            cells.insert(0, metadata.get("namespace", ""))
        if self._with_labels:
            cells.append(
                ",".join(f"{key}={value}" for key, value in sorted(metadata.get("labels", {}).items()))
            )
        return cells


def say_none(namespace: str) -> None:
    show.say(f"No resources found in {namespace} namespace." if namespace else "No resources found")
