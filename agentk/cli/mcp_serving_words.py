"""What a model may say to `agentk mcp serve`: names, kinds that are no person's, manifests that take no files.

Every refusal is a ToolError, whose words the model reads.
"""

from collections.abc import Sequence
from typing import Any

from mcp.server.mcpserver.exceptions import ToolError

from agentk.api import errors, kinds, manifest

_APART = frozenset({"secrets", "approvals"})  # not read and not written here
_OF_MACHINE = frozenset({"hostPath", "venv", "lockFile"})  # and source.path, context.path
_OF_SECRETS = frozenset({"secretKeyRef", "secretName", "imagePullSecrets"})  # and secrets


def kind(told: str) -> str:
    """Raises ToolError for what is not for a model to look at."""
    said = word(told)
    try:
        found = kinds.resource(said)
    except errors.NotFound as error:
        raise ToolError(str(error)) from None
    if found.plural in _APART:
        raise ToolError(f"{found.plural} are for a person to look at: agentk get {found.plural}")
    return said


def changed_kind(told: str) -> str:
    """Raises ToolError also for what concerns every namespace."""
    said = kind(told)
    _of_namespace(kinds.resource(said))
    return said


def judge(text: str) -> None:
    """Raises ToolError for a manifest with what a model does not write: see above."""
    try:
        found = manifest.parse(text, "manifest")
    except errors.AgentkError as error:
        raise ToolError(str(error)) from None
    for one in found:
        said = str(one.obj.get("kind", ""))
        if said.lower().rstrip("s") + "s" in _APART:
            raise ToolError(f"a {said} is for a person to write: agentk apply -f FILE")
        try:
            found_kind = kinds.find(str(one.obj.get("apiVersion", "")), said)
        except errors.AgentkError as error:
            raise ToolError(str(error)) from None
        _of_namespace(found_kind)
        if field := _reaches_out(one.obj):
            raise ToolError(field)


def _of_namespace(found: kinds.Kind) -> None:
    if not found.namespaced:
        told = f"{found.plural} concern every namespace, and are for a person to change"
        raise ToolError(f"{told}: agentk apply -f FILE")


def _reaches_out(value: Any) -> str:
    """Why a person is needed: it would show an agent, and so its log, what a model does not read here."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        if not isinstance(one, dict):
            continue
        secrets = one.get("secrets")
        machine = _OF_MACHINE & one.keys() or _paths(one)
        named = _OF_SECRETS & one.keys() or {"secrets" for held in _each(secrets) if isinstance(held, dict)}
        if machine:
            told = f"{min(machine)} would show files of this machine: use inline or text"
            return f"{told}, or let a person write it: agentk apply -f FILE"
        if named:
            return f"{min(named)} would hand a Secret over; let a person write it: agentk apply -f FILE"
        waiting += one.values()
    return ""


def _paths(part: dict[str, Any]) -> set[str]:
    """Fields of which the command line reads the files that they name."""
    held = {"source.path": [part.get("source")], "context.path": _each(part.get("context"))}
    return {
        field for field, ones in held.items() if any(isinstance(one, dict) and "path" in one for one in ones)
    }


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def plain(name: str) -> Sequence[str]:
    return [word(name)] if name else []


def word(text: str) -> str:
    """Never an option."""
    if text.startswith("-") or any(char in text for char in "\0\n"):
        raise ToolError(f"{text[:50]!r} is no name")
    return text
