"""Where providers are reached and which dialects they speak themselves, so that a call can be passed through as it is.

A provider that is not here, or a dialect it does not speak, goes through LiteLLM, which translates. Only facts from the
providers' own documentation belong here; nothing here is ever taken from what a guest sends.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from agentk.llm import asking

_CHAT: tuple[asking.Dialect, ...] = ("openai.chat",)
_CHAT_EMBED: tuple[asking.Dialect, ...] = ("openai.chat", "openai.embeddings")
_ALL_OPENAI: tuple[asking.Dialect, ...] = ("openai.chat", "openai.responses", "openai.embeddings")

PATHS: dict[asking.Dialect, str] = {
    "openai.chat": "/chat/completions",
    "openai.responses": "/responses",
    "openai.embeddings": "/embeddings",
    "anthropic.messages": "/v1/messages",
    "anthropic.count_tokens": "/v1/messages/count_tokens",
}
ANTHROPIC_VERSION = "2023-06-01"


@dataclass(frozen=True)
class Provider:
    """`base` is where it is reached when the route gives no apiBase; "" when every user has an own one."""

    base: str
    dialects: tuple[asking.Dialect, ...]
    auth: Literal["bearer", "x-api-key"] = "bearer"
    # How chat completions name the bound of the answer; "" leaves what the guest wrote. A server that knows only one
    # of the two ignores the other, and an ignored bound is no bound.
    limit_field: str = ""
    needs_key: bool = True
    free: bool = False  # the user's own machine: a token costs nothing
    base_suffix: str = ""  # what LiteLLM leaves off the base and the OpenAI paths need


PROVIDERS: dict[str, Provider] = {
    "openai": Provider("https://api.openai.com/v1", _ALL_OPENAI, limit_field="max_completion_tokens"),
    "custom_openai": Provider("", _CHAT_EMBED, needs_key=False),
    "anthropic": Provider(
        "https://api.anthropic.com", ("anthropic.messages", "anthropic.count_tokens"), auth="x-api-key"
    ),
    "groq": Provider("https://api.groq.com/openai/v1", _CHAT, limit_field="max_completion_tokens"),
    "deepseek": Provider("https://api.deepseek.com", _CHAT, limit_field="max_tokens"),
    "moonshot": Provider("https://api.moonshot.ai/v1", _CHAT, limit_field="max_tokens"),
    "dashscope": Provider(
        "https://dashscope.aliyuncs.com/compatible-mode/v1", _CHAT_EMBED, limit_field="max_tokens"
    ),
    "minimax": Provider("https://api.minimax.io/v1", _CHAT, limit_field="max_completion_tokens"),
    "openrouter": Provider("https://openrouter.ai/api/v1", _CHAT, limit_field="max_tokens"),
    "hosted_vllm": Provider("", _CHAT_EMBED, limit_field="max_tokens", needs_key=False),
    "ollama": Provider(
        "http://localhost:11434",
        _CHAT_EMBED,
        limit_field="max_tokens",
        needs_key=False,
        free=True,
        base_suffix="/v1",
    ),
    "lm_studio": Provider("", _CHAT_EMBED, limit_field="max_tokens", needs_key=False, free=True),
    "llamafile": Provider(
        "http://127.0.0.1:8080/v1", _CHAT, limit_field="max_tokens", needs_key=False, free=True
    ),
}
PROVIDERS["ollama_chat"] = PROVIDERS["ollama"]


def url(name: str, api_base: str, dialect: asking.Dialect) -> str:
    """Full address of a dialect. `api_base` may already end in the path, as LiteLLM's users write it."""
    provider, path = PROVIDERS[name], PATHS[dialect]
    base = (api_base or provider.base).rstrip("/")
    for end in PATHS.values():
        base = base.removesuffix(end)
    if path.startswith(
        "/v1/"
    ):  # Anthropic's: the version belongs to the path, but is often written in the base
        base = base.removesuffix("/v1")
    elif provider.base_suffix and not base.endswith(provider.base_suffix):
        base += provider.base_suffix
    return base + path


def limit_field(name: str, api_base: str) -> str:
    """What the bound of a chat answer is called. Behind an own address `openai` may be any server: left as it is."""
    return "" if name == "openai" and api_base else PROVIDERS[name].limit_field


def auth_headers(name: str, key: str, organization: str = "") -> Mapping[str, str]:
    """What proves the route's right to ask. Never log or show it."""
    headers: dict[str, str] = {}
    if PROVIDERS[name].auth == "x-api-key":
        headers["anthropic-version"] = ANTHROPIC_VERSION
        if key:
            headers["x-api-key"] = key
    elif key:
        headers["authorization"] = f"Bearer {key}"
    if organization:
        headers["openai-organization"] = organization
    return headers
