"""Servers behind HTTP, as the worker reads them: what it may ask of the daemon, and answers that are no good."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from test_mcp_worker import Bench, resident_bytes, run, texts

from agentk.api import errors
from agentk.tools.mcp_fetching import Fetch

JSON, EVENTS = [("content-type", "application/json")], [("content-type", "text/event-stream")]


@dataclass
class Answer:
    status: int
    headers: Sequence[tuple[str, str]]
    body: Any  # bytes, or endless pieces of them
    sent: list[int] = field(default_factory=list)

    async def chunks(self) -> AsyncIterator[bytes]:
        if isinstance(self.body, bytes):
            yield self.body
            return
        while True:
            self.sent.append(len(self.body[0]))
            yield self.body[0]
            await asyncio.sleep(0)


def server(calls: Any) -> tuple[Fetch, list[tuple[str, dict[str, str]]]]:
    """Behaves until a tool is called; then `calls` is the answer."""
    seen: list[tuple[str, dict[str, str]]] = []

    def answer(method: str, body: bytes) -> Answer:
        if method != "POST":
            return Answer(405, JSON, b"{}")
        told = json.loads(body)
        if "id" not in told:
            return Answer(202, [], b"")
        if told["method"] == "initialize":
            info = {"name": "far", "version": "1"}
            result: Any = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
        elif told["method"] == "tools/list":
            result = {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
        else:
            return calls(told["id"]) if callable(calls) else calls
        return Answer(200, JSON, json.dumps({"jsonrpc": "2.0", "id": told["id"], "result": result}).encode())

    @asynccontextmanager
    async def fetch(method: str, headers: Sequence[tuple[str, str]], body: bytes) -> AsyncIterator[Answer]:
        seen.append((method, dict(headers)))
        yield answer(method, body)

    return fetch, seen


def said(number: int) -> bytes:
    result = {"content": [{"type": "text", "text": "hi"}]}
    return json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode()


def test_answers_come_whole_or_as_events_and_nothing_but_headers_of_the_protocol_is_asked_for() -> None:
    async def story(bench: Bench) -> None:
        for calls in (
            lambda number: Answer(200, JSON, said(number)),
            lambda number: Answer(200, EVENTS, b": hello\n\nevent: message\ndata: " + said(number) + b"\n\n"),
        ):
            fetch, seen = server(calls)
            session = await bench.worker.over_http(fetch)
            assert texts(await session.call("echo", {}, 30)) == ["hi"]
            names = {name.lower() for _, headers in seen for name in headers}
            assert names <= {
                "accept",
                "content-type",
                "mcp-protocol-version",
                "mcp-session-id",
                "last-event-id",
            }

    run(story)


def test_what_json_has_not_is_not_told() -> None:
    async def story(bench: Bench) -> None:
        told = (
            b'{"jsonrpc":"2.0","id":%d,"result":{"content":[],"structuredContent":{"mean":NaN,"most":1e999}}}'
        )
        fetch, _ = server(lambda number: Answer(200, EVENTS, b"data: " + told % number + b"\n\n"))
        session = await bench.worker.over_http(fetch)
        assert (await session.call("echo", {}, 30)).structured == {"mean": None, "most": None}

    run(story)


REDIRECT = Answer(307, [("location", "http://169.254.169.254/latest")], b"")
HUGE = Answer(200, JSON, [b'"' + b"x" * 65_536])
FLOOD = Answer(200, EVENTS, [b": nothing\n\n" * 6_000])
LONG = Answer(200, EVENTS, [b"data: " + b"x" * 65_536])


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (REDIRECT, errors.UpstreamError),
        (Answer(500, JSON, b"{}"), errors.UpstreamError),
        (Answer(200, [("content-type", "text/html")], b"<p>"), errors.UpstreamError),
        (Answer(200, JSON, b"[[[["), errors.UpstreamError),
        (HUGE, errors.AgentkError),
        (LONG, errors.AgentkError),
        (FLOOD, errors.Timeout),
    ],
    ids=["redirect", "500", "html", "nonsense", "huge", "long", "flood"],
)
def test_what_is_no_answer_ends_its_own_call(answer: Answer, error: type[errors.AgentkError]) -> None:
    async def story(bench: Bench) -> None:
        fetch, seen = server(answer)
        session = await bench.worker.over_http(fetch)
        with pytest.raises(error):
            await session.call("echo", {}, 2)
        assert not any(method == "GET" and "169" in str(headers) for method, headers in seen)
        good, _ = server(lambda number: Answer(200, JSON, said(number)))
        other = await bench.worker.over_http(good)
        assert texts(await other.call("echo", {}, 30)) == ["hi"]
        assert bench.worker.pid
        assert resident_bytes(bench.worker.pid) < 250_000_000
        assert sum(answer.sent) < 100_000_000  # nobody asks for more than is read

    run(story)


def test_what_the_daemon_refuses_to_fetch_is_why_the_server_does_not_start() -> None:
    async def story(bench: Bench) -> None:
        @asynccontextmanager
        async def refused(method: str, headers: Any, body: bytes) -> AsyncIterator[Answer]:
            raise errors.Denied("host is private")
            yield

        with pytest.raises(errors.Unavailable, match="host is private"):
            await bench.worker.over_http(refused)

    run(story)
