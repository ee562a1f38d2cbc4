"""How errors look to people. Every verb that goes on after one, and `main` for the last, tells it here."""

import sys
from collections.abc import Sequence

from agentk.api import errors, kinds
from agentk.cli import columns

# Verbs whose hints are about the namespace that was asked for.
_NAMESPACED = frozenset(
    {"answer", "approve", "budget", "checkpoint", "cp", "describe", "events", "exec", "get", "kill", "logs"}
    | {"machine", "memory", "restart", "restore", "resume", "suspend", "task", "trace", "wait"}
)


def error(problem: errors.AgentkError, words: Sequence[str] = ()) -> None:
    """On stderr, after what stdout already has. `words` of the command line: hints are about its namespace."""
    sys.stdout.flush()
    asked = _namespace(words)
    lines = [_within(line, asked) for line in describe(problem)]
    print("\n".join(map(columns.safe, lines)), file=sys.stderr, flush=True)


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


def _namespace(words: Sequence[str]) -> str:
    """What -n says; "" when the next command will find the same without."""
    for at, word in enumerate(words):
        if word == "--":
            break
        if word in ("-n", "--namespace"):
            return words[at + 1] if at + 1 < len(words) else ""
        for option in ("--namespace=", "-n"):
            if word.startswith(option):
                return word.removeprefix(option).removeprefix("=")
    return ""


def _within(line: str, namespace: str) -> str:
    """A hint that is a command, as it has to be typed to be about the same namespace."""
    indent, is_hint, told = line.partition("hint: agentk ")
    command, gap, comment = told.partition("  #")
    words = command.split()
    if not (namespace and is_hint and words) or indent.strip() or words[0] not in _NAMESPACED:
        return line
    if {"-n", "-A", "--help", "|", "--"} & {*words}:
        return line
    return f"{indent}{is_hint}{command} -n {namespace}{gap}{comment}"


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
