"""A scripted answer as Anthropic's messages, whole or streamed."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agentk.llm import sse
from agentk.llm.scriptedsaying import Saying


def document(body: Mapping[str, Any], saying: Saying) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    if saying.text or not saying.tool_calls:
        content.append({"type": "text", "text": saying.text})
    content += [
        {**_tool(saying, n), "input": json.loads(arguments)}
        for n, (_, arguments) in enumerate(saying.tool_calls)
    ]
    return {
        **_message(saying),
        "content": content,
        "stop_reason": _reason(saying),
        "usage": _usage(saying, saying.output_tokens),
    }


def stream(body: Mapping[str, Any], saying: Saying) -> Iterator[bytes]:
    yield _event("message_start", message={**_message(saying), "usage": _usage(saying, 1)})
    yield _event("ping")
    index = 0
    if saying.text or not saying.tool_calls:
        pieces = [{"type": "text_delta", "text": piece} for piece in saying.text_pieces()]
        yield from _block(index, {"type": "text", "text": ""}, pieces)
        index += 1
    for n, (_, arguments) in enumerate(saying.tool_calls):
        pieces = [
            {"type": "input_json_delta", "partial_json": piece} for piece in saying.argument_pieces(arguments)
        ]
        yield from _block(index, _tool(saying, n), pieces)
        index += 1
    yield _event(
        "message_delta",
        delta={"stop_reason": _reason(saying), "stop_sequence": None},
        usage={"output_tokens": saying.output_tokens},
    )
    yield _event("message_stop")


def _block(index: int, start: dict[str, Any], deltas: list[dict[str, str]]) -> Iterator[bytes]:
    yield _event("content_block_start", index=index, content_block=start)
    for delta in deltas:
        yield _event("content_block_delta", index=index, delta=delta)
    yield _event("content_block_stop", index=index)


def _message(saying: Saying) -> dict[str, Any]:
    return {
        "id": f"msg_{saying.id}",
        "type": "message",
        "role": "assistant",
        "model": saying.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _tool(saying: Saying, n: int) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": saying.call_id(n, "toolu_"),
        "name": saying.tool_calls[n][0],
        "input": {},
    }


def _usage(saying: Saying, written: int) -> dict[str, int]:
    return {
        "input_tokens": saying.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": written,
    }


def _reason(saying: Saying) -> str:
    return "max_tokens" if saying.cut else "tool_use" if saying.tool_calls else "end_turn"


def _event(kind: str, **told: Any) -> bytes:
    data = json.dumps({"type": kind, **told}, ensure_ascii=False, separators=(",", ":"))
    return sse.write(data.encode("utf-8", "replace"), kind.encode())
