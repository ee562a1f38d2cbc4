"""Gemini, from "Generating content", "Function calling" and "Troubleshooting" in the Gemini API docs."""

import json
from typing import Any

import pytest

from agentk.llm import asking
from providers import compatible, guests
from providers.upstream import KEY, Desk, Upstream, deployment, events

MODEL = "gemini-2.5-flash"
STRING = {"type": "string"}


def one_of(**properties: Any) -> dict[str, Any]:
    """An object with some of these and nothing else. The REST mapping of protocol buffers takes both spellings."""
    both = properties | {_snake(name): schema for name, schema in properties.items()}
    return {"type": "object", "properties": both, "additionalProperties": False, "minProperties": 1}


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


PART = one_of(
    text=STRING,
    thought={"type": "boolean"},
    thoughtSignature=STRING,
    functionCall=one_of(id=STRING, name=STRING, args={"type": "object"}),
    functionResponse=one_of(id=STRING, name=STRING, response={"type": "object"}),
)
CONTENT = one_of(role={"enum": ["user", "model"]}, parts={"type": "array", "minItems": 1, "items": PART})
REQUEST = one_of(
    contents={"type": "array", "minItems": 1, "items": CONTENT},
    systemInstruction=one_of(role=STRING, parts={"type": "array", "items": PART}),
    tools={
        "type": "array",
        "items": one_of(
            functionDeclarations={
                "type": "array",
                "items": one_of(
                    name=STRING,
                    description=STRING,
                    parameters={"type": "object"},
                    parametersJsonSchema={"type": "object"},
                ),
            }
        ),
    },
    toolConfig=one_of(functionCallingConfig=one_of(mode={"enum": ["AUTO", "ANY", "NONE"]})),
    safetySettings={"type": "array"},
    generationConfig=one_of(
        temperature={"type": "number"},
        topP={"type": "number"},
        topK={"type": "integer"},
        maxOutputTokens={"type": "integer"},
        candidateCount={"type": "integer"},
        stopSequences={"type": "array"},
        thinkingConfig={"type": "object"},
    ),
) | {"required": ["contents"]}
USAGE = {
    "promptTokenCount": 40,
    "candidatesTokenCount": 3,
    "thoughtsTokenCount": 2,
    "totalTokenCount": 45,
    "cachedContentTokenCount": 16,
}


def candidate(*parts: dict[str, Any], finish: str | None = "STOP") -> dict[str, Any]:
    said: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        said["finishReason"] = finish
    return {"candidates": [said], "usageMetadata": USAGE, "modelVersion": MODEL, "responseId": "r1"}


CALL = candidate({"functionCall": {"name": "get_weather", "args": {"city": "Oslo"}}})


def model(upstream: Upstream) -> dict[str, Any]:
    return deployment(f"gemini/{MODEL}", upstream.url + "/v1beta")


@pytest.mark.parametrize("dialect", guests.DIALECTS)
def test_the_request_is_what_it_publishes(desk: Desk, upstream: Upstream, dialect: asking.Dialect) -> None:
    upstream.will(candidate({"text": "Mild."}))
    got = desk.ask(model(upstream), guests.ask(dialect))
    (seen,) = upstream.seen
    assert (seen.method, seen.path) == ("POST", f"/v1beta/models/{MODEL}:generateContent")
    assert seen.headers["x-goog-api-key"] == KEY
    assert seen.query == {}
    compatible.check(seen.body, REQUEST)
    assert [content["role"] for content in seen.body["contents"]] == ["user", "model", "user"]
    assert "Be brief." in json.dumps(seen.body)
    config = seen.body["generationConfig"]
    assert config.get("maxOutputTokens", config.get("max_output_tokens")) == 64
    assert guests.said(dialect, got) == "Mild."
    assert (got.usage.input_tokens, got.usage.output_tokens, got.usage.cached_tokens) == (40, 5, 16)


@pytest.mark.parametrize("dialect", guests.DIALECTS)
def test_a_tool_call_streams(desk: Desk, upstream: Upstream, dialect: asking.Dialect) -> None:
    upstream.will_stream(events(candidate({"text": ""}, finish=None), CALL, done=False))
    got = desk.ask(model(upstream), guests.ask(dialect, stream=True))
    (seen,) = upstream.seen
    assert (seen.path, seen.query) == (f"/v1beta/models/{MODEL}:streamGenerateContent", {"alt": "sse"})
    assert got.error is None
    assert guests.called(dialect, got) == ("get_weather", {"city": "Oslo"})
    assert guests.ended(dialect, got)
    assert (got.usage.input_tokens, got.usage.output_tokens, got.usage.counted) == (40, 5, False)


@pytest.mark.parametrize("dialect", guests.DIALECTS)
def test_a_stream_cut_short_is_an_error(desk: Desk, upstream: Upstream, dialect: asking.Dialect) -> None:
    upstream.will_stream(
        events(candidate({"text": "Mil"}, finish=None), done=False), cut=b'data: {"candidates": [{"co'
    )
    got = desk.ask(model(upstream), guests.ask(dialect, stream=True))
    assert got.error and got.error.type == "incomplete_stream"
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_its_errors_are_passed_on(desk: Desk, upstream: Upstream, stream: bool) -> None:
    message = "You exceeded your current quota, please check your plan and billing details."
    error = {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED"}
    upstream.will({"error": error}, status=429)
    with pytest.raises(asking.Refused) as caught:
        desk.ask(model(upstream), guests.ask("openai.chat", stream))
    told = caught.value
    assert (told.upstream_status, told.message, told.type) == (429, message, "RESOURCE_EXHAUSTED")
    assert len(upstream.seen) == 1
