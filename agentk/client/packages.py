"""What `spec.environment` needs of the person's own machine: lock files beside the manifest, and their indexes."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agentk.api import errors
from agentk.client import client, contexts

_MAX_BYTES = 1024 * 1024

Object = dict[str, Any]


def _asked(spec: Any) -> Mapping[str, Mapping[str, Any]]:
    """What is asked for, by language; what is not shaped so is for the daemon to refuse."""
    environment: Any = spec.get("environment") if isinstance(spec, dict) else None
    if not isinstance(environment, dict):
        return {}
    return {language: asked for language, asked in environment.items() if isinstance(asked, dict)}


def tell_indexes(api: client.Client, specs: Iterable[Any], environment: Mapping[str, str]) -> None:
    """Tell the daemon from where this person fetches packages, when the specs of Agents need any."""
    if not any(set(asked) - {"venv"} for spec in specs for asked in _asked(spec).values()):
        return
    from agentk.client import indexes  # configparser: only for those who have packages

    api.request("PUT", "/agentk/v1/indexes", body=indexes.read(environment).to_dict())


def with_locks(spec: Any, folder: Path, where: str = "spec") -> Any:
    """An Agent's spec, or what else is at `where`, with the text of each `lockFile`, which is relative to `folder`, as
    `lock`, and that of the files of its `context`. Raises Invalid with the field of one that cannot be read."""
    spec = contexts.read(spec, folder, where)
    found = {language: asked for language, asked in _asked(spec).items() if "lockFile" in asked}
    if not found:
        return spec
    read: Object = {}
    for language, asked in found.items():
        others = {key: value for key, value in asked.items() if key != "lockFile"}
        field = f"{where}.environment.{language}.lockFile"
        read[language] = {**others, "lock": _text(folder / str(asked["lockFile"]), field)}
    return {**spec, "environment": {**spec["environment"], **read}}


def _text(path: Path, field: str) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise errors.Invalid(f"{path} is over 1 MiB", field=field)
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise errors.Invalid(f"{path} is not text", field=field) from None
    except OSError as error:
        told = f"{path} cannot be read: {os.strerror(error.errno or 0)}"
        raise errors.Invalid(told, field=field) from None
