"""A scripted answer as OpenAI's chat completions, whole or streamed, and as embeddings."""

import base64
import hashlib
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from agentk.llm import sse
from agentk.llm.scriptedsaying import CREATED, Saying

DIMENSIONS = 256
DIMENSIONS_MAX = 4_096
INPUTS_MAX = 2_048  # OpenAI's own bound
CHOICES_MAX = 128  # OpenAI's own bound


def document(body: Mapping[str, Any], saying: Saying) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": saying.text or None, "refusal": None}
    message["annotations"] = []
    if saying.tool_calls:
        message["tool_calls"] = [
            {"id": saying.call_id(n, "call_"), "type": "function", "function": _function(name, arguments)}
            for n, (name, arguments) in enumerate(saying.tool_calls)
        ]
    elif message["content"] is None:
        message["content"] = ""
    choices = _choices(body)
    return {
        "id": f"chatcmpl-{saying.id}",
        "object": "chat.completion",
        "created": CREATED,
        "model": saying.model,
        "choices": [
            {"index": n, "message": message, "logprobs": None, "finish_reason": _reason(saying)}
            for n in range(choices)
        ],
        "usage": _usage(saying, choices),
        "service_tier": "default",
        "system_fingerprint": "fp_scripted",
    }


def stream(body: Mapping[str, Any], saying: Saying) -> Iterator[bytes]:
    options = body.get("stream_options")
    wanted = isinstance(options, Mapping) and options.get("include_usage") is True

    def chunk(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        told: dict[str, Any] = {
            "id": f"chatcmpl-{saying.id}",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": saying.model,
            "service_tier": "default",
            "system_fingerprint": "fp_scripted",
            "choices": choices,
        }
        if wanted:
            told["usage"] = usage
        return sse.write(_dump(told))

    def choice(n: int, delta: dict[str, Any], reason: str | None = None) -> list[dict[str, Any]]:
        return [{"index": n, "delta": delta, "logprobs": None, "finish_reason": reason}]

    many = _choices(body)
    for n in range(many):
        content = None if saying.tool_calls and not saying.text else ""
        yield chunk(choice(n, {"role": "assistant", "content": content, "refusal": None}))
        for piece in saying.text_pieces():
            yield chunk(choice(n, {"content": piece}))
        for delta in _call_deltas(saying):
            yield chunk(choice(n, {"tool_calls": [delta]}))
        yield chunk(choice(n, {}, _reason(saying)))
    if wanted:
        yield chunk([], _usage(saying, many))
    yield sse.write(b"[DONE]")


def embeddings(body: Mapping[str, Any], saying: Saying) -> dict[str, Any]:
    """Vectors from the words themselves: the same text has the same one, texts that share words have near ones."""
    told = body.get("input")
    inputs = told if isinstance(told, list) and not _is_tokens(told) else [told]
    asked = body.get("dimensions")
    size = min(asked, DIMENSIONS_MAX) if isinstance(asked, int) and asked > 0 else DIMENSIONS
    vectors = [_vector(one, size) for one in inputs[:INPUTS_MAX]]
    packed = body.get("encoding_format") == "base64"
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": n, "embedding": _packed(vector) if packed else vector}
            for n, vector in enumerate(vectors)
        ],
        "model": saying.model,
        "usage": {"prompt_tokens": saying.input_tokens, "total_tokens": saying.input_tokens},
    }


def _call_deltas(saying: Saying) -> Iterator[dict[str, Any]]:
    for n, (name, arguments) in enumerate(saying.tool_calls):
        first = {"index": n, "id": saying.call_id(n, "call_"), "type": "function"}
        yield {**first, "function": _function(name, "")}
        for piece in saying.argument_pieces(arguments):
            yield {"index": n, "function": {"arguments": piece}}


def _function(name: str, arguments: str) -> dict[str, str]:
    return {"name": name, "arguments": arguments}


def _reason(saying: Saying) -> str:
    return "length" if saying.cut else "tool_calls" if saying.tool_calls else "stop"


def _choices(body: Mapping[str, Any]) -> int:
    told = body.get("n")
    return min(told, CHOICES_MAX) if isinstance(told, int) and told > 0 else 1


def _usage(saying: Saying, choices: int) -> dict[str, Any]:
    written = saying.output_tokens * choices
    return {
        "prompt_tokens": saying.input_tokens,
        "completion_tokens": written,
        "total_tokens": saying.input_tokens + written,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _is_tokens(told: list[Any]) -> bool:
    return bool(told) and all(isinstance(one, int) for one in told)


def _vector(one: Any, size: int) -> list[float]:
    text = one if isinstance(one, str) else json.dumps(one)
    vector = [0.0] * size
    for word in re.findall(r"\w+", text.lower()) or [text]:
        digest = hashlib.sha256(word.encode("utf-8", "replace")).digest()
        sign = 1.0 if digest[8] & 1 else -1.0
        vector[int.from_bytes(digest[:8], "big") % size] += sign
    length = math.sqrt(sum(x * x for x in vector))
    # Words may cancel each other out; a vector of length 0 would have no direction.
    return [x / length for x in vector] if length else [1.0, *vector[1:]]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
