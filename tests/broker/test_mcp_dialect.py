"""/mcp on a real socket: driven by the official Python client, and by what no client would send."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import mcp
import pytest
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from agentk.api import errors
from agentk.broker.dialects import serving_mcp
from agentk.broker.dialects.http import HttpService, Respond
from agentk.broker.dialects.http_reading import Request
from agentk.broker.words import Call, Guest
from tests.broker import http_rig

GUEST = Guest("u", "default", "guest", 1, "r", "u-1")
HEADERS = {
    "host": "127.0.0.1",
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
}


class Gate:
    """Answers as tool.list and tool.call do."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.ended: list[str] = []
        self.under_way, self.over = asyncio.Event(), asyncio.Event()
        self.bells: list[asyncio.Event] = []  # of those that listen
        self.heard = asyncio.Event()
        self.state = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        bell = asyncio.Event()
        self.bells.append(bell)
        self.heard.set()
        try:
            yield bell
        finally:
            self.bells.remove(bell)
            self.over.set()

    def ring(self, state: int) -> None:
        self.state = state
        for bell in self.bells:
            bell.set()

    async def call(self, call: Call, emit: Callable[[Any], Awaitable[None]]) -> Any:
        self.calls.append(call)
        if call.method == "tool.list":
            begin = int(call.params.get("continue", 0))
            items = [
                {"name": f"t{n}", "description": "One", "inputSchema": {}} for n in range(begin, begin + 2)
            ]
            return {"items": items, **({"continue": str(begin + 2)} if begin < 4 else {})}
        if call.method == "skill.search":
            items = [{"name": "count", "description": "Counts."}] if "continue" not in call.params else []
            return {"items": items, **({} if "continue" in call.params else {"continue": "1"})}
        name = call.params["name"]
        if call.method == "skill.get":
            if name != "count":
                raise errors.NotFound("no Skill of that name")
            if "file" in call.params:
                return {"content": call.params["file"], "encoding": "utf-8", "bytes": 1}
            files = [{"path": "SKILL.md", "bytes": 7}, {"path": "a b/x.py", "bytes": 1}]
            return {"name": name, "text": "# Count", "files": files, "digest": "d"}
        if name == "counting":
            for step in range(3):
                await emit({"progress": step, "total": 3, "message": f"step {step}"})
        if name == "long":
            self.under_way.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.ended.append(name)
                self.over.set()
        if name == "denied":
            raise errors.Denied("rule no-such denies tool.call", hint="ask for another")
        if name == "nothing":
            raise errors.NotFound("no tool nothing among those that this agent is granted")
        text = json.dumps(call.params["arguments"], sort_keys=True)
        return {"content": [{"type": "text", "text": text}], "isError": False, "structured": {"n": 1}}


@contextlib.asynccontextmanager
async def door() -> AsyncIterator[tuple[Gate, int]]:
    gate = Gate()

    async def other(request: Request, respond: Respond) -> None:
        respond.whole(404, {}, b"other")

    changes = serving_mcp.Changes(gate.listening, lambda: gate.state)
    service = HttpService(serving_mcp.handler(gate, lambda: GUEST, "1.0", other, changes))
    async with asyncio.timeout(60), http_rig.serving(service) as port:
        yield gate, port


@contextlib.asynccontextmanager
async def client(port: int, mode: str) -> AsyncIterator[mcp.Client]:
    transport = streamable_http_client(f"http://127.0.0.1:{port}/mcp")
    async with mcp.Client(transport, mode=mode) as made:
        yield made


def story(work: Callable[[Gate, int], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with door() as (gate, port):
            await work(gate, port)

    asyncio.run(whole())


@pytest.mark.parametrize(("mode", "version"), [("legacy", "2025-11-25"), ("auto", "2026-07-28")])
def test_the_official_client_lists_calls_and_is_told_of_progress(mode: str, version: str) -> None:
    async def work(gate: Gate, port: int) -> None:
        async with client(port, mode) as made:
            assert made.protocol_version == version
            assert made.server_info and made.server_info.name == "agentk"
            first = await made.list_tools()
            assert [one.name for one in first.tools] == ["t0", "t1"]
            assert [one.name for one in (await made.list_tools(cursor=first.next_cursor)).tools] == [
                "t2",
                "t3",
            ]
            told: list[tuple[float, float | None, str | None]] = []

            async def heard(done: float, total: float | None, text: str | None) -> None:
                told.append((done, total, text))

            result = await made.call_tool("counting", {"a": "ü\u2028"}, progress_callback=heard)
            assert json.loads(result.content[0].text) == {"a": "ü\u2028"}  # type: ignore[union-attr]
            assert result.structured_content == {"n": 1}
            assert told == [(0.0, 3.0, "step 0"), (1.0, 3.0, "step 1"), (2.0, 3.0, "step 2")]
            denied = await made.call_tool("denied", {})
            assert denied.is_error
            assert denied.content[0].text == (  # type: ignore[union-attr]
                "PolicyDenied: rule no-such denies tool.call; ask for another"
            )
            with pytest.raises(MCPError, match="nothing"):
                await made.call_tool("nothing", {})
            if mode == "legacy":
                with pytest.raises(MCPError, match="not offered"):
                    await made.list_prompts()
        assert all(call.dialect == "mcp" and call.guest is GUEST for call in gate.calls)

    story(work)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_skills_are_read_as_resources(mode: str) -> None:
    async def work(gate: Gate, port: int) -> None:
        async with client(port, mode) as made:
            first = await made.list_resources()
            (skill,) = first.resources
            assert (skill.uri, skill.name, skill.description) == ("skill://count", "count", "Counts.")
            assert not (await made.list_resources(cursor=first.next_cursor)).resources
            assert not (await made.list_resource_templates()).resource_templates
            (whole,) = (await made.read_resource(skill.uri)).contents
            assert whole.text == "# Count" and whole.meta  # type: ignore[union-attr]
            assert whole.meta["agentk.dev/files"][1] == "skill://count/a%20b/x.py"
            (file,) = (await made.read_resource(whole.meta["agentk.dev/files"][1])).contents
            assert file.text == "a b/x.py"  # type: ignore[union-attr]
            for wrong in ("skill://none", "file:///etc/passwd", "skill://", "skill://count?x"):
                with pytest.raises(MCPError):
                    await made.read_resource(wrong)
        assert {call.method for call in gate.calls} == {"skill.search", "skill.get"}

    story(work)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_call_that_is_taken_back_or_hung_up_on_ends(mode: str) -> None:
    async def work(gate: Gate, port: int) -> None:
        async with client(port, mode) as made:
            call = asyncio.create_task(made.call_tool("long", {}))
            await gate.under_way.wait()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await gate.over.wait()
            assert (await made.call_tool("counting", {})).is_error is False

    story(work)


def test_two_clients_with_the_same_ids_do_not_take_back_each_others_calls() -> None:
    async def work(gate: Gate, port: int) -> None:
        long = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "long"}}
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
        waiting = asyncio.create_task(post(port, long, {"mcp-session-id": "one"}))
        await gate.under_way.wait()
        assert (await post(port, cancel, {"mcp-session-id": "two"}))[0] == 202
        assert (await post(port, cancel))[0] == 202
        assert not gate.ended
        assert (await post(port, cancel, {"mcp-session-id": "one"}))[0] == 202
        status, answer = await waiting
        assert status == 200
        assert answer["id"] == 7
        assert gate.ended == ["long"]

    story(work)


LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
NEW = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
NEW_HEADERS = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}


@pytest.mark.parametrize(
    ("message", "headers", "status", "code"),
    [
        (b"{", {}, 400, -32700),
        ([LIST], {}, 400, -32600),
        (LIST | {"jsonrpc": "1.0"}, {}, 400, -32600),
        (LIST | {"id": [1]}, {}, 400, -32600),
        (LIST | {"id": None}, {}, 400, -32600),
        (LIST | {"params": []}, {}, 400, -32600),
        (LIST | {"params": {"cursor": 5}}, {}, 200, -32602),
        (LIST | {"method": "prompts/list"}, {}, 200, -32601),
        (LIST | {"method": "tools/call", "params": {"name": "a" * 500}}, {}, 200, -32602),
        (LIST | {"method": "tools/call", "params": {"name": "a", "arguments": []}}, {}, 200, None),
        (LIST | {"method": "tools/call", "params": {"name": "a", "arguments": [1]}}, {}, 200, -32602),
        (LIST, {"content-type": "text/plain"}, 415, -32600),
        (LIST, {"accept": "text/html"}, 406, -32600),
        (LIST, {"origin": "https://evil.example"}, 403, None),
        (LIST, {"host": "evil.example"}, 421, None),
        (LIST, {"mcp-protocol-version": "1999-01-01"}, 400, -32022),
        (LIST, {"mcp-protocol-version": "2026-07-28"}, 400, -32020),
        (LIST | {"params": NEW}, {}, 400, -32022),
        (LIST | {"params": NEW}, NEW_HEADERS | {"mcp-method": "tools/call"}, 400, -32020),
        (LIST | {"params": NEW}, NEW_HEADERS, 200, None),
        (
            LIST | {"method": "tools/call", "params": NEW | {"name": "a"}},
            NEW_HEADERS | {"mcp-method": "tools/call", "mcp-name": "b"},
            400,
            -32020,
        ),
        (LIST, {"mcp-session-id": "x" * 200}, 400, -32600),
        (b"[" * 100_000, {}, 400, -32700),
    ],
)
def test_what_is_wrong_is_refused_by_name(
    message: Any, headers: Mapping[str, str], status: int, code: int | None
) -> None:
    async def work(gate: Gate, port: int) -> None:
        got, answer = await post(port, message, headers)
        assert got == status, answer
        if code is not None:
            assert answer["error"]["code"] == code

    story(work)


def test_a_client_of_today_is_told_that_its_tools_changed_and_nothing_else() -> None:
    async def work(gate: Gate, port: int) -> None:
        heard: asyncio.Queue[Any] = asyncio.Queue()
        transport = streamable_http_client(f"http://127.0.0.1:{port}/mcp")
        async with mcp.Client(transport, mode="legacy", message_handler=heard.put) as made:
            assert made.server_capabilities and made.server_capabilities.tools
            assert made.server_capabilities.tools.list_changed is True
            await gate.heard.wait()
            gate.ring(0)  # somebody else's
            gate.ring(1)
            assert (await heard.get()).method == "notifications/tools/list_changed"
            gate.ring(2)
            assert (await heard.get()).method == "notifications/tools/list_changed"
            assert heard.empty()
        await gate.over.wait()
        assert not gate.bells, "it hung up"

    story(work)


def test_a_client_of_tomorrow_listens_for_what_it_names() -> None:
    async def work(gate: Gate, port: int) -> None:
        async with client(port, "auto") as made:
            async with made.listen(tools_list_changed=True) as changes:
                gate.ring(1)
                assert type(await anext(aiter(changes))).__name__ == "ToolsListChanged"
            async with made.listen(prompts_list_changed=True) as nothing:
                assert nothing.honored.prompts_list_changed is None
        await gate.over.wait()

    story(work)


def test_a_guest_listens_a_few_times_at_once() -> None:
    async def work(gate: Gate, port: int) -> None:
        head = "GET /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n\r\n"
        open_ = [await asyncio.open_connection("127.0.0.1", port) for _ in range(17)]
        said = []
        for reader, writer in open_:
            writer.write(head.encode())
            said.append((await reader.readline()).split()[1])
        assert said == [b"200"] * 16 + [b"429"]
        for _, writer in open_:
            writer.close()

    story(work)


def test_only_post_says_anything() -> None:
    async def work(gate: Gate, port: int) -> None:
        assert (await post(port, b"", {"accept": "application/json"}, method="GET"))[0] == 405
        assert (await post(port, b"", {"mcp-protocol-version": "2026-07-28"}, method="GET"))[0] == 405
        assert (await post(port, b"", method="DELETE"))[0] == 204
        assert (await post(port, LIST, path="/other"))[0] == 404

    story(work)


async def post(
    port: int,
    message: Any,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
    path: str = "/mcp",
) -> tuple[int, Any]:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    told = HEADERS | dict(headers or {}) | {"content-length": str(len(body)), "connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
    answer = await reader.read()
    writer.close()
    first, _, rest = answer.partition(b"\r\n\r\n")
    try:
        return int(first.split()[1]), json.loads(rest)
    except ValueError:
        return int(first.split()[1]), rest
