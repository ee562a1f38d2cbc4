"""What windows are counted with: a model's own tokenizer, what it says itself, or an estimate that starts careful."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from agentk.llm import asking, scripted
from agentk.llm.tokenizing import Tokenizers
from agentk.memory import contexts, messages, tokens
from tests.broker import managing_rig as rigs
from tests.llm import upstreams

DENSE = [
    "数据库里有三张表，请告诉我它们的名字。",
    "🦊🦋🌍" * 9,
    '{"a":[[[]]],"b":{}}' * 3,
    "žluťoučký kůň úpěl",
]


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


def reading(told: Callable[[Any], int]) -> upstreams.Handler:
    """An upstream that says so many tokens were read."""

    async def handle(request: web.Request) -> web.StreamResponse:
        read = told(await request.json())
        return web.json_response(
            {
                **upstreams.chat("yes"),
                "usage": {"prompt_tokens": read, "completion_tokens": 1, "total_tokens": read + 1},
            }
        )

    return handle


def test_a_tokenizer_counts_all_that_is_new_at_once_and_a_prompt_is_within_its_count() -> None:
    async def story() -> None:
        tokenizers = Tokenizers()
        counter = rigs.Tokenizing(tokenizers)
        sizes: list[int] = []

        async def counted(body: Any) -> int:
            spelled = [messages.counted(item, "words")[0].decode() for item in body["messages"]]
            assert await tokenizers.count(["gpt-4o"], spelled)
            found = [tokenizers.known("o200k_base", text) or 0 for text in spelled]
            return sum(found) + tokens.MESSAGE_TOKENS * len(found)

        async def handle(request: web.Request) -> web.StreamResponse:
            sizes.append(await counted(await request.json()))
            return await reading(lambda body: sizes[-1])(request)

        try:
            async with rigs.rig(handle, counters=counter) as (_up, world, keeper):
                talk: list[Any] = [{"role": "system", "content": "You help."}]
                for n in range(60):
                    talk.append({"role": "user", "content": f"{n}: {DENSE[n % 4]} And what of it?"})
                    before = len(counter.asked)
                    talk.append((await world.call("think", messages=talk, maxTokens=5))["message"])
                    assert len(counter.asked) - before <= 3, "no question for each message"
                # What is fixed, the system text, the newest answer, and what is asked: nothing that is older.
                assert max(len(one) for one in counter.asked[1:]) <= 4
                assert max(sizes) <= 1_000 and sorted(sizes)[30] > 500
                [known] = await keeper.read(lambda conn: contexts.newest(conn, [1]))
                assert known.counter == "tokenizer o200k_base" and known.ratio == 1.0
        finally:
            await tokenizers.close()

    run(story)


def test_before_a_provider_said_anything_no_tokenizer_of_bytes_can_have_more() -> None:
    async def story() -> None:
        def most(body: Any) -> int:
            return len(json.dumps(body["messages"], ensure_ascii=False).encode())

        async with rigs.rig(reading(most)) as (up, world, keeper):
            talk: list[Any] = []
            for n in range(30):
                talk += [
                    {"role": "user", "content": f"{n} {DENSE[n % 4]}"},
                    {"role": "assistant", "content": "ok"},
                ]
            for n in range(5):
                talk.append({"role": "user", "content": f"{n} {DENSE[n % 4]} {'更多' * 9}"})
                talk.append((await world.call("think", messages=talk, maxTokens=5))["message"])
            assert [most(seen.body) for seen in up.seen] and max(most(seen.body) for seen in up.seen) <= 1_000
            [known] = await keeper.read(lambda conn: contexts.newest(conn, [1]))
            assert known.counter == "estimate" and known.ratio is not None and known.ratio > 2

    run(story)


def test_what_left_by_the_careful_count_alone_is_there_again_once_a_provider_said_what_it_read() -> None:
    async def story() -> None:
        def few(body: Any) -> int:
            return len(json.dumps(body["messages"], ensure_ascii=False).encode()) // 4

        async with rigs.rig(reading(few)) as (up, world, _keeper):
            talk: list[Any] = []
            for n in range(12):
                talk += [{"role": "user", "content": f"Number {n}, of which {'much ' * 8} is said."}]
                talk += [{"role": "assistant", "content": "Yes."}]
            talk.append({"role": "user", "content": "Go on."})
            talk.append((await world.call("think", messages=talk, maxTokens=5))["message"])
            assert len(up.seen[0].body["messages"]) < 20
            talk.append({"role": "user", "content": "Go on, please."})
            await world.call("think", messages=talk, maxTokens=5)
            assert list(up.seen[1].body["messages"]) == talk, "all of it fits"

    run(story)


def test_what_must_be_shown_is_tried_by_the_estimate_where_the_careful_count_has_no_room() -> None:
    async def story() -> None:
        async with rigs.rig(rigs.counts()) as (up, world, _):
            asked = [{"role": "user", "content": "x" * 2_400}]
            await world.call("think", messages=asked, maxTokens=5)
            assert up.seen[0].body["messages"] == asked

    run(story)


def test_a_scripted_model_says_no_more_than_was_counted_for_it() -> None:
    async def story() -> None:
        talk: list[Any] = []
        for n in range(20):
            call = {"id": f"c{n}", "type": "function", "function": {"name": "look", "arguments": '{"n": 1}'}}
            talk += [{"role": "user", "content": f"{n} {DENSE[n % 4]}"}]
            talk += [{"role": "assistant", "content": None, "tool_calls": [call]}]
            talk += [{"role": "tool", "tool_call_id": f"c{n}", "content": "found"}]
            body = {"model": "s", "messages": [{"role": "system", "content": "é"}, *talk], "temperature": 0.5}
            reply = await scripted.Scripted().send("r", asking.Ask("openai.chat", body, False), "d")
            request = messages.read("openai.chat", body)
            assert request is not None
            request = messages.weighed(request, len(request.said), tokens.SCRIPTED)
            counted = request.fixed + sum(said.tokens for said in request.said)
            assert reply.usage.input_tokens <= counted <= reply.usage.input_tokens + 16 + 5 * (len(talk) + 1)

    run(story)
