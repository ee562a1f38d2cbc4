"""Reads a spec that is held against another: what is not shaped as the schema says is refused, by its field. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentk.api import errors
from agentk.api.problems import Path, Problem, field_path

Spec = Mapping[str, Any]
Found = Iterator[Problem]


def mapping(value: Any, path: Path) -> Spec:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise errors.Invalid("expected an object", field=field_path(path))
    return value


def only(value: Spec, known: set[str], path: Path) -> Spec:
    for field in value:
        if field not in known:
            raise errors.Invalid("is not known", field=field_path((*path, str(field))))
    return value


def items(value: Any, path: Path) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise errors.Invalid("expected a list", field=field_path(path))
    return value


def text(held: Spec, field: str, path: Path) -> str:
    value = held.get(field)
    if not isinstance(value, str) or not value:
        raise errors.Invalid("expected text", field=field_path((*path, field)))
    return value


def problem(path: Path, message: str) -> Problem:
    return Problem(("spec", *path), message, reason="FieldValueForbidden")


def texts(tool: Spec, field: str, path: Path) -> list[str]:
    given = items(tool.get(field), (*path, field))
    if not all(isinstance(glob, str) for glob in given):
        raise errors.Invalid("expected texts", field=field_path((*path, field)))
    return list(given)
