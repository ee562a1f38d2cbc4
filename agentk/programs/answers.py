"""What a model answered as the JSON that was asked for, and forgetting what it was told long ago. Pure."""

from __future__ import annotations

import json
from typing import Any, Dict, List

# Of what tools answered: beyond it the oldest are cut, or a long piece of work would outgrow any model.
KEPT_LETTERS = 400_000
_HEAD_LETTERS = 400
_NEWEST = 4  # of the answers, which stay whole


def parsed(text: str) -> Any:
    """Raises ValueError that says what is wrong. A fence around the JSON is nothing that one asks again for."""
    inner = text.strip()
    if inner.startswith("```") and inner.endswith("```") and "\n" in inner:
        inner = inner[inner.index("\n") + 1 : -3].strip()
    try:
        return json.loads(inner, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"the answer is not JSON: {error}") from None


def forget(messages: List[Dict[str, Any]]) -> None:
    """Cuts the oldest answers of tools to their beginning, until the others are few enough letters."""
    told = [one for one in messages if one.get("role") == "tool"]
    left = sum(len(one["content"]) for one in told) - KEPT_LETTERS
    for one in told[:-_NEWEST]:
        if left <= 0:
            return
        had = len(one["content"])
        if had > 2 * _HEAD_LETTERS:
            cut = had - _HEAD_LETTERS
            one["content"] = f"{one['content'][:_HEAD_LETTERS]}\n[{cut} letters left out here: call it again]"
            left -= had - len(one["content"])


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
