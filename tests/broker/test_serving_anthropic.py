"""Anthropic's own client at an agent's door: the whole way through the gate to a real upstream, and back."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anthropic
import httpx
import pytest
from aiohttp import web

from agentk.broker.budgets_limits import Limits
from tests.broker import thinking_rig as rigs
from tests.llm.upstreams import Upstream, answers, streams

HI: Any = [{"role": "user", "content": "hi"}]
BODY: dict[str, Any] = {"model": "claude", "messages": HI, "max_tokens": 20}
MODEL = "anthropic/claude-sonnet-4-5"
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 7, "output_tokens": 3},
}


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


def event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


BEGIN = [
    event(
        "message_start", message={**MESSAGE, "content": [], "usage": {"input_tokens": 7, "output_tokens": 1}}
    ),
    event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hel"}),
]
END = [
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": "lo"}),
    event("content_block_stop", index=0),
    event(
        "message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 5}
    ),
    event("message_stop"),
]


@contextlib.asynccontextmanager
async def door(
    *handlers: Any, retries: int = 0, **settings: Any
) -> AsyncIterator[tuple[Upstream, rigs.World, anthropic.AsyncAnthropic]]:
    made = rigs.rig(*handlers, model=MODEL, end="", name="claude", **settings)
    async with made as (up, world), rigs.serving(world) as url:
        client = anthropic.AsyncAnthropic(base_url=url, api_key="agentk", max_retries=retries)
        async with client:
            yield up, world, client


def test_a_message_is_the_upstreams_own_bytes_and_is_counted() -> None:
    text = json.dumps(MESSAGE, indent=1).encode()

    async def raw(request: web.Request) -> web.StreamResponse:
        return web.Response(body=text, content_type="application/json", headers={"request-id": "up-1"})

    async def story() -> None:
        async with door(raw) as (up, world, client):
            got = await client.messages.with_raw_response.create(**BODY)
            assert got.http_response.content == text
            assert got.headers["request-id"] == "up-1"
            seen = up.seen[0]
            assert (seen.path, seen.body) == ("/v1/messages", {**BODY, "model": "claude-sonnet-4-5"})
            assert seen.headers["x-api-key"].startswith("sk-canary")
            assert seen.headers["anthropic-version"] == "2023-06-01"
            assert world.used.tokens == 10

    run(story)


def test_a_stream_is_put_together_by_the_client() -> None:
    async def story() -> None:
        async with door(streams(*BEGIN, *END)) as (_, world, client):
            async with client.messages.stream(**BODY) as stream:
                texts = [text async for text in stream.text_stream]
                final = await stream.get_final_message()
            await world.idle()
            assert texts == ["Hel", "lo"] and final.usage.output_tokens == 5
            assert world.used.tokens == 12

    run(story)


def test_tools_and_their_results_come_and_go() -> None:
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}
    asked = {**MESSAGE, "content": [use], "stop_reason": "tool_use"}

    async def story() -> None:
        async with door(answers(asked), answers(MESSAGE)) as (up, _, client):
            tool: Any = {"name": "f", "input_schema": {"type": "object"}}
            got = await client.messages.create(**BODY, tools=[tool])
            assert got.content[0].type == "tool_use" and got.content[0].input == {"a": 1}
            result = {"type": "tool_result", "tool_use_id": "t1", "content": "2"}
            back: Any = [
                *HI,
                {"role": "assistant", "content": got.content},
                {"role": "user", "content": [result]},
            ]
            await client.messages.create(**{**BODY, "messages": back}, tools=[tool])
            assert up.seen[1].body["messages"][2]["content"] == [result]

    run(story)


def test_counting_and_models_cost_nothing() -> None:
    async def story() -> None:
        async with door(answers({"input_tokens": 12})) as (up, world, client):
            got = await client.messages.count_tokens(model="claude", messages=HI)
            assert got.input_tokens == 12 and up.seen[0].path == "/v1/messages/count_tokens"
            assert (world.used.tokens, world.used.calls) == (0, 1)
            assert [model.id async for model in client.models.list()] == ["claude"]
            assert (await client.models.retrieve("claude")).id == "claude"

    run(story)


ERRORS = [
    (400, "invalid_request_error", anthropic.BadRequestError),
    (429, "rate_limit_error", anthropic.RateLimitError),
    (529, "overloaded_error", anthropic.InternalServerError),
]


@pytest.mark.parametrize("status, kind, raised", ERRORS)
def test_errors_of_the_provider_keep_their_type(status: int, kind: str, raised: Any) -> None:
    error = {"type": "error", "error": {"type": kind, "message": "because"}}

    async def story() -> None:
        async with door(answers(error, status=status)) as (_, _, client):
            with pytest.raises(raised, match="because") as caught:
                await client.messages.create(**BODY)
            assert caught.value.status_code == status and caught.value.body["error"]["type"] == kind

    run(story)


def test_a_budget_and_a_policy_are_told_once() -> None:
    async def story() -> None:
        async with door(answers(MESSAGE), retries=3, limits=Limits(tokens=50)) as (up, _, client):
            with pytest.raises(anthropic.RateLimitError) as caught:
                await client.messages.create(**{**BODY, "max_tokens": 5000})
            assert caught.value.response.headers["x-should-retry"] == "false" and up.seen == []

    run(story)


def test_a_stream_that_breaks_off_says_so() -> None:
    async def story() -> None:
        async with door(streams(*BEGIN, cut=True)) as (_, world, client):
            heard = []
            with pytest.raises(anthropic.APIStatusError, match="ended the connection"):
                async with client.messages.stream(**BODY) as stream:
                    async for text in stream.text_stream:
                        heard.append(text)
            await world.idle()
            assert heard == ["Hel"] and world.used.tokens > 7

    run(story)


def test_a_retry_of_a_call_whose_end_nobody_saw_is_not_made_again() -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def story() -> None:
        async with door(never) as (up, world, client), httpx.AsyncClient() as http:
            first = asyncio.create_task(client.messages.create(**BODY))
            await up.asked.wait()
            with world.survivor() as after:
                async with rigs.serving(after) as url:
                    seen = world.requests[-1]
                    headers = {**seen.headers, "x-stainless-retry-count": "1"}
                    headers.pop("host")
                    got = await http.post(f"{url}/v1/messages", content=seen.body, headers=headers)
            assert got.status_code == 409 and got.json()["error"]["type"] == "invalid_request_error"
            assert got.headers["x-should-retry"] == "false" and len(up.seen) == 1
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)

    run(story)


NOWHERE: dict[str, dict[str, Any]] = {
    "a server of tools": {"mcp_servers": [{"type": "url", "url": "{evil}", "name": "x"}]},
    "a hosted tool": {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]},
    "a picture": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image", "source": {"type": "url", "url": "{evil}/x.png"}}],
            }
        ]
    },
    "a file": {
        "messages": [
            {"role": "user", "content": [{"type": "document", "source": {"type": "file", "file_id": "f1"}}]}
        ]
    },
    "a provider": {"model": "openai/gpt-4o"},
    "an address": {"api_base": "{evil}"},
}


@pytest.mark.parametrize("what", NOWHERE)
def test_no_attempt_to_send_a_call_elsewhere_arrives_anywhere(what: str) -> None:
    async def story() -> None:
        async with door(answers(MESSAGE)) as (up, world, client), rigs.upstreams.upstream() as evil:
            extra = json.loads(json.dumps(NOWHERE[what]).replace("{evil}", evil.url))
            with pytest.raises(anthropic.APIStatusError) as caught:
                await client.messages.create(**BODY, extra_body=extra)
            assert caught.value.status_code in (400, 403, 404)
            assert up.seen == [] and evil.seen == [] and world.used.calls == 0

    run(story)


def test_unknown_paths_are_refused_in_anthropics_words() -> None:
    async def story() -> None:
        async with door(answers(MESSAGE)) as (_, _, client):
            with pytest.raises(anthropic.NotFoundError) as caught:
                await client.messages.batches.list()
            assert caught.value.body["error"]["type"] == "not_found_error"

    run(story)
