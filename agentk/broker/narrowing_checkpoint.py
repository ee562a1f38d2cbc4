"""Whether the automatic Checkpoints that a guest asks for a child are no more than its own. Pure.

Each is a copy on the daemon's disk, so a child has none where its parent has none, none more often, and keeps no more.
Without a word of it a child has none: it is given to nobody who did not ask.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from agentk.api import errors, quantities
from agentk.api.problems import Path, Problem, shown

_FIELDS = frozenset({"every", "steps", "keep", "restore"})
_KEEP = 3
_RESTORE = ("Never", "OnFailure")  # from narrow to wide


def problems(asked: Any, had: Any) -> Iterator[Problem]:
    """Raises Invalid for what is not shaped as the schema says."""
    if asked is None:
        return
    if had is None:
        yield _problem((), "its parent has none")
        return
    for checkpoint in (asked, had):
        if not isinstance(checkpoint, Mapping):
            raise errors.Invalid("expected an object", field="checkpoint")
        for unknown in sorted(set(checkpoint) - _FIELDS):
            raise errors.Invalid("is not known", field=f"checkpoint.{unknown}")
    for field in ("every", "steps"):
        if field in asked:
            if field not in had:
                yield _problem((field,), "its parent has none")
            elif _read(field, asked) < _read(field, had):
                yield _problem(
                    (field,),
                    f"expected at least {shown(had[field])}, which its parent has; asked for {shown(asked[field])}",
                )
    if (new := _whole(asked, "keep")) > (old := _whole(had, "keep")):
        yield _problem(("keep",), f"expected at most {old}, which its parent has; asked for {new}")
    new, old = (_rank(one) for one in (asked, had))
    if new > old:
        yield _problem(("restore",), "its parent has Never, asked for OnFailure")


def _read(field: str, checkpoint: Mapping[str, Any]) -> float:
    if field == "steps":
        return _whole(checkpoint, field)
    try:
        return quantities.parse_duration(checkpoint[field])
    except errors.Invalid as error:
        raise errors.Invalid(error.message, field="checkpoint.every") from None


def _whole(checkpoint: Mapping[str, Any], field: str) -> int:
    value = checkpoint.get(field, _KEEP)
    if isinstance(value, bool) or not isinstance(value, int):
        raise errors.Invalid("expected a whole number", field=f"checkpoint.{field}")
    return value


def _rank(checkpoint: Mapping[str, Any]) -> int:
    value = checkpoint.get("restore", _RESTORE[0])
    if value not in _RESTORE:
        raise errors.Invalid("expected Never or OnFailure", field="checkpoint.restore")
    return _RESTORE.index(value)


def _problem(path: Path, message: str) -> Problem:
    return Problem(("spec", "checkpoint", *path), message, reason="FieldValueForbidden")
