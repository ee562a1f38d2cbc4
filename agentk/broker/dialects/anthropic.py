"""Anthropic's paths: what a request asks of the gate, and answers and errors in the words Anthropic's clients know.

It decides nothing: it reads, refuses what an agent may not send, and tells which features a Policy must allow.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from agentk.api.errors import AgentkError, MethodNotAllowed, NotFound
from agentk.broker.dialects import asked, features
from agentk.broker.dialects.anthropic_fields import BODIES, READING
from agentk.broker.dialects.asked import Answer, Asked
from agentk.broker.dialects.http_reading import Request
from agentk.broker.words import Dialect
from agentk.llm.asking import Refused

NAME: Dialect = "anthropic"
PATHS = {"/v1/messages": "anthropic.messages", "/v1/messages/count_tokens": "anthropic.count_tokens"}
_MODELS = "/v1/models"
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_WORDS = frozenset((*_KINDS.values(), "api_error", "billing_error"))  # the client's own list


def takes(request: Request) -> bool:
    """/v1/models is OpenAI's too: Anthropic's clients always say which version they speak."""
    path = request.path
    if path == _MODELS or path.startswith(f"{_MODELS}/"):
        return "anthropic-version" in request.headers
    return path == "/v1/messages" or path.startswith("/v1/messages/")


def read(request: Request) -> Asked:
    """What the request asks. Raises an AgentkError for what is no request of this dialect."""
    dialect = PATHS.get(request.path)
    if dialect is None and request.path.startswith(_MODELS) and takes(request):
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
    return features.found(body, READING)


def models(names: Iterable[str]) -> Answer:
    data = [_model(name) for name in names]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return asked.json_answer(200, {"data": data, "has_more": False, **ends}, {})


def model(name: str) -> Answer:
    return asked.json_answer(200, _model(name), {})


def error(error: AgentkError, request_id: str = "") -> Answer:
    """`error` as Anthropic would tell it, with headers that keep its clients from retrying what must not be."""
    headers = asked.retry_headers(error)
    body = _told(error)
    if request_id:
        headers["request-id"] = body["request_id"] = request_id
    status = 400 if error.status == 422 else error.status
    return asked.json_answer(status, body, headers)


def stream_error(error: AgentkError, dialect: str = "anthropic.messages") -> bytes:
    """The same inside a stream that has begun: its status cannot be changed any more."""
    return b"event: error\ndata: %b\n\n" % json.dumps(_told(error)).encode()


def _told(error: AgentkError) -> dict[str, Any]:
    kind = _KINDS.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    if isinstance(error, Refused):
        kind = error.type if error.type in _WORDS else kind
    return {"type": "error", "error": {"type": kind, "message": error.to_status()["message"]}}


def _model(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}


def _only(method: str, request: Request) -> None:
    if request.method != method:
        raise MethodNotAllowed(f"{request.path} takes {method} here")
