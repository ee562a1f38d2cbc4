"""The part of an object that has what boxes are made of: source, environment, image. Pure.

Who packs sources, reads lock files or keeps what is still named asks here where that is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from agentk.api import kinds

Object = dict[str, Any]

_PLACES = {
    "Agent": ("spec",),
    "Pool": ("spec", "template"),
    "Tool": ("spec", "jail"),
    "Task": ("spec", "template", "spec"),
    "Schedule": ("spec", "taskTemplate", "spec", "template", "spec"),
}


def of(kind: kinds.Kind, obj: Any) -> Any:
    """An Agent's spec, a Pool's template, a Tool's jail, the agent of a Task or a Schedule; None of others."""
    if kind.kind not in _PLACES:
        return None
    for step in _PLACES[kind.kind]:
        obj = obj.get(step) if isinstance(obj, Mapping) else None
    return obj


def field(kind: kinds.Kind) -> str:
    """Where `of` found it, or would."""
    return ".".join(_PLACES.get(kind.kind, ("spec",)))


def put(kind: kinds.Kind, obj: Object, part: Any) -> Object:
    """The object with another such part; itself when it is the same."""
    return obj if part is of(kind, obj) else _put(obj, _PLACES[kind.kind], part)


def _put(obj: Object, path: Sequence[str], part: Any) -> Object:
    below = part if len(path) == 1 else _put(obj[path[0]], path[1:], part)
    return {**obj, path[0]: below}


def bad_file_name(name: str) -> str:
    """Why a file of a source cannot be named so; "" when it can."""
    parts = name.split("/")
    if not name or len(name.encode()) > 1024 or any(len(part.encode()) > 255 for part in parts):
        return "it is empty or too long"
    if name.startswith("/"):
        return "it is absolute"
    if any(part in ("", ".", "..") for part in parts):
        return "no part may be empty, '.' or '..'"
    return "it holds control characters" if any(ord(letter) < 32 for letter in name) else ""
