"""The schema files, read when first asked for and kept. They are shared: never change what is returned."""

import functools
import json
from typing import Any

from agentk.api import kinds

Schema = dict[str, Any]

_OF_AN_OBJECT = ("default", "x-kubernetes-validations")


@functools.cache
def load(schema_file: str) -> Schema:
    """One file of `schemas/`, with the shared metadata in its place."""
    from agentk.data import files  # pathlib, which a listing does not need

    loaded: Schema = json.loads((files.folder("schemas") / schema_file).read_text(encoding="utf-8"))
    loaded = whole(loaded)
    if "metadata" in loaded["properties"]:
        loaded["properties"]["metadata"] = load("metadata.json")
    return loaded


def whole(schema: Schema) -> Schema:
    """With the part of another file where `$ref` names one. That has neither defaults nor rules of change here: they
    come when an object of its own is made of it, with the defaults of others in between."""
    if "$ref" in schema:
        file, _, path = str(schema["$ref"]).partition("#/")
        found: Any = load(file)
        for step in path.split("/"):
            found = found[step]
        return _bare(found) | {key: value for key, value in schema.items() if key != "$ref"}
    for key, below in schema.get("properties", {}).items():
        schema["properties"][key] = whole(below)
    if "items" in schema:
        schema["items"] = whole(schema["items"])
    return schema


def _bare(schema: Schema) -> Schema:
    made = {key: value for key, value in schema.items() if key not in _OF_AN_OBJECT}
    if "properties" in made:
        made["properties"] = {key: _bare(below) for key, below in made["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(made.get(key), dict):
            made[key] = _bare(made[key])
    return made


def of(kind: kinds.Kind) -> Schema:
    return load(kind.schema_file)


def list_keys(schema: Schema) -> tuple[str, ...]:
    """The keys that tell the items of a list apart; () for a list that is one value."""
    if schema.get("x-kubernetes-list-type") == "map":
        return tuple(schema["x-kubernetes-list-map-keys"])
    return ()


def is_number_or_text(schema: Schema) -> bool:
    return schema.get("x-kubernetes-int-or-string") is True


def is_open(schema: Schema) -> bool:
    """Whether anything goes below it."""
    return schema.get("x-kubernetes-preserve-unknown-fields") is True


def child(schema: Schema, key: str) -> Schema | None:
    """The schema of one field of an object; None when it has no such field."""
    named = schema.get("properties", {}).get(key)
    if named is None:
        named = schema.get("additionalProperties")
    return named if isinstance(named, dict) else None


def type_name(schema: Schema) -> str:
    """As `explain` and messages say it: string, []Object, map[string]string, quantity, duration, …"""
    if is_number_or_text(schema):
        return str(schema.get("format", "int-or-string"))
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"[]{type_name(schema['items'])}"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"map[string]{type_name(values)}" if isinstance(values, dict) else "Object"
    return str(schema["format"]) if schema.get("format") in ("duration", "date-time") else kind
