"""Merge patch (RFC 7386) and JSON patch (RFC 6902). Nothing given is changed in place."""

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentk.api import errors, shaping

MAX_OPERATIONS = 10_000  # Kubernetes' own limit
_MAX_COPIED = 200_000  # values and kilobytes; a chain of copies doubles each time

_INDEX = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)


def merge_patch(obj: Mapping[str, Any], patch: Any) -> dict[str, Any]:
    """The object with a merge patch in it: null removes, lists are replaced whole. Raises BadRequest."""
    if not isinstance(patch, Mapping):
        raise errors.BadRequest("a merge patch must be an object")
    _check_sane(patch)
    merged = _merged(obj, patch)
    assert isinstance(merged, dict)
    return merged


def json_patch(obj: Mapping[str, Any], operations: Any) -> dict[str, Any]:
    """The object after the operations, all or none. Raises BadRequest (malformed) or Invalid (does not apply)."""
    if not isinstance(operations, Sequence) or isinstance(operations, str | bytes):
        raise errors.BadRequest("a JSON patch must be a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise errors.TooLarge(f"{len(operations)} operations in one patch: at most {MAX_OPERATIONS}")
    _check_sane(list(operations))
    patching = _Patching(copy.deepcopy(dict(obj)))
    for at, operation in enumerate(operations):
        patching.do(operation, at)
    if not isinstance(patching.root, dict):
        raise errors.Invalid("the patch leaves no object")
    return patching.root


def _merged(value: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    made = dict(value) if isinstance(value, Mapping) else {}
    for key, change in patch.items():
        if change is None:
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), change)
    return made


class _Patching:
    def __init__(self, root: Any) -> None:
        self.root = root
        self._copied = 0

    def do(self, operation: Any, at: int) -> None:
        where = f"[{at}]"
        if not isinstance(operation, Mapping):
            raise errors.BadRequest("an operation must be an object", field=where)
        name = operation.get("op")
        path = _pointer(operation.get("path"), f"{where}.path")
        if name == "add":
            self._put(path, copy.deepcopy(_value(operation, where)), where, insert=True)
        elif name == "replace":
            self._get(path, where)
            self._put(path, copy.deepcopy(_value(operation, where)), where, insert=False)
        elif name == "remove":
            self._remove(path, where)
        elif name == "test":
            if not _equal(self._get(path, where), _value(operation, where)):
                raise errors.Invalid(f'the test of "{operation["path"]}" failed', field=where)
        elif name in ("move", "copy"):
            source = _pointer(operation.get("from"), f"{where}.from")
            if name == "move" and path[: len(source)] == source and path != source:
                raise errors.Invalid("a value cannot be moved into itself", field=where)
            value = self._copy(self._get(source, where))
            if name == "move":
                self._remove(source, where)
            self._put(path, value, where, insert=True)
        else:
            hint = "one of add, remove, replace, move, copy, test"
            raise errors.BadRequest("no such operation", hint=hint, field=f"{where}.op")

    def _copy(self, value: Any) -> Any:
        self._copied += _weight(value)
        if self._copied > _MAX_COPIED:
            raise errors.TooLarge("the patch copies too much")
        return copy.deepcopy(value)

    def _get(self, path: list[str], where: str) -> Any:
        value = self.root
        for step in path:
            value = value[_key(value, step, where, False)]
        return value

    def _put(self, path: list[str], value: Any, where: str, *, insert: bool) -> None:
        if not path:
            self.root = value
            return
        around = self._get(path[:-1], where)
        if isinstance(around, dict):
            around[path[-1]] = value
        elif isinstance(around, list) and insert:
            around.insert(_key(around, path[-1], where, True), value)
        else:
            around[_key(around, path[-1], where, False)] = value

    def _remove(self, path: list[str], where: str) -> None:
        if not path:
            raise errors.Invalid("the whole object cannot be removed", field=where)
        around = self._get(path[:-1], where)
        del around[_key(around, path[-1], where, False)]


def _key(around: Any, step: str, where: str, inserting: bool) -> Any:
    """The dict key or list index of one step. Raises Invalid when nothing is there."""
    if isinstance(around, dict) and step in around:
        return step
    if isinstance(around, list):
        if inserting and step == "-":
            return len(around)
        if _INDEX.fullmatch(step) and int(step) < len(around) + inserting:
            return int(step)
    raise errors.Invalid(f'nothing is at "{step[:60]}"', field=f"{where}.path")


def _pointer(text: Any, field: str) -> list[str]:
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise errors.BadRequest("expected a JSON pointer such as /spec/priority", field=field)
    if text.count("/") > shaping.MAX_DEPTH:
        raise errors.BadRequest(f"deeper than {shaping.MAX_DEPTH} levels", field=field)
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _value(operation: Mapping[str, Any], where: str) -> Any:
    if "value" not in operation:
        raise errors.BadRequest("is required", field=f"{where}.value")
    return operation["value"]


def _equal(left: Any, right: Any) -> bool:
    """Python holds True and 1 for equal; JSON does not."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)


def _weight(value: Any) -> int:
    """Values and kilobytes. Never recurses: a chain of moves can nest deeper than Python calls."""
    weight, waiting = 0, [(value, 0)]
    while waiting:
        held, depth = waiting.pop()
        if depth > shaping.MAX_DEPTH:
            raise errors.Invalid(f"nested deeper than {shaping.MAX_DEPTH} levels")
        weight += 1 + (len(held) // 1024 if isinstance(held, str) else 0)
        if isinstance(held, dict):
            waiting += [(below, depth + 1) for below in held.values()]
        elif isinstance(held, list):
            waiting += [(below, depth + 1) for below in held]
    return weight


def _check_sane(patch: Any) -> None:
    found = shaping.scan(patch)
    if found:
        raise errors.BadRequest(f"the patch cannot be taken: {found[0].message}")
