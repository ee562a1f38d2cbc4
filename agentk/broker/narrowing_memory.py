"""Whether the memory that a guest asks for a child is no wider than its own. Pure.

What a child keeps counts for the limits of who spawned it first (`keeping`); here is only that it has no other Memory,
no other embedder, and nothing that keeps more or longer.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from agentk.api import errors, memoryspecs
from agentk.api.problems import Path, Problem, shown

_FIELDS = memoryspecs.OF_CONTEXT | {"ref", "embedder", "dimensions", "retention", "limits"}
_LIMITS = {"pages": "pages", "bytes": "bytes", "totalPages": "total_pages", "totalBytes": "total_bytes"}


def problems(asked: Any, had: Any) -> Iterator[Problem]:
    """Raises Invalid for what is not shaped as the schema says."""
    if asked is None:
        return
    if had is None:
        yield _problem((), "its parent has no memory")
        return
    for memory in (asked, had):
        if not isinstance(memory, Mapping):
            raise errors.Invalid("expected an object", field="memory")
        for unknown in sorted(set(memory) - _FIELDS):
            raise errors.Invalid("is not known", field=f"memory.{unknown}")
    if "ref" in asked or "ref" in had:
        if _kept(asked) != _kept(had):
            told = _name(had)
            yield _problem(("ref",), f"expected {told}, which its parent has; asked for {_name(asked)}")
        return
    try:
        yield from _own(memoryspecs.read(asked), memoryspecs.read(had))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise errors.Invalid("is not shaped as it should be", field="memory") from None


def _own(asked: memoryspecs.Settings, had: memoryspecs.Settings) -> Iterator[Problem]:
    if asked.embedder != had.embedder:
        yield _problem(("embedder",), f"expected {had.embedder.name}, which its parent has")
    for field, name in _LIMITS.items():
        new, old = getattr(asked.bounds, name), getattr(had.bounds, name)
        if new > old:
            yield _problem(
                ("limits", field), f"expected at most {old}, which its parent has; asked for {new}"
            )
    kept, most = asked.retention_seconds, had.retention_seconds
    if most is not None and (kept is None or kept > most):
        yield _problem(("retention",), f"expected at most {most:g}s, which its parent has")


def _kept(memory: Mapping[str, Any]) -> dict[str, Any]:
    """Without what a model is shown of a conversation: a child chooses that for itself, and pays for it."""
    return {key: value for key, value in memory.items() if key not in memoryspecs.OF_CONTEXT}


def _name(memory: Mapping[str, Any]) -> str:
    ref = memory.get("ref")
    return f"Memory {shown(ref.get('name'))}" if isinstance(ref, Mapping) else "one of its own"


def _problem(path: Path, message: str) -> Problem:
    return Problem(("spec", "memory", *path), message, reason="FieldValueForbidden")
