"""A real provider of models on this host's loopback, and agents that bring a vendor's own client to it."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from agentk.runtime.launcher import interpreters
from tests.flows import household, loopback
from tests.flows.household import Space


def _is_our_python() -> bool:
    """Whether a jail's Python can load what is installed for ours."""
    inside, tree = interpreters.choose("", -1)
    if tree or not inside:
        return bool(tree)
    told = subprocess.run([inside, "--version"], capture_output=True, text=True, check=False).stdout
    return told.startswith("Python {}.{}.".format(*sys.version_info))


needs = [*household.needs, pytest.mark.skipif(not _is_our_python(), reason="another Python in the jail")]

KEY = "sk-canary-0b1e55ed4dd1"
PACKAGES = str(Path(openai.__file__).parent.parent)


class Provider(loopback.Answering):
    """Both providers: says what it is asked to, and remembers."""

    protocol_version = "HTTP/1.1"
    server: "Served"

    def do_POST(self) -> None:
        body = json.loads(self.asked())
        self.server.seen.append((self.path, dict(self.headers.items()), body))
        self.server.hold.wait()
        if body.get("stream"):
            self.answer(STREAMS[self.path], kind="text/event-stream")
        else:
            self.answer(json.dumps(ANSWERS[self.path]).encode())


class Served(loopback.Server):
    def __init__(self) -> None:
        super().__init__(Provider)
        self.hold = threading.Event()  # nothing is answered while it is not set
        self.hold.set()


@contextlib.contextmanager
def serving() -> Iterator[Served]:
    """A provider that listens while the block runs."""
    with loopback.serving(Served()) as server:
        try:
            yield server
        finally:
            server.hold.set()


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
CHAT = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello", "tool_calls": [CALL]},
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "t", "name": "add", "input": {}},
    ],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 7, "output_tokens": 3},
}
ANSWERS: dict[str, Any] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": {
        "id": "r1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "output": [
            {
                "type": "message",
                "id": "m",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
            }
        ],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 7,
            "output_tokens": 3,
            "total_tokens": 10,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    },
    "/v1/embeddings": {
        "object": "list",
        "model": "m",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 10, "total_tokens": 10},
    },
    "/v1/messages": MESSAGE,
    "/v1/messages/count_tokens": {"input_tokens": 12},
}


def _chunk(delta: dict[str, Any], **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    told = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
        **more,
    }
    return b"data: " + json.dumps(told).encode() + b"\n\n"


def _event(name: str, **told: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **told})}\n\n".encode()


STREAMS = {
    "/v1/chat/completions": _chunk({"content": "Hel"})
    + _chunk({"content": "lo"})
    + _chunk({}, usage=USAGE)
    + b"data: [DONE]\n\n",
    "/v1/messages": _event("message_start", message={**MESSAGE, "content": []})
    + _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    + _event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"})
    + _event("content_block_stop", index=0)
    + _event(
        "message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 3}
    )
    + _event("message_stop"),
}


def clients(name: str, program: str, **spec: Any) -> household.Object:
    """An agent that finds the packages of the tests, and nothing else of the host."""
    return household.agent(
        name,
        "python3",
        "-c",
        program,
        policyRef={"name": "with-packages"},
        env=[{"name": "PYTHONPATH", "value": "/packages"}],
        volumes=[{"name": "packages", "hostPath": {"path": PACKAGES}}],
        volumeMounts=[{"name": "packages", "mountPath": "/packages", "readOnly": True}],
        resources={"limits": {**household.TINY, "cpu": "2", "memory": "384Mi", "pids": 32}},
        **spec,
    )


def prepare(space: Space, provider: Served) -> None:
    isolation = {"hostPaths": [{"pathPrefix": PACKAGES}]}
    policy = household.manifest("Policy", "with-packages", spec={"level": "baseline", "isolation": isolation})
    secret = household.manifest("Secret", "keys", stringData={"key": KEY})
    items = [
        _item("gpt", "openai/gpt-4o", f"{provider.url}/v1"),
        _item("claude", "anthropic/claude-sonnet-4-5", provider.url),
    ]
    route = household.manifest("ModelRoute", "default", spec={"modelList": items, "retries": 0})
    space.apply(policy, secret, route)


def _item(name: str, model: str, base: str) -> dict[str, Any]:
    params = {"model": model, "apiBase": base, "apiKeySecretRef": {"name": "keys", "key": "key"}}
    return {"modelName": name, "litellmParams": params}
