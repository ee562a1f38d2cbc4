"""Ollama, from "Generate a chat message", "Streaming" and "Errors" in Ollama's API reference (docs.ollama.com/api)."""

import json
from typing import Any

import pytest

from agentk.llm import asking
from providers import compatible, guests
from providers.upstream import Desk, Upstream, deployment

MODEL = "llama3.2"
STRING, WHOLE = {"type": "string"}, {"type": "integer"}
CALL = {
    "type": "object",
    "properties": {
        "id": STRING,
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "properties": {"index": WHOLE, "name": STRING, "arguments": {"type": "object"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        },
    },
    "required": ["function"],
    "additionalProperties": False,
}
MESSAGE = {
    "type": "object",
    "properties": {
        "role": {"enum": ["system", "user", "assistant", "tool"]},
        "content": STRING,
        "thinking": STRING,
        "images": {"type": "array", "items": STRING},
        "tool_calls": {"type": "array", "items": CALL},
        "tool_name": STRING,
        "tool_call_id": STRING,
    },
    "required": ["role"],
    "additionalProperties": False,
}
REQUEST = {
    "type": "object",
    "properties": {
        "model": STRING,
        "messages": {"type": "array", "items": MESSAGE},
        "tools": {"type": "array", "items": compatible.TOOL},
        "format": {},
        "options": {
            "type": "object",
            "properties": {
                "num_predict": WHOLE,
                "temperature": {"type": "number"},
                "top_p": {"type": "number"},
                "top_k": WHOLE,
                "num_ctx": WHOLE,
                "seed": WHOLE,
                "stop": {},
            },
            "additionalProperties": False,
        },
        "stream": {"type": "boolean"},
        "think": {},
        "keep_alive": {},
    },
    "required": ["model", "messages"],
    "additionalProperties": False,
}


def reply(done: bool, **message: Any) -> dict[str, Any]:
    said: dict[str, Any] = {
        "model": MODEL,
        "created_at": "2025-07-12T15:30:00.000000Z",
        "message": {"role": "assistant", "content": "", **message},
        "done": done,
    }
    if done:
        said |= {"done_reason": "stop", "total_duration": 9, "load_duration": 1, "prompt_eval_duration": 1}
        said |= {"prompt_eval_count": 26, "eval_count": 4, "eval_duration": 1}
    return said


def lines(*documents: dict[str, Any]) -> list[bytes]:
    return [json.dumps(document).encode() + b"\n" for document in documents]


def model(upstream: Upstream) -> dict[str, Any]:
    made = deployment(f"ollama_chat/{MODEL}", upstream.url)
    del made["litellm_params"]["api_key"]  # "No authentication is required when accessing the API locally"
    return made


@pytest.mark.parametrize("dialect", guests.DIALECTS)
def test_the_request_is_what_it_publishes(desk: Desk, upstream: Upstream, dialect: asking.Dialect) -> None:
    upstream.will(reply(True, content="Mild."))
    got = desk.ask(model(upstream), guests.ask(dialect))
    seen = upstream.seen[-1]
    assert [(each.method, each.path) for each in upstream.seen] == [("POST", "/api/chat")]
    assert "authorization" not in seen.headers
    compatible.check(seen.body, REQUEST)
    assert (seen.body["model"], seen.body["stream"]) == (MODEL, False)
    assert seen.body["options"] == {"num_predict": 64, "temperature": 0.5}
    assert [message["role"] for message in seen.body["messages"]] == ["system", "user", "assistant", "tool"]
    assert guests.said(dialect, got) == "Mild."
    assert (got.usage.input_tokens, got.usage.output_tokens, got.usage.cost_micro_usd) == (26, 4, 0)


@pytest.mark.parametrize("dialect", guests.DIALECTS)
def test_a_tool_call_streams(desk: Desk, upstream: Upstream, dialect: asking.Dialect) -> None:
    call = {"function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
    upstream.will_stream(
        lines(reply(False, tool_calls=[call]), reply(True)), content_type="application/x-ndjson"
    )
    got = desk.ask(model(upstream), guests.ask(dialect, stream=True))
    assert got.error is None
    assert guests.called(dialect, got) == ("get_weather", {"city": "Oslo"})
    assert guests.ended(dialect, got)
    compatible.check(upstream.seen[-1].body, REQUEST)
    assert (got.usage.input_tokens, got.usage.output_tokens, got.usage.counted) == (26, 4, False)


@pytest.mark.parametrize("dialect", guests.DIALECTS)
def test_a_stream_cut_short_is_an_error(desk: Desk, upstream: Upstream, dialect: asking.Dialect) -> None:
    upstream.will_stream(
        lines(reply(False, content="Mil")),
        cut=b'{"model":"llama3.2","cre',
        content_type="application/x-ndjson",
    )
    got = desk.ask(model(upstream), guests.ask(dialect, stream=True))
    assert got.error and got.error.type == "incomplete_stream"


@pytest.mark.parametrize("stream", [False, True])
def test_its_errors_are_passed_on(desk: Desk, upstream: Upstream, stream: bool) -> None:
    upstream.will({"error": "model 'llama3.2' not found"}, status=404)
    with pytest.raises(asking.Refused) as caught:
        desk.ask(model(upstream), guests.ask("openai.chat", stream))
    assert (caught.value.upstream_status, caught.value.message) == (404, "model 'llama3.2' not found")
