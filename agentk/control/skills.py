"""The Skills of an agent as its box sees them: read-only files, below one package that Python finds. Pure.

All that is on Python's path is the package `skills`, so no Skill stands in front of a module of anybody else's.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentk.api import skillspecs
from agentk.control import references
from agentk.control.plans import Problem
from agentk.runtime import box as boxes

MAX_BYTES = 6 * 1024 * 1024  # of one box: it fits a message to the launcher with all else
READ_BYTES = 2 * MAX_BYTES  # as they are written down: more are not read, for they cannot fit
_MAX_FILES = 3000

Skills = Sequence[Mapping[str, Any]]


def mounts(found: references.Found, namespace: str, problems: list[Problem]) -> Iterator[boxes.Mount]:
    """One, when there are any."""
    for where, name in found.skills_missing:
        told = f'skills.use: Skill "{name}" does not exist'
        if where != namespace:
            told = f'{told} in namespace "{where}", or does not name "{namespace}" in spec.namespaces'
        problems.append(Problem("ConfigError", told))
    files: dict[str, str] = {}
    size = found.skills_size if found.skills_size > READ_BYTES else 0
    for one in found.skills:
        module = skillspecs.module(str(one["metadata"]["name"]))
        for name, data in skillspecs.contents(one).items():
            files[f"{skillspecs.PACKAGE}/{module}/{name}"] = base64.b64encode(data).decode()
            size += len(data)
    if size > MAX_BYTES or len(files) > _MAX_FILES:
        told = f"skills: {len(files) or 'many'} files, {size} bytes together; at most {_MAX_FILES}, and 6 MiB"
        problems.append(Problem("ConfigError", f"{told}: name fewer in spec.skills.use"))
    elif files:
        yield boxes.Mount("files", skillspecs.FOLDER, files=files)


def on_the_path(env: dict[str, str], skills: Skills) -> None:
    """After what the agent put there itself."""
    if skills:
        env["PYTHONPATH"] = ":".join(filter(None, (env.get("PYTHONPATH", ""), skillspecs.FOLDER)))
