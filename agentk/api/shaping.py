"""Objects brought into the shape of their schema: unknown fields found, numbers where amounts are text, defaults."""

import copy
import math
from collections.abc import Mapping
from typing import Any

from agentk.api import kinds, schemas
from agentk.api.problems import Path, Problem

MAX_DEPTH = 64
MAX_VALUES = 200_000
_HINTED = 50  # unknown fields of which it is said what was meant: that takes a millisecond each
_ABSENT = object()


def scan(obj: Any) -> list[Problem]:
    """What no object may hold anywhere: endless depth, NUL, half a surrogate pair, infinity. Never recurses."""
    found: list[Problem] = []
    waiting: list[tuple[Path, Any]] = [((), obj)]
    count = 0
    while waiting:
        path, value = waiting.pop()
        count += 1
        if count > MAX_VALUES:
            return [Problem((), f"more than {MAX_VALUES} values in one object")]
        if len(path) > MAX_DEPTH:
            return [Problem(path[:8], f"nested deeper than {MAX_DEPTH} levels")]
        if isinstance(value, dict):
            for key, held in value.items():
                if not isinstance(key, str) or not _is_clean(key):
                    found.append(Problem(path, "a key that is no clean text"))
                else:
                    waiting.append(((*path, key), held))
        elif isinstance(value, list):
            waiting += [((*path, at), held) for at, held in enumerate(value)]
        elif isinstance(value, str) and not _is_clean(value):
            found.append(Problem(path, "text must not hold NUL or half a surrogate pair"))
        elif isinstance(value, float) and not math.isfinite(value):
            found.append(Problem(path, "infinity and NaN are no numbers that JSON can hold"))
    return found


def shaped(obj: Mapping[str, Any], schema: schemas.Schema, problems: list[Problem]) -> dict[str, Any]:
    """A copy without nulls and unknown fields (each noted), amounts given as numbers turned to text, as are true and
    false where they are two words among others."""
    made = _shaped(obj, schema, (), problems, schema)
    return made if isinstance(made, dict) else {}


def filled(value: Any, schema: schemas.Schema) -> Any:
    """The value with the schema's defaults in it. Changes the value given."""
    if isinstance(value, dict):
        for key, below in schema.get("properties", {}).items():
            if "default" in below and key not in value:
                value[key] = copy.deepcopy(below["default"])
            if key in value:
                value[key] = filled(value[key], below)
        values = schema.get("additionalProperties")
        if isinstance(values, dict):
            for key in value:
                value[key] = filled(value[key], values)
    elif isinstance(value, list) and "items" in schema:
        value[:] = [filled(item, schema["items"]) for item in value]
    return value


def under(value: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Put defaults of somebody (a Runtime's) below what is given. Changes the value given."""
    for key, default in defaults.items():
        if key not in value:
            value[key] = copy.deepcopy(default)
        elif isinstance(value[key], dict) and isinstance(default, Mapping):
            under(value[key], default)


def _shaped(
    value: Any, schema: schemas.Schema, path: Path, problems: list[Problem], root: schemas.Schema
) -> Any:
    if value is None:
        return _ABSENT
    if schemas.is_open(schema):
        return copy.deepcopy(value)
    if schemas.is_number_or_text(schema):
        return _amount(value)
    if isinstance(value, bool) and schema.get("type") == "string" and "true" in schema.get("enum", ()):
        return "true" if value else "false"  # one of several words, which YAML reads as more than that
    if isinstance(value, dict) and schema.get("type") == "object":
        made = {}
        for key, held in value.items():
            below = schemas.child(schema, key)
            if below is None:
                hint = _meant(path, key, schema, root) if len(problems) < _HINTED else ""
                problems.append(Problem((*path, key), "unknown field", hint, True, "FieldValueInvalid"))
                continue
            item = _shaped(held, below, (*path, key), problems, root)
            if item is not _ABSENT:
                made[key] = item
        return made
    if isinstance(value, list) and schema.get("type") == "array":
        items = [_shaped(held, schema["items"], (*path, at), problems, root) for at, held in enumerate(value)]
        _check_unique(items, schema, path, problems)
        return [None if item is _ABSENT else item for item in items]
    return copy.deepcopy(value) if isinstance(value, dict | list) else value


def _amount(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return str(int(value)) if value == int(value) and abs(value) < 2**63 else repr(value)


def _check_unique(items: list[Any], schema: schemas.Schema, path: Path, problems: list[Problem]) -> None:
    keys = schemas.list_keys(schema)
    if not keys and schema.get("x-kubernetes-list-type") != "set":
        return
    first: dict[Any, int] = {}
    for at, item in enumerate(items):
        name = _item_name(item, keys)
        if name is None:
            continue
        if name in first:
            where = (*path, at, keys[0]) if keys else (*path, at)
            hint = f"first given as {path[-1]}[{first[name]}]"
            problems.append(Problem(where, "is given twice", hint, reason="FieldValueDuplicate"))
        first.setdefault(name, at)


def _item_name(item: Any, keys: tuple[str, ...]) -> Any:
    if not keys:
        return item if isinstance(item, str) else None
    if not isinstance(item, dict) or any(key not in item for key in keys):
        return None
    return tuple(str(item[key]) for key in keys)


def _meant(path: Path, key: str, schema: schemas.Schema, root: schemas.Schema) -> str:
    known = sorted(schema.get("properties", {}))
    hint = kinds.did_you_mean(key, known, "fields")
    if not hint.startswith("did you mean"):
        above = tuple(step for step in path if isinstance(step, str))
        # One below where it was written is meant rather than one elsewhere.
        places = sorted(_places(root, key.lower(), ()), key=lambda one: one[: len(above)] != above)
        if places and places[0] != path:
            hint = f"did you mean '{'.'.join((*places[0], key))}'?"
    return hint


def _places(schema: schemas.Schema, key: str, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Where in the spec a field of that name is, nearest to the top first."""
    found = []
    for name, below in schema.get("properties", {}).items():
        if name.lower() == key:
            found.append(path)
        if name not in ("status", "metadata"):
            found += _places(below, key, (*path, name))
    return sorted(found, key=len)


def _is_clean(text: str) -> bool:
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
