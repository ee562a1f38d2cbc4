"""The allow-list of Anthropic's dialect against the types of its own client."""

import json
import typing
from collections.abc import Mapping
from typing import Any

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
)
from agentk.broker.dialects import anthropic, asked
from agentk.broker.dialects.fields import Either, Fields, Items, Shape, Tagged
from agentk.broker.dialects.http_reading import Request
from tests.broker.anthropic_rig import BODY, judged, user


def read(body: Mapping[str, Any], path: str = "/v1/messages") -> asked.Asked:
    return judged(Request("POST", path, body=json.dumps(body).encode()))


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
