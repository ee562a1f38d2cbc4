"""What the gate adds to a call of a model, with the same local upstream and the same client, taking turns.

    python -m tests.bench.gate_models [--seconds 2] [--rounds 3] [--proxy]

`direct`: the client asks the upstream itself. `passed through`: it asks the gate of a real daemon, which passes the
call on. `translated`: the upstream speaks Anthropic, so LiteLLM's Router translates in the worker; beside it is that
Router asked in this process. One call at a time is asked with httpx, as programs ask; 32 at once with bare asyncio, as
httpx would be the bottleneck itself. `--proxy` puts LiteLLM's proxy server beside the gate as well; it needs packages
that agentk does not, so they are installed into a folder of their own first, which takes a minute or two.
"""

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from agentk.api import kinds
from tests.bench import daemons

CHUNKS = 100
ASKED = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Say hi"}]}

UPSTREAM = """
import json, sys
from aiohttp import web

CHAT = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [
    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}}
MESSAGE = {"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "hi"}], "usage": {"input_tokens": 5, "output_tokens": 1}}

def chunk(number):
    delta = {"role": "assistant", "content": f"word {number} "}
    told = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    return b"data: " + json.dumps(told).encode() + b"\\n\\n"

async def chat(request):
    body = await request.json()
    if not body.get("stream"):
        return web.json_response(CHAT)
    answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await answer.prepare(request)
    for number in range(CHUNKS):
        await answer.write(chunk(number))
    if (body.get("stream_options") or {}).get("include_usage"):
        told = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [],
                "usage": {"prompt_tokens": 5, "completion_tokens": 300, "total_tokens": 305}}
        await answer.write(b"data: " + json.dumps(told).encode() + b"\\n\\n")
    await answer.write(b"data: [DONE]\\n\\n")
    return answer

async def messages(request):
    await request.read()
    return web.json_response(MESSAGE)

app = web.Application()
app.router.add_post("/v1/chat/completions", chat)
app.router.add_post("/v1/messages", messages)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=lambda *_: print("ready", flush=True))
"""

Ask = Callable[[], Awaitable[None]]


@contextlib.contextmanager
def upstream() -> Iterator[str]:
    port = daemons.free_port()
    program = f"CHUNKS = {CHUNKS}\n{UPSTREAM}"
    server = subprocess.Popen([sys.executable, "-c", program, str(port)], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None and server.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.communicate()


@contextlib.contextmanager
def door(base: str) -> Iterator[str]:
    """The gate's socket of an agent whose route leads to the upstream."""
    with daemons.kept() as (where, client):
        secret = {"apiKeySecretRef": {"name": "key", "key": "key"}}
        ways = {
            "m": {"model": "openai/m", "api_base": f"{base}/v1", **secret},
            "translated": {"model": "anthropic/claude-sonnet-4-5", "api_base": base, **secret},
        }
        items = [{"modelName": name, "litellmParams": params} for name, params in ways.items()]
        spec = {"modelList": items, "maxConcurrent": 64}
        client.create(
            kinds.SECRET, "default", {"metadata": {"name": "key"}, "stringData": {"key": "sk-of-the-bench"}}
        )
        route = {
            "apiVersion": kinds.API_VERSION,
            "kind": "ModelRoute",
            "metadata": {"name": "bench"},
            "spec": spec,
        }
        client.create(kinds.MODELROUTE, "default", route)
        agent = daemons.agent("a", ["sleep", "1000"], modelRef={"name": "bench"})
        client.create(kinds.AGENT, "default", agent)
        daemons.until(client, "a", lambda status: status.get("phase") == "Running")
        uid = client.get(kinds.AGENT, "default", "a")["metadata"]["uid"]
        yield str(where.run / "doors" / uid / "gate.sock")


async def latency(ask: Ask, seconds: float) -> float:
    """Median of one call, in seconds."""
    for _ in range(20):
        await ask()
    until, took = time.perf_counter() + seconds, []
    while time.perf_counter() < until:
        began = time.perf_counter()
        await ask()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


async def rate(ask: Ask, seconds: float, clients: int = 32) -> float:
    """Calls a second."""
    until = time.perf_counter() + seconds
    done = 0

    async def loop() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await ask()
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(loop() for _ in range(clients)))
    return done / (time.perf_counter() - began)


def posting(client: httpx.AsyncClient, url: str, **more: Any) -> Ask:
    body = json.dumps({**ASKED, **more}).encode()

    async def ask() -> None:
        answer = await client.post(url, content=body, headers={"content-type": "application/json"})
        answer.raise_for_status()

    return ask


def streaming(client: httpx.AsyncClient, url: str) -> Ask:
    body = json.dumps({**ASKED, "stream": True}).encode()

    async def ask() -> None:
        async with client.stream(
            "POST", url, content=body, headers={"content-type": "application/json"}
        ) as answer:
            lines = [line async for line in answer.aiter_lines() if line.startswith("data:")]
        assert len(lines) > CHUNKS, lines[-3:]

    return ask


class Bare(asyncio.Protocol):
    """The least that asks over one connection and knows when the answer is whole: its length, or its last chunk."""

    def __init__(self) -> None:
        self.heard = b""
        self.whole: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if self.heard.endswith(b"\r\n0\r\n\r\n") or self._has_length():
            heard, self.heard = self.heard, b""
            self.whole.set_result(heard)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.whole.done():
            self.whole.set_exception(exc or ConnectionResetError("the answer was cut short"))

    async def ask(self, request: bytes) -> None:
        self.whole = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        answer = await self.whole
        assert answer.startswith(b"HTTP/1.1 200 "), answer[:500]

    def _has_length(self) -> bool:
        head, found, body = self.heard.partition(b"\r\n\r\n")
        _, told, rest = head.lower().partition(b"\r\ncontent-length:")
        return bool(found and told) and len(body) >= int(rest.partition(b"\r\n")[0])


def barely(place: str, **more: Any) -> Ask:
    """As `posting`, of as many connections as callers need. `place`: a socket's path, or http://HOST:PORT."""
    body = json.dumps({**ASKED, **more}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    idle: list[Bare] = []

    async def ask() -> None:
        one = idle.pop() if idle else await _connected(place)
        await one.ask(request)
        idle.append(one)

    return ask


async def _connected(place: str) -> Bare:
    loop = asyncio.get_running_loop()
    if place.startswith("/"):
        return (await loop.create_unix_connection(Bare, place))[1]
    host, _, port = place.removeprefix("http://").partition(":")
    return (await loop.create_connection(Bare, host, int(port)))[1]


def routing(base: str) -> Ask:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    params = {"model": "anthropic/claude-sonnet-4-5", "api_base": base, "api_key": "sk-of-the-bench"}
    router = litellm.Router([{"model_name": "translated", "litellm_params": params}], num_retries=0)

    async def ask() -> None:
        await router.acompletion(**{**ASKED, "model": "translated"})

    return ask


async def compare(base: str, socket: str, seconds: float, rounds: int) -> None:
    async with (
        httpx.AsyncClient(limits=httpx.Limits(max_connections=64)) as plain,
        httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=socket), timeout=60) as gate,
    ):
        theirs, ours = f"{base}/v1/chat/completions", "http://localhost/v1/chat/completions"
        pairs = {
            "one call": (posting(plain, theirs), posting(gate, ours), "passed through, to direct"),
            f"{CHUNKS} chunks": (
                streaming(plain, theirs),
                streaming(gate, ours),
                "passed through, to direct",
            ),
            "translated": (
                routing(base),
                posting(gate, ours, model="translated"),
                "worker, to LiteLLM's Router",
            ),
        }
        print("| what | beside it | gate | more | |\n|---|---|---|---|---|")
        for name, (other, own, what) in pairs.items():
            found = [(await latency(other, seconds), await latency(own, seconds)) for _ in range(rounds)]
            a, b = (statistics.median(side) * 1000 for side in zip(*found, strict=True))
            ratio = statistics.median(ours / theirs for theirs, ours in found)
            print(
                f"| {name}, p50 | {a:.2f} ms | {b:.2f} ms | {b - a:+.2f} ms | {ratio:.2f}×: {what} |",
                flush=True,
            )
        at_once = {
            "one call": (barely(base), barely(socket)),
            f"{CHUNKS} chunks": (barely(base, stream=True), barely(socket, stream=True)),
            "translated": (pairs["translated"][0], barely(socket, model="translated")),
        }
        for name, (other, own) in at_once.items():
            found = [(await rate(other, seconds), await rate(own, seconds)) for _ in range(rounds)]
            a, b = (statistics.median(side) for side in zip(*found, strict=True))
            print(
                f"| {name}, 32 at once | {a:,.0f}/s | {b:,.0f}/s | | {b / a:.2f}×: {pairs[name][2]} |",
                flush=True,
            )


@contextlib.contextmanager
def proxy(base: str) -> Iterator[str]:
    """LiteLLM's own server, of the version that agentk has, in front of the same upstream."""
    with tempfile.TemporaryDirectory(prefix="agentk-bench-") as folder:
        place = Path(folder)
        venv.create(place / "env", with_pip=True)
        wanted = f"litellm[proxy]=={importlib.metadata.version('litellm')}"
        print(f"installing {wanted} …", file=sys.stderr, flush=True)
        install = [str(place / "env/bin/pip"), "install", "--quiet", "--disable-pip-version-check", wanted]
        subprocess.run(install, check=True)
        ways = {
            "m": {"model": "openai/m", "api_base": f"{base}/v1", "api_key": "sk-of-the-bench"},
            "translated": {
                "model": "anthropic/claude-sonnet-4-5",
                "api_base": base,
                "api_key": "sk-of-the-bench",
            },
        }
        models = [{"model_name": name, "litellm_params": params} for name, params in ways.items()]
        general = {"dangerously_permit_weak_or_unset_master_key": True}
        (place / "config.yaml").write_text(json.dumps({"model_list": models, "general_settings": general}))
        port = str(daemons.free_port())
        words = ["--config", str(place / "config.yaml"), "--host", "127.0.0.1", "--port", port]
        env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        server = subprocess.Popen(
            [str(place / "env/bin/litellm"), *words],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 120
            while time.monotonic() < until:
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"{url}/health/liveliness").status_code == 200:
                        break
                if server.poll() is not None:
                    raise SystemExit("LiteLLM's proxy server did not start")
                time.sleep(0.5)
            yield url
        finally:
            server.terminate()
            server.wait()


async def compare_proxy(url: str, socket: str, seconds: float, rounds: int) -> None:
    async with (
        httpx.AsyncClient(timeout=60) as theirs,
        httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=socket), timeout=60) as ours,
    ):
        print("\n| what | LiteLLM's proxy | gate | |\n|---|---|---|---|")
        for name, model in (("one call", "m"), ("translated", "translated")):
            beside = posting(theirs, f"{url}/v1/chat/completions", model=model)
            own = posting(ours, "http://localhost/v1/chat/completions", model=model)
            found = [(await latency(beside, seconds), await latency(own, seconds)) for _ in range(rounds)]
            a, b = (statistics.median(side) * 1000 for side in zip(*found, strict=True))
            print(f"| {name}, p50 | {a:.2f} ms | {b:.2f} ms | {b / a:.2f}× |", flush=True)
            together = (barely(url, model=model), barely(socket, model=model))
            found = [
                (await rate(together[0], seconds), await rate(together[1], seconds)) for _ in range(rounds)
            ]
            a, b = (statistics.median(side) for side in zip(*found, strict=True))
            print(f"| {name}, 32 at once | {a:,.0f}/s | {b:,.0f}/s | {b / a:.2f}× |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--proxy", action="store_true", help="put LiteLLM's proxy server beside it, too")
    asked = parser.parse_args()
    with upstream() as base, door(base) as socket:
        asyncio.run(compare(base, socket, asked.seconds, asked.rounds))
        if asked.proxy:
            with proxy(base) as url:
                asyncio.run(compare_proxy(url, socket, asked.seconds, asked.rounds))


if __name__ == "__main__":
    main()
