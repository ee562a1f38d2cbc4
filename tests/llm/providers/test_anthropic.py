"""Anthropic, and those that publish its dialect too.

From "Create a Message", "Streaming Messages" and "Errors" in the Claude API documentation (platform.claude.com); for
DeepSeek "Anthropic API" in the DeepSeek API Docs, for MiniMax "Anthropic API Compatible" in its own.
"""

import json
from typing import Any

import pytest

from agentk.llm import asking
from providers import compatible, guests
from providers.upstream import KEY, Desk, Upstream, deployment, named

STRING, WHOLE = {"type": "string"}, {"type": "integer"}
CACHE = {"type": "object"}


def block(kind: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"type": {"const": kind}, "cache_control": CACHE, **properties},
        "required": ["type", *properties],
        "additionalProperties": False,
    }


TEXT = block("text", text=STRING)
RESULT = block(
    "tool_result", tool_use_id=STRING, content={"anyOf": [STRING, {"type": "array", "items": TEXT}]}
)
RESULT["properties"]["is_error"] = {"type": "boolean"}
CALL = block(
    "tool_use", id={"type": "string", "pattern": "^[a-zA-Z0-9_-]+$"}, name=STRING, input={"type": "object"}
)
MESSAGE = {
    "type": "object",
    "properties": {
        "role": {"enum": ["user", "assistant"]},
        "content": {"anyOf": [STRING, {"type": "array", "items": {"oneOf": [TEXT, RESULT, CALL]}}]},
    },
    "required": ["role", "content"],
    "additionalProperties": False,
}
TOOL = {
    "type": "object",
    "properties": {
        "type": {"const": "custom"},
        "name": STRING,
        "description": STRING,
        "input_schema": {
            "type": "object",
            "properties": {"type": {"const": "object"}},
            "required": ["type"],
        },
        "cache_control": CACHE,
    },
    "required": ["name", "input_schema"],
    "additionalProperties": False,
}
REQUEST = {
    "type": "object",
    "properties": {
        "model": STRING,
        "messages": {"type": "array", "minItems": 1, "items": MESSAGE},
        "max_tokens": {"type": "integer", "minimum": 1},
        "system": {"anyOf": [STRING, {"type": "array", "items": TEXT}]},
        "temperature": {"type": "number", "minimum": 0, "maximum": 1},
        "top_p": {"type": "number"},
        "top_k": WHOLE,
        "stop_sequences": {"type": "array", "items": STRING},
        "stream": {"type": "boolean"},
        "metadata": {"type": "object", "properties": {"user_id": STRING}, "additionalProperties": False},
        "thinking": {"type": "object"},
        "tools": {"type": "array", "items": TOOL},
        "tool_choice": {
            "type": "object",
            "properties": {
                "type": {"enum": ["auto", "any", "tool", "none"]},
                "name": STRING,
                "disable_parallel_tool_use": {"type": "boolean"},
            },
            "required": ["type"],
            "additionalProperties": False,
        },
    },
    "required": ["model", "messages", "max_tokens"],
    "additionalProperties": False,
}
USAGE = {
    "input_tokens": 20,
    "cache_creation_input_tokens": 5,
    "cache_read_input_tokens": 15,
    "output_tokens": 3,
    "service_tier": "standard",
}
CLAUDE = ("anthropic/claude-sonnet-4-5-20250929", "", "/v1/messages")
PROVIDERS = [
    CLAUDE,
    ("deepseek/deepseek-chat", "", "/anthropic/v1/messages"),
    ("minimax/MiniMax-M2.1", "/v1", "/anthropic/v1/messages"),
]
# Others' guests are translated for Anthropic; for the others only their own are, from the other dialects' endpoint.
CASES = [(*CLAUDE, dialect) for dialect in guests.DIALECTS] + [
    (*p, "anthropic.messages") for p in PROVIDERS[1:]
]
CASE = pytest.mark.parametrize(("name", "base", "path", "dialect"), CASES)


def message(*content: dict[str, Any], stop: str = "end_turn") -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": list(content),
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": USAGE,
    }


def call_events() -> list[dict[str, Any]]:
    start = message(stop="tool_use") | {"stop_reason": None, "usage": USAGE | {"output_tokens": 1}}
    call = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in ("", '{"ci', 'ty": "Os', 'lo"}')]
    return [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": call},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": 3},
        },
        {"type": "message_stop"},
    ]


@CASE
def test_the_request_is_what_it_publishes(
    desk: Desk, upstream: Upstream, name: str, base: str, path: str, dialect: asking.Dialect
) -> None:
    upstream.will(message({"type": "text", "text": "Mild."}))
    got = desk.ask(deployment(name, upstream.url + base), guests.ask(dialect))
    (seen,) = upstream.seen
    assert (seen.method, seen.path, seen.query) == ("POST", path, {})
    assert (seen.headers["x-api-key"], seen.headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert seen.headers["content-type"] == "application/json"
    assert "authorization" not in seen.headers
    compatible.check(seen.body, REQUEST)
    assert (seen.body["model"], seen.body["max_tokens"]) == (name.split("/")[1], 64)
    assert [said["role"] for said in seen.body["messages"]] == ["user", "assistant", "user"]
    assert "Be brief." in json.dumps(seen.body["system"])
    assert guests.said(dialect, got) == "Mild."
    usage = got.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.counted) == (40, 3, 15, False)


@CASE
def test_a_tool_call_streams(
    desk: Desk, upstream: Upstream, name: str, base: str, path: str, dialect: asking.Dialect
) -> None:
    upstream.will_stream(named(*call_events()))
    got = desk.ask(deployment(name, upstream.url + base), guests.ask(dialect, stream=True))
    assert got.error is None
    assert guests.called(dialect, got) == ("get_weather", {"city": "Oslo"})
    assert guests.ended(dialect, got)
    compatible.check(upstream.seen[0].body, REQUEST)
    usage = got.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.counted) == (40, 3, 15, False)


@CASE
def test_a_stream_cut_short_is_an_error(
    desk: Desk, upstream: Upstream, name: str, base: str, path: str, dialect: asking.Dialect
) -> None:
    upstream.will_stream(named(*call_events()[:5]), cut=b'event: content_block_delta\ndata: {"type":"con')
    got = desk.ask(deployment(name, upstream.url + base), guests.ask(dialect, stream=True))
    assert got.error and got.error.type == "incomplete_stream"
    assert len(upstream.seen) == 1


@CASE
def test_an_error_in_the_middle_of_a_stream_is_an_error(
    desk: Desk, upstream: Upstream, name: str, base: str, path: str, dialect: asking.Dialect
) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    upstream.will_stream(named(*call_events()[:5], error))
    got = desk.ask(deployment(name, upstream.url + base), guests.ask(dialect, stream=True))
    assert got.error and "Overloaded" in got.error.message
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("stream", [False, True])
@CASE
def test_its_errors_are_passed_on(
    desk: Desk, upstream: Upstream, name: str, base: str, path: str, dialect: asking.Dialect, stream: bool
) -> None:
    error = {
        "type": "rate_limit_error",
        "message": "This request would exceed your organization's rate limit.",
    }
    upstream.will(
        {"type": "error", "error": error, "request_id": "req_1"}, status=429, headers={"retry-after": "12"}
    )
    with pytest.raises(asking.Refused) as caught:
        desk.ask(deployment(name, upstream.url + base), guests.ask(dialect, stream))
    told = caught.value
    assert (told.upstream_status, told.type, told.message) == (429, "rate_limit_error", error["message"])
    assert (told.retry_after_seconds, len(upstream.seen)) == (12, 1)


def test_tokens_are_counted_without_asking_anybody(desk: Desk, upstream: Upstream) -> None:
    body = {
        name: value for name, value in guests.MESSAGES.items() if name not in ("max_tokens", "temperature")
    }
    ask = asking.Ask("anthropic.count_tokens", body)
    counted = desk.ask(deployment("openai/gpt-4o-mini", upstream.url), ask).document["input_tokens"]
    assert 30 < counted < 300
    assert upstream.seen == []
