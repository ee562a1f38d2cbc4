"""What may go into a call of LiteLLM and what may come out of its errors. Pure: it does not import LiteLLM.

LiteLLM takes its own controls (`api_key`, `api_base`, `fallbacks`, `extra_headers`, `mock_response` …) as keyword
arguments beside the request's, and what a call gives wins over the route. So only the fields listed here ever become
arguments, whatever was checked before: the route is the whole truth about where a call goes and with which key.
"""

import ast
import base64
import json
import math
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentk.llm import asking

_CHAT = (
    "messages tools tool_choice parallel_tool_calls functions function_call max_tokens max_completion_tokens "
    "temperature top_p top_k n stop seed presence_penalty frequency_penalty logit_bias logprobs top_logprobs "
    "response_format reasoning_effort thinking verbosity modalities audio prediction user service_tier "
    "prompt_cache_key safety_identifier"
)
_RESPONSES = (
    "input instructions tools tool_choice parallel_tool_calls max_output_tokens max_tool_calls temperature top_p "
    "reasoning text truncation include previous_response_id store user service_tier prompt_cache_key "
    "safety_identifier top_logprobs"
)
_MESSAGES = (
    "messages system max_tokens tools tool_choice temperature top_p top_k stop_sequences thinking metadata "
    "service_tier output_config output_format"
)
FIELDS: dict[asking.Dialect, frozenset[str]] = {
    "openai.chat": frozenset(_CHAT.split()),
    "openai.responses": frozenset(_RESPONSES.split()),
    "openai.embeddings": frozenset(("input", "dimensions", "encoding_format", "user")),
    "anthropic.messages": frozenset(_MESSAGES.split()),
    "anthropic.count_tokens": frozenset(("messages", "system", "tools", "tool_choice", "thinking")),
}
# Known, and no argument: said otherwise, or (labels of stored answers) of no use to a translated call.
_ASIDE = frozenset(("model", "stream", "stream_options"))
_LABELS = {"openai.chat": {"metadata", "store"}, "openai.responses": {"metadata", "stream_options"}}

MESSAGE_CHARS_MAX = 2_000  # of an upstream's error text: some answer with a whole page
_SECRET = re.compile(r"key|token|secret|passw|credential|auth|cookie|bearer", re.IGNORECASE)
_HEADERS = ("headers", "extra_headers", "default_headers")
_SHORTEST = 4  # a shorter value is in every other word
_WORD = re.compile(r"\S+")
_READ_CHARS_MAX = 16_384  # of an error that is looked into: an upstream may answer anything
_PREFIX = re.compile(r"^(?:litellm\.)?\w*(?:Error|Timeout)\s*:\s*|^\w*(?:Exception|Error)\s*[-:]\s*")
# What aiohttp and httpx say of a body that ended before its end.
_BROKEN_OFF = re.compile(r"payload is not completed|incomplete chunked read|peer closed connection")


class Unusable(Exception):
    """The request, or the route, says something that cannot be translated."""


def arguments(dialect: asking.Dialect, body: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a request, its model and its stream left out."""
    known, aside = FIELDS[dialect], _ASIDE | _LABELS.get(dialect, set())
    for name in body:
        if name not in known and name not in aside:
            raise Unusable(f"the field {name!r} cannot be translated for this model's provider")
    given = {name: body[name] for name in known if body.get(name) is not None}
    if dialect == "anthropic.messages" and isinstance(given.get("metadata"), Mapping):
        given["metadata"] = {k: v for k, v in given["metadata"].items() if k == "user_id"}
    for tool in given.get("tools") or ():
        # LiteLLM itself would run this one, with calls to a model that the guest names.
        if isinstance(tool, Mapping) and str(tool.get("type", "")).startswith("advisor"):
            raise Unusable("the tool type 'advisor' cannot be translated")
    return given


def check_route(models: Sequence[Mapping[str, Any]]) -> None:
    """A value that LiteLLM would look up in its environment or in a file is no value: keys come from Secrets."""
    for text in _strings([model.get("litellm_params") for model in models]):
        if text.startswith(("os.environ/", "oidc/")):
            raise Unusable(f"the route says {text.split('/')[0] + '/…'!r}: name a Secret instead")


def micro_usd(dollars: float) -> int:
    """Millionths of a dollar, rounded up; what floats add below a millionth of a millionth is no money."""
    return math.ceil(round(dollars * 1_000_000, 6)) if dollars > 0 and math.isfinite(dollars) else 0


def refused(error: BaseException, models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the daemon is told of a failed call: the provider's own words, with nothing of the route in them."""
    error = getattr(error, "original_exception", None) or error
    if _BROKEN_OFF.search(str(error)):
        error = cut_short()
    elif _unreached(error):
        error = Said("the upstream cannot be reached", "connection")
    told = _provider_words(error, models)
    status = getattr(error, "status_code", None)
    name = type(error).__name__
    if _misread(error):
        status = None  # LiteLLM calls its own mistakes connection errors
    if status is not None and name in ("Timeout", "APITimeoutError", "APIConnectionError"):
        status = 0  # LiteLLM's numbers for these are its own: nobody answered
        told.setdefault("type", "timeout" if "Timeout" in name else "connection")
    elif not isinstance(status, int):
        # Perhaps after a good answer: asking again would pay twice and fail the same way.
        message = scrub(f"LiteLLM could not translate this call: {error}", models)
        return {"message": message, "type": "translation", "retryable": False}
    answer: dict[str, Any] = {"status": status if status >= 400 else 0}
    for field in ("type", "code", "param"):
        if isinstance(told.get(field), str | int):
            answer[field] = scrub(str(told[field]), models)
    answer["message"] = scrub(str(told.get("message") or f"{name} without a message"), models)
    if (after := _retry_after(error)) is not None:
        answer["retry_after"] = after
    return answer


def scrub(text: str, models: Sequence[Mapping[str, Any]]) -> str:
    """The text without any credential or address of the route, in the spellings they may have been echoed in."""

    def unmasked(word: re.Match[str]) -> str:
        return (
            "[hidden]" if "***" in word.group() else word.group()
        )  # some show of a key they refuse "sk-ab****yz"

    return _WORD.sub(unmasked, _hide(text, models))[:MESSAGE_CHARS_MAX]


def _hide(text: str, models: Sequence[Mapping[str, Any]]) -> str:
    """Secrets first, then the cut: half a secret is still one."""
    for model in models:
        for secret in sorted(_secrets(model.get("litellm_params") or {}), key=len, reverse=True):
            text = text.replace(secret, "[hidden]")
    return text[:_READ_CHARS_MAX]


def _secrets(params: Mapping[str, Any]) -> set[str]:
    found: set[str] = set()
    for name, value in params.items():
        if name in ("api_base", "base_url") and isinstance(value, str):
            found |= {value, value.rstrip("/"), urllib.parse.urlsplit(value).netloc}
            found |= {urllib.parse.urlsplit(value).hostname or ""}
        elif name in _HEADERS or _SECRET.search(name):
            for text in _strings(value):
                raw = text.encode()
                found |= {text, urllib.parse.quote(text, safe=""), json.dumps(text)[1:-1]}
                found |= {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()}
    return {text for text in found if len(text) >= _SHORTEST}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for below in value.values():
            yield from _strings(below)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _strings(below)


def _provider_words(error: BaseException, models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`message`, `type`, `code` and `param` as the provider said them, out of the shapes they come in."""
    text = _hide(str(getattr(error, "message", "") or error), models)
    bodies = [getattr(cause, "body", None) for cause in _chain(error)]
    words = next((said for body in bodies if isinstance(body, Mapping) and (said := _words(body))), {})
    inner = _object_in(text)
    if (not words or _PREFIX.match(str(words["message"]))) and isinstance(inner, Mapping):
        words = _words(inner) or words
    words["message"] = _hide(str(words.get("message", text)), models)
    while (shorter := _PREFIX.sub("", str(words["message"]))) != words["message"]:
        words["message"] = shorter
    return words


def _words(body: Mapping[str, Any]) -> dict[str, Any]:
    inner = body.get("error", body)
    if isinstance(inner, str):  # Ollama
        return {"message": inner}
    if not isinstance(inner, Mapping):
        return {}
    message = inner.get("message") or inner.get("detail")
    if not isinstance(message, str):
        base = inner.get("base_resp")  # MiniMax's own
        return {"message": base["status_msg"]} if isinstance(base, Mapping) and "status_msg" in base else {}
    words = {"message": message, **{k: inner.get(k) for k in ("type", "code", "param")}}
    words["type"] = words["type"] or inner.get("status")  # Gemini says RESOURCE_EXHAUSTED there
    return words


def _object_in(text: str) -> Any:
    """The JSON object that LiteLLM put into a sentence, if there is one."""
    if quoted := re.search(r"b'(?:[^'\\]|\\.)*'|b\"(?:[^\"\\]|\\.)*\"", text, re.DOTALL):
        try:
            text = ast.literal_eval(quoted.group()).decode("utf-8", "replace")
        except (ValueError, SyntaxError):
            pass
    decoder = json.JSONDecoder()
    for start in [found.start() for found in re.finditer(r"\{", text)][:3]:
        try:
            return decoder.raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            continue
    return None


def _chain(error: BaseException) -> list[BaseException]:
    """An exception and what it was made of, the first cause last."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _misread(error: BaseException) -> bool:
    """Whether the first cause is a mistake in a program and not of a network."""
    return isinstance(_chain(error)[-1], AttributeError | LookupError | TypeError | AssertionError)


def _unreached(error: BaseException) -> bool:
    """Whether no connection came about, under whichever name LiteLLM tells it."""
    names = {type(cause).__name__ for cause in _chain(error)}
    return bool(names & {"ConnectError", "ConnectTimeout", "ClientConnectorError", "ClientConnectorDNSError"})


def _retry_after(error: BaseException) -> int | None:
    value = None
    for cause in _chain(error):
        for headers in (
            getattr(cause, "litellm_response_headers", None),
            getattr(getattr(cause, "response", None), "headers", None),
        ):
            if value is None and headers is not None and hasattr(headers, "get"):
                value = headers.get("retry-after")
    try:
        return max(0, math.ceil(float(value))) if value is not None else None
    except (ValueError, OverflowError):
        return None  # a date: rare, and no promise


class Said(Exception):
    """What an upstream said in the middle of a stream, in the shape that LiteLLM's exceptions have."""

    def __init__(self, message: str, type: str = "", status_code: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.body = {"message": message, "type": type}
        self.status_code = status_code


def cut_short() -> Said:
    """An answer without its end is no answer: a tool call could be half of one."""
    return Said("the upstream's stream ended before its answer was complete", "incomplete_stream")


def anthropic_error(data: bytes) -> Said:
    """The `error` event of a stream. Its number is the one that the type has on HTTP."""
    try:
        told = json.loads(data)["error"]
        kind, message = str(told["type"]), str(told["message"])
    except (ValueError, KeyError, TypeError):
        return Said("the upstream reported an error in the middle of its answer", "api_error", 500)
    return Said(message, kind, _ANTHROPIC_STATUS.get(kind, 500))


# "Errors" in Anthropic's API documentation.
_ANTHROPIC_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
