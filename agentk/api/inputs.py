"""JSON Schemas of a tool's arguments, and arguments held against one. Pure, and bounded whoever wrote the schema.

What is checked here takes so many steps at most (`holding`): a pattern, a reference or a search for equals could take
for ever, so those are for the tool itself to check. A schema that a person writes may not have them at all, for nothing
may look as if it were held when it is not.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from agentk.api import errors, holding

Schema = Mapping[str, Any]

MAX_BYTES = 64 * 1024
MAX_DEPTH = 20
_TOLD_MAX = 5
_QUICK = 2_000  # values of the schema times values of the arguments
# Not checked here.
LEFT_OUT = frozenset(
    {"$ref", "$dynamicRef", "pattern", "patternProperties", "format", "uniqueItems", "contains"}
    | {"propertyNames", "unevaluatedProperties", "unevaluatedItems", "dependentSchemas", "contentSchema"}
)
_DATA = frozenset({"const", "enum", "default", "examples", "example"})  # what is below is no schema


def problem(schema: Any, *, ours: bool = False) -> str:
    """Why this is no schema of arguments; "" when it is. `ours`: a person wrote it, for the gate to hold to."""
    if isinstance(schema, Mapping) and (schema.get("type") or "object") != "object":
        return "arguments are an object: expected type: object"
    return _problem(schema, ours)


def problem_of_result(schema: Any) -> str:
    """Why this, which a person wrote, is no schema of a result; "" when it is."""
    return _problem(schema, True)


def _problem(schema: Any, ours: bool) -> str:
    if not isinstance(schema, Mapping):
        return "expected a JSON Schema"
    if why := _too_big(schema):
        return why
    for at, key, held in _words(schema):
        if key in ("$ref", "$dynamicRef") and not str(held).startswith("#"):
            return f"{at}{key} leads out of the schema"
        if ours and key in LEFT_OUT:
            return f"{at}{key} is not checked by the gate"
    why = holding.wrong(schema)
    return f"is no JSON Schema: {why[:200]}" if why else ""


def check(schema: Schema, arguments: Any, field: str = "params.arguments") -> None:
    """Raises BadRequest naming each argument that does not fit; never its value. What takes too long to be checked is
    for the tool itself."""
    try:
        _hold(schema, arguments, field, "the arguments are not what the tool takes")
    except holding.TooMuch:
        return


def check_result(schema: Schema, result: Any, field: str = "params.result") -> None:
    """Raises BadRequest naming each part of a result that does not fit. One that is too long to be held against it
    does not."""
    try:
        _hold(schema, result, field, "the result is not what spec.output asks for")
    except holding.TooMuch:
        raise errors.BadRequest("is too long to be held against spec.output", field=field) from None


def misfit(schema: Schema, result: Any) -> str:
    """What of a result is not as its tool promised, never its value; "" when it is. What takes too long to be held
    against the schema is not refused for it: it is too long for a model, too."""
    try:
        _hold(schema, result, "structuredContent", "it is not what outputSchema says")
    except holding.TooMuch:
        return ""
    except errors.BadRequest as error:
        return error.message
    return ""


def is_quick(schema: Schema, arguments: Any) -> bool:
    """Whether `check` takes so little that nobody waits for it."""
    return _count(schema) * _count(arguments) <= _QUICK


def _hold(schema: Schema, value: Any, field: str, wrong: str) -> None:
    try:
        found = list(itertools.islice(holding.problems(schema, value), _TOLD_MAX))
    except holding.TooMuch:
        raise
    except Exception:  # noqa: BLE001 - the schema may be a stranger's, and no schema at all
        raise errors.BadRequest("its schema cannot be held against it", field=field) from None
    if not found:
        return
    causes = [_cause(one, field) for one in found]
    told = "; ".join(f"{one.field}: {one.message}" for one in causes)
    raise errors.BadRequest(f"{wrong}: {told}", field=causes[0].field, causes=causes)


def _cause(found: Any, field: str) -> errors.Cause:
    path = ".".join([field, *(str(step)[:100] for step in found.absolute_path)])
    rule, asked = str(found.validator), found.validator_value
    if rule == "required":
        missing = [key for key in asked if key not in found.instance]
        told = f"{', '.join(missing)} missing"
    elif rule == "additionalProperties":
        known = sorted(found.schema.get("properties", {}))
        unknown = sorted(set(found.instance) - set(known))
        told = f"unknown argument {json.dumps(unknown[0][:100])}" if unknown else "has unknown arguments"
        told += f"; there are {', '.join(known)[:500]}" if known else ""
    elif rule == "type":
        told = f"expected {asked if isinstance(asked, str) else ' or '.join(map(str, asked))}"
    elif rule == "enum":
        told = f"expected one of {json.dumps(asked, ensure_ascii=False)[:500]}"
    else:
        told = f"does not fit {rule} {json.dumps(asked, ensure_ascii=False)[:200]}"
    return errors.Cause(path, told)


def _too_big(schema: Schema) -> str:
    waiting: list[tuple[int, Any]] = [(1, schema)]
    count = 0
    while waiting:
        depth, value = waiting.pop()
        count += 1
        if depth > MAX_DEPTH * 2:  # a level of a schema is two of JSON: properties, and the one it names
            return f"nested deeper than {MAX_DEPTH} levels"
        if count > MAX_BYTES:
            return f"more than {MAX_BYTES // 1024} KiB"
        if isinstance(value, Mapping):
            waiting += [(depth + 1, held) for held in value.values()]
        elif isinstance(value, list):
            waiting += [(depth + 1, held) for held in value]
    size = len(json.dumps(schema, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))
    return "" if size <= MAX_BYTES else f"{size} bytes: at most {MAX_BYTES // 1024} KiB"


def _words(schema: Any) -> Iterator[tuple[str, str, Any]]:
    """Every keyword of the schema and those below, and where it is."""
    waiting: list[tuple[str, Any, bool]] = [("", schema, True)]
    while waiting:
        at, value, is_schema = waiting.pop()
        if isinstance(value, Mapping):
            for key, held in value.items():
                if is_schema:
                    yield at, str(key), held
                if is_schema and key in _DATA:
                    continue
                named = is_schema and key in ("properties", "$defs", "definitions", "patternProperties")
                waiting.append((f"{at}{key}.", held, not named))
        elif isinstance(value, list):
            waiting += [(at, held, is_schema) for held in value]


def _count(value: Any) -> int:
    """Of its values and letters, about; no more than is needed to know that it is much."""
    waiting, count = [value], 0
    while waiting and count <= _QUICK:
        one = waiting.pop()
        count += 1 + (len(one) // 64 if isinstance(one, str) else 0)
        waiting += one.values() if isinstance(one, Mapping) else one if isinstance(one, list) else ()
    return count
