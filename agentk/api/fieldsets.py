"""Sets of fields, as server-side apply names them, and what can be done with an object by such a set.

A field is a path of Kubernetes' FieldsV1 steps: `f:NAME` for a field, `k:{"name":"A"}` for an item of a list whose
items have keys, `v:"x"` for an item of a set. How far paths go is the schema's to say: atomic values are one field.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

from agentk.api import errors, schemas

Field = tuple[str, ...]
Fields = frozenset[Field]

CONTAINER = object()  # the value of a field that is there but holds others


def leaves(value: Any, schema: schemas.Schema | None, path: Field = ()) -> Iterator[tuple[Field, Any]]:
    """Every field of a value. One that holds others is told when it is empty, or an item of a list or map."""
    if schema is not None and isinstance(value, dict) and _is_granular_object(schema):
        if not value and path:
            yield path, CONTAINER
        for key, held in value.items():
            below = schemas.child(schema, key)
            step = (*path, f"f:{key}")
            if "properties" not in schema and isinstance(held, dict) and held:
                yield step, CONTAINER
            yield from leaves(held, below, step)
    elif schema is not None and isinstance(value, list) and _is_granular_list(schema):
        if not value:
            yield path, CONTAINER
        for item in value:
            step = (*path, item_step(item, schema, path))
            yield step, CONTAINER
            if schemas.list_keys(schema):
                yield from leaves(item, schema["items"], step)
    else:
        yield path, value


def item_step(item: Any, schema: schemas.Schema, path: Field = ()) -> str:
    """The step that names one item of a granular list. Raises Invalid for an item without its keys."""
    keys = schemas.list_keys(schema)
    if not keys:
        return f"v:{_json(item)}"
    if not isinstance(item, Mapping) or any(key not in item for key in keys):
        raise errors.Invalid(f"every item needs {' and '.join(keys)}", field=told(path).strip("."))
    return f"k:{_json({key: item[key] for key in keys})}"


def merged(live: Any, applied: Any, schema: schemas.Schema | None) -> Any:
    """`live` with every field of `applied` in it."""
    if (
        schema is not None
        and isinstance(live, dict)
        and isinstance(applied, dict)
        and _is_granular_object(schema)
    ):
        made = dict(live)
        for key, value in applied.items():
            made[key] = merged(live.get(key), value, schemas.child(schema, key))
        return made
    if (
        schema is not None
        and isinstance(live, list)
        and isinstance(applied, list)
        and _is_granular_list(schema)
    ):
        below = schema["items"] if schemas.list_keys(schema) else None
        items = {item_step(item, schema): item for item in live}
        for item in applied:
            step = item_step(item, schema)
            items[step] = merged(items.get(step), item, below)
        return list(items.values())
    return copy.deepcopy(applied)


def without(value: Any, schema: schemas.Schema, gone: Fields) -> Any:
    """The value less some fields and all below them; what is left empty by that goes too."""
    return _without(value, schema, _tree(gone))


def parents(fields: Fields) -> Fields:
    """The fields and every field around them."""
    return frozenset(field[:end] for field in fields for end in range(1, len(field) + 1))


def to_v1(fields: Fields) -> dict[str, Any]:
    """As `managedFields[].fieldsV1` has it."""
    root: dict[str, Any] = {}
    for field in sorted(fields):
        node = root
        for step in field:
            node = node.setdefault(step, {})
    for field in fields:
        node = root
        for step in field:
            node = node[step]
        if node:
            node["."] = {}
    return root


def from_v1(tree: Any) -> Fields:
    """The inverse of `to_v1`. What is no FieldsV1 is left out: it was written by anyone."""
    found: set[Field] = set()
    waiting: list[tuple[Field, Any]] = [((), tree)]
    while waiting:
        path, node = waiting.pop()
        if not isinstance(node, Mapping):
            continue
        if path and (not node or "." in node):
            found.add(path)
        waiting += [((*path, step), below) for step, below in node.items() if step != "."]
    return frozenset(found)


def told(field: Field) -> str:
    """As kubectl tells it: `.spec.env[name="A"].value`."""
    text = ""
    for step in field:
        kind, _, name = step.partition(":")
        if kind == "k":
            keys = json.loads(name)
            text += f"[{','.join(f'{key}={_json(value)}' for key, value in keys.items())}]"
        else:
            text += f".{name}" if kind == "f" else f"[={name}]"
    return text


_Tree = dict[str, Any]
_WHOLE: _Tree = {"": None}  # this field and all below it


def _tree(fields: Fields) -> _Tree:
    root: _Tree = {}
    for field in sorted(fields, key=len):
        node = root
        for step in field[:-1]:
            node = node.setdefault(step, {})
            if node is _WHOLE:
                break
        if node is not _WHOLE:
            node[field[-1]] = _WHOLE
    return root


def _without(value: Any, schema: schemas.Schema | None, gone: _Tree) -> Any:
    if schema is None or not gone or not value:
        return value
    if isinstance(value, dict):
        made = {}
        for key, held in value.items():
            below = gone.get(f"f:{key}")
            left = held if below is None else _left(held, schemas.child(schema, key), below)
            if left is not None:
                made[key] = left
        return made or None
    if isinstance(value, list) and _is_granular_list(schema):
        items = []
        for item in value:
            below = gone.get(item_step(item, schema))
            left = item if below is None else _left(item, schema["items"], below)
            if left is not None:
                items.append(left)
        return items or None
    return value


def _left(value: Any, schema: schemas.Schema | None, gone: _Tree) -> Any:
    return None if gone is _WHOLE else _without(value, schema, gone)


def _is_granular_object(schema: schemas.Schema) -> bool:
    return (
        schema.get("type") == "object"
        and schema.get("x-kubernetes-map-type") != "atomic"
        and not schemas.is_open(schema)
    )


def _is_granular_list(schema: schemas.Schema) -> bool:
    return schema.get("x-kubernetes-list-type") in ("map", "set")


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
