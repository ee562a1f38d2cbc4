"""What a program of agentk's own is run by, and the one file that tells it what it is. Pure.

It is a file that agentk alone writes and the box sees read-only: nothing of it is in a variable or an argument. The
task is not in it: the program asks the gate for that.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentk.api import errors, quantities
from agentk.api.programs import CONTEXT_BYTES
from agentk.control import references
from agentk.control.plans import Problem
from agentk.runtime import box as boxes

FOLDER = "/opt/program"  # where it starts, for Python looks there for modules first: nobody else writes there
FILE = "program.json"

_MEMORY = "512Mi"  # as the schema says
_TOLD = ("program", "instructions", "role", "goal", "backstory", "output", "steps", "burst")

Spec = Mapping[str, Any]
# Of a ConfigMap, by its keys.
Contents = Callable[[Mapping[str, Any]], Mapping[str, bytes]]


def argv(spec: Spec) -> list[str]:
    """What is run: the agent's own command, or the program it names."""
    if "program" in spec:
        return ["python3", "-m", f"agentk.programs.{spec['program']}"]
    return [*spec["command"], *(spec.get("args") or ())]


def mounts(
    spec: Spec, found: references.Found, contents: Contents, problems: list[Problem]
) -> Iterator[boxes.Mount]:
    """The file, for an agent that names a program."""
    if "program" not in spec:
        return
    told = {key: spec[key] for key in _TOLD if key in spec}
    told |= {"window": window} if (window := _window(spec, found)) else {}
    if spec["program"] == "machine":
        told["memory"] = _memory(spec)
    if saves := (spec.get("skills") or {}).get("save"):
        told["saves"] = saves
    told["context"] = list(_context(spec, found, contents, problems))
    size = sum(len(one["text"].encode()) for one in told["context"])
    if size > CONTEXT_BYTES:
        problems.append(Problem("ConfigError", f"context: {size} bytes together, at most 256 KiB"))
        return
    data = json.dumps(told, ensure_ascii=False).encode()
    yield boxes.Mount("files", FOLDER, files={FILE: base64.b64encode(data).decode()})


def _window(spec: Spec, found: references.Found) -> int:
    """Most tokens of what its model is shown: its own word, then its Memory's; 0 when nobody said."""
    own = (spec.get("memory") or {}).get("contextTokens")
    return int(own or ((found.memory or {}).get("spec") or {}).get("contextTokens") or 0)


def _memory(spec: Spec) -> int:
    """Bytes that the box has, which code of a machine must not have all of."""
    limit = ((spec.get("resources") or {}).get("limits") or {}).get("memory", _MEMORY)
    try:
        return int(quantities.parse_quantity(limit))
    except errors.Invalid:  # the box's own check tells of it
        return 0


def _context(
    spec: Spec, found: references.Found, contents: Contents, problems: list[Problem]
) -> Iterator[dict[str, str]]:
    for at, one in enumerate(spec.get("context") or ()):
        if "path" in one:
            told = (
                f"context[{at}].path is for the command line to read: agentk apply -f sends the file as text"
            )
            problems.append(Problem("ConfigError", told))
            continue
        if "configMapRef" not in one:
            yield {"name": str(one.get("name", "")), "text": str(one.get("text", ""))}
            continue
        name = one["configMapRef"]["name"]
        held = found.config_maps.get(name)
        if held is None:
            problems.append(Problem("ConfigError", f'context[{at}]: ConfigMap "{name}" does not exist'))
            continue
        for key, data in sorted(contents(held).items()):
            try:
                yield {"name": key, "text": data.decode()}
            except UnicodeDecodeError:
                told = f'context[{at}]: key "{key}" of ConfigMap "{name}" is not text'
                problems.append(Problem("ConfigError", told))
