"""What a model said in OpenAI's words, whole or in pieces, as the result of a native call.

An upstream may answer anything: what has not the shape of an answer is an UpstreamError, never a crash.
"""

import json
from collections.abc import Mapping
from typing import Any

from agentk.api import errors
from agentk.broker.budgets_limits import format_usd
from agentk.llm import asking

_TOOL_CALLS = 512  # of one answer: as many as a request may offer


def document(body: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, Mapping):
        raise _wrong("is no JSON object")
    return told


def embeddings(told: Mapping[str, Any], texts: int, usage: asking.Usage) -> dict[str, Any]:
    rows = told.get("data")
    if not isinstance(rows, list) or len(rows) != texts or not all(isinstance(row, Mapping) for row in rows):
        raise _wrong("has not one vector for each text")
    places = [row.get("index", n) for n, row in enumerate(rows)]
    if sorted(place for place in places if isinstance(place, int)) != list(range(texts)):
        raise _wrong("has not one vector for each text")
    vectors = [
        row.get("embedding") for _, row in sorted(zip(places, rows, strict=True), key=lambda pair: pair[0])
    ]
    if not all(isinstance(vector, list | str) for vector in vectors):
        raise _wrong("has a vector that is none")
    return {"embeddings": vectors, "model": _text(told.get("model")) or usage.model, "usage": used(usage)}


def used(usage: asking.Usage) -> dict[str, Any]:
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "cachedTokens": usage.cached_tokens,
        "costUsd": format_usd(usage.cost_micro_usd),
        "counted": usage.counted,
    }


class Said:
    """One answer. Give it the document, or the data of each event and then the end."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._arguments: dict[int, list[str]] = {}
        self._refusal: list[str] = []
        self._message: dict[str, Any] | None = None
        self._finish = ""
        self._model = ""

    def whole(self, told: Mapping[str, Any]) -> None:
        self._model = _text(told.get("model"))
        choice = _first(told)
        message = choice.get("message") if choice else None
        if choice is None or not isinstance(message, Mapping):
            raise _wrong("has no message")
        self._finish = _text(choice.get("finish_reason"))
        self._message = {"role": "assistant", **message}
        self._texts.append(_text(message.get("content")))
        self._reasoning.append(_text(message.get("reasoning_content")) or _text(message.get("reasoning")))
        calls = message.get("tool_calls")
        found = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
        self._calls = dict(enumerate(found[:_TOOL_CALLS]))

    def piece(self, data: bytes) -> dict[str, Any]:
        """What one event adds, as the call's stream tells it; empty when nothing."""
        if not data or data == b"[DONE]":
            return {}
        told = document(data)
        if isinstance(error := told.get("error"), Mapping):
            raise errors.UpstreamError(_text(error.get("message"))[:2000] or "the model's provider broke off")
        self._model = self._model or _text(told.get("model"))
        choice = _first(told)
        delta = choice.get("delta") if choice else None
        if choice is None or not isinstance(delta, Mapping):
            return {}
        self._finish = _text(choice.get("finish_reason")) or self._finish
        item: dict[str, Any] = {}
        if text := _text(delta.get("content")):
            self._texts.append(text)
            item["text"] = text
        self._refusal.append(_text(delta.get("refusal")))
        if text := _text(delta.get("reasoning_content")) or _text(delta.get("reasoning")):
            self._reasoning.append(text)
            item["reasoning"] = text
        calls = delta.get("tool_calls")
        if isinstance(calls, list) and (found := [call for call in calls if isinstance(call, dict)]):
            for call in found:
                self._add(call)
            item["toolCalls"] = found
        return item

    def end(self) -> None:
        """Raises when the answer did not come to its end: a tool call could be half of one."""
        if not self._finish:
            raise errors.UpstreamError("the model's answer ended before it was complete")
        for place, parts in self._arguments.items():
            self._calls[place]["function"]["arguments"] = "".join(parts)

    def told(self, usage: asking.Usage) -> dict[str, Any]:
        text, reasoning = "".join(self._texts), "".join(self._reasoning)
        calls = [self._calls[place] for place in sorted(self._calls)]
        result: dict[str, Any] = {
            "text": text,
            "message": self._message or self._put_together(text, reasoning, calls),
            "toolCalls": calls,
            "finishReason": self._finish or "stop",
            "model": self._model or usage.model,
            "usage": used(usage),
        }
        if reasoning:
            result["reasoning"] = reasoning
        return result

    def _add(self, call: Mapping[str, Any]) -> None:
        place = call.get("index", 0)
        if not isinstance(place, int) or (place not in self._calls and len(self._calls) >= _TOOL_CALLS):
            raise _wrong("has tool calls that cannot be put together")
        known = self._calls.setdefault(place, {"id": "", "type": "function", "function": {"name": ""}})
        function = call.get("function")
        function = function if isinstance(function, Mapping) else {}
        known["id"] = _text(call.get("id")) or known["id"]
        known["function"]["name"] += _text(function.get("name"))
        self._arguments.setdefault(place, []).append(_text(function.get("arguments")))

    def _put_together(self, text: str, reasoning: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if refusal := "".join(self._refusal):
            message["refusal"] = refusal
        if calls:
            message["tool_calls"] = calls
        if reasoning:
            message["reasoning_content"] = reasoning
        return message


def _first(told: Mapping[str, Any]) -> Mapping[str, Any] | None:
    choices = told.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, Mapping) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _wrong(what: str) -> errors.UpstreamError:
    return errors.UpstreamError(f"the model's answer {what}")
