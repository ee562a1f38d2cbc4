"""Anthropic's dialect: the real client against a door of ours, the allow-list against the client's own types."""

import asyncio
import json
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anthropic as client
import pytest
from anthropic.types import (
    content_block_param,
    message_count_tokens_params,
    message_create_params,
    tool_union_param,
)
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import is_typeddict

from agentk.api.errors import (
    AgentkError,
    BadRequest,
    BudgetExceeded,
    Denied,
    NotFound,
    OutcomeUnknown,
    TooManyRequests,
    Unavailable,
)
from agentk.broker.dialects import anthropic, asked
from agentk.broker.dialects.fields import Either, Fields, Items, Shape, Tagged
from agentk.broker.dialects.http import HttpService, Respond
from agentk.broker.dialects.http_reading import Request

MESSAGES: Any = [{"role": "user", "content": "hello"}]
BODY = {"model": "default", "max_tokens": 10, "messages": MESSAGES}


def read(body: Mapping[str, Any], path: str = "/v1/messages") -> asked.Asked:
    return judged(Request("POST", path, body=json.dumps(body).encode()))


def judged(request: Request) -> asked.Asked:
    """As the gate does it: read, then held against the allow-list."""
    told = anthropic.read(request)
    if told.method != "models":
        anthropic.check(told.dialect, told.body)
        asked.checked_model(told.body["model"], ())
    return told


async def answering(request: Request, respond: Respond) -> None:
    """A model that says hello, in Anthropic's words."""
    try:
        told = judged(request)
    except AgentkError as problem:
        answer = anthropic.error(problem, "req_1")
        respond.whole(answer.status, answer.headers, answer.body)
        return
    if told.method == "models":
        answer = anthropic.model(told.model) if told.model else anthropic.models(["default"])
        respond.whole(answer.status, answer.headers, answer.body)
    elif told.dialect == "anthropic.count_tokens":
        respond.whole(200, {"content-type": "application/json"}, b'{"input_tokens": 7}')
    elif told.stream:
        respond.start(200, {"content-type": "text/event-stream"})
        for event in EVENTS:
            await respond.write(
                b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode())
            )
        respond.end()
    else:
        respond.whole(200, {"content-type": "application/json"}, json.dumps(MESSAGE).encode())


MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
]


@asynccontextmanager
async def talking(
    handler: Callable[[Request, Respond], Awaitable[None]], **settings: Any
) -> AsyncIterator[client.AsyncAnthropic]:
    service = HttpService(handler)
    server = await asyncio.get_running_loop().create_server(
        lambda: service.connection(by_unix=False), "127.0.0.1", 0
    )
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with client.AsyncAnthropic(api_key="none", base_url=url, **settings) as sdk:
            yield sdk
    finally:
        server.close()
        await service.close()


def test_sdk_messages_plain_streamed_and_sent_back() -> None:
    async def main() -> None:
        async with talking(answering) as sdk:
            answer = await sdk.messages.create(model="default", max_tokens=10, messages=MESSAGES)
            assert answer.content[0].type == "text"
            talk: Any = [*MESSAGES, {"role": "assistant", "content": answer.content}, *MESSAGES]
            async with sdk.messages.stream(model="default", max_tokens=10, messages=talk) as stream:
                assert [text async for text in stream.text_stream] == ["Hello"]

    asyncio.run(main())


def test_sdk_count_tokens_and_models() -> None:
    async def main() -> None:
        async with talking(answering) as sdk:
            counted = await sdk.messages.count_tokens(model="default", messages=MESSAGES)
            assert counted.input_tokens == 7
            assert [model.id async for model in sdk.models.list()] == ["default"]

    asyncio.run(main())


def test_sdk_is_told_which_field_is_refused() -> None:
    async def main() -> None:
        async with talking(answering) as sdk:
            with pytest.raises(client.BadRequestError, match="api_base") as caught:
                await sdk.messages.create(
                    model="default",
                    max_tokens=10,
                    messages=MESSAGES,
                    extra_body={"api_base": "http://evil.example"},
                )
            assert caught.value.request_id == "req_1"

    asyncio.run(main())


ERRORS = [
    (Denied("rule 'x' says no"), client.PermissionDeniedError, "permission_error", 1),
    (BudgetExceeded("spent"), client.RateLimitError, "rate_limit_error", 1),
    (OutcomeUnknown("maybe"), client.ConflictError, "invalid_request_error", 1),
    (NotFound("which?"), client.NotFoundError, "not_found_error", 1),
    (TooManyRequests("later", retry_after_seconds=0), client.RateLimitError, "rate_limit_error", 3),
    (Unavailable("later", retry_after_seconds=0), client.InternalServerError, "overloaded_error", 3),
]


@pytest.mark.parametrize("problem, kind, word, tries", ERRORS, ids=[type(e[0]).__name__ for e in ERRORS])
def test_sdk_knows_each_error_and_retries_only_what_may_be(
    problem: AgentkError,
    kind: type[client.APIStatusError],
    word: str,
    tries: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("anthropic._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("anthropic._base_client.MAX_RETRY_DELAY", 0.001)
    seen: list[bool] = []

    async def failing(request: Request, respond: Respond) -> None:
        seen.append(asked.retried(request.headers))
        answer = anthropic.error(problem)
        respond.whole(answer.status, answer.headers, answer.body)

    async def main() -> None:
        async with talking(failing, max_retries=2) as sdk:
            with pytest.raises(kind) as caught:
                await sdk.messages.create(model="default", max_tokens=10, messages=MESSAGES)
            body: Any = caught.value.body
            assert body["error"]["type"] == word

    asyncio.run(main())
    assert seen == [False, True, True][:tries]


def test_sdk_sees_an_error_inside_a_stream() -> None:
    async def breaking(request: Request, respond: Respond) -> None:
        respond.start(200, {"content-type": "text/event-stream"})
        await respond.write(anthropic.stream_error(Unavailable("broken")))
        respond.end()

    async def main() -> None:
        async with talking(breaking) as sdk:
            stream = await sdk.messages.create(model="default", max_tokens=10, messages=MESSAGES, stream=True)
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


def tags(kind: Any) -> list[str]:
    def words(hint: Any) -> list[str]:
        if typing.get_origin(hint) is typing.Literal:
            return list(typing.get_args(hint))
        return [word for part in typing.get_args(hint) for word in words(part)]

    return words(typing.get_type_hints(kind)["type"])


def tagged(shape: Shape) -> Tagged:
    while not isinstance(shape, Tagged):
        if isinstance(shape, Either):
            shape = shape.shapes[-1]
        else:
            assert isinstance(shape, Items)
            shape = shape.of
    return shape


# Which account, whose account, where: not an agent's to choose.
LEFT_OUT = {"inference_geo", "user_profile_id", "workspace_id"}
# Taken from the request by older models of the client's types, and still published.
SAMPLING = {"temperature", "top_k", "top_p"}


@pytest.mark.parametrize(
    "dialect, kinds",
    [
        (
            "anthropic.messages",
            [
                message_create_params.MessageCreateParamsBase,
                message_create_params.MessageCreateParamsStreaming,
            ],
        ),
        ("anthropic.count_tokens", [message_count_tokens_params.MessageCountTokensParams]),
    ],
)
def test_every_published_field_is_in_the_table(dialect: str, kinds: list[Any]) -> None:
    published = set[str]().union(*(keys(kind) for kind in kinds))
    assert set(anthropic.BODIES[dialect].known) - SAMPLING == published - LEFT_OUT - SAMPLING


def test_every_published_tool_is_in_the_table() -> None:
    table = tagged(anthropic.BODIES["anthropic.messages"].known["tools"])
    for kind in members(tool_union_param.ToolUnionParam):
        for word in tags(kind):
            shape = table.kinds.get(word, table.other)
            assert isinstance(shape, Fields)
            assert keys(kind) <= set(shape.known), word


def test_every_published_block_is_in_the_table() -> None:
    message = anthropic.BODIES["anthropic.messages"].known["messages"]
    assert isinstance(message, Items)
    assert isinstance(message.of, Fields)
    table = tagged(message.of.known["content"])
    for kind in members(content_block_param.ContentBlockParam):
        (word,) = tags(kind)
        shape = table.kinds[word]
        assert isinstance(shape, Fields)
        assert keys(kind) <= set(shape.known), word


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        name: (name, {**BODY, name: "x"})
        for name in (
            "api_base",
            "api_key",
            "base_url",
            "workspace_id",
            "user_profile_id",
            "inference_geo",
            "fallbacks",
        )
    },
    "MCP servers of the beta path": (
        "mcp_servers",
        {**BODY, "mcp_servers": [{"type": "url", "url": "https://x"}]},
    ),
    "a dearer speed": ("speed", {**BODY, "speed": "fast"}),
    "a provider in the model": ("model", {**BODY, "model": "bedrock/claude"}),
    "more than a user in metadata": ("metadata.tags", {**BODY, "metadata": {"tags": ["x"]}}),
    "an unknown block": (
        "messages[0].content[0].type",
        {**BODY, "messages": [{"role": "user", "content": [{"type": "x"}]}]},
    ),
    "a field of a tool": (
        "tools[0].headers",
        {**BODY, "tools": [{"name": "f", "input_schema": {}, "headers": {"x": "y"}}]},
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_with_the_path_of_the_field(what: str) -> None:
    path, body = REFUSED[what]
    with pytest.raises(BadRequest) as caught:
        read(body)
    assert caught.value.field == path


def user(*blocks: Any) -> dict[str, Any]:
    return {**BODY, "messages": [{"role": "user", "content": list(blocks)}]}


def tool(**fields: Any) -> dict[str, Any]:
    return {**BODY, "tools": [fields]}


def source(kind: str, **fields: Any) -> dict[str, Any]:
    return user({"type": kind, "source": fields})


URLS = frozenset({"remoteUrls"})
HOSTED = frozenset({"hostedTools"})
FILES = frozenset({"fileIds"})
PNG = {"media_type": "image/png"}
FEATURES: list[tuple[dict[str, Any], frozenset[str]]] = [
    (BODY, frozenset()),
    (user({"type": "text", "text": "https://x.example"}), frozenset()),
    (source("image", type="base64", data="aaaa", **PNG), frozenset()),
    (source("image", type="base64", data="https://x/a.png", **PNG), URLS),
    (source("image", type="url", url="https://x/a.png"), URLS),
    (source("document", type="url", url="http://x/a.pdf"), URLS),
    (source("document", type="file", file_id="file_1"), FILES),
    (
        user(
            {
                "type": "tool_result",
                "tool_use_id": "t",
                "content": [{"type": "image", "source": {"type": "url", "url": "https://x/a.png"}}],
            }
        ),
        URLS,
    ),
    (
        user(
            {
                "type": "document",
                "source": {
                    "type": "content",
                    "content": [{"type": "image", "source": {"type": "url", "url": "https://x/a.png"}}],
                },
            }
        ),
        URLS,
    ),
    (user({"type": "tool_use", "id": "t", "name": "f", "input": {"url": "https://x"}}), frozenset()),
    (user({"type": "search_result", "source": "https://x", "title": "t", "content": []}), frozenset()),
    (user({"type": "container_upload", "file_id": "file_1"}), HOSTED | FILES),
    (user({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}), HOSTED),
    (
        user({"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "https://x"}]}),
        HOSTED,
    ),
    (tool(name="f", input_schema={"type": "object"}), frozenset()),
    (tool(type="custom", name="f", input_schema={"default": "https://x"}), frozenset()),
    (tool(type="bash_20250124", name="bash"), frozenset()),
    (tool(type="text_editor_20250728", name="edit"), frozenset()),
    (tool(type="memory_20250818", name="memory"), frozenset()),
    (tool(type="web_search_20250305", name="web_search"), HOSTED),
    (tool(type="web_fetch_20250910", name="web_fetch"), HOSTED | URLS),
    (tool(type="code_execution_20250825", name="code_execution"), HOSTED),
    (tool(type="computer_toolset_20260801"), HOSTED),
    (tool(type="a_tool_of_tomorrow_20990101", name="x"), HOSTED),
    ({**BODY, "container": "cntr_1"}, FILES),
    ({**BODY, "container": {"skills": [{"type": "anthropic", "skill_id": "xlsx"}]}}, HOSTED | FILES),
    ({**BODY, "diagnostics": {"previous_message_id": "msg_1"}}, frozenset({"storedResponses"})),
]


@pytest.mark.parametrize("body, expected", FEATURES)
def test_features(body: dict[str, Any], expected: frozenset[str]) -> None:
    told = read(body)
    assert anthropic.features_of(told.dialect, told.body) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
NAMES = sorted(anthropic.BODIES["anthropic.messages"].known)


@given(st.sampled_from(sorted(anthropic.PATHS)), st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4))
def test_no_body_crashes_it(path: str, extra: dict[str, Any]) -> None:
    for body in (extra, {**BODY, **extra}, {**BODY, "messages": [extra]}):
        try:
            read(body, path)
        except AgentkError as problem:
            json.loads(anthropic.error(problem).body)


def test_max_tokens_is_written_when_the_guest_gave_none() -> None:
    assert asked.bounded({}, "anthropic.messages", 50) == {"max_tokens": 50}
    assert asked.bounded(BODY, "anthropic.messages", 5)["max_tokens"] == 10
    assert asked.bounded({}, "anthropic.count_tokens", 50) == {}


def test_models_is_anthropics_when_its_client_asks() -> None:
    assert anthropic.takes(Request("GET", "/v1/models", headers={"anthropic-version": "2023-06-01"}))
    assert not anthropic.takes(Request("GET", "/v1/models"))
    assert not anthropic.takes(Request("POST", "/v1/chat/completions"))


@pytest.mark.parametrize("method, path", [("GET", "/v1/messages"), ("POST", "/v1/messages/batches")])
def test_other_paths_and_methods_are_refused(method: str, path: str) -> None:
    with pytest.raises(AgentkError):
        anthropic.read(Request(method, path))
