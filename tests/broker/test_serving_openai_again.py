"""Calls of OpenAI's client that break off or come again: nothing is paid twice, and nothing goes elsewhere."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web

from tests.broker import thinking_rig as rigs
from tests.broker.serving_openai_rig import BODY, END, door, run
from tests.llm.upstreams import answers, chat, chunk, streams


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
