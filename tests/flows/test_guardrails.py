"""Guardrails with a real daemon and jails: what really reached the upstream, what the agent got, what is on record."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.flows import household, loopback
from tests.flows.household import Household, Space, python
from tests.flows.test_examples import output

pytestmark = household.needs


class Echo(loopback.Answering):
    """A provider in OpenAI's and Anthropic's words that says what it was told, in pieces of five letters."""

    def do_POST(self) -> None:
        body = json.loads(self.asked())
        self.server.seen.append(json.dumps(body, ensure_ascii=False))
        told = body["messages"][-1]["content"]
        text = told if isinstance(told, str) else "".join(part["text"] for part in told)
        whole, events = _anthropic(text) if "messages" in self.path else _openai(text)
        if body.get("stream"):
            self.answer("".join(events).encode(), kind="text/event-stream")
        else:
            self.answer(json.dumps(whole).encode())


def _openai(text: str) -> tuple[dict[str, Any], list[str]]:
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    head = {"id": "c", "created": 1, "model": "m"}
    message = {"role": "assistant", "content": text}
    whole = {**head, "object": "chat.completion", "usage": usage}
    whole["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
    deltas: list[dict[str, Any]] = [{"content": text[at : at + 5]} for at in range(0, len(text), 5)]
    events = [
        {
            **head,
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": one, "finish_reason": None}],
        }
        for one in deltas
    ]
    events.append({**head, "object": "chat.completion.chunk", "usage": usage,
                   "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})  # fmt: skip
    return whole, [f"data: {json.dumps(one)}\n\n" for one in events] + ["data: [DONE]\n\n"]


def _anthropic(text: str) -> tuple[dict[str, Any], list[str]]:
    usage = {"input_tokens": 7, "output_tokens": 3}
    whole: dict[str, Any] = {"id": "m", "type": "message", "role": "assistant", "model": "m", "usage": usage,
                             "stop_reason": "end_turn", "stop_sequence": None}  # fmt: skip
    block = {"type": "text", "text": ""}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}}
    ]
    events.append({"type": "content_block_start", "index": 0, "content_block": block})
    events += [
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": text[at : at + 5]},
        }
        for at in range(0, len(text), 5)
    ]
    events.append({"type": "content_block_stop", "index": 0})
    events.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage})
    events.append({"type": "message_stop"})
    whole["content"] = [{"type": "text", "text": text}]
    return whole, [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events]


@pytest.fixture
def provider() -> Iterator[loopback.Server]:
    with loopback.serving(loopback.Server(Echo)) as server:
        yield server


PROGRAM = """
import json, urllib.request
import agentk.sdk.client as sdk, agentk.sdk.errors as errors

TEXT = "joe@example.com pays with 4111 1111 1111 1111 <"

def post(path, body):
    request = urllib.request.Request("http://127.0.0.1:8700" + path, json.dumps(body).encode(),
        {"content-type": "application/json", "anthropic-version": "2023-06-01"})
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).read().decode()

def events(text):
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]

with sdk.connect() as agent:
    print("native", agent.think(TEXT, model="gpt").text)
    asked = {"model": "gpt", "messages": [{"role": "user", "content": TEXT}], "max_tokens": 50}
    print("openai", json.loads(post("/v1/chat/completions", asked))["choices"][0]["message"]["content"])
    told = events(post("/v1/chat/completions", {**asked, "stream": True}))
    print("stream", "".join(c["delta"].get("content") or "" for one in told for c in one["choices"]))
    asked["model"] = "claude"
    print("claude", json.loads(post("/v1/messages", asked))["content"][0]["text"])
    told = events(post("/v1/messages", {**asked, "stream": True}))
    print("blocks", "".join(one["delta"].get("text", "") for one in told if one["type"] == "content_block_delta"))
    try:
        agent.tool_call("leaky", {})
    except errors.CallError as error:
        print("tool", error.reason, error.message)
    for name, call in {
        "as tool": lambda: agent.tool_call("python", {"code": "import subprocess"}),
        "by sh": lambda: agent.tool_call("shell", {"command": "-e; ev'a'l x"}),
        "code": lambda: agent.exec_python("getattr(__import__('o' + 's'), 'sys' + 'tem')('id')"),
        "shell": lambda: agent.exec_shell("python3 -c 'import subprocess'"),
        "secret": lambda: agent.exec_python("import base64; print(base64.b64encode(b'AKIA' + b'IOSFODNN7EXAMPLE'))"),
        "size": lambda: agent.exec_python("print('x' * 100000)"),
        "files": lambda: agent.exec_shell("ls -A .tools 2>/dev/null | wc -l"),
    }.items():
        try:
            ran = call()
            print(name, len(ran.stdout), ran.exit_code)
        except errors.CallError as error:
            print(name, error.reason, error.message[:60])
"""


LEAKY = "print('x ' * 50000 + 'AKIA' + 'IOSFODNN7EXAMPLE')"


def test_what_reaches_a_model_a_program_and_the_record(space: Space, provider: loopback.Server) -> None:
    rails = {"code": {"python": {}, "shell": {}}, "pii": {}, "secrets": {}, "output": {"maxBytes": "4Ki"}}
    policy = household.manifest("Policy", space.name, spec={"level": "baseline", "guardrails": rails})
    url = provider.url
    items = [
        {"modelName": "gpt", "litellmParams": {"model": "openai/gpt-4o", "apiBase": f"{url}/v1"}},
        {"modelName": "claude", "litellmParams": {"model": "anthropic/claude-sonnet-4-5", "apiBase": url}},
    ]
    for item in items:
        item["litellmParams"]["apiKeySecretRef"] = {"name": "keys", "key": "key"}  # type: ignore[index]
    keys = household.manifest("Secret", "keys", stringData={"key": "sk-canary-0b1e55ed4dd1"})
    route = household.manifest("ModelRoute", "default", spec={"modelList": items, "retries": 0})
    # Too long to be told, it would be kept in a file of the workspace.
    leaky = household.manifest(
        "Tool", "leaky", spec={"command": {"argv": ["python3", "-c", LEAKY], "parameters": {}}}
    )
    granted = [{"ref": {"name": name}} for name in ("leaky", "python", "shell")]
    asking = python("a", PROGRAM, policyRef={"name": space.name}, tools=granted)
    space.apply(policy, keys, route, leaky, asking)
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log("a"))
    lines = space.agentk("logs", "a").lines
    said = "joe@example.com pays with 4111 1111 1111 1111 <"
    assert lines[:5] == [f"{name} {said}" for name in ("native", "openai", "stream", "claude", "blocks")]
    assert len(provider.seen) == 5
    assert not any("joe@" in one or "4111" in one for one in provider.seen)
    assert all("<EMAIL_1_" in one and "<CARD_1_" in one for one in provider.seen)
    assert lines.pop(5).startswith("tool PolicyDenied guardrails: there is what looks like a secret")
    assert lines.pop(5).startswith("as tool PolicyDenied guardrails: python, line 1: import of subprocess")
    assert lines.pop(5).startswith("by sh PolicyDenied guardrails: shell")
    assert lines[5].startswith("code PolicyDenied guardrails: python, line 1")
    assert lines[6].startswith("shell PolicyDenied guardrails: python, line 1: import of subprocess")
    assert lines[7].startswith("secret PolicyDenied guardrails: there is what looks like a secret")
    assert lines[8:] == ["size 4096 0", "files 2 0"]
    record = (
        space.agentk("audit", "a", "-o", "json").out + space.agentk("trace", "a", "-o", "json", code=None).out
    )
    assert "joe@example.com" not in record
    wrong = {
        **policy,
        "spec": {"level": "baseline", "guardrails": {"pii": {"patterns": [{"name": "A", "pattern": "("}]}}},
    }
    told = space.agentk("apply", "-f", "-", stdin=json.dumps(wrong), code=1).err
    assert "guardrails.pii.patterns[0].pattern" in told and "no regular expression" in told
    space.agentk("delete", "policy", space.name)


def test_the_example_shows_it(home: Household) -> None:
    lines = output(home, "guardrails", "clerk")
    assert lines[0] == "model: I am C-12345, joe@example.com. Take it from 4111 1111 1111 1111."
    assert lines[1:2] == ["print(6 * 7) -> 42"]
    assert "import of subprocess is not allowed" in lines[2] and "looks like a secret" in lines[3]
