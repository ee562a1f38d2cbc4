"""Texts beside the manifest that an agent's program is told: read on the person's own machine."""

import os
from pathlib import Path
from typing import Any

from agentk.api import errors
from agentk.api.programs import CONTEXT_BYTES


def read(spec: Any, folder: Path, where: str) -> Any:
    """An Agent's spec, or what else is at `where`, with the text of each file of `context`, whose paths are relative to
    `folder`. Raises Invalid with the field of one that cannot be read."""
    context = spec.get("context") if isinstance(spec, dict) else None
    if not isinstance(context, list) or not any(_names_file(one) for one in context):
        return spec
    made = [
        _with_text(one, folder, f"{where}.context[{at}].path") if _names_file(one) else one
        for at, one in enumerate(context)
    ]
    return {**spec, "context": made}


def _names_file(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("path"), str) and "text" not in one


def _with_text(one: dict[str, Any], folder: Path, field: str) -> dict[str, Any]:
    path = folder / one["path"]
    try:
        if path.stat().st_size > CONTEXT_BYTES:
            raise errors.Invalid(f"{path} is over {CONTEXT_BYTES // 1024} KiB", field=field)
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise errors.Invalid(f"{path} is not text", field=field) from None
    except OSError as error:
        told = f"{path} cannot be read: {os.strerror(error.errno or 0)}"
        raise errors.Invalid(told, field=field) from None
    others = {key: value for key, value in one.items() if key != "path"}
    return {"name": one["path"], **others, "text": text}
