"""OpenAI's dialect: the allow-list against the client's own types, and which features a request uses, whatever an agent
tries in order to send a call elsewhere."""

import json
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import embedding_create_params
from openai.types.chat import (
    chat_completion_content_part_param,
    chat_completion_message_param,
    completion_create_params,
)
from openai.types.responses import (
    response_create_params,
    response_input_content_param,
    response_input_item_param,
    tool_param,
)
from typing_extensions import is_typeddict

from agentk.api.errors import (
    AgentkError,
    BadRequest,
    NotFound,
)
from agentk.broker.dialects import openai, openai_responses_fields
from agentk.broker.dialects.fields import Either, Fields, Items, Shape, Tagged
from agentk.broker.dialects.http_reading import Request
from tests.broker.openai_requests import CHAT, EMBEDDINGS, MESSAGES, RESPONSES, features, read

# The allow-list


def keys(kind: Any) -> set[str]:
    return set(typing.get_type_hints(kind))


def members(union: Any) -> list[Any]:
    if typing.get_origin(union) is typing.Union:
        return [inner for member in typing.get_args(union) for inner in members(member)]
    return [union] if is_typeddict(union) else []


def tags(kind: Any, name: str = "type") -> list[str]:
    def words(hint: Any) -> list[str]:
        if typing.get_origin(hint) is typing.Literal:
            return list(typing.get_args(hint))
        return [word for part in typing.get_args(hint) for word in words(part)]

    return words(typing.get_type_hints(kind)[name])


def tagged(shape: Shape) -> Tagged:
    while not isinstance(shape, Tagged):
        if isinstance(shape, Either):
            shape = shape.shapes[-1]
        else:
            assert isinstance(shape, Items)
            shape = shape.of
    return shape


@pytest.mark.parametrize(
    "dialect, kinds",
    [
        (
            "openai.chat",
            [
                completion_create_params.CompletionCreateParamsBase,
                completion_create_params.CompletionCreateParamsStreaming,
            ],
        ),
        (
            "openai.responses",
            [
                response_create_params.ResponseCreateParamsBase,
                response_create_params.ResponseCreateParamsStreaming,
            ],
        ),
        ("openai.embeddings", [embedding_create_params.EmbeddingCreateParams]),
    ],
)
def test_every_published_field_is_in_the_table(dialect: str, kinds: list[Any]) -> None:
    published = set[str]().union(*(keys(kind) for kind in kinds))
    of_open_servers = {"enable_thinking", "min_p", "repetition_penalty", "thinking", "top_k"}
    assert (
        set(openai.BODIES[dialect].known) - (of_open_servers if dialect == "openai.chat" else set())
        == published
    )


@pytest.mark.parametrize(
    "union, shape",
    [
        (chat_completion_message_param.ChatCompletionMessageParam, openai.CHAT.known["messages"]),
        (tool_param.ToolParam, openai_responses_fields.RESPONSES.known["tools"]),
        (response_input_item_param.ResponseInputItemParam, openai_responses_fields.RESPONSES.known["input"]),
    ],
    ids=["messages", "tools", "items"],
)
def test_every_published_kind_is_in_the_table(union: Any, shape: Shape) -> None:
    table = tagged(shape)
    for kind in members(union):
        for word in tags(kind, table.tag):
            inner = table.kinds[word]
            assert isinstance(inner, Fields)
            assert keys(kind) <= set(inner.known), word


@pytest.mark.parametrize(
    "union, body",
    [
        (chat_completion_content_part_param.ChatCompletionContentPartParam, "chat"),
        (response_input_content_param.ResponseInputContentParam, "responses"),
    ],
)
def test_every_published_part_is_in_the_table(union: Any, body: str) -> None:
    if body == "chat":
        message = tagged(openai.CHAT.known["messages"]).kinds["user"]
    else:
        message = tagged(openai.RESPONSES.known["input"]).kinds["message"]
    assert isinstance(message, Fields)
    table = tagged(message.known["content"])
    for kind in members(union):
        (word,) = tags(kind)
        inner = table.kinds[word]
        assert isinstance(inner, Fields)
        assert keys(kind) == set(inner.known)


REDIRECTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        name: (name, {**CHAT, name: "http://evil.example"})
        for name in (
            "api_base",
            "base_url",
            "api_key",
            "custom_llm_provider",
            "api_version",
            "model_list",
            "timeout",
        )
    },
    **{
        name: (name, {**CHAT, name: {"X-Evil": "1"}})
        for name in ("extra_headers", "extra_body", "headers", "litellm_params", "fallbacks", "mock_response")
    },
    "a provider in the model": ("model", {**CHAT, "model": "openai/gpt-4o"}),
    "an empty provider": ("model", {**CHAT, "model": "/gpt-4o"}),
    "a model that is an object": ("model", {**CHAT, "model": {"name": "x", "api_base": "y"}}),
    "a dearer tier": ("service_tier", {**CHAT, "service_tier": "priority"}),
    "routing in metadata": ("metadata.tags", {**CHAT, "metadata": {"tags": "x"}}),
    "an object in metadata": ("metadata.a", {**CHAT, "metadata": {"a": {"api_base": "x"}}}),
    "a field of a message": (
        "messages[0].api_base",
        {**CHAT, "messages": [{**MESSAGES[0], "api_base": "x"}]},
    ),
    "an unknown kind of content": (
        "messages[0].content[0].type",
        {
            **CHAT,
            "messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "x"}}]}],
        },
    ),
    "a search tool of another provider": ("tools[0].type", {**CHAT, "tools": [{"googleSearch": {}}]}),
    "a hosted tool in chat": (
        "tools[0].type",
        {**CHAT, "tools": [{"type": "mcp", "server_url": "http://x"}]},
    ),
    "a field beside a function": (
        "tools[0].api_base",
        {**CHAT, "tools": [{"type": "function", "function": {"name": "f"}, "api_base": "x"}]},
    ),
    "a number that is none": ("max_tokens", {**CHAT, "max_tokens": "100"}),
    "a truth that is none": ("stream", {**CHAT, "stream": "yes"}),
    "no messages": ("messages", {"model": "default"}),
    "a role of nobody": ("messages[0].role", {**CHAT, "messages": [{"role": "root", "content": "x"}]}),
}


@pytest.mark.parametrize("what", REDIRECTIONS)
def test_refused_with_the_path_of_the_field(what: str) -> None:
    path, body = REDIRECTIONS[what]
    with pytest.raises(BadRequest) as caught:
        read(body)
    assert caught.value.field == path


def test_model_of_the_route_may_have_a_slash() -> None:
    assert read({**CHAT, "model": "org/model"}, names=("org/model",)).body["model"] == "org/model"


def test_model_of_no_route_is_not_found() -> None:
    with pytest.raises(NotFound, match="gpt"):
        read({**CHAT, "model": "gpt"}, names=("default",))


def test_schema_of_a_tool_is_the_guests_own() -> None:
    schema = {"type": "object", "properties": {"image_url": {"type": "string", "default": "https://x"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert features({**CHAT, "tools": [tool]}) == frozenset()


def test_schema_is_bounded_in_depth() -> None:
    schema: Any = {}
    for _ in range(80):
        schema = {"a": schema}
    with pytest.raises(BadRequest, match="nested deeper"):
        read({**CHAT, "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]})


def test_json_nested_without_end_is_refused() -> None:
    with pytest.raises(BadRequest, match="not JSON"):
        openai.read(Request("POST", "/v1/chat/completions", body=b"[" * 1_000_000))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"a": NaN}', b"\xff", b'{"a": 1' + b"0" * 5000 + b"}"])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        openai.read(Request("POST", "/v1/chat/completions", body=body))


# Features


def user(*parts: Any) -> dict[str, Any]:
    return {**CHAT, "messages": [{"role": "user", "content": list(parts)}]}


def said(*parts: Any, **fields: Any) -> dict[str, Any]:
    return {**RESPONSES, "input": [{"role": "user", "content": list(parts)}], **fields}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


URLS = frozenset({"remoteUrls"})
HOSTED = frozenset({"hostedTools"})
STORED = frozenset({"storedResponses"})
FILES = frozenset({"fileIds"})
FEATURES: list[tuple[str, dict[str, Any], frozenset[str]]] = [
    ("chat/completions", CHAT, frozenset()),
    ("chat/completions", user({"type": "text", "text": "see https://x.example"}), frozenset()),
    ("chat/completions", user(image("data:image/png;base64,aaaa")), frozenset()),
    ("chat/completions", user(image("https://x.example/a.png")), URLS),
    ("chat/completions", user(image(" HTTP://x.example/a.png")), URLS),
    ("chat/completions", user(image("//x.example/a.png")), URLS),
    ("chat/completions", user(image("http:\\\\x.example")), URLS),
    ("chat/completions", user(image("file:///etc/passwd")), URLS),
    ("chat/completions", user({"type": "file", "file": {"file_id": "file-1"}}), FILES),
    ("chat/completions", user({"type": "file", "file": {"file_id": "https://x/a.pdf"}}), FILES | URLS),
    ("chat/completions", user({"type": "file", "file": {"file_data": "gs://bucket/a.pdf"}}), URLS),
    (
        "chat/completions",
        user({"type": "file", "file": {"file_data": "data:application/pdf;base64,aa"}}),
        frozenset(),
    ),
    (
        "chat/completions",
        user({"type": "input_audio", "input_audio": {"data": "https://x/a.wav", "format": "wav"}}),
        URLS,
    ),
    ("chat/completions", {**CHAT, "web_search_options": {}}, HOSTED),
    ("chat/completions", {**CHAT, "store": True}, STORED),
    ("chat/completions", {**CHAT, "store": False}, frozenset()),
    ("chat/completions", {**CHAT, "audio": {"voice": {"id": "voice_1"}, "format": "wav"}}, FILES),
    (
        "chat/completions",
        {**CHAT, "messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]},
        STORED,
    ),
    ("responses", RESPONSES, frozenset()),
    ("responses", said({"type": "input_image", "image_url": "https://x/a.png"}), URLS),
    ("responses", said({"type": "input_image", "file_id": "file-1"}), FILES),
    ("responses", said({"type": "input_file", "file_url": "https://x/a.pdf"}), URLS),
    (
        "responses",
        {
            **RESPONSES,
            "input": [
                {
                    "type": "function_call_output",
                    "call_id": "c",
                    "output": [{"type": "input_image", "image_url": "https://x/a.png"}],
                }
            ],
        },
        URLS,
    ),
    ("responses", {**RESPONSES, "store": True}, STORED),
    ("responses", {**RESPONSES, "background": True}, STORED),
    ("responses", {**RESPONSES, "previous_response_id": "resp_1"}, STORED),
    ("responses", {**RESPONSES, "conversation": "conv_1"}, STORED),
    ("responses", {**RESPONSES, "prompt": {"id": "pmpt_1"}}, STORED),
    ("responses", {**RESPONSES, "input": [{"type": "item_reference", "id": "i"}]}, STORED),
    *(
        ("responses", {**RESPONSES, "tools": [{"type": kind}]}, HOSTED)
        for kind in (
            "web_search",
            "web_search_preview",
            "computer",
            "image_generation",
            "programmatic_tool_calling",
        )
    ),
    (
        "responses",
        {**RESPONSES, "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
        HOSTED | FILES,
    ),
    (
        "responses",
        {**RESPONSES, "tools": [{"type": "mcp", "server_label": "x", "server_url": "https://x"}]},
        HOSTED | URLS,
    ),
    (
        "responses",
        {**RESPONSES, "tools": [{"type": "mcp", "server_label": "x", "connector_id": "c"}]},
        HOSTED,
    ),
    (
        "responses",
        {**RESPONSES, "tools": [{"type": "code_interpreter", "container": "cntr_1"}]},
        HOSTED | FILES,
    ),
    (
        "responses",
        {
            **RESPONSES,
            "tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["f"]}}],
        },
        HOSTED | FILES,
    ),
    ("responses", {**RESPONSES, "tools": [{"type": "shell"}]}, HOSTED),
    ("responses", {**RESPONSES, "tools": [{"type": "shell", "environment": {"type": "local"}}]}, frozenset()),
    ("responses", {**RESPONSES, "tools": [{"type": "local_shell"}, {"type": "apply_patch"}]}, frozenset()),
    ("responses", {**RESPONSES, "tools": [{"type": "function", "name": "f", "parameters": {}}]}, frozenset()),
    (
        "responses",
        {**RESPONSES, "tools": [{"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}]},
        HOSTED,
    ),
    ("responses", {**RESPONSES, "input": [{"type": "additional_tools", "tools": [{"type": "mcp"}]}]}, HOSTED),
    (
        "responses",
        {
            **RESPONSES,
            "input": [{"type": "mcp_approval_response", "approval_request_id": "a", "approve": True}],
        },
        HOSTED,
    ),
    ("embeddings", EMBEDDINGS, frozenset()),
    ("embeddings", {**EMBEDDINGS, "input": ["https://x.example is a site"]}, frozenset()),
    ("embeddings", {**EMBEDDINGS, "input": ["a", "gs://bucket/a.png"]}, URLS),
]


@pytest.mark.parametrize("path, body, expected", FEATURES)
def test_features(path: str, body: dict[str, Any], expected: frozenset[str]) -> None:
    assert features(body, f"/v1/{path}") == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
NAMES = sorted({name for fields in openai.BODIES.values() for name in fields.known})


@given(st.sampled_from(sorted(openai.PATHS)), st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4))
def test_no_body_crashes_it(path: str, extra: dict[str, Any]) -> None:
    for body in (extra, {**CHAT, **extra}, {**RESPONSES, **extra}, {"model": "m", "input": [extra], **extra}):
        try:
            read(body, path)
        except AgentkError as problem:
            json.loads(openai.error(problem).body)


@given(JSON, st.sampled_from(["image_url", "file_url", "file_id", "data", "whatever"]))
def test_an_address_is_found_however_deep(around: Any, key: str) -> None:
    body = {**CHAT, "extra": [around, {"x": [{key: "https://evil.example/x"}]}]}
    assert "remoteUrls" in openai.features_of("openai.chat", body)
