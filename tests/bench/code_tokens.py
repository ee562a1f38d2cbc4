"""The same task by `program: react` and by `program: code`: what of it reached the model, in tokens.

    python -m tests.bench.code_tokens

A shop's orders come from a tool, fifty a page; asked is how much of them is not paid. A real daemon, real jails and a
real upstream that is asked over HTTP and plays the model: it decides by nothing but what it was sent, and really adds
up what it reads. Tokens are counted there, in the messages and tools of each request that came, by the tokenizer of
GPT-4. Of what is between question and answer nothing may have come from `code`: every customer's name is looked for.
"""

import json
import os
import re
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from agentk.api import kinds
from agentk.client.client import Client
from tests.bench import daemons

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no network for prices

ORDERS = (100, 1000, 3000)
PAGE = 50
Json = dict[str, Any]

# The tool: a page of orders, which anybody can work out again.
SOURCE = f"""
import json

def orders(page: int) -> list:
    \"\"\"Lists orders, {PAGE} a page; an empty page is behind the last one.

    Args:
        page: From 0.
    \"\"\"
    numbers = range(page * {PAGE}, min((page + 1) * {PAGE}, COUNT))
    return [
        {{"number": n, "customer": f"customer-{{n * 7919 % 9973}}", "cents": n * 37 % 10007, "paid": n % 3 != 0}}
        for n in numbers
    ]
"""
CODE = """\
from tools import orders
page, unpaid, found = 0, 0, orders(0)
while found:
    unpaid += sum(one["cents"] for one in found if not one["paid"])
    page += 1
    found = orders(page)
print(unpaid)
"""
AT_ONCE = 8  # pages that the model asks for in one step of react
_ORDER = re.compile(r'"cents": ?(\d+), ?"paid": ?(true|false)')


def right(count: int) -> int:
    return sum(n * 37 % 10007 for n in range(count) if n % 3 == 0)


class Model(BaseHTTPRequestHandler):
    """Plays a model that is good at both."""

    protocol_version = "HTTP/1.1"
    server: "Upstream"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append(body)
        told = [one for one in body["messages"] if one["role"] == "tool"]
        by_code = body["tools"][0]["function"]["name"] == "python"
        calls, text = _by_code(told) if by_code else _by_calls(told)
        message: Json = {"role": "assistant", "content": text or None}
        if calls:
            message["tool_calls"] = [
                {
                    "id": f"c{len(told) + at}",
                    "type": "function",
                    "function": {"name": name, "arguments": given},
                }
                for at, (name, given) in enumerate(calls)
            ]
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        data = json.dumps({**answer, "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing of it is of interest."""


def _by_code(told: list[Json]) -> tuple[list[tuple[str, str]], str]:
    if not told:
        return [("python", json.dumps({"code": CODE}))], ""
    return [], str(told[-1]["content"])


def _by_calls(told: list[Json]) -> tuple[list[tuple[str, str]], str]:
    """Reads page after page, and adds up what it was told."""
    if told and not _ORDER.search(told[-1]["content"]):
        found = [pair for one in told for pair in _ORDER.findall(one["content"])]
        return [], str(sum(int(cents) for cents, paid in found if paid == "false"))
    pages = range(len(told), len(told) + AT_ONCE)
    return [("orders", json.dumps({"page": page})) for page in pages], ""


class Upstream(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Model)
        self.seen: list[Json] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


def main() -> None:
    import litellm  # takes seconds, and is needed at the end

    def tokens(body: Json) -> int:
        return len(litellm.encode(model="gpt-4", text=json.dumps([body["messages"], body["tools"]])))

    upstream = Upstream()
    print("| orders | program | requests | tokens | to react | the answer |\n|---|---|---|---|---|---|")
    with daemons.running() as client:
        _furnish(client, f"http://127.0.0.1:{upstream.server_port}/v1")
        for count in ORDERS:
            _measure(client, upstream, count, tokens)


def _measure(client: Client, upstream: Upstream, count: int, tokens: Callable[[Json], int]) -> None:
    by_react = 0
    files = {"main.py": SOURCE.replace("COUNT", str(count))}
    tool = {"python": {"source": {"inline": {"files": files}}, "functions": ["main:orders"]}}
    _apply(client, "Tool", "orders", tool)
    for program in ("react", "code"):
        upstream.seen.clear()
        name = f"{program}-{count}"
        client.apply(kinds.AGENT, "default", _agent(name, program))
        status = daemons.until(client, name, lambda now: now.get("phase") in ("Succeeded", "Failed"))
        spent = sum(tokens(body) for body in upstream.seen)
        by_react = by_react or spent
        told = json.loads(status["result"]) if status.get("result") else status.get("reason")
        verdict = "right" if told == str(right(count)) else f"wrong: {told}"
        row = f"{count:,} | `{program}` | {len(upstream.seen)} | {spent:,} | {spent / by_react:.3f}×"
        print(f"| {row} | {verdict} |", flush=True)
        if program == "code" and "customer-" in json.dumps(upstream.seen):
            sys.exit("what was between question and answer reached the model")


def _furnish(client: Client, base: str) -> None:
    params = {"model": "openai/m", "apiBase": base}
    _apply(client, "ModelRoute", "upstream", {"modelList": [{"modelName": "m", "litellmParams": params}]})


def _agent(name: str, program: str) -> Json:
    made = daemons.agent(name, [], program=program, task="How many cents of the orders are not paid?")
    del made["spec"]["command"]
    made["spec"] |= {
        "modelRef": {"name": "upstream"},
        "tools": [{"ref": {"name": "orders"}}],
        "burst": AT_ONCE,
    }
    made["spec"]["resources"]["limits"] |= {"memory": "256Mi", "pids": 64, "ephemeral-storage": "64Mi"}
    return made


def _apply(client: Client, kind: str, name: str, spec: Json) -> None:
    metadata = {"name": name, "namespace": "default"}
    obj = {"apiVersion": kinds.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
    client.apply({"Tool": kinds.TOOL, "ModelRoute": kinds.MODELROUTE}[kind], "default", obj)


if __name__ == "__main__":
    main()
