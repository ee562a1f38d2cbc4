"""Label and field selectors in Kubernetes' grammar: `app=web,tier in (a, b),!old` and `status.phase=Running`."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from agentk.api import errors

Match = Callable[[Mapping[str, Any]], bool]

_MAX_TEXT = 8192  # a selector is matched against every object

_KEY = re.compile(
    r"(?:[A-Za-z0-9](?:[-A-Za-z0-9.]{0,251}[A-Za-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_SET = re.compile(r"(\S+)\s+(in|notin)\s*\(([^()]*)\)")
_COMPARED = re.compile(r"([^=!<>\s]+)\s*(==|=|!=|<|>)\s*([^=!<>\s]*)")

_FIELD_PATHS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "status.phase",
    "status.reason",
    "reason",
    "type",
    "source",
    "reportingComponent",
)
_FIELD_PREFIXES = ("spec.", "involvedObject.")


def labels(text: str) -> Match:
    """Whether an object (the whole of it) has the labels asked for. Raises BadRequest on bad grammar."""
    checks = [_label_check(part.strip()) for part in _split(text) if part.strip()]

    def match(obj: Mapping[str, Any]) -> bool:
        held = _labels_of(obj)
        return all(check(held) for check in checks)

    return match


def fields(text: str) -> Match:
    """Whether an object's fields are as asked for; `=`, `==` and `!=`, joined by commas. Raises BadRequest."""
    checks: list[tuple[tuple[str, ...], bool, str]] = []
    for part in _split_fields(text):
        found = re.fullmatch(r"\s*([^=!\s]+)\s*(==|=|!=)(.*)", part, re.DOTALL)
        if not found:
            raise errors.BadRequest(
                f'"{part}" is no field selector', hint="write path=value, path==value or path!=value"
            )
        path = found[1].removeprefix(".")
        if path not in _FIELD_PATHS and not path.startswith(_FIELD_PREFIXES):
            known = [*_FIELD_PATHS, *(f"{p}*" for p in _FIELD_PREFIXES)]
            raise errors.BadRequest(
                f'"{path}" cannot be selected on', hint=f"supported fields: {', '.join(known)}"
            )
        keys = ("source", "component") if path == "source" else tuple(path.split("."))
        checks.append((keys, found[2] != "!=", _unescaped(found[3].strip())))
    return lambda obj: all((scalar(obj, keys) == value) == equal for keys, equal, value in checks)


def scalar(obj: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """The text of a value at a path; "" for what is missing, as Kubernetes compares it."""
    value: Any = obj
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else ""


def _labels_of(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = obj.get("metadata")
    found = metadata.get("labels") if isinstance(metadata, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _label_check(part: str) -> Match:
    if found := _SET.fullmatch(part):
        key, word, members = found[1], found[2], [m.strip() for m in found[3].split(",")]
        _check_label(part, key, *members)
        chosen = frozenset(members)
        if word == "in":
            return lambda labels: labels.get(key) in chosen
        return lambda labels: labels.get(key) not in chosen
    if found := _COMPARED.fullmatch(part):
        return _comparison(part, found[1], found[2], found[3])
    absent = part.startswith("!")
    key = part.removeprefix("!").strip()
    _check_label(part, key)
    return lambda labels: (key in labels) != absent


def _comparison(part: str, key: str, sign: str, value: str) -> Match:
    _check_label(part, key, value)
    if sign in ("<", ">"):
        if not re.fullmatch(r"-?\d{1,18}", value):
            raise errors.BadRequest(f'"{part}" compares with "{value}", which is no whole number')
        bound, less = int(value), sign == "<"

        def compare(labels: Mapping[str, Any]) -> bool:
            held = str(labels.get(key, ""))
            return bool(re.fullmatch(r"-?\d{1,18}", held)) and (
                int(held) < bound if less else int(held) > bound
            )

        return compare
    if sign == "!=":
        return lambda labels: labels.get(key) != value
    return lambda labels: labels.get(key) == value


def _check_label(part: str, key: str, *values: str) -> None:
    if not _KEY.fullmatch(key):
        raise errors.BadRequest(
            f'"{part}" is no label selector', hint="write key=value, key!=value, key in (a,b), key or !key"
        )
    for value in values:
        if not _VALUE.fullmatch(value):
            raise errors.BadRequest(
                f'"{value}" is no label value',
                hint="at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit",
            )


def _split(text: str) -> list[str]:
    """Split at commas outside brackets."""
    _bound(text)
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth <= 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def _split_fields(text: str) -> list[str]:
    """Split at commas that no backslash precedes."""
    _bound(text)
    parts, start, at = [], 0, 0
    while at < len(text):
        if text[at] == ",":
            parts.append(text[start:at])
            start = at + 1
        at += 2 if text[at] == "\\" else 1
    return [part for part in (*parts, text[start:]) if part.strip()]


def _unescaped(value: str) -> str:
    return re.sub(r"\\([\\,=])", r"\1", value)


def _bound(text: str) -> None:
    if len(text) > _MAX_TEXT:
        raise errors.BadRequest(f"a selector of {len(text)} letters", hint=f"at most {_MAX_TEXT}")
