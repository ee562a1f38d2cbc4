"""OpenAI's dialect: the real client against a door of ours, the allow-list against the client's own types, and what
an agent tries in order to send a call elsewhere."""

import asyncio
import json
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import openai as client
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
    ApprovalRequired,
    BadRequest,
    BudgetExceeded,
    Denied,
    Invalid,
    NotFound,
    OutcomeUnknown,
    TooManyRequests,
    UpstreamError,
)
from agentk.broker.dialects import asked, openai, openai_responses_fields
from agentk.broker.dialects.fields import Either, Fields, Items, Shape, Tagged
from agentk.broker.dialects.http import HttpService, Respond
from agentk.broker.dialects.http_reading import Request

MESSAGES = [{"role": "user", "content": "hello"}]
CHAT = {"model": "default", "messages": MESSAGES}
RESPONSES = {"model": "default", "input": "hello"}
EMBEDDINGS = {"model": "default", "input": "hello"}


def post(path: str, body: Any, headers: Mapping[str, str] | None = None) -> Request:
    return Request("POST", path, headers=headers or {}, body=json.dumps(body).encode())


def read(
    body: Mapping[str, Any], path: str = "/v1/chat/completions", names: tuple[str, ...] = ()
) -> asked.Asked:
    return judged(post(path, body), names)


def judged(request: Request, names: tuple[str, ...] = ()) -> asked.Asked:
    """As the gate does it: read, then held against the allow-list and the route."""
    told = openai.read(request)
    if told.method != "models":
        openai.check(told.dialect, told.body)
        asked.checked_model(told.body["model"], names)
    return told


def features(body: Mapping[str, Any], path: str = "/v1/chat/completions") -> frozenset[str]:
    told = read(body, path)
    return openai.features_of(told.dialect, told.body)


# The real client


async def answering(request: Request, respond: Respond) -> None:
    """A model that says what it was asked, in OpenAI's words."""
    try:
        told = judged(request, ("default", "org/model"))
        if told.model == "missing":
            raise NotFound("no such model", field="model")
    except AgentkError as problem:
        answer = openai.error(problem, "req_1")
        respond.whole(answer.status, answer.headers, answer.body)
        return
    if told.method == "models":
        answer = openai.model(told.model) if told.model else openai.models(["default", "org/model"])
        respond.whole(answer.status, answer.headers, answer.body)
    elif told.stream:
        respond.start(200, {"content-type": "text/event-stream"})
        for word in ("Hel", "lo"):
            await respond.write(chunk({"content": word}))
        await respond.write(b"data: [DONE]\n\n")
        respond.end()
    else:
        respond.whole(200, {"content-type": "application/json"}, json.dumps(canned(told)).encode())


def chunk(delta: Mapping[str, str]) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    told = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(told).encode()


def canned(told: asked.Asked) -> dict[str, Any]:
    if told.dialect == "openai.embeddings":
        data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        return {
            "object": "list",
            "model": "m",
            "data": data,
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }
    if told.dialect == "openai.responses":
        text = {"type": "output_text", "text": "Hello", "annotations": []}
        message = {
            "type": "message",
            "id": "m",
            "role": "assistant",
            "status": "completed",
            "content": [text],
        }
        return {
            "id": "r",
            "object": "response",
            "created_at": 1,
            "model": "m",
            "output": [message],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
    message = {"role": "assistant", "content": "Hello"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


@asynccontextmanager
async def talking(
    handler: Callable[[Request, Respond], Awaitable[None]], **settings: Any
) -> AsyncIterator[client.AsyncOpenAI]:
    service = HttpService(handler)
    server = await asyncio.get_running_loop().create_server(
        lambda: service.connection(by_unix=False), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    try:
        async with client.AsyncOpenAI(
            api_key="none", base_url=f"http://127.0.0.1:{port}/v1", **settings
        ) as sdk:
            yield sdk
    finally:
        server.close()
        await service.close()


def test_sdk_chat_plain_and_streamed() -> None:
    async def main() -> None:
        async with talking(answering) as sdk:
            answer = await sdk.chat.completions.create(model="default", messages=MESSAGES)  # type: ignore[arg-type]
            assert answer.choices[0].message.content == "Hello"
            stream = await sdk.chat.completions.create(model="default", messages=MESSAGES, stream=True)  # type: ignore
            words = [part.choices[0].delta.content async for part in stream]
            assert words == ["Hel", "lo"]

    asyncio.run(main())


def test_sdk_sends_its_own_answer_back() -> None:
    async def main() -> None:
        async with talking(answering) as sdk:
            first = await sdk.chat.completions.create(model="default", messages=MESSAGES)  # type: ignore[arg-type]
            talk: Any = [*MESSAGES, first.choices[0].message, {"role": "user", "content": "more"}]
            await sdk.chat.completions.create(model="default", messages=talk)
            reply = await sdk.responses.create(model="default", input="hi")
            items: Any = [*reply.output, {"role": "user", "content": "more"}]
            again = await sdk.responses.create(model="default", input=items)
            assert again.output_text == "Hello"

    asyncio.run(main())


def test_sdk_embeddings_and_models() -> None:
    async def main() -> None:
        async with talking(answering) as sdk:
            answer = await sdk.embeddings.create(model="default", input=["a", "b"], encoding_format="float")
            assert answer.data[0].embedding == [0.5]
            assert [model.id async for model in sdk.models.list()] == ["default", "org/model"]
            assert (await sdk.models.retrieve("org/model")).id == "org/model"

    asyncio.run(main())


def test_sdk_is_told_which_field_is_refused() -> None:
    async def main() -> None:
        async with talking(answering) as sdk:
            with pytest.raises(client.BadRequestError) as caught:
                await sdk.chat.completions.create(
                    model="default",
                    messages=MESSAGES,  # type: ignore[arg-type]
                    extra_body={"api_base": "http://evil.example"},
                )
            assert caught.value.param == "api_base"
            assert caught.value.request_id == "req_1"
            assert "ModelRoute" in caught.value.message

    asyncio.run(main())


ERRORS = [
    (Denied("rule 'x' says no"), client.PermissionDeniedError, "policy_denied", 1),
    (ApprovalRequired("ask first"), client.PermissionDeniedError, "approval_required", 1),
    (BudgetExceeded("spent"), client.RateLimitError, "insufficient_quota", 1),
    (OutcomeUnknown("maybe"), client.ConflictError, "outcome_unknown", 1),
    (NotFound("which?", field="model"), client.NotFoundError, "model_not_found", 1),
    (Invalid("no"), client.BadRequestError, "invalid", 1),
    (TooManyRequests("later", retry_after_seconds=0), client.RateLimitError, "rate_limit_exceeded", 3),
    (UpstreamError("broken", retry_after_seconds=0), client.InternalServerError, "upstream_error", 3),
]


@pytest.mark.parametrize("problem, kind, code, tries", ERRORS, ids=[type(e[0]).__name__ for e in ERRORS])
def test_sdk_knows_each_error_and_retries_only_what_may_be(
    problem: AgentkError,
    kind: type[client.APIStatusError],
    code: str,
    tries: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001)
    seen: list[bool] = []

    async def failing(request: Request, respond: Respond) -> None:
        seen.append(asked.retried(request.headers))
        answer = openai.error(problem)
        respond.whole(answer.status, answer.headers, answer.body)

    async def main() -> None:
        async with talking(failing, max_retries=2) as sdk:
            with pytest.raises(kind) as caught:
                await sdk.chat.completions.create(model="default", messages=MESSAGES)  # type: ignore[arg-type]
            assert caught.value.code == code

    asyncio.run(main())
    assert seen == [False, True, True][:tries]


def test_sdk_sees_an_error_inside_a_stream() -> None:
    async def breaking(request: Request, respond: Respond) -> None:
        respond.start(200, {"content-type": "text/event-stream"})
        await respond.write(chunk({"content": "Hel"}))
        await respond.write(openai.stream_error(UpstreamError("broken"), "openai.chat"))
        respond.end()

    async def main() -> None:
        async with talking(breaking) as sdk:
            stream = await sdk.chat.completions.create(model="default", messages=MESSAGES, stream=True)  # type: ignore
            with pytest.raises(client.APIError, match="broken"):
                async for _ in stream:
                    pass

    asyncio.run(main())


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


# Bounds, keys, paths


@pytest.mark.parametrize(
    "dialect, body, expected",
    [
        ("openai.chat", {}, {"max_tokens": 100}),
        ("openai.chat", {"n": 3}, {"n": 3, "max_tokens": 33}),
        ("openai.chat", {"max_tokens": None}, {"max_tokens": 100}),
        ("openai.chat", {"max_completion_tokens": 500}, {"max_completion_tokens": 500}),
        ("openai.responses", {}, {"max_output_tokens": 100}),
        ("openai.embeddings", {}, {}),
    ],
)
def test_a_bound_is_written_when_the_guest_gave_none(
    dialect: str, body: dict[str, Any], expected: dict[str, Any]
) -> None:
    before = dict(body)
    assert asked.bounded(body, dialect, 100) == expected
    assert body == before


def test_responses_are_not_stored_unless_asked_for() -> None:
    assert openai.prepared(RESPONSES, "openai.responses")["store"] is False
    assert openai.prepared({**RESPONSES, "store": True}, "openai.responses")["store"] is True
    assert "store" not in openai.prepared(CHAT, "openai.chat")


@pytest.mark.parametrize(
    "count, expected", [("0", False), ("1", True), ("12", True), ("", False), ("x", False)]
)
def test_retries_are_told_by_the_sdk(count: str, expected: bool) -> None:
    assert asked.retried({"x-stainless-retry-count": count}) is expected


def test_idempotency_key_is_bounded() -> None:
    assert asked.idempotency_key({"idempotency-key": "abc"}) == "abc"
    with pytest.raises(BadRequest):
        asked.idempotency_key({"idempotency-key": "a" * 300})


@pytest.mark.parametrize(
    "method, path", [("GET", "/v1/chat/completions"), ("POST", "/v1/models"), ("GET", "/v1/responses/resp_1")]
)
def test_other_paths_and_methods_are_refused(method: str, path: str) -> None:
    with pytest.raises(AgentkError):
        openai.read(Request(method, path))


def test_form_is_not_json() -> None:
    with pytest.raises(BadRequest):
        openai.read(post("/v1/chat/completions", CHAT, {"content-type": "text/plain"}))
