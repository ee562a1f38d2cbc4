"""Says quickly that parameters fit their schema, which nearly all do; jsonschema takes ten times as long to say so.

It may say no to what fits: then jsonschema looks, and its word holds. It must never say yes to what does not fit, so
a schema with any rule that is not known here has no quick look at all.
"""

from collections.abc import Callable, Mapping
from typing import Any

Fits = Callable[[Any], bool]

_NO_RULES = frozenset({"description", "default", "x-agentk-max-bytes"})


def fitting(schema: Mapping[str, Any]) -> Fits | None:
    """None: this schema has no quick look."""
    rules = {key: rule for key, rule in schema.items() if key not in _NO_RULES}
    if not rules:
        return lambda value: True
    kind = rules.pop("type", None)
    make = _MAKERS.get(kind) if isinstance(kind, str) else None
    return make(rules) if make else None


def _text(rules: dict[str, Any]) -> Fits | None:
    least, most, choices = rules.pop("minLength", 0), rules.pop("maxLength", None), rules.pop("enum", None)
    if rules:
        return None

    def fits(value: Any) -> bool:
        if type(value) is not str or (choices is not None and value not in choices):
            return False
        return least <= len(value) and (most is None or len(value) <= most)

    return fits


def _number(rules: dict[str, Any], kinds: tuple[type, ...] = (int, float)) -> Fits | None:
    least, most = rules.pop("minimum", float("-inf")), rules.pop("maximum", float("inf"))
    above = rules.pop("exclusiveMinimum", None)
    if rules:
        return None

    def fits(value: Any) -> bool:  # by its very type: to Python True is a number
        return type(value) in kinds and least <= value <= most and (above is None or above < value)

    return fits


def _integer(rules: dict[str, Any]) -> Fits | None:
    return _number(rules, (int,))


def _boolean(rules: dict[str, Any]) -> Fits | None:
    return None if rules else lambda value: type(value) is bool


def _array(rules: dict[str, Any]) -> Fits | None:
    least, most, item = rules.pop("minItems", 0), rules.pop("maxItems", None), fitting(rules.pop("items", {}))
    if rules or item is None:
        return None

    def fits(value: Any) -> bool:
        if type(value) is not list or len(value) < least or (most is not None and len(value) > most):
            return False
        return all(map(item, value))

    return fits


def _object(rules: dict[str, Any]) -> Fits | None:
    known = {key: fitting(below) for key, below in rules.pop("properties", {}).items()}
    needed, more = frozenset(rules.pop("required", ())), rules.pop("additionalProperties", True)
    if rules or not isinstance(more, bool) or None in known.values():
        return None

    def fits(value: Any) -> bool:
        if type(value) is not dict:
            return False
        for key, below in value.items():
            check = known.get(key)
            if not (more if check is None else check(below)):
                return False
        return needed <= value.keys()

    return fits


_MAKERS: Mapping[str, Callable[[dict[str, Any]], Fits | None]] = {
    "string": _text,
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "array": _array,
    "object": _object,
}
