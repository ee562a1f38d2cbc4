"""What an agent may send to OpenAI's paths: every field of the published requests that is let through, with its type.

A field that is missing here is refused. Left out on purpose: what chooses account, place or a dearer tier
(`service_tier` fast and priority). Items and tools that providers run by themselves are listed, because a Policy may
allow them; `features` finds them.
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
    Labels,
    Number,
    Shape,
    Tagged,
    Text,
    Whole,
    by_type,
    named,
    one_of,
    tag,
)

TEXT, FLAG, WORD, JSON, OBJECT = Text(), Flag(), Text(256), Json(), Json((dict,))
CACHE_POINT = named("mode", mode=one_of("explicit"))
EFFORT = one_of("none", "minimal", "low", "medium", "high", "xhigh", "max")
VERBOSITY = one_of("low", "medium", "high")
# LiteLLM reads routing out of these names; they are no guest's to write.
_METADATA = Labels(
    names=frozenset(
        {"tags", "model_group", "model_info", "api_base", "deployment", "caching_groups", "hidden_params"}
    )
)
MODEL = Text(256)


# Chat completions

_CHAT_PARTS = by_type(
    tag("text", "text", text=TEXT, prompt_cache_breakpoint=CACHE_POINT),
    tag("refusal", "refusal", refusal=TEXT),
    tag(
        "image_url",
        "image_url",
        image_url=named("url", url=TEXT, detail=one_of("auto", "low", "high", "original")),
        prompt_cache_breakpoint=CACHE_POINT,
    ),
    tag(
        "input_audio",
        "input_audio",
        input_audio=named("data", "format", data=TEXT, format=one_of("wav", "mp3")),
        prompt_cache_breakpoint=CACHE_POINT,
    ),
    tag(
        "file",
        "file",
        file=named(file_data=TEXT, file_id=TEXT, filename=TEXT),
        prompt_cache_breakpoint=CACHE_POINT,
    ),
)
_CONTENT = Either((TEXT, Items(_CHAT_PARTS)))
# Echoes of an answer: clients send whole messages back, with what translators and open servers added to them.
_ECHOES = dict.fromkeys(("provider_specific_fields", "extra_content"), JSON)
_CALLED = named("name", name=TEXT, arguments=TEXT, **_ECHOES)
_CALLS = Items(
    by_type(
        tag("function", "function", function=_CALLED, id=TEXT, index=Whole(), **_ECHOES),
        tag(
            "custom",
            "custom",
            custom=named("name", name=TEXT, input=TEXT),
            id=TEXT,
            index=Whole(),
            **_ECHOES,
        ),
        absent="function",
    )
)
_TALK = {"role": one_of("system", "developer", "user"), "content": _CONTENT, "name": TEXT}
_MESSAGE = Tagged(
    "role",
    {
        **{role: Fields(_TALK, frozenset({"content"})) for role in ("system", "developer", "user")},
        "assistant": named(
            role=one_of("assistant"),
            content=_CONTENT,
            name=TEXT,
            refusal=TEXT,
            audio=named("id", id=TEXT, data=TEXT, expires_at=Whole(), transcript=TEXT),
            function_call=_CALLED,
            tool_calls=_CALLS,
            annotations=JSON,
            reasoning_content=TEXT,  # DeepSeek and Moonshot want it back with tool results
            reasoning=TEXT,
            reasoning_details=JSON,
            thinking_blocks=JSON,
            **_ECHOES,
        ),
        "tool": named(
            "content", "tool_call_id", role=one_of("tool"), content=_CONTENT, tool_call_id=TEXT, name=TEXT
        ),
        "function": named("name", role=one_of("function"), content=TEXT, name=TEXT),
    },
)
_FUNCTION = named("name", name=TEXT, description=TEXT, parameters=OBJECT, strict=FLAG)
_GRAMMAR = Json((dict,))
_CHAT_TOOL = by_type(
    tag("function", "function", function=_FUNCTION),
    tag("custom", "custom", custom=named("name", name=TEXT, description=TEXT, format=_GRAMMAR)),
)
_NAMED = named("name", name=TEXT)
_CHAT_CHOICE = Either(
    (
        one_of("none", "auto", "required"),
        by_type(
            tag("function", "function", function=_NAMED),
            tag("custom", "custom", custom=_NAMED),
            tag(
                "allowed_tools",
                "allowed_tools",
                allowed_tools=named(
                    "mode", "tools", mode=one_of("auto", "required"), tools=Items(_CHAT_TOOL)
                ),
            ),
        ),
    )
)
_PLACE = named("approximate", type=one_of("approximate"), approximate=Labels())
SHARED: dict[str, Shape] = {
    "model": MODEL,
    "metadata": _METADATA,
    "moderation": named("model", model=MODEL, policy=OBJECT),
    "parallel_tool_calls": FLAG,
    "prompt_cache_key": TEXT,
    "prompt_cache_options": named(mode=one_of("implicit", "explicit"), ttl=WORD),
    "prompt_cache_retention": one_of("in_memory", "in-memory", "24h"),
    "safety_identifier": WORD,
    "service_tier": one_of("auto", "default", "flex"),
    "store": FLAG,
    "stream": FLAG,
    "temperature": Number(0, 2),
    "top_logprobs": Whole(0, 20),
    "top_p": Number(0, 1),
    "user": TEXT,
}
CHAT = Fields(
    {
        **SHARED,
        "messages": Items(_MESSAGE),
        "audio": named("voice", "format", voice=Either((WORD, named("id", id=TEXT))), format=WORD),
        "frequency_penalty": Number(-2, 2),
        "function_call": Either((one_of("none", "auto"), _NAMED)),
        "functions": Items(_FUNCTION),
        "logit_bias": Json((dict,)),
        "logprobs": FLAG,
        "max_completion_tokens": Whole(1),
        "max_tokens": Whole(1),
        "modalities": Items(one_of("text", "audio")),
        "n": Whole(1, 128),
        "prediction": tag("content", "content", content=_CONTENT),
        "presence_penalty": Number(-2, 2),
        "reasoning_effort": EFFORT,
        "response_format": by_type(
            tag("text"),
            tag("json_object"),
            tag(
                "json_schema",
                "json_schema",
                json_schema=named("name", name=TEXT, description=TEXT, schema=OBJECT, strict=FLAG),
            ),
        ),
        "seed": Whole(-(2**63), 2**63),
        "stop": Either((TEXT, Items(TEXT, 16))),
        "stream_options": named(include_usage=FLAG, include_obfuscation=FLAG),
        "tool_choice": _CHAT_CHOICE,
        "tools": Items(_CHAT_TOOL, 1024),
        "verbosity": VERBOSITY,
        "web_search_options": named(search_context_size=VERBOSITY, user_location=_PLACE),
        # Of the open servers that speak this dialect (vLLM, Ollama, DeepSeek, Moonshot, Qwen): only sampling.
        "enable_thinking": FLAG,
        "min_p": Number(0, 1),
        "repetition_penalty": Number(0, 10),
        "thinking": named("type", type=one_of("enabled", "disabled", "auto")),
        "top_k": Whole(-1),
    },
    frozenset({"model", "messages"}),
)

# Embeddings

_TOKENS = Items(Whole())
EMBEDDINGS = Fields(
    {
        "model": MODEL,
        "input": Either((TEXT, Items(Either((TEXT, Whole(), _TOKENS))))),
        "dimensions": Whole(1),
        "encoding_format": one_of("float", "base64"),
        "user": TEXT,
    },
    frozenset({"model", "input"}),
)


_RUN_BY_THE_GUEST = frozenset({"function", "custom", "namespace", "local_shell", "apply_patch"})
# What came of a hosted tool, or tells it to go on.
_HOSTED_ITEMS = frozenset(
    {
        "code_interpreter_call",
        "computer_call",
        "computer_call_output",
        "file_search_call",
        "image_generation_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "program",
        "program_output",
        "web_search_call",
    }
)


def _judge(key: str, value: Mapping[str, Any]) -> Iterator[str]:
    told = value.get("type")
    kind = told if isinstance(told, str) else ""
    if key == "tools" and not _is_of_the_guest(value):
        yield features.HOSTED_TOOLS
    if kind in ("tool_search_call", "tool_search_output") and value.get("execution") != "client":
        yield features.HOSTED_TOOLS
    if kind in _HOSTED_ITEMS or value.get("web_search_options") is not None:
        yield features.HOSTED_TOOLS
    if kind == "item_reference" or value.get("store") is True or value.get("background") is True:
        yield features.STORED_RESPONSES
    if any(value.get(name) for name in ("previous_response_id", "conversation", "prompt")):
        yield features.STORED_RESPONSES
    if key == "audio" and value.get("id"):  # an earlier answer's sound, kept at the provider
        yield features.STORED_RESPONSES
    if (key == "voice" and value.get("id")) or isinstance(value.get("container"), str):
        yield features.FILE_IDS


def _is_of_the_guest(tool: Mapping[str, Any]) -> bool:
    """Whether the agent runs this tool itself. A kind not known here runs at the provider."""
    kind, environment = tool.get("type"), tool.get("environment")
    if kind == "shell":
        return isinstance(environment, dict) and environment.get("type") == "local"
    if kind == "tool_search":
        return tool.get("execution") == "client"
    return isinstance(kind, str) and kind in _RUN_BY_THE_GUEST


# Annotations and actions are echoes of answers, schemas and arguments the guest's own: no provider fetches them.
_OPAQUE = (
    "parameters schema output_schema metadata logit_bias annotations action actions operation results outputs"
)
_WORDS = (
    "text content name title description arguments instructions refusal reasoning reasoning_content input output stop"
    " filename user server_description code summary encrypted_content id call_id tool_call_id"
)
READING = features.Reading(frozenset(_WORDS.split()), frozenset(_OPAQUE.split()), _judge)
