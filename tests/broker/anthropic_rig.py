"""Requests in Anthropic's dialect."""

from typing import Any

from agentk.broker.dialects import anthropic, asked
from agentk.broker.dialects.http_reading import Request

MESSAGES: Any = [{"role": "user", "content": "hello"}]
BODY = {"model": "default", "max_tokens": 10, "messages": MESSAGES}


def judged(request: Request) -> asked.Asked:
    """As the gate does it: read, then held against the allow-list."""
    told = anthropic.read(request)
    if told.method != "models":
        anthropic.check(told.dialect, told.body)
        asked.checked_model(told.body["model"], ())
    return told


def user(*blocks: Any) -> dict[str, Any]:
    return {**BODY, "messages": [{"role": "user", "content": list(blocks)}]}
