"""Requests in OpenAI's words, and what the dialect reads in them."""

import json
from collections.abc import Mapping
from typing import Any

from agentk.broker.dialects import asked, openai
from agentk.broker.dialects.http_reading import Request

MESSAGES = [{"role": "user", "content": "hello"}]
CHAT = {"model": "default", "messages": MESSAGES}
RESPONSES = {"model": "default", "input": "hello"}
EMBEDDINGS = {"model": "default", "input": "hello"}


def post(path: str, body: Any, headers: Mapping[str, str] | None = None) -> Request:
    return Request("POST", path, headers=headers or {}, body=json.dumps(body).encode())


def read(
    body: Mapping[str, Any], path: str = "/v1/chat/completions", names: tuple[str, ...] = ()
) -> asked.Asked:
    return judged(post(path, body), names)


def judged(request: Request, names: tuple[str, ...] = ()) -> asked.Asked:
    """As the gate does it: read, then held against the allow-list and the route."""
    told = openai.read(request)
    if told.method != "models":
        openai.check(told.dialect, told.body)
        asked.checked_model(told.body["model"], names)
    return told


def features(body: Mapping[str, Any], path: str = "/v1/chat/completions") -> frozenset[str]:
    told = read(body, path)
    return openai.features_of(told.dialect, told.body)
