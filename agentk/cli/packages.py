"""What `spec.environment` needs of the person's own machine: lock files beside the manifest, and their indexes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentk.api import errors, kinds
from agentk.cli import manifests
from agentk.client import client

_MAX_BYTES = 1024 * 1024


def _asked(wanted: manifests.Wanted) -> Mapping[str, Mapping[str, Any]]:
    """What is asked for, by language; what is not shaped so is for the daemon to refuse."""
    spec: Any = wanted.obj.get("spec")
    environment: Any = spec.get("environment") if isinstance(spec, dict) else None
    if wanted.kind is not kinds.AGENT or not isinstance(environment, dict):
        return {}
    return {language: asked for language, asked in environment.items() if isinstance(asked, dict)}


def tell_indexes(
    api: client.Client, wanted: Sequence[manifests.Wanted], environment: Mapping[str, str]
) -> None:
    """Tell the daemon from where this person fetches packages, when any are to be fetched."""
    if not any(set(asked) - {"venv"} for one in wanted for asked in _asked(one).values()):
        return
    from agentk.client import indexes  # configparser: only for those who have packages

    api.request("PUT", "/agentk/v1/indexes", body=indexes.read(environment).to_dict())


def with_locks(wanted: manifests.Wanted) -> manifests.Wanted:
    """The text of a `lockFile` as `lock`. Raises Invalid, at its place, for one that cannot be read."""
    found = {language: asked for language, asked in _asked(wanted).items() if "lockFile" in asked}
    if not found:
        return wanted
    one = wanted.manifest
    base = Path(one.source).parent if Path(one.source).is_file() else Path()
    read = {}
    for language, asked in found.items():
        try:
            others = {key: value for key, value in asked.items() if key != "lockFile"}
            read[language] = {**others, "lock": _text(base / str(asked["lockFile"]))}
        except errors.AgentkError as error:
            where = ("spec", "environment", language, "lockFile")
            raise manifests.placed(one, where, error) from None
    spec = wanted.obj["spec"]
    obj = {**wanted.obj, "spec": {**spec, "environment": {**spec["environment"], **read}}}
    return replace(wanted, manifest=replace(one, obj=obj))


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise errors.Invalid(f"{path} is over 1 MiB")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise errors.Invalid(f"{path} is not text") from None
    except OSError as error:
        raise errors.Invalid(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from None
