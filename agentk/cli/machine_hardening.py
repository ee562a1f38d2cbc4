"""Makes code of a routine where no box runs: in the agent's memory, by what a person gives as code.

What the routine was is kept first, so whoever is ended in the middle leaves a routine that is as before or code, and
does it again. The code is read before anything is changed, by a process of its own, and nothing of it is run here.
"""

import subprocess
import sys
from typing import Any

from agentk.api import errors, kinds
from agentk.cli import usage
from agentk.client import client

CODE_BYTES = 256 * 1024
_READ_SECONDS = 60
_VERSIONS = 50


def harden(api: client.Client, namespace: str, name: str, routine: str, code: bytes) -> str:
    """What is to be told of it. Raises NotFound."""
    text, path = _read(code), kinds.AGENT.path(namespace, name, "pages")
    before = _value(api, path, routine)
    if before is None:
        raise errors.NotFound(
            f"agent/{name} has no routine {routine}",
            hint=f"agentk memory ls {name}",
            kind="pages",
            name=routine,
        )
    if before == text:
        return f"{routine} is this code already"
    kept = _keep(api, path, routine, before)
    _put(api, path, routine, text)
    return f"{routine} is code from now on; what it was is {kept}"


def _read(code: bytes) -> str:
    """As a routine. Raises Usage for what is none."""
    command = [sys.executable, "-P", "-m", "agentk.programs.machine_code"]
    try:
        read = subprocess.run(command, input=code, capture_output=True, timeout=_READ_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise usage.Usage(f"this is no routine: it was not read within {_READ_SECONDS} s") from None
    if read.returncode:
        why = read.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise usage.Usage(f"this is no routine: {why[:500] or f'reading it ended with {read.returncode}'}")
    return read.stdout.decode("utf-8", "replace")


def _keep(api: client.Client, path: str, routine: str, text: str) -> str:
    """Under the first name that is free, or has this text already."""
    last = f"{routine}@{_VERSIONS}"
    for number in range(1, _VERSIONS + 1):
        found = _value(api, path, f"{routine}@{number}")
        if found is None or found == text:
            last = f"{routine}@{number}"
            break
    _put(api, path, last, text, "version")
    return last


def _value(api: client.Client, path: str, name: str) -> str | None:
    try:
        told: dict[str, Any] = api.request("GET", path, query={"page": name})
    except errors.NotFound:
        return None
    return str(told.get("content", ""))


def _put(api: client.Client, path: str, name: str, text: str, *tags: str) -> None:
    api.request("POST", path, body={"content": text, "name": name, "kind": "skill", "tags": list(tags)})
