"""OpenAI's own client at an agent's door: the whole way through the gate to a real upstream, and back."""

import asyncio
import json
from typing import Any

import openai
import pytest
from aiohttp import web

from agentk.broker.budgets_limits import Limits
from agentk.broker.turns import Settings
from tests.broker.serving_openai_rig import BODY, END, HI, door, run
from tests.llm.upstreams import answers, chat, chunk, streams


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
