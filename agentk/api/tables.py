"""Listings as Kubernetes serves them: a `meta.k8s.io/v1` Table with each kind's columns."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from agentk.api import kinds, quantities

_CONDITION = ".status.conditions."  # and its type: the status of it


def table(
    kind: kinds.Kind,
    objs: Sequence[Mapping[str, Any]],
    now: str,
    *,
    resource_version: str = "",
    cont: str = "",
    remaining: int | None = None,
) -> dict[str, Any]:
    """All columns of a kind for objects, ages counted up to `now` (RFC 3339). Wide columns have priority 1.

    A cell is text, a number, true or false, or None for what is not known.
    """
    metadata: dict[str, Any] = {"resourceVersion": resource_version}
    if cont:
        metadata["continue"] = cont
    if remaining is not None:
        metadata["remainingItemCount"] = remaining
    until = _time(now)
    return {
        "apiVersion": "meta.k8s.io/v1",
        "kind": "Table",
        "metadata": metadata,
        "columnDefinitions": [_definition(column) for column in kind.columns],
        "rows": [
            {"cells": [_cell(column, obj, until) for column in kind.columns], "object": partial(obj)}
            for obj in objs
        ],
    }


def partial(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The object's metadata only."""
    return {
        "apiVersion": "meta.k8s.io/v1",
        "kind": "PartialObjectMetadata",
        "metadata": obj.get("metadata", {}),
    }


def cells(
    kind: kinds.Kind, obj: Mapping[str, Any], now: str, *, wide: bool = False
) -> list[str | int | float | bool | None]:
    """One row as `agentk get` shows it."""
    return [_cell(column, obj, _time(now)) for column in kind.columns if wide or not column.wide]


def _definition(column: kinds.Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type,
        "format": "name" if column.json_path == ".metadata.name" and not column.wide else "",
        "description": column.description,
        "priority": int(column.wide),
    }


def _cell(column: kinds.Column, obj: Mapping[str, Any], now: float | None) -> str | int | float | bool | None:
    path = column.json_path
    if path == ".involvedObject":
        about = obj.get("involvedObject") or {}
        return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"
    if path == ".data":
        return len(obj.get("data") or ()) + len(obj.get("binaryData") or ())
    if path.startswith(_CONDITION):
        conditions = (obj.get("status") or {}).get("conditions") or ()
        return next(
            (str(one["status"]) for one in conditions if one["type"] == path[len(_CONDITION) :]), None
        )
    value = _found(obj, path)
    if path == ".status.active":
        return len(value or ())
    if path == ".lastTimestamp":
        value = _found(obj, ".series.lastObservedTime") or value
    if value is None and path in (".lastTimestamp", ".firstTimestamp"):
        value = obj.get("eventTime") or _found(obj, ".metadata.creationTimestamp")
    if column.type == "date":
        return _age(value, now)
    if isinstance(value, str):
        return value.strip().replace("\r", "").replace("\n", "\\n")  # a row is a line
    return value if isinstance(value, int | float | bool) else None


def _found(obj: Mapping[str, Any], path: str) -> Any:
    value: Any = obj
    for key in path.strip(".").split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _age(value: Any, now: float | None) -> str:
    since = _time(value)
    return "<unknown>" if since is None or now is None else quantities.format_age(now - since)


def _time(value: Any) -> float | None:
    try:
        return datetime.datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError):
        return None
