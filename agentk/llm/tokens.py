"""How many tokens a request can have at most, and how many a text has about, without any tokenizer.

The bound is one: a byte-level tokenizer never makes more tokens than there are UTF-8 bytes, so the bytes of the body
as JSON (whose punctuation outweighs what providers add around messages and tools) are never too few. Media are
counted apart, because their price is not in their bytes. It is generous, three to five times the truth for English;
a budget is settled with the truth afterwards.
"""

import json
from collections.abc import Mapping
from typing import Any

from agentk.api import errors
from agentk.llm import asking

# Qwen-VL's most for one picture, above Anthropic's (about 4,800) and OpenAI's (1,445), but below gpt-4o-mini's.
IMAGE_TOKENS = 16_384
MINI_IMAGE_TOKENS = 48_169  # gpt-4o-mini: 2,833 and 8 tiles of 5,667
# What a provider writes around every request, and what Anthropic adds when tools are offered (at most 804 documented).
REQUEST_TOKENS = 64
TOOLS_TOKENS = 1_024
MESSAGE_TOKENS = 8
BYTES_A_TOKEN = 3  # English is about 4, code about 3, Chinese about 3 to 4 bytes a token

_IMAGE_PARTS = ("image_url", "input_image", "image")  # no set: a guest's type may be a list


def upper_bound(dialect: asking.Dialect, body: Mapping[str, Any], model: str = "") -> int:
    """At least as many tokens as any provider will read of this body. 0 for counting tokens, which is free."""
    if dialect == "anthropic.count_tokens":
        return 0
    images = 0

    def without_images(value: Any) -> Any:
        nonlocal images
        if isinstance(value, Mapping):
            if value.get("type") in _IMAGE_PARTS:
                images += 1
                return None
            return {key: without_images(below) for key, below in value.items()}
        return [without_images(below) for below in value] if isinstance(value, list) else value

    try:
        text = json.dumps(body, ensure_ascii=False, default=str)
        if any(
            kind in text for kind in _IMAGE_PARTS
        ):  # rarely: looking at every value takes ten times as long
            text = json.dumps(without_images(body), ensure_ascii=False, default=str)
    except RecursionError:
        raise errors.BadRequest("the request is nested too deeply") from None
    size = len(text.encode("utf-8", "surrogatepass"))
    each = MINI_IMAGE_TOKENS if dear_images(model) else IMAGE_TOKENS
    messages = body.get("messages") or body.get("input") or ()
    count = len(messages) if isinstance(messages, list) else 1
    extra = REQUEST_TOKENS + (TOOLS_TOKENS if body.get("tools") else 0) + count * MESSAGE_TOKENS
    return size + images * each + extra


def dear_images(model: str) -> bool:
    """Whether a picture may be of the most tokens."""
    return "mini" in model


def count_text(text: str) -> int:
    """About how many tokens a text has, rather too many than too few: settles what nobody told."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_A_TOKEN)


def most_output(dialect: asking.Dialect, body: Mapping[str, Any]) -> int | None:
    """The most a request lets the model write, over all its choices; None when it says nothing."""
    if dialect in ("openai.embeddings", "anthropic.count_tokens"):
        return 0
    told = [body.get(name) for name in LIMIT_FIELDS[dialect]]
    bounds = [value for value in told if isinstance(value, int) and not isinstance(value, bool) and value > 0]
    if not bounds:
        return None
    choices = body.get("n") if dialect == "openai.chat" else 1
    many = choices if isinstance(choices, int) and not isinstance(choices, bool) and choices > 0 else 1
    return max(bounds) * many


LIMIT_FIELDS: dict[asking.Dialect, tuple[str, ...]] = {
    "openai.chat": ("max_completion_tokens", "max_tokens"),
    "openai.responses": ("max_output_tokens",),
    "openai.embeddings": (),
    "anthropic.messages": ("max_tokens",),
    "anthropic.count_tokens": (),
}


def with_limit(ask: asking.Ask, most: int) -> asking.Ask:
    """The same request with a bound on the answer where it has none; unchanged when it has one or `most` is 0."""
    if most <= 0 or most_output(ask.dialect, ask.body) is not None:
        return ask
    name = LIMIT_FIELDS[ask.dialect][0]
    return asking.Ask(ask.dialect, {**ask.body, name: most}, ask.stream, ask.expected)
