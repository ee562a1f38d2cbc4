"""OpenAI's paths: what a request asks of the gate, and answers and errors in the words OpenAI's clients know.

It decides nothing: it reads, refuses what an agent may not send, and tells which features a Policy must allow.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from agentk.api.errors import (
    AgentkError,
    ApprovalDenied,
    ApprovalRequired,
    BudgetExceeded,
    Denied,
    MethodNotAllowed,
    NotFound,
    OutcomeUnknown,
    TooManyRequests,
)
from agentk.broker.dialects import asked, features
from agentk.broker.dialects.asked import Answer, Asked
from agentk.broker.dialects.http_reading import Request
from agentk.broker.dialects.openai_fields import CHAT, EMBEDDINGS, READING
from agentk.broker.dialects.openai_responses_fields import RESPONSES
from agentk.broker.managing.exceeding import ContextExceeded
from agentk.broker.words import Dialect
from agentk.llm.asking import Refused

BODIES = {"openai.chat": CHAT, "openai.responses": RESPONSES, "openai.embeddings": EMBEDDINGS}
NAME: Dialect = "openai"
PATHS = {
    "/v1/chat/completions": "openai.chat",
    "/v1/responses": "openai.responses",
    "/v1/embeddings": "openai.embeddings",
}
_MODELS = "/v1/models"
# Translators of embeddings take these for a picture to fetch; any other address is text like any text.
_BUCKET = re.compile(r"\s*(?:gs|s3)://\S+\s*", re.IGNORECASE)


def takes(request: Request) -> bool:
    path = request.path
    return path in PATHS or path == _MODELS or path.startswith(f"{_MODELS}/")


def read(request: Request) -> Asked:
    """What the request asks. Raises an AgentkError for what is no request of this dialect."""
    dialect = PATHS.get(request.path)
    if dialect is None and takes(request):
        _only("GET", request)
        return Asked("models", "models", model=unquote(request.path[len(_MODELS) + 1 :]))
    if dialect is None:
        raise NotFound(f"{request.path} is not served here", hint=f"POST {', '.join(PATHS)}; GET {_MODELS}")
    _only("POST", request)
    return asked.asked(request, dialect)


def check(dialect: str, body: Mapping[str, Any]) -> None:
    """Raises BadRequest, naming the field, for what an agent may not send."""
    BODIES[dialect].check(body, "")


def features_of(dialect: str, body: Mapping[str, Any]) -> frozenset[str]:
    """The features a Policy must allow, each by name."""
    found = features.found(body, READING)
    if dialect == "openai.embeddings":
        told = body.get("input")
        words = told if isinstance(told, list) else [told]
        if any(isinstance(word, str) and _BUCKET.fullmatch(word) for word in words):
            found |= {features.REMOTE_URLS}
    return found


def prepared(body: Mapping[str, Any], dialect: str) -> dict[str, Any]:
    """The body with what OpenAI would do by default and no Policy was asked for taken away: answers are kept at the
    provider for weeks unless the request says otherwise."""
    told = dict(body)
    if dialect == "openai.responses" and told.get("store") is None:
        told["store"] = False
    return told


def models(names: Iterable[str]) -> Answer:
    data = [_model(name) for name in names]
    return asked.json_answer(200, {"object": "list", "data": data}, {})


def model(name: str) -> Answer:
    return asked.json_answer(200, _model(name), {})


def error(error: AgentkError, request_id: str = "") -> Answer:
    """`error` as OpenAI would tell it, with headers that keep its clients from retrying what must not be."""
    headers = asked.retry_headers(error)
    if request_id:
        headers["x-request-id"] = request_id
    return asked.json_answer(_status(error), {"error": _told(error)}, headers)


def stream_error(error: AgentkError, dialect: str) -> bytes:
    """The same inside a stream that has begun: its status cannot be changed any more."""
    told = _told(error)
    if dialect == "openai.responses":
        event = {"type": "error", "code": told["code"], "message": told["message"], "param": told["param"]}
        return b"event: error\ndata: %b\n\n" % json.dumps(event).encode()
    return b"data: %b\n\n" % json.dumps({"error": told}).encode()


def _told(error: AgentkError) -> dict[str, Any]:
    message = error.to_status()["message"]
    if isinstance(error, Refused):  # the provider's own words
        kind = error.type or ("invalid_request_error" if error.status < 500 else "server_error")
        code = error.provider_code or ("rate_limit_exceeded" if error.status == 429 else "upstream_error")
        return {"message": message, "type": kind, "param": error.param or None, "code": code}
    kind, code = _kind(error)
    return {"message": message, "type": kind, "param": error.field or None, "code": code}


def _kind(error: AgentkError) -> tuple[str, str]:
    if isinstance(error, BudgetExceeded):
        return "insufficient_quota", "insufficient_quota"
    if isinstance(error, TooManyRequests):
        return "requests", "rate_limit_exceeded"
    if isinstance(error, ContextExceeded):
        return "invalid_request_error", "context_length_exceeded"
    if isinstance(error, NotFound):
        return "invalid_request_error", "model_not_found" if error.field == "model" else "not_found"
    if isinstance(error, Denied):
        return "invalid_request_error", "policy_denied"
    if isinstance(error, ApprovalRequired):
        return "invalid_request_error", "approval_required"
    if isinstance(error, ApprovalDenied):
        return "invalid_request_error", "approval_denied"
    if isinstance(error, OutcomeUnknown):
        return "server_error", "outcome_unknown"
    if error.http_status >= 500:
        return "server_error", _snake(error.code)
    return "invalid_request_error", _snake(error.code)


def _status(error: AgentkError) -> int:
    return 400 if error.status == 422 else error.status


def _snake(code: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", code).lower()


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "agentk"}


def _only(method: str, request: Request) -> None:
    if request.method != method:
        raise MethodNotAllowed(f"{request.path} takes {method} here")
