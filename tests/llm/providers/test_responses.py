"""The responses dialect where it is spoken: "Responses" and "Streaming events" in the OpenAI API reference.

vLLM serves the same ("Responses API" in "OpenAI-Compatible Server" of its documentation).
"""

from typing import Any

import pytest

from agentk.llm import asking
from providers import compatible, guests
from providers.upstream import KEY, Desk, Upstream, deployment, named

STRING = {"type": "string"}
MODELS = pytest.mark.parametrize("name", ["openai/gpt-4o-mini", "hosted_vllm/Qwen/Qwen3-8B"])


def item(kind: str | None, needed: str, **properties: Any) -> dict[str, Any]:
    kinds: dict[str, Any] = {"type": {"const": kind}} if kind else {"type": {"const": "message"}}
    return {
        "type": "object",
        "properties": {**kinds, "id": STRING, "status": STRING, **properties},
        "required": needed.split(),
        "additionalProperties": False,
    }


REQUEST = {
    "type": "object",
    "properties": {
        "model": STRING,
        "instructions": STRING,
        "input": {
            "anyOf": [
                STRING,
                {
                    "type": "array",
                    "items": {
                        "oneOf": [
                            item(
                                None,
                                "role content",
                                role={"enum": ["user", "assistant", "system"]},
                                content={},
                            ),
                            item("function_call", "type call_id name arguments")
                            | {
                                "properties": {
                                    "type": {"const": "function_call"},
                                    "id": STRING,
                                    "status": STRING,
                                    "call_id": STRING,
                                    "name": STRING,
                                    "arguments": STRING,
                                }
                            },
                            item(
                                "function_call_output", "type call_id output", call_id=STRING, output=STRING
                            ),
                        ]
                    },
                },
            ]
        },
        "tools": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"const": "function"},
                    "name": STRING,
                    "description": STRING,
                    "parameters": {"type": "object"},
                    "strict": {"type": ["boolean", "null"]},
                },
                "required": ["type", "name", "parameters"],
                "additionalProperties": False,
            },
        },
        "tool_choice": {"enum": ["none", "auto", "required"]},
        "max_output_tokens": {"type": "integer"},
        "temperature": {"type": "number"},
        "stream": {"type": "boolean"},
        "store": {"type": "boolean"},
    },
    "required": ["model", "input"],
    "additionalProperties": False,
}
USAGE = {
    "input_tokens": 37,
    "input_tokens_details": {"cached_tokens": 16},
    "output_tokens": 11,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 48,
}


def response(*output: dict[str, Any], status: str = "completed", usage: Any = None) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_741_476_542,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": 64,
        "model": "gpt-4o-mini",
        "output": list(output),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 0.5,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage,
        "metadata": {},
    }


SAID = {
    "type": "message",
    "id": "msg_1",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Mild.", "annotations": []}],
}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_9", "name": "get_weather"}


def call_events() -> list[dict[str, Any]]:
    arguments = '{"city": "Oslo"}'
    done = CALL | {"arguments": arguments, "status": "completed"}
    place = {"item_id": "fc_1", "output_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response(status="in_progress")},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": CALL | {"arguments": "", "status": "in_progress"},
        },
        {"type": "response.function_call_arguments.delta", **place, "delta": '{"city": "Os'},
        {"type": "response.function_call_arguments.delta", **place, "delta": 'lo"}'},
        {
            "type": "response.function_call_arguments.done",
            **place,
            "arguments": arguments,
            "name": "get_weather",
        },
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": response(done, usage=USAGE)},
    ]
    return [event | {"sequence_number": number} for number, event in enumerate(events)]


@MODELS
def test_the_request_is_what_it_publishes(desk: Desk, upstream: Upstream, name: str) -> None:
    upstream.will(response(SAID, usage=USAGE))
    got = desk.ask(deployment(name, upstream.url + "/v1"), guests.ask("openai.responses"))
    (seen,) = upstream.seen
    assert (seen.method, seen.path) == ("POST", "/v1/responses")
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    compatible.check(seen.body, REQUEST)
    assert seen.body["model"] == name.partition("/")[2]
    assert guests.said("openai.responses", got) == "Mild."
    usage = got.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.counted) == (
        37,
        11,
        16,
        False,
    )


@MODELS
def test_a_tool_call_streams(desk: Desk, upstream: Upstream, name: str) -> None:
    upstream.will_stream(named(*call_events()))
    got = desk.ask(deployment(name, upstream.url + "/v1"), guests.ask("openai.responses", stream=True))
    assert got.error is None
    assert guests.called("openai.responses", got) == ("get_weather", {"city": "Oslo"})
    assert guests.ended("openai.responses", got)
    assert [chunk["sequence_number"] for chunk in got.chunks] == list(range(7))
    compatible.check(upstream.seen[0].body, REQUEST)
    assert (got.usage.input_tokens, got.usage.output_tokens, got.usage.cached_tokens) == (37, 11, 16)


@MODELS
def test_a_stream_cut_short_is_an_error(desk: Desk, upstream: Upstream, name: str) -> None:
    upstream.will_stream(named(*call_events()[:3]), cut=b"event: response.function_call_arg")
    got = desk.ask(deployment(name, upstream.url + "/v1"), guests.ask("openai.responses", stream=True))
    assert got.error and got.error.type == "incomplete_stream"
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("stream", [False, True])
@MODELS
def test_its_errors_are_passed_on(desk: Desk, upstream: Upstream, name: str, stream: bool) -> None:
    error = {
        "message": "Invalid 'max_output_tokens': integer below minimum value.",
        "type": "invalid_request_error",
        "param": "max_output_tokens",
        "code": "integer_below_min_value",
    }
    upstream.will({"error": error}, status=400)
    with pytest.raises(asking.Refused) as caught:
        desk.ask(deployment(name, upstream.url + "/v1"), guests.ask("openai.responses", stream))
    told = caught.value
    assert (told.upstream_status, told.message, told.param) == (400, error["message"], "max_output_tokens")
    assert (told.type, told.provider_code) == ("invalid_request_error", "integer_below_min_value")
