"""`agentk explain agent.spec.resources`: what a field is, straight from the schema, laid out as kubectl does."""

import json
import textwrap
from typing import Any

from agentk.api import errors, kinds, schemas

_WIDTH = 80


def explain(path: str, recursive: bool = False) -> str:
    """Text about a kind or one of its fields. Raises NotFound with the nearest name."""
    word, *fields = [part for part in path.strip(".").split(".") if part] or [""]
    schema, head = _start(word)
    below, at = schema, word
    for field in fields:
        below, at = _step(below, field, at), f"{at}.{field}"
    lines = [*head, ""]
    if fields:
        required = " -required-" if _is_required(schema, fields) else ""
        lines += [f"FIELD: {fields[-1]} <{schemas.type_name(below)}>{required}", *_facts(below, ""), ""]
    lines += ["DESCRIPTION:", *_wrapped(below.get("description", "<empty>"), "    ")]
    inner = _inner(below)
    if inner.get("properties"):
        lines += ["", "FIELDS:", *(_tree(inner, "  ") if recursive else _list(inner))]
    return "\n".join(lines).rstrip("\n") + "\n"


def _start(word: str) -> tuple[schemas.Schema, list[str]]:
    if word.lower() == "config":
        return schemas.load("config.json"), ["KIND:       daemon configuration"]
    kind = kinds.resource(word)
    head = [f"GROUP:      {kind.group}"] if kind.group else []
    return schemas.of(kind), [*head, f"KIND:       {kind.kind}", f"VERSION:    {kind.version}"]


def _step(schema: schemas.Schema, field: str, at: str) -> schemas.Schema:
    inner = _inner(schema)
    found = inner.get("properties", {}).get(field)
    if isinstance(found, dict):
        return found
    known = sorted(inner.get("properties", {}))
    hint = kinds.did_you_mean(field, known, "fields") if known else f"{at} has no fields"
    raise errors.NotFound(f'field "{field}" does not exist in {at}', hint=hint)


def _inner(schema: schemas.Schema) -> schemas.Schema:
    """What a list is a list of, what a map maps to."""
    while schema.get("type") == "array" or isinstance(schema.get("additionalProperties"), dict):
        schema = schema["items"] if schema.get("type") == "array" else schema["additionalProperties"]
    return schema


def _is_required(schema: schemas.Schema, fields: list[str]) -> bool:
    for field in fields[:-1]:
        schema = _inner(schema)["properties"][field]
    return fields[-1] in _inner(schema).get("required", ())


def _list(schema: schemas.Schema) -> list[str]:
    lines = []
    for name, below in sorted(schema["properties"].items()):
        lines += [_title(schema, name, below, "  "), *_facts(below, "  ")]
        lines += [*_wrapped(below.get("description", ""), "    "), ""]
    return lines


def _tree(schema: schemas.Schema, indent: str) -> list[str]:
    lines = []
    for name, below in sorted(schema["properties"].items()):
        lines += [_title(schema, name, below, indent), *_facts(below, indent)]
        if _inner(below).get("properties"):
            lines += _tree(_inner(below), indent + "  ")
    return lines


def _title(around: schemas.Schema, name: str, schema: schemas.Schema, indent: str) -> str:
    required = " -required-" if name in around.get("required", ()) else ""
    return f"{indent}{name}\t<{schemas.type_name(schema)}>{required}"


def _facts(schema: schemas.Schema, indent: str) -> list[str]:
    facts = []
    if "enum" in schema:
        facts += _wrapped("enum: " + ", ".join(_value(choice) for choice in schema["enum"]), indent)
    default = schema.get("default")
    if default is not None and default != {}:  # {} only lets the defaults below it in
        facts.append(f"{indent}default: {_value(default)}")
    if "minimum" in schema or "maximum" in schema:
        facts.append(f"{indent}range: {schema.get('minimum', '')}..{schema.get('maximum', '')}")
    if "x-agentk-env" in schema:
        facts.append(f"{indent}environment: {schema['x-agentk-env']}")
    return facts


def _value(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)
