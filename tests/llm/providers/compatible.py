"""What the providers share that publish an API "compatible with OpenAI's": its requests, and answers to send.

From the OpenAI API reference, "Create chat completion" and "The chat completion chunk object". Each provider's test
says which fields that provider publishes; everything else in a request is a fault.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jsonschema
import pytest

from agentk.llm import asking
from providers import guests
from providers.upstream import KEY, Desk, Upstream, deployment, events

STRING, NUMBER, WHOLE, TRUTH = ({"type": kind} for kind in ("string", "number", "integer", "boolean"))
PARTS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {"type": {"const": "text"}, "text": STRING},
        "required": ["type", "text"],
        "additionalProperties": False,
    },
}
TEXT = {"anyOf": [STRING, PARTS]}
FUNCTION_CALL = {
    "type": "object",
    "properties": {
        "id": STRING,
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "properties": {"name": STRING, "arguments": STRING},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        },
    },
    "required": ["id", "type", "function"],
    "additionalProperties": False,
}
TOOL = {
    "type": "object",
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "properties": {
                "name": STRING,
                "description": STRING,
                "parameters": {"type": "object"},
                "strict": {"type": ["boolean", "null"]},
            },
            "required": ["name"],
            "additionalProperties": False,
        },
    },
    "required": ["type", "function"],
    "additionalProperties": False,
}
FIELDS: dict[str, Any] = {
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_p": NUMBER,
    "max_tokens": WHOLE,
    "stream": TRUTH,
    "stream_options": {
        "type": "object",
        "properties": {"include_usage": TRUTH},
        "additionalProperties": False,
    },
    "stop": {"anyOf": [STRING, {"type": "array", "items": STRING}]},
    "tools": {"type": "array", "items": TOOL, "minItems": 1},
    "tool_choice": {"enum": ["none", "auto", "required"]},
    "response_format": {"type": "object"},
}


def request(fields: Iterable[str] = (), *, reasoning: bool = False) -> dict[str, Any]:
    """A schema of a provider's request: the fields all of them publish, and those that it does. Nothing else."""
    extra = {"reasoning_content": STRING} if reasoning else {}

    def message(role: str, **properties: Any) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {"role": {"const": role}, **properties},
            "required": ["role", *(name for name in properties if name in ("content", "tool_call_id"))],
            "additionalProperties": False,
        }

    assistant = message("assistant", tool_calls={"type": "array", "items": FUNCTION_CALL}, **extra)
    assistant["properties"]["content"] = {"anyOf": [TEXT, {"type": "null"}]}
    messages = [
        message("system", content=TEXT),
        message("user", content=TEXT),
        assistant,
        message("tool", content=TEXT, tool_call_id=STRING),
    ]
    return {
        "type": "object",
        "properties": {
            "model": STRING,
            "messages": {"type": "array", "minItems": 1, "items": {"oneOf": messages}},
            **FIELDS,
            **{name: {} for name in fields},
        },
        "required": ["model", "messages"],
        "additionalProperties": False,
    }


def check(body: Any, schema: dict[str, Any]) -> None:
    """A request as it came is what the provider published."""
    wrong = [
        f"{error.json_path}: {error.instance!r}: {error.message[:200]}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(body)
    ]
    assert wrong == []


def completion(model: str, text: str, usage: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": usage,
        **more,
    }


def chunk(model: str, delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk of a stream; without a delta it has no choice either, as the one with the usage."""
    choices = (
        [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    )
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": model,
        "choices": choices,
        **more,
    }


def call_deltas() -> list[dict[str, Any]]:
    """A tool call in pieces, its arguments cut inside a word."""
    opening = {
        "index": 0,
        "id": "call_9",
        "type": "function",
        "function": {"name": "get_weather", "arguments": ""},
    }
    return [
        {"role": "assistant", "content": None, "tool_calls": [opening]},
        *(
            {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}
            for part in ('{"ci', 'ty": "Os', 'lo"}')
        ),
    ]


@dataclasses.dataclass(frozen=True)
class Provider:
    """What one of them publishes, and how it answers."""

    prefix: str  # LiteLLM's
    model: str
    base: str  # path of the base that its documentation names
    path: str
    schema: dict[str, Any]
    usage: dict[str, Any]
    used: tuple[int, int, int]  # read, written, read from a cache
    answer: dict[str, Any] = dataclasses.field(default_factory=dict)  # fields of its own in every answer
    usage_in_last: bool = False  # whether a stream's usage comes in the chunk that ends it

    def deployment(self, upstream: Upstream) -> dict[str, Any]:
        return deployment(f"{self.prefix}/{self.model}", upstream.url + self.base)


def asks(desk: Desk, upstream: Upstream, provider: Provider, dialect: asking.Dialect) -> Any:
    """A whole answer to a guest of a dialect; the request was what the provider published. Returns its body."""
    upstream.will(completion(provider.model, "Mild.", provider.usage, **provider.answer))
    got = desk.ask(provider.deployment(upstream), guests.ask(dialect))
    (seen,) = upstream.seen
    assert (seen.method, seen.path, seen.query) == ("POST", provider.path, {})
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["content-type"].startswith("application/json")
    assert KEY not in str(seen.body)
    check(seen.body, provider.schema)
    assert seen.body["model"] == provider.model
    assert seen.body.get("max_completion_tokens", seen.body.get("max_tokens")) == 64
    assert seen.body["temperature"] == 0.5
    assert [message["role"] for message in seen.body["messages"]] == ["system", "user", "assistant", "tool"]
    assert guests.said(dialect, got) == "Mild."
    _used(got.usage, provider)
    return seen.body


def streams_a_call(desk: Desk, upstream: Upstream, provider: Provider, dialect: asking.Dialect) -> Any:
    """A tool call in deltas reaches a guest of a dialect whole. Returns the request's body."""
    chunks = [chunk(provider.model, delta, **provider.answer) for delta in call_deltas()]
    if provider.usage_in_last:
        chunks.append(chunk(provider.model, {}, "tool_calls", usage=provider.usage, **provider.answer))
    else:
        chunks.append(chunk(provider.model, {}, "tool_calls", **provider.answer))
        chunks.append(chunk(provider.model, None, usage=provider.usage, **provider.answer))
    upstream.will_stream(events(*chunks))
    got = desk.ask(provider.deployment(upstream), guests.ask(dialect, stream=True))
    assert got.error is None
    assert guests.called(dialect, got) == ("get_weather", {"city": "Oslo"})
    assert guests.ended(dialect, got)
    _used(got.usage, provider)
    (seen,) = upstream.seen
    check(seen.body, provider.schema)
    assert seen.body["stream"] is True
    assert seen.body["stream_options"] == {"include_usage": True}
    return seen.body


def breaks_off(desk: Desk, upstream: Upstream, provider: Provider, dialect: asking.Dialect) -> None:
    """A stream cut inside a chunk is an error for a guest of a dialect, never the end of an answer."""
    deltas = [chunk(provider.model, delta, **provider.answer) for delta in call_deltas()[:2]]
    upstream.will_stream(events(*deltas, done=False), cut=b'data: {"id":"chatcmpl-1","obj')
    got = desk.ask(provider.deployment(upstream), guests.ask(dialect, stream=True))
    assert got.error and got.error.type == "incomplete_stream"
    assert got.usage.counted and got.usage.input_tokens > 0
    assert len(upstream.seen) == 1


def refuses(
    desk: Desk, upstream: Upstream, provider: Provider, status: int, answer: Any, stream: bool, **headers: str
) -> asking.Refused:
    """What a caller is told when the provider answers with an error. It was asked once."""
    upstream.will(
        answer, status=status, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    with pytest.raises(asking.Refused) as caught:
        desk.ask(provider.deployment(upstream), guests.ask("openai.chat", stream))
    assert len(upstream.seen) == 1
    assert caught.value.upstream_status == status
    return caught.value


def _used(usage: asking.Usage, provider: Provider) -> None:
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens) == provider.used
    assert not usage.counted
