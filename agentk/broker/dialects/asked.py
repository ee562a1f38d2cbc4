"""What the providers' dialects share: the request as the gate's call wants it, and the answer as HTTP wants it.

Nothing of a request's headers goes on to an upstream: what is read from them is listed here.
"""

import itertools
import json
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agentk.api.errors import AgentkError, BadRequest, BudgetExceeded, NotFound, OutcomeUnknown
from agentk.broker.dialects.http_reading import Request
from agentk.llm.asking import Refused
from agentk.sdk import wire

Method = Literal["think", "embed", "models"]

_MARK, _NUMBERS = f"req_{secrets.token_hex(8)}", itertools.count(0x1000)
VALUES = 50_000  # of one body: each is looked at several times, and everybody else waits
TOKENS = 500_000  # of one with texts to embed, which may come as lists of tokens
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_LIMITS = {
    "openai.chat": "max_tokens",
    "openai.responses": "max_output_tokens",
    "anthropic.messages": "max_tokens",
}
_GUESTS_LIMITS = {
    "openai.chat": ("max_completion_tokens", "max_tokens"),
    "openai.responses": ("max_output_tokens",),
    "anthropic.messages": ("max_tokens",),
}


@dataclass(frozen=True)
class Asked:
    """One request in a provider's dialect, read and not yet judged. Of `models`, `model` is the one asked for."""

    method: Method
    dialect: str  # as llm knows it: openai.chat, anthropic.messages …
    body: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False
    model: str = ""  # "": all of them
    key: str = ""  # idempotency key the guest gave
    retried: bool = False  # a client's own repetition of a request it got no answer to


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def asked(request: Request, dialect: str) -> Asked:
    """The call a POST stands for. What is in its body is for the gate to judge."""
    body = parsed(request, TOKENS if dialect == "openai.embeddings" else VALUES)
    return Asked(
        method="embed" if dialect == "openai.embeddings" else "think",
        dialect=dialect,
        body=body,
        stream=body.get("stream") is True,
        key=idempotency_key(request.headers),
        retried=retried(request.headers),
    )


def parsed(request: Request, values: int = VALUES) -> dict[str, Any]:
    """The body as an object. What is passed on is written anew from it, so no two parsers can differ over it."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadRequest("the body must be application/json", field="content-type")
    try:
        body = wire.decode(request.body, values)
    except wire.Refused as refused:
        raise BadRequest(f"the body is {refused.message}") from None
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return body


def checked_model(model: str, names: Collection[str]) -> str:
    """`names` are the models of the agent's route: each may be asked for as it is written there, slashes too."""
    if model in names:
        return model
    if "/" in model:
        raise BadRequest(
            f"model {model[:64]!r} names a provider, which is the ModelRoute's to choose",
            field="model",
            hint=_known(names),
        )
    if names:
        raise NotFound(f"model {model[:64]!r} is not one of this agent's", field="model", hint=_known(names))
    return model


def bounded(body: Mapping[str, Any], dialect: str, limit: int) -> dict[str, Any]:
    """The body with an upper bound of output tokens. A guest's own bound stays as it is; without one the gate's is
    written, shared among the answers that are asked for. `limit` is the lesser of the route's default and what is left.
    """
    told = dict(body)
    if dialect in _LIMITS and all(told.get(name) is None for name in _GUESTS_LIMITS[dialect]):
        told[_LIMITS[dialect]] = max(1, limit // max(1, told.get("n") or 1))
    return told


def retried(headers: Mapping[str, str]) -> bool:
    """Whether the client says that it sends this once more: OpenAI's and Anthropic's SDKs count their retries."""
    count = headers.get("x-stainless-retry-count", "")
    return count.isascii() and count.isdigit() and count.strip("0") != ""


def idempotency_key(headers: Mapping[str, str]) -> str:
    key = headers.get("idempotency-key", "")
    if key and not _KEY.fullmatch(key):
        raise BadRequest("Idempotency-Key must be 1 to 255 printable characters", field="idempotency-key")
    return key


def trace(headers: Mapping[str, str]) -> str:
    """The W3C traceparent, or "" when it is none."""
    told = headers.get("traceparent", "")
    return told if re.fullmatch(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", told) else ""


def retry_headers(error: AgentkError) -> dict[str, str]:
    """What tells SDKs, which retry 409, 429 and 5xx by themselves, whether and when that makes sense."""
    headers: dict[str, str] = {}
    if isinstance(error, BudgetExceeded | OutcomeUnknown) or error.http_status in (403, 499):
        headers["x-should-retry"] = "false"
    elif isinstance(error, Refused) and not error.retryable:
        headers["x-should-retry"] = "false"  # an answer was begun and lost, or would be refused again
    elif error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    return headers


def json_answer(status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
    return Answer(status, {"content-type": "application/json", **headers}, json.dumps(body).encode())


def new_request_id() -> str:
    return f"{_MARK}{next(_NUMBERS):x}"


def _known(names: Collection[str]) -> str:
    return "one of: " + ", ".join(sorted(names)[:20]) if names else ""
