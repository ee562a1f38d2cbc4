"""What a schema cannot say of `spec.program` and of what belongs to it. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from agentk.api import inputs
from agentk.api.problems import Problem

CONTEXT_BYTES = 256 * 1024  # of all texts together: what a model reads each time it is asked

# Fields that say something to a program of agentk's own, and to no other.
_ITS_OWN = ("instructions", "role", "goal", "backstory", "context", "steps", "burst")
_NOT_ITS = ("args", "workingDir", "stdin")

Spec = Mapping[str, Any]
Found = Iterator[Problem]


def problems(spec: Spec) -> Found:
    """Everything wrong with an Agent's program."""
    if "program" not in spec:
        for field in _ITS_OWN:
            if field in spec:
                how = "program: react, code, or machine"
                yield Problem(("spec", field), "is only for spec.program", how, True)
    else:
        is_machine = spec["program"] == "machine"
        if is_machine and "memory" not in spec:
            told = "is required by program: machine"
            yield Problem(("spec", "memory"), told, "memory: {}", reason="FieldValueRequired")
        for field in _NOT_ITS:
            if spec.get(field) and not (is_machine and field == "stdin"):
                yield Problem(("spec", field), "is only for spec.command", at_key=True)
    yield from _context(spec.get("context") or ())
    if "output" in spec and (why := inputs.problem_of_result(spec["output"])):
        yield Problem(("spec", "output"), why)


def _context(context: Any) -> Found:
    size = 0
    for at, one in enumerate(context):
        size += len(str(one.get("text", "")).encode("utf-8", "replace"))
        if "text" in one and "name" not in one:
            yield Problem(("spec", "context", at, "name"), "is required", reason="FieldValueRequired")
        elif "configMapRef" in one and "name" in one:
            yield Problem(("spec", "context", at, "name"), "each key names its text", at_key=True)
    if size > CONTEXT_BYTES:
        yield Problem(("spec", "context"), f"{size} bytes together: at most 256 KiB")
