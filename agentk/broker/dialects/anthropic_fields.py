"""What an agent may send to Anthropic's paths: every field of the published requests that is let through.

A field that is missing here is refused. Left out on purpose: what chooses account, place or a dearer tier
(`workspace_id`, `user_profile_id`, `inference_geo`, `speed: fast`), and `mcp_servers`, which only the beta path knows
and which names an address and a token. Server tools are listed, because a Policy may allow them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from agentk.broker.dialects import features
from agentk.broker.dialects.fields import (
    Either,
    Fields,
    Flag,
    Items,
    Json,
    Number,
    Shape,
    Tagged,
    Text,
    Whole,
    named,
    one_of,
)

_TEXT, _FLAG, _WORD, _JSON, _OBJECT = Text(), Flag(), Text(256), Json(), Json((dict,))
_CACHE = named("type", type=one_of("ephemeral"), ttl=one_of("5m", "1h"))
_CITED = named(enabled=_FLAG)


def _kinds(**kinds: Fields) -> Tagged:
    """Objects told apart by `type`, each with that field added."""
    return Tagged("type", {word: _typed(word, shape) for word, shape in kinds.items()})


def _typed(word: str, shape: Fields) -> Fields:
    return Fields({"type": one_of(word), **shape.known}, shape.required | {"type"})


_TEXT_BLOCK = named("text", text=_TEXT, cache_control=_CACHE, citations=_JSON)
_WORDS = _kinds(text=_TEXT_BLOCK)
_BASE64 = named("data", "media_type", data=_TEXT, media_type=_WORD)
_URL = named("url", url=_TEXT)
_FILE = named("file_id", file_id=_TEXT)
_IMAGE = named(
    "source",
    source=_kinds(base64=_BASE64, url=_URL, file=_FILE),
    cache_control=_CACHE,
    transformations=_OBJECT,
)
_FOUND = named(
    "content",
    "source",
    "title",
    content=Items(_WORDS),
    source=_TEXT,
    title=_TEXT,
    cache_control=_CACHE,
    citations=_CITED,
)
_DOCUMENT = named(
    "source",
    source=_kinds(
        base64=_BASE64,
        text=named("data", data=_TEXT, media_type=_WORD),
        content=named("content", content=Either((_TEXT, Items(_kinds(text=_TEXT_BLOCK, image=_IMAGE))))),
        url=_URL,
        file=_FILE,
    ),
    cache_control=_CACHE,
    citations=_CITED,
    context=_TEXT,
    title=_TEXT,
)
_REFERENCE = named("tool_name", tool_name=_TEXT, cache_control=_CACHE)
_RESULT_PARTS = Tagged(
    "type",
    {
        "text": _typed("text", _TEXT_BLOCK),
        "image": _typed("image", _IMAGE),
        "document": _typed("document", _DOCUMENT),
        "search_result": _typed("search_result", _FOUND),
        "tool_reference": _typed("tool_reference", _REFERENCE),
        "browser_state": _typed(
            "browser_state", named(**dict.fromkeys(("tabs", "state_changes", "cache_control"), _JSON))
        ),
    },
)
_USE = named(
    "id",
    "name",
    "input",
    id=_TEXT,
    name=_TEXT,
    input=_JSON,
    cache_control=_CACHE,
    caller=_OBJECT,
    toolset_name=_TEXT,
)
_RESULT = named(
    "tool_use_id",
    tool_use_id=_TEXT,
    content=Either((_TEXT, Items(_RESULT_PARTS))),
    is_error=_FLAG,
    cache_control=_CACHE,
    toolset_name=_TEXT,
)
_SERVED = named(
    "tool_use_id", "content", tool_use_id=_TEXT, content=_JSON, cache_control=_CACHE, caller=_OBJECT
)
_BLOCK = _kinds(
    text=_TEXT_BLOCK,
    image=_IMAGE,
    document=_DOCUMENT,
    search_result=_FOUND,
    thinking=named("thinking", thinking=_TEXT, signature=_TEXT),
    redacted_thinking=named("data", data=_TEXT),
    tool_use=_USE,
    tool_result=_RESULT,
    server_tool_use=_USE,
    web_search_tool_result=_SERVED,
    web_fetch_tool_result=_SERVED,
    code_execution_tool_result=_SERVED,
    bash_code_execution_tool_result=_SERVED,
    text_editor_code_execution_tool_result=_SERVED,
    tool_search_tool_result=_SERVED,
    container_upload=named("file_id", file_id=_TEXT, cache_control=_CACHE),
)
_CONTENT = Either((_TEXT, Items(_BLOCK)))
_MESSAGE = named("role", "content", role=one_of("user", "assistant", "system"), content=_CONTENT)

_COMMON: dict[str, Shape] = {
    "type": _WORD,
    "name": _TEXT,
    "allowed_callers": Items(_WORD, 16),
    "cache_control": _CACHE,
    "defer_loading": _FLAG,
    "strict": _FLAG,
}
_CUSTOM = Fields(
    {
        **_COMMON,
        "input_schema": _OBJECT,
        "description": _TEXT,
        "eager_input_streaming": _FLAG,
        "input_examples": _JSON,
    },
    frozenset({"name", "input_schema"}),
)
# Anthropic's own tools carry their date in their type; new dates come without a new shape.
_OF_ANTHROPIC = Fields(
    {
        **_COMMON,
        "allowed_domains": Items(_TEXT, 1000),
        "blocked_domains": Items(_TEXT, 1000),
        "citations": _CITED,
        "configs": _OBJECT,
        "display_height_px": Whole(),
        "display_number": Whole(),
        "display_width_px": Whole(),
        "input_examples": _JSON,
        "max_characters": Whole(),
        "max_content_tokens": Whole(),
        "max_uses": Whole(),
        "response_inclusion": _WORD,
        "url_sources": _JSON,
        "use_cache": _FLAG,
        "user_location": _OBJECT,
    },
    frozenset({"type"}),
)
_TOOL = Tagged("type", {"custom": _CUSTOM}, absent="custom", other=_OF_ANTHROPIC)
_PARALLEL: dict[str, Shape] = {"disable_parallel_tool_use": _FLAG}
_SHOWN = one_of("summarized", "omitted")

_COUNTED: dict[str, Shape] = {
    "cache_control": _CACHE,
    "messages": Items(_MESSAGE, 100_000),
    "model": _WORD,
    "output_config": named(
        effort=one_of("low", "medium", "high", "xhigh", "max"),
        format=named("type", "schema", type=one_of("json_schema"), schema=_OBJECT),
    ),
    "speed": one_of("standard"),
    "system": Either((_TEXT, Items(_WORDS))),
    "thinking": _kinds(
        enabled=named("budget_tokens", budget_tokens=Whole(1), display=_SHOWN),
        adaptive=named(display=_SHOWN),
        disabled=named(),
        between_tools=named(),
    ),
    "tool_choice": _kinds(
        auto=Fields(_PARALLEL),
        any=Fields(_PARALLEL),
        tool=named("name", name=_TEXT, **_PARALLEL),
        none=named(),
    ),
    "tools": Items(_TOOL, 1024),
}
COUNT_TOKENS = Fields(_COUNTED, frozenset({"model", "messages"}))
MESSAGES = Fields(
    {
        **_COUNTED,
        "container": Either((_TEXT, named(id=_TEXT, skills=Items(_OBJECT, 64)))),
        "diagnostics": named(previous_message_id=_TEXT),
        "max_tokens": Whole(1),
        "metadata": named(user_id=_TEXT),
        "service_tier": one_of("auto", "standard_only"),
        "stop_sequences": Items(_TEXT, 1000),
        "stream": _FLAG,
        "temperature": Number(0, 1),
        "top_k": Whole(),
        "top_p": Number(0, 1),
    },
    frozenset({"model", "messages"}),
)
BODIES: Mapping[str, Fields] = {"anthropic.messages": MESSAGES, "anthropic.count_tokens": COUNT_TOKENS}

# The agent itself runs these; anything else with a type runs at the provider, or gives it a screen.
_RUN_BY_THE_GUEST = ("bash_2", "text_editor_2", "memory_2")
_HOSTED_BLOCKS = ("server_tool_use", "container_upload")


def _judge(key: str, value: Mapping[str, Any]) -> Iterator[str]:
    told = value.get("type")
    kind = told if isinstance(told, str) else ""
    if key == "tools" and kind not in ("", "custom") and not kind.startswith(_RUN_BY_THE_GUEST):
        yield features.HOSTED_TOOLS
    if key == "tools" and kind.startswith("web_fetch_"):  # it fetches whatever address the conversation names
        yield features.REMOTE_URLS
    if kind in _HOSTED_BLOCKS or (kind.endswith("_tool_result") and kind != "tool_result"):
        yield features.HOSTED_TOOLS
    if key == "container" and value.get("skills"):
        yield features.HOSTED_TOOLS
    container = value.get("container")
    if container and (isinstance(container, str) or (isinstance(container, dict) and container.get("id"))):
        yield features.FILE_IDS
    if value.get("previous_message_id"):
        yield features.STORED_RESPONSES


# What a hosted tool found is an echo, and `source` of a search result the name of a place: neither is fetched.
_OPAQUE = "input input_schema input_examples schema metadata citations configs tabs state_changes"
_TEXTS = "text content name title description context thinking signature source system stop_sequences user_id"
READING = features.Reading(
    frozenset(_TEXTS.split()), frozenset(_OPAQUE.split()), _judge, frozenset({"web_search_tool_result"})
)
