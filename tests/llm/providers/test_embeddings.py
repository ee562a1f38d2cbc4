"""Embeddings: "Create embeddings" in the OpenAI API reference, "Embeddings" in the Gemini API docs, and "Generate
embeddings" in Ollama's API reference.
"""

from typing import Any

import pytest

from agentk.llm import asking
from providers import compatible
from providers.upstream import KEY, Desk, Upstream, deployment

ASK = asking.Ask("openai.embeddings", {"model": "m", "input": ["one", "two"]})
VECTORS = [[0.1, -0.2], [0.3, 0.4]]
STRINGS = {"type": "array", "items": {"type": "string"}}


def openai_answer() -> dict[str, Any]:
    data = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(VECTORS)]
    return {"object": "list", "data": data, "model": "x", "usage": {"prompt_tokens": 8, "total_tokens": 8}}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("openai/text-embedding-3-small", "/v1/embeddings"),
        ("hosted_vllm/bge-m3", "/v1/embeddings"),
        ("dashscope/text-embedding-v4", "/v1/embeddings"),
    ],
)
def test_compatible_ones(desk: Desk, upstream: Upstream, name: str, path: str) -> None:
    upstream.will(openai_answer())
    got = desk.ask(deployment(name, upstream.url + "/v1"), ASK)
    (seen,) = upstream.seen
    assert (seen.path, seen.headers["authorization"]) == (path, f"Bearer {KEY}")
    schema = {
        "type": "object",
        "properties": {
            "model": {"const": name.partition("/")[2]},
            "input": STRINGS,
            "encoding_format": {"enum": ["float", "base64"]},
        },
        "required": ["model", "input"],
        "additionalProperties": False,
    }
    compatible.check(seen.body, schema)
    assert [each["embedding"] for each in got.document["data"]] == VECTORS
    assert (got.usage.input_tokens, got.usage.output_tokens, got.usage.counted) == (8, 0, False)


def test_gemini(desk: Desk, upstream: Upstream) -> None:
    upstream.will({"embeddings": [{"values": vector} for vector in VECTORS]})
    got = desk.ask(deployment("gemini/gemini-embedding-001", upstream.url + "/v1beta"), ASK)
    (seen,) = upstream.seen
    assert seen.path == "/v1beta/models/gemini-embedding-001:batchEmbedContents"
    assert seen.headers["x-goog-api-key"] == KEY
    assert [each["content"]["parts"] for each in seen.body["requests"]] == [
        [{"text": "one"}],
        [{"text": "two"}],
    ]
    assert {each["model"] for each in seen.body["requests"]} == {"models/gemini-embedding-001"}
    assert [each["embedding"] for each in got.document["data"]] == VECTORS


def test_ollama(desk: Desk, upstream: Upstream) -> None:
    upstream.will({"model": "all-minilm", "embeddings": VECTORS, "prompt_eval_count": 8})
    got = desk.ask(deployment("ollama/all-minilm", upstream.url), ASK)
    assert [seen.path for seen in upstream.seen] == ["/api/embed"]
    assert upstream.seen[0].body["input"] == ["one", "two"]
    assert [each["embedding"] for each in got.document["data"]] == VECTORS
    assert got.usage.input_tokens == 8


def test_an_error_is_passed_on(desk: Desk, upstream: Upstream) -> None:
    error = {
        "message": "This model's maximum context length is 8192 tokens.",
        "type": "invalid_request_error",
    }
    upstream.will({"error": error}, status=400)
    with pytest.raises(asking.Refused, match="8192") as caught:
        desk.ask(deployment("openai/text-embedding-3-small", upstream.url + "/v1"), ASK)
    assert (caught.value.upstream_status, caught.value.type) == (400, "invalid_request_error")
