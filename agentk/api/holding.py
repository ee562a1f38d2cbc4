"""A stranger's JSON Schema as the gate holds something to it: without words that could take for ever, in so many steps.

Only words listed here are looked at; the library sees no other, for some of them make it search, fetch, or follow
rules of another draft. What a word that is left out would have said counts as "anything": never as a refusal.
"""

import contextvars
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

STEPS_MAX = 100_000  # about a second
_DEPTH_MAX = 64
_LETTERS_A_STEP = 64  # of a text that is quoted
# Nothing of what is below them is a schema.
_PLAIN = frozenset(
    {"type", "enum", "const", "required", "dependentRequired", "multipleOf", "minimum", "maximum"}
    | {"exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems"}
    | {"minProperties", "maxProperties"}
)
_ONE = frozenset({"items", "additionalProperties"})
_ALL = frozenset({"allOf", "anyOf", "prefixItems"})
# What they mean turns round when a part of them is left out.
_EXACT = frozenset({"not", "if", "oneOf"})
_SHAPES: dict[str, type] = {"properties": dict, "oneOf": list, **dict.fromkeys(_ALL, list)}
_SAYS_NOTHING = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment"}
    | {"$schema", "$id", "$defs", "definitions"}
)

_left: contextvars.ContextVar[list[int]] = contextvars.ContextVar("steps left")


class TooMuch(Exception):
    """There are more steps to it than are taken."""


def problems(schema: Schema, value: Any) -> Iterator[Any]:
    """What jsonschema finds. Raises TooMuch, and what a schema that is none makes the library raise."""
    _left.set([STEPS_MAX])
    held, _ = _held(schema, _DEPTH_MAX)
    return iter(_made()(held).iter_errors(value))


def wrong(schema: Any) -> str:
    """Where it is no JSON Schema, and why; "" when it is one. As long as it is, and no longer: the library takes a
    millisecond for each object of it."""
    waiting: list[tuple[str, Any]] = [("", schema)]
    while waiting:
        at, one = waiting.pop()
        if isinstance(one, bool):
            continue
        if not isinstance(one, Mapping):
            return f"{at or 'it'}: expected a schema"
        for word, below in one.items():
            where = f"{at}.{word}" if at else str(word)
            expected, fits = _SHAPED.get(word, _ANYTHING)
            if not fits(below):
                return f"{where}: expected {expected}"
            if word in _ONE_BELOW:
                waiting.append((where, below))
            elif word in _ALL_BELOW:
                waiting += [(f"{where}[{number}]", part) for number, part in enumerate(below)]
            elif word in _NAMED_BELOW:
                waiting += [(f"{where}.{name}", part) for name, part in below.items()]
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    whole = value.is_integer() if isinstance(value, float) else _is_number(value)
    return bool(whole and value >= 0)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_type(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(one, str) and one in _TYPES for one in names)


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_ONE_BELOW = frozenset({*_ONE, "not", "if", "then", "else", "contains", "propertyNames", "contentSchema"}) | {
    "unevaluatedItems",
    "unevaluatedProperties",
}
_ALL_BELOW = frozenset({*_ALL, "oneOf"})
_NAMED_BELOW = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
_Shaped = tuple[str, Callable[[Any], bool]]
_ANYTHING: _Shaped = ("anything", lambda value: True)
_SHAPED: dict[str, _Shaped] = {
    "type": ("array, boolean, integer, null, number, object or string, or a list of them", _is_type),
    "enum": ("a list", lambda value: isinstance(value, list)),
    "examples": ("a list", lambda value: isinstance(value, list)),
    "required": ("a list of names", _is_names),
    "dependentRequired": (
        "lists of names by name",
        lambda value: _is_map(value) and all(map(_is_names, value.values())),
    ),
    "multipleOf": ("a number above 0", lambda value: _is_number(value) and value > 0),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), ("a number", _is_number)),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
        ("a whole number, 0 or more", _is_count),
    ),
    **dict.fromkeys(_ALL_BELOW, ("a list of schemas", lambda value: isinstance(value, list) and bool(value))),
    **dict.fromkeys(_NAMED_BELOW, ("schemas by name", _is_map)),
    **dict.fromkeys(
        ("title", "description", "$comment", "$schema", "$id", "$ref", "pattern", "format"),
        ("a text", lambda value: isinstance(value, str)),
    ),
    **dict.fromkeys(
        ("deprecated", "readOnly", "writeOnly", "uniqueItems"),
        ("true or false", lambda value: isinstance(value, bool)),
    ),
}


def _held(schema: Any, depth: int) -> tuple[Any, bool]:
    """The part of it that is looked at, and whether that is all it says."""
    if not isinstance(schema, Mapping):
        return schema, True
    if depth <= 0:
        return {}, False
    _spend(len(schema) + 1)
    made: dict[str, Any] = {}
    exact = True
    for word, below in schema.items():
        if word in _PLAIN or (word in _SHAPES and not isinstance(below, _SHAPES[word])):
            made[word] = below  # what is no schema at all is found out by holding something to it
        elif word in _SAYS_NOTHING:
            continue
        elif word == "additionalProperties" and "patternProperties" in schema:
            exact = False
        elif word in _ONE:
            made[word], whole = _held(below, depth - 1)
            exact &= whole
        elif word == "properties":
            parts = {name: _held(one, depth - 1) for name, one in below.items()}
            made[word] = {name: one for name, (one, _) in parts.items()}
            exact &= all(whole for _, whole in parts.values())
        elif word in _ALL:
            made[word], whole = _each(below, depth)
            exact &= whole
        elif word in _EXACT:
            exact &= _turned(made, word, schema, depth)
        elif word not in ("then", "else"):
            exact = False
    return made, exact


def _each(schemas: list[Any], depth: int) -> tuple[list[Any], bool]:
    parts = [_held(one, depth - 1) for one in schemas]
    return [one for one, _ in parts], all(whole for _, whole in parts)


def _turned(made: dict[str, Any], word: str, schema: Schema, depth: int) -> bool:
    """Puts in what may be held of `not`, `if` and `oneOf`; whether that is all of it."""
    below = schema[word]
    if word == "oneOf":
        parts, whole = _each(below, depth)
        if whole:
            made[word] = parts
        else:  # one of them, at least; "anyOf" may be there already
            made["allOf"] = [*made.get("allOf", ()), {"anyOf": parts}]
        return whole
    held, whole = _held(below, depth - 1)
    if not whole:
        return False
    made[word] = held
    for branch in ("then", "else") if word == "if" else ():
        if branch in schema:
            made[branch], all_of_it = _held(schema[branch], depth - 1)
            whole &= all_of_it
    return whole


def _spend(steps: int) -> None:
    left = _left.get()
    left[0] -= steps
    if left[0] < 0:
        raise TooMuch


def _weight(value: Any) -> int:
    """How long it takes to quote it, or to compare it."""
    waiting, steps = [value], 1
    while waiting and steps < STEPS_MAX:
        one = waiting.pop()
        if isinstance(one, str):
            steps += len(one) // _LETTERS_A_STEP
        elif isinstance(one, Mapping):
            steps += len(one)
            waiting += one.values()
        elif isinstance(one, list):
            steps += len(one)
            waiting += one
    return steps


def _counted(word: str, look: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    """One of the library's words, with its steps counted: what it looks at, and what it quotes."""

    def looked(validator: Any, said: Any, instance: Any, schema: Any) -> Iterator[Any]:
        steps = 1 + (len(said) if isinstance(said, list | Mapping) else 0)
        if word in _ONE and isinstance(instance, list | Mapping):
            steps += len(instance)
        _spend(steps + _weight(said) if word in ("enum", "const") else steps)
        for found in look(validator, said, instance, schema) or ():
            _spend(_weight(instance))
            yield found

    return looked


@functools.cache
def _made() -> Any:
    import jsonschema  # 75 ms: a listing does not pay for it
    from jsonschema import validators

    base = jsonschema.Draft202012Validator
    known = _PLAIN | _ONE | _ALL | _EXACT | {"properties"}
    words = {word: _counted(word, look) for word, look in base.VALIDATORS.items() if word in known}
    kinds_of = base.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    create: Any = validators.create
    return create(base.META_SCHEMA, words, type_checker=kinds_of)
