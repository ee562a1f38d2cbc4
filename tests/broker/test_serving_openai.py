"""OpenAI's own client at an agent's door: the whole way through the gate to a real upstream, and back."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web

from agentk.broker.budgets_limits import Limits
from agentk.broker.turns import Settings
from tests.broker import thinking_rig as rigs
from tests.llm.upstreams import Upstream, answers, chat, chunk, streams

HI: Any = [{"role": "user", "content": "hi"}]
BODY = {"model": "gpt", "messages": HI, "max_tokens": 20}
END = chunk({}, usage={"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9})


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def door(
    *handlers: Any, retries: int = 0, **settings: Any
) -> AsyncIterator[tuple[Upstream, rigs.World, openai.AsyncOpenAI]]:
    async with rigs.rig(*handlers, **settings) as (up, world), rigs.serving(world) as url:
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="agentk", max_retries=retries)
        async with client:
            yield up, world, client


def test_an_answer_is_the_upstreams_own_bytes_and_is_counted() -> None:
    text = json.dumps({**chat("héllo"), "x_extra": [1.50, "\\u00e9"]}, indent=3).encode()

    async def raw(request: web.Request) -> web.StreamResponse:
        return web.Response(body=text, content_type="application/json", headers={"x-request-id": "up-1"})

    async def story() -> None:
        async with door(raw) as (up, world, client):
            got = await client.chat.completions.with_raw_response.create(**BODY)
            assert got.content == text and got.headers["x-request-id"] == "up-1"
            assert got.parse().choices[0].message.content == "héllo"
            assert up.seen[0].body == {**BODY, "model": "gpt-4o"}
            assert up.seen[0].headers["authorization"].endswith("sk-canary-7f3a9c51d2")
            assert (world.used.tokens, world.used.cost_micro_usd) == (10, 48)
            assert world.records() == [("intent", "think", ""), ("result", "think", "ok")]

    run(story)


def test_a_stream_comes_as_it_comes_without_what_was_not_asked_for() -> None:
    pieces = [chunk({"content": "Hel"}), chunk({"content": "lo"}), END, b"data: [DONE]\n\n"]

    async def story() -> None:
        async with door(streams(*pieces)) as (up, world, client):
            stream = await client.chat.completions.create(**BODY, stream=True)
            texts = [part.choices[0].delta.content async for part in stream if part.choices]
            assert texts[:2] == ["Hel", "lo"]
            assert up.seen[0].body["stream_options"] == {"include_usage": True}
            await world.idle()
            assert world.used.tokens == 9

    run(story)


def test_the_first_piece_is_here_before_the_second_was_written() -> None:
    gate = asyncio.Event()
    pieces = [chunk({"content": "Hel"}), chunk({"content": "lo"}), END, b"data: [DONE]\n\n"]

    async def story() -> None:
        async with door(streams(*pieces, before=gate)) as (_, _, client):
            stream = await client.chat.completions.create(**BODY, stream=True)
            first = await anext(aiter(stream))
            gate.set()
            rest = [part async for part in stream]
            assert first.choices[0].delta.content == "Hel" and rest

    run(story)


def test_tools_come_back_whole() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    body = chat()
    body["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}

    async def story() -> None:
        tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        async with door(answers(body), answers(chat("done"))) as (up, _, client):
            got = await client.chat.completions.create(**BODY, tools=[tool])
            message = got.choices[0].message
            assert message.tool_calls and message.tool_calls[0].id == "c1"
            back: Any = [*HI, message, {"role": "tool", "tool_call_id": "c1", "content": "2"}]
            got = await client.chat.completions.create(**{**BODY, "messages": back})
            assert got.choices[0].message.content == "done"
            assert up.seen[1].body["messages"][1]["tool_calls"] == [call]

    run(story)


def test_responses_and_embeddings_and_models() -> None:
    part = {"type": "output_text", "text": "Hello", "annotations": []}
    item = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
    response = {
        "id": "r1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 5,
            "output_tokens": 2,
            "total_tokens": 7,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }
    vectors = {
        "object": "list",
        "model": "e",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }

    async def story() -> None:
        async with door(answers(response), answers(vectors)) as (up, world, client):
            got = await client.responses.create(model="gpt", input="hi", max_output_tokens=20)
            assert got.output_text == "Hello" and up.seen[0].body["store"] is False
            row = await client.embeddings.create(model="gpt", input="hi", encoding_format="float")
            assert row.data[0].embedding == [0.5]
            assert world.used.tokens == 10
            assert [record[1] for record in world.records()] == ["think", "think", "embed", "embed"]
            assert [model.id async for model in client.models.list()] == ["gpt"]
            assert (await client.models.retrieve("gpt")).id == "gpt"
            with pytest.raises(openai.NotFoundError):
                await client.models.retrieve("other")

    run(story)


def test_a_budget_that_is_used_up_is_told_once() -> None:
    async def story() -> None:
        async with door(answers(chat()), retries=3, limits=Limits(tokens=60)) as (up, _, client):
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(**{**BODY, "max_tokens": 5000})
            assert caught.value.code == "insufficient_quota" and up.seen == []
            assert caught.value.response.headers["x-should-retry"] == "false"

    run(story)


def test_a_line_that_is_full_says_when_to_come_again() -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def story() -> None:
        turns = Settings(max_concurrent=1, max_waiting_each=0)
        async with door(never, turns=turns) as (up, _, client):
            first = asyncio.create_task(client.chat.completions.create(**BODY))
            await up.asked.wait()
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(**BODY)
            assert caught.value.code == "rate_limit_exceeded"
            assert int(caught.value.response.headers["retry-after"]) >= 1
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)

    run(story)


def test_a_policy_that_says_no_is_not_asked_again() -> None:
    rules = [{"name": "no", "effect": "Deny", "methods": ["think"]}]

    async def story() -> None:
        async with door(answers(chat()), retries=3, rules=rules) as (up, world, client):
            with pytest.raises(openai.PermissionDeniedError) as caught:
                await client.chat.completions.create(**BODY)
            assert caught.value.code == "policy_denied" and '"no"' in str(caught.value)
            assert up.seen == [] and world.records() == [("note", "think", "denied")]

    run(story)


UPSTREAMS_ERRORS = [
    (400, openai.BadRequestError, "bad"),
    (404, openai.NotFoundError, "gone"),
    (429, openai.RateLimitError, "slow down"),
    (500, openai.InternalServerError, "broken"),
]


@pytest.mark.parametrize("status, kind, message", UPSTREAMS_ERRORS)
def test_what_the_provider_says_is_told_in_its_own_words(
    status: int, kind: type[openai.APIStatusError], message: str
) -> None:
    error = {"error": {"message": message, "type": "t", "code": "c", "param": None}}

    async def story() -> None:
        async with door(answers(error, status=status)) as (_, world, client):
            with pytest.raises(kind, match=message) as caught:
                await client.chat.completions.create(**BODY)
            assert (caught.value.type, caught.value.code) == ("t", "c")
            assert world.used.tokens == 0

    run(story)


def test_a_refused_key_of_the_route_is_no_guests_business() -> None:
    error = {"error": {"message": "Incorrect API key provided: sk-can*****1d2", "type": "t"}}

    async def story() -> None:
        async with door(answers(error, status=401)) as (_, _, client):
            with pytest.raises(openai.APIStatusError) as caught:
                await client.chat.completions.create(**BODY)
            assert caught.value.status_code == 502 and "sk-can" not in str(caught.value)

    run(story)


def test_the_clients_own_retry_of_an_error_is_a_call_of_its_own() -> None:
    error = answers({"error": {"message": "busy", "type": "t"}}, status=503)

    async def story() -> None:
        async with door(error, answers(chat("at last")), retries=1) as (up, world, client):
            got = await client.chat.completions.create(**BODY)
            assert got.choices[0].message.content == "at last" and len(up.seen) == 2
            assert [status for *_, status in world.records()] == ["", "error", "", "ok"]

    run(story)


def test_a_stream_that_breaks_off_says_so_and_is_paid_for() -> None:
    async def story() -> None:
        async with door(streams(chunk({"content": "Hel"}), cut=True)) as (_, world, client):
            stream = await client.chat.completions.create(**BODY, stream=True)
            heard = []
            with pytest.raises(openai.APIError, match="ended the connection"):
                async for part in stream:
                    heard.append(part.choices[0].delta.content)
            await world.idle()
            assert heard == ["Hel"] and world.used.tokens > 0

    run(story)


def test_who_asks_again_for_what_was_cut_short_is_told_what_was_sent() -> None:
    async def story() -> None:
        async with door(streams(chunk({"content": "Hel"}), cut=True), retries=3) as (up, _, client):
            headers = {"Idempotency-Key": "k1"}
            with pytest.raises(openai.APIError):
                async for _ in await client.chat.completions.create(
                    **BODY, stream=True, extra_headers=headers
                ):
                    pass
            with pytest.raises(openai.ConflictError, match="Hel") as caught:
                await client.chat.completions.create(**BODY, stream=True, extra_headers=headers)
            assert caught.value.code == "outcome_unknown" and len(up.seen) == 1
            assert caught.value.response.headers["x-should-retry"] == "false"

    run(story)


def test_the_same_key_gets_the_same_answer_and_asks_once() -> None:
    pieces = [chunk({"content": "Hel"}), END, b"data: [DONE]\n\n"]

    async def story() -> None:
        async with door(streams(*pieces)) as (up, _, client):
            told = []
            for _ in range(2):
                stream = await client.chat.completions.create(
                    **BODY, stream=True, extra_headers={"Idempotency-Key": "k1"}
                )
                told.append([part.model_dump() async for part in stream])
            assert told[0] == told[1] and len(up.seen) == 1

    run(story)


def again(body: Any, count: int = 1) -> dict[str, Any]:
    return {"json": body, "headers": {"x-stainless-retry-count": str(count)}}


def test_a_retry_of_the_same_body_joins_the_call_under_way() -> None:
    go = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await go.wait()
        return web.json_response(chat("once"))

    async def story() -> None:
        async with rigs.rig(slow) as (up, world), rigs.serving(world) as url, httpx.AsyncClient() as http:
            post = f"{url}/v1/chat/completions"
            first = asyncio.create_task(http.post(post, json=BODY))
            await up.asked.wait()
            second = asyncio.create_task(http.post(post, **again(BODY)))
            await world.until(lambda: len(world.service.tasks) == 2)
            await asyncio.sleep(0)  # its first step takes it all the way
            go.set()
            got = await asyncio.gather(first, second)
            assert [one.json()["choices"][0]["message"]["content"] for one in got] == ["once", "once"]
            assert len(up.seen) == 1 and world.used.calls == 1

    run(story)


def test_a_retry_of_a_call_whose_end_nobody_saw_is_not_made_again() -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def story() -> None:
        async with rigs.rig(never) as (up, world), rigs.serving(world) as url, httpx.AsyncClient() as http:
            first = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=BODY))
            await up.asked.wait()
            with world.survivor() as after:
                async with rigs.serving(after) as url_after:
                    for _ in range(2):
                        got = await http.post(f"{url_after}/v1/chat/completions", **again(BODY))
                        assert got.status_code == 409 and got.headers["x-should-retry"] == "false"
                        assert got.json()["error"]["code"] == "outcome_unknown"
                    assert len(up.seen) == 1
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)

    run(story)


def test_who_hangs_up_ends_the_call_upstream_and_pays_what_was_counted() -> None:
    async def story() -> None:
        pieces = [chunk({"content": "Hello"}), chunk({"content": "never"})]
        async with door(streams(*pieces, before=asyncio.Event())) as (up, world, client):
            stream = await client.chat.completions.create(**{**BODY, "max_tokens": 5000}, stream=True)
            await anext(aiter(stream))
            await stream.close()
            await up.hung_up.wait()
            await world.idle()
            assert 0 < world.used.tokens < 500
            assert world.records()[-1] == ("result", "think", "cancelled")

    run(story)


NOWHERE: dict[str, Mapping[str, Any]] = {
    "address": {"api_base": "{evil}"},
    "another address": {"base_url": "{evil}"},
    "headers": {"extra_headers": {"host": "evil"}},
    "a key": {"api_key": "sk-mine"},
    "a provider": {"custom_llm_provider": "ollama"},
    "a provider in the model": {"model": "ollama/{evil}"},
    "fallbacks": {"fallbacks": [{"model": "m", "api_base": "{evil}"}]},
    "a hosted tool": {"tools": [{"type": "mcp", "server_url": "{evil}"}]},
    "a picture": {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "{evil}/x.png"}}]}
        ]
    },
    "a proxy": {"proxy": "{evil}"},
    "a mock": {"mock_response": "hi"},
}


@pytest.mark.parametrize("what", NOWHERE)
def test_no_attempt_to_send_a_call_elsewhere_arrives_anywhere(what: str) -> None:
    async def story() -> None:
        async with (
            rigs.rig(answers(chat())) as (up, world),
            rigs.upstreams.upstream(answers(chat())) as evil,
            rigs.serving(world) as url,
            httpx.AsyncClient() as http,
        ):
            body = json.loads(json.dumps({**BODY, **NOWHERE[what]}).replace("{evil}", evil.url))
            got = await http.post(f"{url}/v1/chat/completions", json=body)
            assert got.status_code in (400, 403, 404), got.text
            assert up.seen == [] and evil.seen == [] and world.used.calls == 0

    run(story)


HEADERS = {
    "authorization": "Bearer sk-mine",
    "x-api-key": "sk-mine",
    "openai-organization": "org-mine",
    "x-forwarded-host": "evil",
    "cookie": "a=b",
}


def test_no_header_of_a_guest_goes_on() -> None:
    async def story() -> None:
        async with rigs.rig(answers(chat())) as (up, world), rigs.serving(world) as url:
            async with httpx.AsyncClient(headers=HEADERS) as http:
                got = await http.post(f"{url}/v1/chat/completions", json=BODY)
            assert got.status_code == 200
            assert not any("mine" in value or "evil" in value for value in up.seen[0].headers.values())
            assert "cookie" not in up.seen[0].headers

    run(story)


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/files", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("GET", "/", 404),
    ],
)
def test_other_paths_are_refused_in_the_same_words(method: str, path: str, status: int) -> None:
    async def story() -> None:
        async with rigs.rig(answers(chat())) as (_, world), rigs.serving(world) as url:
            async with httpx.AsyncClient() as http:
                got = await http.request(method, url + path)
            assert got.status_code == status and got.json()["error"]["type"] == "invalid_request_error"

    run(story)


def test_a_long_answer_is_passed_on_and_not_kept() -> None:
    text = "x" * (5 * 1024 * 1024)

    async def story() -> None:
        async with door(answers(chat(text))) as (_, _, client):
            headers = {"Idempotency-Key": "k1"}
            got = await client.chat.completions.create(**BODY, extra_headers=headers)
            assert got.choices[0].message.content == text
            with pytest.raises(openai.APIStatusError) as caught:
                await client.chat.completions.create(**BODY, extra_headers=headers)
            assert caught.value.status_code == 410

    run(story)
