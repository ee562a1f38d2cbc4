"""A scripted answer as OpenAI's responses, whole or streamed."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agentk.llm import sse
from agentk.llm.scriptedsaying import CREATED, Saying

# What an answer repeats of its request, with the value it has when the request did not say.
_REPEATED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
}


def document(body: Mapping[str, Any], saying: Saying) -> dict[str, Any]:
    return _response(body, saying, "incomplete" if saying.cut else "completed", _items(saying))


def stream(body: Mapping[str, Any], saying: Saying) -> Iterator[bytes]:
    told = _events(body, saying)
    for number, (kind, event) in enumerate(told):
        data = json.dumps(
            {"type": kind, "sequence_number": number, **event}, ensure_ascii=False, separators=(",", ":")
        )
        yield sse.write(data.encode("utf-8", "replace"), kind.encode())


def _events(body: Mapping[str, Any], saying: Saying) -> Iterator[tuple[str, dict[str, Any]]]:
    begun = _response(body, saying, "in_progress", [])
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for index, item in enumerate(_items(saying)):
        if item["type"] == "message":
            yield from _message_events(index, item, saying)
        else:
            yield from _call_events(index, item, saying)
    ended = document(body, saying)
    yield f"response.{ended['status']}", {"response": ended}


def _message_events(index: int, item: dict[str, Any], saying: Saying) -> Iterator[tuple[str, dict[str, Any]]]:
    at = {"item_id": item["id"], "output_index": index, "content_index": 0}
    empty, part = _part(""), item["content"][0]
    started = {**item, "status": "in_progress", "content": []}
    yield "response.output_item.added", {"output_index": index, "item": started}
    yield "response.content_part.added", {**at, "part": empty}
    for piece in saying.text_pieces():
        yield "response.output_text.delta", {**at, "delta": piece, "logprobs": []}
    yield "response.output_text.done", {**at, "text": saying.text, "logprobs": []}
    yield "response.content_part.done", {**at, "part": part}
    yield "response.output_item.done", {"output_index": index, "item": item}


def _call_events(index: int, item: dict[str, Any], saying: Saying) -> Iterator[tuple[str, dict[str, Any]]]:
    at = {"item_id": item["id"], "output_index": index}
    started = {**item, "status": "in_progress", "arguments": ""}
    yield "response.output_item.added", {"output_index": index, "item": started}
    for piece in saying.argument_pieces(item["arguments"]):
        yield "response.function_call_arguments.delta", {**at, "delta": piece}
    done = {**at, "name": item["name"], "arguments": item["arguments"]}
    yield "response.function_call_arguments.done", done
    yield "response.output_item.done", {"output_index": index, "item": item}


def _items(saying: Saying) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if saying.text or not saying.tool_calls:
        items.append(
            {
                "id": f"msg_{saying.id}",
                "type": "message",
                "status": "incomplete" if saying.cut else "completed",
                "role": "assistant",
                "content": [_part(saying.text)],
            }
        )
    for n, (name, arguments) in enumerate(saying.tool_calls):
        items.append(
            {
                "id": saying.call_id(n, "fc_"),
                "type": "function_call",
                "status": "completed",
                "call_id": saying.call_id(n, "call_"),
                "name": name,
                "arguments": arguments,
            }
        )
    return items


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _response(
    body: Mapping[str, Any], saying: Saying, status: str, output: list[dict[str, Any]]
) -> dict[str, Any]:
    repeated = {key: body.get(key, standard) for key, standard in _REPEATED.items()}
    ended = status != "in_progress"
    return {
        "id": f"resp_{saying.id}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": saying.model,
        "output": output,
        "previous_response_id": None,
        "service_tier": "default",
        "store": False,
        "usage": _usage(saying) if ended else None,
        "user": None,
        **repeated,
    }


def _usage(saying: Saying) -> dict[str, Any]:
    return {
        "input_tokens": saying.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": saying.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": saying.input_tokens + saying.output_tokens,
    }
