"""Answers that are too long to be told: a file of the caller's, and what is in it, in a few words. Pure.

A model reads every byte of an answer, at a price; a program reads a file. So what is long goes where programs are.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentk.tools.offers import Outcome

FOLDER = ".tools"  # in the caller's workspace
MOST_BYTES = 4 * 1024 * 1024  # of a file; what is beyond is nowhere
_KEYS_TOLD = 20
_WORDS_BYTES = 400  # of the summary besides beginning and end


@dataclass(frozen=True)
class File:
    """What is to be written."""

    path: str  # relative to the workspace
    data: bytes


def answer(outcome: Outcome) -> dict[str, Any]:
    """As `tool.call` answers."""
    told: dict[str, Any] = {
        "content": [dict(block) for block in outcome.content],
        "isError": outcome.is_error,
    }
    if outcome.structured is not None:
        told["structured"] = outcome.structured
    return told


def limited(outcome: Outcome, most: int, name: str) -> tuple[dict[str, Any], File | None]:
    """The answer, and the file whose summary it is when the whole has more than `most` bytes."""
    told = answer(outcome)
    if len(_written(told)) <= most:
        return told, None
    texts = [
        str(block["text"]) for block in outcome.content if block.get("type") == "text" and "text" in block
    ]
    if outcome.structured is not None:
        data, suffix, what = _written(outcome.structured), "json", kind(outcome.structured)
    elif len(texts) == len(outcome.content):
        joined = "\n".join(texts)
        data, suffix, what = (
            joined.encode("utf-8", "replace"),
            "json" if outcome.is_json else "txt",
            "JSON" if outcome.is_json else f"text of {joined.count(chr(10)) + 1} lines",
        )
    else:
        data, suffix, what = _written(told["content"]), "json", "content blocks"
    whole, data = len(data), data[:MOST_BYTES]
    file = File(f"{FOLDER}/{name}.{suffix}", data)
    each = max(0, (most - _WORDS_BYTES) // 4)  # as JSON a letter may be several bytes
    head, tail = data[:each].decode("utf-8", "ignore"), data[len(data) - each :].decode("utf-8", "ignore")
    cut = "" if whole == len(data) else f" (the first {len(data)} bytes of {whole})"
    text = f"{what}, {whole} bytes{cut}, in the file {file.path} of the workspace."
    text += f"\nIt begins:\n{head}\n…\nIt ends:\n{tail}"
    about = {"path": file.path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "kind": what}
    summary = {"content": [{"type": "text", "text": text}], "isError": outcome.is_error, "file": about}
    return summary, file


def kind(value: Any) -> str:
    """What a value is, in a few words."""
    if isinstance(value, Mapping):
        keys = [str(key)[:60] for key in list(value)[:_KEYS_TOLD]]
        more = f" and {len(value) - _KEYS_TOLD} more" if len(value) > _KEYS_TOLD else ""
        if len(value) == 1 and isinstance(next(iter(value.values())), list):
            return f'JSON: an object whose "{keys[0]}" is {kind(next(iter(value.values())))}'
        return f"JSON: an object with {', '.join(keys)}{more}"
    if isinstance(value, list):
        inside = f", the first of them {kind(value[0])}" if value and isinstance(value[0], Mapping) else ""
        return f"a list of {len(value)}{inside}"
    return "JSON"


def _written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
