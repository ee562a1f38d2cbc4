"""Problems found in one object, kept until all are known, then told together with their place in the file."""

import re
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, manifest

Path = tuple[str | int, ...]

_PLAIN_STEP = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED_MAX = 60


@dataclass(frozen=True)
class Problem:
    """What is wrong at a path; `at_key` points at the name of the field, not at its value."""

    path: Path
    message: str
    hint: str = ""
    at_key: bool = False
    reason: str = "FieldValueInvalid"


def raise_all(problems: list[Problem], kind: str, name: str, written: manifest.Manifest | None) -> None:
    """Raise Invalid with every problem, in the order of the file; nothing when there is none."""
    if not problems:
        return
    causes = [_cause(problem, written) for problem in dict.fromkeys(problems)]
    causes.sort(key=lambda cause: (cause.line, cause.column))
    what = f'{kind} "{name}"' if name else kind
    raise errors.Invalid(
        f"{what} is invalid", file=written.source if written else "", causes=causes, kind=kind, name=name
    )


def _cause(problem: Problem, written: manifest.Manifest | None) -> errors.Cause:
    line, column = written.position(problem.path, key=problem.at_key) if written else (0, 0)
    return errors.Cause(
        field_path(problem.path),
        problem.message,
        line,
        column,
        problem.hint,
        written.source if written else "",
        problem.reason,
    )


def field_path(path: Path) -> str:
    """`spec.env[0].name`, `metadata.labels[example.com/app]`."""
    told = ""
    for step in path:
        if isinstance(step, str) and _PLAIN_STEP.fullmatch(step):
            told += f".{step}" if told else step
        else:
            told += (
                f"[{step if isinstance(step, int) or len(step) <= _QUOTED_MAX else step[:_QUOTED_MAX] + '…'}]"
            )
    return told


def shown(value: Any, secret: bool = False) -> str:
    """A value in a message: texts and numbers as they are, shortened; of a Secret only its sort."""
    if secret or value is None or isinstance(value, list | dict):
        return manifest.told(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value[:_QUOTED_MAX]}{"…" if len(value) > _QUOTED_MAX else ""}"'
    return f"the number {value!r}"
