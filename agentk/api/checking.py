"""What jsonschema finds wrong, in words: what was expected, what was found, what was probably meant."""

import base64
import binascii
import datetime
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

from agentk.api import errors, images, kinds, quantities, schemas
from agentk.api.problems import Path, Problem, shown

# Every pattern of schemas/, in words.
PATTERNS = {
    r"^[0-9a-f]{64}$": "64 hexadecimal digits, as status.tools tells them",
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$": "a name of lower-case letters, digits, "
    "'-' and '.', starting and ending with a letter or digit (RFC 1123)",
    r"^[a-z0-9][-a-z0-9.]*$": "a prefix of lower-case letters, digits, '-' and '.'",
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": "a name of at most 63 lower-case letters, digits and '-', starting and "
    "ending with a letter or digit (RFC 1123)",
    r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$": "a label value: letters, digits, '-', '_' and '.', starting "
    "and ending with a letter or digit",
    r"^[A-Za-z0-9]([-A-Za-z0-9./_]*[A-Za-z0-9])?$": "a qualified name such as example.com/cleanup",
    r"^sha256:[0-9a-f]{64}$": "sha256: and 64 hexadecimal digits",
    r"^/": "an absolute path",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "a name of letters, digits, '.', '_' and '-'",
    r"^/workspace/": "a path below /workspace",
    r"^[-._a-zA-Z][-._a-zA-Z0-9]*$": "a variable name: letters, digits, '_', '-' and '.', not starting with a digit",
    r"^metadata\.(name|namespace|uid|labels\['[^']+'\]|annotations\['[^']+'\])$": "metadata.name, "
    "metadata.namespace, metadata.uid, metadata.labels['KEY'] or metadata.annotations['KEY']",
    r"^[0-9]{1,12}(\.[0-9]{1,6})?$": 'US dollars as text, such as "2.50", with at most 6 decimals',
    r"^[A-Za-z]+$": "letters only, such as GET",
    r"^[-!#$%&'*+.^_`|~0-9A-Za-z]+$": "the name of an HTTP header",
    r"^[ -~]*$": "printable ASCII",
    r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$": "module:function, such as "
    "main:convert",
    r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$": "the name of a module, such as json or email.message",
}

_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}
_YAML_1_1_BOOLS = {
    "yes": "true",
    "on": "true",
    "no": "false",
    "off": "false",
    "true": "true",
    "false": "false",
}
_INT_BITS = {"int32": 32, "int64": 64}


def check(
    obj: dict[str, Any], schema_file: str, *, secret_below: tuple[str, ...] = (), partial: bool = False
) -> list[Problem]:
    """Every way the object breaks its schema. `partial` does not ask for what is missing.

    Values below the top-level fields `secret_below` are never quoted.
    """
    found = []
    for error in _validator(schema_file).iter_errors(obj):
        path: Path = tuple(error.absolute_path)
        if error.validator in ("oneOf", "not") and not isinstance(error.instance, dict):
            continue  # its type is told
        if partial and _is_about_missing(error):
            continue
        found += list(_told(error, path, bool(path) and path[0] in secret_below))
    return found


def _is_about_missing(error: Any) -> bool:
    if error.validator == "oneOf":
        return not any(
            key in error.instance for branch in error.validator_value for key in branch["required"]
        )
    return error.validator in ("required", "minProperties")


def _told(error: Any, path: Path, secret: bool) -> Iterator[Problem]:
    rule, asked, value = error.validator, error.validator_value, error.instance
    if rule == "required":
        missing = next(key for key in asked if f"'{key}' is a required" in error.message)
        about = (schemas.child(error.schema, missing) or {}).get("description", "")
        yield Problem(
            (*path, missing), "is required", about.partition(". ")[0].rstrip("."), reason="FieldValueRequired"
        )
    elif rule in ("type", "anyOf"):
        yield _wrong_type(error.schema, path, value, secret)
    elif rule == "enum":
        listed = ", ".join(str(choice) or '""' for choice in asked)
        near = kinds.did_you_mean(str(value), [str(choice) for choice in asked if choice])
        hint = near if near.startswith("did you mean") else ""
        message = f"expected one of {listed}, found {shown(value, secret)}"
        yield Problem(path, message, hint, reason="FieldValueNotSupported")
    elif rule == "pattern":
        yield Problem(path, f"expected {PATTERNS[asked]}, found {shown(value, secret)}")
    elif rule == "format":
        cause = error.cause
        hint = cause.hint if isinstance(cause, errors.AgentkError) and not secret else ""
        yield Problem(path, str(cause.message if cause else error.message), hint)
    elif rule == "oneOf":
        yield _not_exactly_one(path, value, [branch["required"] for branch in asked])
    elif rule == "not":
        yield Problem(path, f"{' and '.join(asked['required'])} cannot both be given")
    else:
        yield Problem(path, _out_of_bounds(rule, asked, value))


def _needed(schema: schemas.Schema) -> list[str]:
    return schema.get("required") or list(schema.get("properties", ()))


def _shape(schema: schemas.Schema) -> str:
    """The one field that it needs, and the one in that: {ref: {name: …}}."""
    (field,) = _needed(schema)
    below = schema.get("properties", {}).get(field) or {}
    inner = _shape(below) if below.get("type") == "object" and len(_needed(below)) == 1 else "…"
    return f"{{{field}: {inner}}}"


def _wrong_type(schema: schemas.Schema, path: Path, value: Any, secret: bool) -> Problem:
    type_name = schema.get("type", "")
    expected = _TYPES.get(type_name, "a quantity such as 256Mi or 500m")
    hint = ""
    if schema.get("format") == "duration" and isinstance(value, int) and not isinstance(value, bool):
        hint = f"write {value}s"
    elif type_name == "string" and isinstance(value, bool | int | float):
        hint = "put it in quotes"
    elif type_name == "boolean" and isinstance(value, str) and value.lower() in _YAML_1_1_BOOLS:
        hint = f"did you mean {_YAML_1_1_BOOLS[value.lower()]}?"
    elif type_name == "integer" and isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value):
        hint = f"did you mean {value} without quotes?"
    elif type_name == "array" and isinstance(value, str | int | float):
        hint = "write a list: [first, second]"
    elif type_name == "object" and isinstance(value, str):
        hint = f"write {_shape(schema)}" if len(_needed(schema)) == 1 else ""
    return Problem(
        path, f"expected {expected}, found {shown(value, secret)}", hint, reason="FieldValueTypeInvalid"
    )


def _not_exactly_one(path: Path, value: dict[str, Any], branches: list[list[str]]) -> Problem:
    found = " and ".join(key for keys in branches for key in keys if key in value) or "none"
    *first, last = (" with ".join(keys) for keys in branches)
    asked = f"{', '.join(first)} and {last}"
    return Problem(path, f"expected exactly one of {asked}, found {found}", reason="FieldValueRequired")


def _out_of_bounds(rule: str, bound: Any, value: Any) -> str:
    if rule == "minimum":
        return f"expected at least {bound}, found {value}"
    if rule == "maximum":
        return f"expected at most {bound}, found {value}"
    least = rule.startswith("min")
    unit = {"Length": "character", "Items": "item", "Properties": "entry"}[rule[3:]]
    plural = unit if bound == 1 else {"entry": "entries"}.get(unit, f"{unit}s")
    if least and bound == 1 and len(value) == 0:
        return "must not be empty"
    return f"expected at {'least' if least else 'most'} {bound} {plural}, found {len(value)}"


@functools.cache
def _validator(schema_file: str) -> Any:
    import jsonschema  # 75 ms: a listing does not pay for it
    from jsonschema import validators

    base = jsonschema.Draft7Validator
    types = base.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    extend: Callable[..., Any] = validators.extend
    made = extend(base, {"pattern": _pattern}, type_checker=types)
    formats = jsonschema.FormatChecker(formats=())
    formats.checkers = {name: (rule, (errors.AgentkError,)) for name, rule in _FORMATS.items()}
    return made(schemas.load(schema_file), format_checker=formats)


def _pattern(validator: Any, pattern: str, value: Any, schema: schemas.Schema) -> Iterator[Any]:
    """Unlike jsonschema's own: `$` is the end, not before a last newline, and what is too long is not searched."""
    from jsonschema import ValidationError

    if not isinstance(value, str) or len(value) > schema.get("maxLength", len(value)):
        return
    if not _compiled(pattern).search(value):
        yield ValidationError("pattern")


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\$$", r"\\Z", pattern))


def _is_quantity(value: Any) -> bool:
    return not isinstance(value, str) or quantities.parse_quantity(value) >= 0


def _is_cpu(value: Any) -> bool:
    return not isinstance(value, str) or quantities.parse_cpu(value) >= 0


def _is_duration(value: Any) -> bool:
    return not isinstance(value, str) or quantities.parse_duration(value) >= 0


def _is_rate(value: Any) -> bool:
    return not isinstance(value, str) or quantities.parse_rate(value) > 0


def _is_base64(value: Any) -> bool:
    if isinstance(value, str):
        try:
            base64.b64decode(re.sub(r"[\r\n]", "", value), validate=True)
        except (binascii.Error, ValueError):
            raise errors.Invalid(
                "expected base64", hint="write plain text under stringData instead"
            ) from None
    return True


def _is_date_time(value: Any) -> bool:
    if isinstance(value, str):
        try:
            parsed = datetime.datetime.fromisoformat(value)
        except ValueError:
            parsed = None
        if parsed is None or parsed.tzinfo is None or "T" not in value:
            raise errors.Invalid(f"expected a time such as 2026-01-31T12:00:00Z, found {shown(value)}")
    return True


def _fits(bits: int) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        if isinstance(value, int) and not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
            raise errors.Invalid(f"expected a number of at most {bits} bits")
        return True

    return fits


def _is_image(value: Any) -> bool:
    return not isinstance(value, str) or bool(images.parse(value))


_FORMATS: dict[str, Callable[[Any], bool]] = {
    "quantity": _is_quantity,
    "cpu": _is_cpu,
    "duration": _is_duration,
    "rate": _is_rate,
    "byte": _is_base64,
    "image": _is_image,
    "date-time": _is_date_time,
    **{name: _fits(bits) for name, bits in _INT_BITS.items()},
}
