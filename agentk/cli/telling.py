"""How errors look to people. Every verb that goes on after one, and `main` for the last, tells it here."""

import sys

from agentk.api import errors, kinds
from agentk.cli import columns


def error(problem: errors.AgentkError) -> None:
    """On stderr, after what stdout already has."""
    sys.stdout.flush()
    print("\n".join(map(columns.safe, describe(problem))), file=sys.stderr, flush=True)


def describe(problem: errors.AgentkError) -> list[str]:
    """An error as lines for people: what, where, and what to do next; then each of its causes the same way."""
    lines = [f"error: {problem.message}"]
    if problem.field and not problem.causes:
        lines = [f"error: {problem.field}: {problem.message}"]
    hint = problem.hint or _those_there(problem)
    lines += _place_and_hint(problem.file, problem.line, problem.column, hint, "  ")
    for cause in problem.causes:
        if cause.message == problem.message and len(problem.causes) == 1:
            lines += _place_and_hint(cause.file or problem.file, cause.line, cause.column, cause.hint, "  ")
            continue
        told = f"{cause.field}: {cause.message}" if cause.field else cause.message
        if told in problem.message:
            continue
        lines.append(f"  {told}")
        lines += _place_and_hint(cause.file, cause.line, cause.column, cause.hint, "    ")
    return lines


def _those_there(problem: errors.AgentkError) -> str:
    """What to do when an object is not there: it may have another name, or be in another namespace."""
    kind = next((one for one in kinds.KINDS if one.plural == problem.kind), None)
    if kind is None or not isinstance(problem, errors.NotFound) or not problem.message.endswith(" not found"):
        return ""
    if kind is kinds.TOOL and _is_shipped(problem.name):
        return f"agentk comes with it: agentk tool discover {problem.name} | agentk apply -f -"
    return f"agentk get {kind.plural}{' -A' if kind.namespaced else ''}  # shows those there are"


def _is_shipped(name: str) -> bool:
    from agentk.cli import tool_discovering  # heavy, and only for errors

    return any(obj["metadata"]["name"] == name for obj in tool_discovering.shipping())


def _place_and_hint(file: str, line: int, column: int, hint: str, indent: str) -> list[str]:
    place = ":".join([file or "line", *(str(number) for number in (line, column) if number)])
    lines = [f"{indent}at {place}"] if file or line else []
    return lines + ([f"{indent}hint: {hint}"] if hint else [])
