"""think and embed: what reaches the model, what comes back, and what is settled, whatever happens on the way."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from agentk.api import errors
from agentk.broker.budgets_limits import Limits
from agentk.broker.turns import Settings
from tests.broker import thinking_rig as rigs
from tests.llm import upstreams
from tests.llm.upstreams import answers, chat, chunk, streams

FREE = {"input_cost_per_token": 0, "output_cost_per_token": 0}
CALLS = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


def test_a_prompt_is_one_user_message_and_the_answer_is_told_with_its_cost() -> None:
    async def story() -> None:
        async with rigs.rig(answers(chat("hello"))) as (up, world):
            told = await world.call("think", prompt="hi", system="be brief", maxTokens=9, temperature=0.5)
            body = up.seen[0].body
            assert body["messages"] == [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "hi"},
            ]
            assert (body["model"], body["temperature"]) == ("gpt-4o", 0.5)
            assert (told["text"], told["finishReason"], told["model"]) == ("hello", "stop", "m")
            assert told["message"] == {"role": "assistant", "content": "hello"}
            assert (told["usage"]["inputTokens"], told["usage"]["outputTokens"]) == (7, 3)
            assert told["usage"]["costUsd"] == "0.000048" and told["usage"]["counted"] is False
            assert (world.used.tokens, world.used.cost_micro_usd, world.held.tokens) == (10, 48, 0)
            assert world.records() == [("intent", "think", ""), ("result", "think", "ok")]

    run(story)


def test_a_stream_is_told_in_pieces_and_as_a_whole() -> None:
    pieces = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk(
            {
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a'},
                    }
                ]
            }
        ),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '":1}'}}]}),
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\n',
        chunk(None, usage={"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}),
        b"data: [DONE]\n\n",
    ]

    async def story() -> None:
        async with rigs.rig(streams(*pieces)) as (up, world):
            told = await world.call("think", prompt="hi", stream=True, maxTokens=50)
            assert up.seen[0].body["stream"] is True
            assert [item.get("text") for item in world.emitted[:2]] == ["Hel", "lo"]
            assert "toolCalls" in world.emitted[2]
            assert (told["text"], told["toolCalls"], told["finishReason"]) == ("Hello", CALLS, "tool_calls")
            assert told["message"]["tool_calls"] == CALLS
            assert world.used.tokens == 12

    run(story)


def test_texts_become_vectors_in_their_order() -> None:
    rows = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
    body = {"object": "list", "model": "e", "data": rows, "usage": {"prompt_tokens": 4, "total_tokens": 4}}

    async def story() -> None:
        async with rigs.rig(answers(body), model="openai/text-embedding-3-small") as (up, world):
            told = await world.call("embed", input=["a", "b"], dimensions=1)
            assert told["embeddings"] == [[1.0], [2.0]] and told["model"] == "e"
            assert up.seen[0].body == {
                "model": "text-embedding-3-small",
                "input": ["a", "b"],
                "dimensions": 1,
                "encoding_format": "float",
            }
            assert world.used.tokens == 4

    run(story)


def test_the_limit_of_the_answer_is_what_the_budget_has_left() -> None:
    async def story() -> None:
        async with rigs.rig(answers(chat()), limits=Limits(tokens=1000)) as (up, world):
            await world.call("think", prompt="hi")
            most = up.seen[0].body["max_tokens"]
            assert 700 < most < 1000
            await world.call("think", prompt="hi")
            assert up.seen[1].body["max_tokens"] == most - 10

    run(story)


def test_the_routes_own_default_is_kept_when_more_is_left() -> None:
    async def story() -> None:
        spec = {"defaults": {"maxTokens": 77}}
        async with rigs.rig(answers(chat()), spec=spec, limits=Limits(tokens=100_000)) as (up, world):
            await world.call("think", prompt="hi")
            assert up.seen[0].body["max_tokens"] == 77

    run(story)


def test_money_that_is_left_bounds_the_answer_too() -> None:
    async def story() -> None:
        async with rigs.rig(answers(chat()), limits=Limits(cost_micro_usd=5_000)) as (up, world):
            await world.call("think", prompt="hi")
            assert 100 < up.seen[0].body["max_tokens"] < 500  # at 10 dollars a million

    run(story)


def test_what_nobody_knows_the_price_of_is_admitted_by_no_budget_of_money() -> None:
    async def story() -> None:
        made = rigs.rig(answers(chat()), model="openai/own-model", limits=Limits(cost_micro_usd=5_000))
        async with made as (up, world):
            with pytest.raises(errors.BudgetExceeded, match="costs"):
                await world.call("think", prompt="hi", maxTokens=5)
            assert up.seen == [] and world.records() == []

    run(story)


def test_without_a_budget_an_answer_may_be_as_long_as_it_will() -> None:
    async def story() -> None:
        async with rigs.rig(answers(chat()), model="openai/own-model") as (up, world):
            await world.call("think", prompt="hi")
            assert "max_tokens" not in up.seen[0].body

    run(story)


def test_more_than_is_left_is_refused_before_anything_is_sent() -> None:
    async def story() -> None:
        async with rigs.rig(answers(chat()), limits=Limits(tokens=100)) as (up, world):
            with pytest.raises(errors.BudgetExceeded):
                await world.call("think", prompt="hi", maxTokens=5000)
            assert up.seen == [] and world.records() == []

    run(story)


REFUSED: dict[str, dict[str, Any]] = {
    "an address in a message": {"messages": [{"role": "user", "content": "x", "api_base": "http://evil"}]},
    "a hosted tool that is none": {"prompt": "x", "tools": [{"type": "web_search", "url": "http://evil"}]},
    "headers": {"prompt": "x", "extra_headers": {"a": "b"}},
    "a provider in the model": {"prompt": "x", "model": "anthropic/claude-3"},
    "a format of nobody": {"prompt": "x", "responseFormat": {"type": "url", "url": "http://evil"}},
}


@pytest.mark.parametrize("what", REFUSED)
def test_no_words_of_a_guest_choose_where_a_call_goes(what: str) -> None:
    async def story() -> None:
        async with rigs.rig(answers(chat())) as (up, world):
            with pytest.raises(errors.BadRequest):
                await world.call("think", **REFUSED[what])
            assert up.seen == [] and world.records() == []

    run(story)


def test_a_picture_from_elsewhere_needs_a_rule() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://evil.example/x.png"}}

    async def story() -> None:
        async with rigs.rig(answers(chat())) as (up, world):
            with pytest.raises(errors.Denied, match="remoteUrls"):
                await world.call("think", messages=[{"role": "user", "content": [picture]}])
            assert up.seen == []

    run(story)


def test_every_model_that_a_call_may_reach_is_judged() -> None:
    rules = [*rigs.ALLOW, {"name": "no", "effect": "Deny", "methods": ["think"], "models": ["dear"]}]

    async def story() -> None:
        async with upstreams.upstream(answers(chat())) as up:
            items = [upstreams.item("openai/gpt-4o", up.url, name=name) for name in ("cheap", "dear")]
            route = upstreams.route_of(*items, fallbacks=[{"cheap": ["dear"]}])
            async with rigs.world_of(route, rules=rules) as world:
                with pytest.raises(errors.Denied, match="dear"):
                    await world.call("think", prompt="hi", model="cheap")
                assert up.seen == []

    run(story)


async def never(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


def test_who_hangs_up_before_an_answer_pays_what_it_may_have_used() -> None:
    async def story() -> None:
        async with rigs.rig(never) as (up, world):
            call = asyncio.create_task(world.call("think", prompt="hi", maxTokens=50))
            await up.asked.wait()
            reserved = world.held.tokens
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await up.hung_up.wait()
            assert (world.used.tokens, world.held.tokens) == (reserved, 0) and reserved > 50
            assert world.records()[-1] == ("result", "think", "cancelled")

    run(story)


def test_who_hangs_up_in_a_stream_pays_what_was_counted() -> None:
    async def story() -> None:
        pieces = [chunk({"content": "Hello there, "}), chunk({"content": "never"})]
        async with rigs.rig(streams(*pieces, before=asyncio.Event())) as (up, world):
            call = asyncio.create_task(world.call("think", prompt="hi", stream=True, maxTokens=5000))
            await world.told.wait()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await up.hung_up.wait()
            assert 0 < world.used.tokens < 500 and world.held.tokens == 0
            assert world.turns.running() == {}

    run(story)


def test_an_upstream_that_says_no_used_nothing() -> None:
    async def story() -> None:
        refusal = answers({"error": {"message": "no such thing", "type": "x"}}, status=400)
        async with rigs.rig(refusal) as (_, world):
            with pytest.raises(errors.UpstreamError, match="no such thing"):
                await world.call("think", prompt="hi", maxTokens=5)
            assert (world.used.tokens, world.used.calls) == (0, 1)
            assert world.records()[-1] == ("result", "think", "error")

    run(story)


def test_a_key_that_is_not_there_costs_nothing() -> None:
    async def gone(namespace: str, name: str, key: str) -> str:
        raise errors.NotFound("gone")

    async def story() -> None:
        async with rigs.rig(answers(chat("hello"))) as (up, world):
            world.models._tries._secret = gone
            with pytest.raises(errors.UpstreamError, match='key "k" of Secret "keys", which is not there'):
                await world.call("think", prompt="hi", maxTokens=5)
            assert (world.used.tokens, world.used.calls, up.seen) == (0, 1, [])

    run(story)


def test_a_stream_that_breaks_off_is_an_error_and_paid_for() -> None:
    async def story() -> None:
        async with rigs.rig(streams(chunk({"content": "Hel"}), cut=True)) as (_, world):
            with pytest.raises(errors.UpstreamError):
                await world.call("think", prompt="hi", stream=True, maxTokens=5)
            assert world.emitted == [{"text": "Hel"}] and world.used.tokens > 1

    run(story)


def test_a_stream_that_ends_early_in_good_order_is_no_answer() -> None:
    async def story() -> None:
        async with rigs.rig(streams(chunk({"content": "Hel"}), b"data: [DONE]\n\n")) as (_, world):
            with pytest.raises(errors.UpstreamError, match="before it was complete"):
                await world.call("think", prompt="hi", stream=True, maxTokens=5)

    run(story)


@pytest.mark.parametrize(
    "body", [[], {}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": 1}]}, "x"]
)
def test_an_answer_of_another_shape_is_the_upstreams_error(body: Any) -> None:
    async def story() -> None:
        async with rigs.rig(answers(body)) as (_, world):
            with pytest.raises(errors.UpstreamError):
                await world.call("think", prompt="hi", maxTokens=5)

    run(story)


def test_a_deadline_includes_the_wait_for_the_turn() -> None:
    async def story() -> None:
        async with rigs.rig(never, turns=Settings(max_concurrent=1)) as (up, world):
            first = asyncio.create_task(world.call("think", prompt="a", maxTokens=5))
            await up.asked.wait()
            with pytest.raises(errors.Timeout, match="turn"):
                await world.call("think", prompt="b", maxTokens=5, timeoutSeconds=0.01)
            assert len(up.seen) == 1 and world.turns.waiting() == {}
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            with pytest.raises(errors.Timeout, match="answer"):
                await world.call("think", prompt="c", maxTokens=5, timeoutSeconds=0.05)
            assert world.turns.running() == {} and world.held.tokens == 0
            assert world.records()[-1] == ("result", "think", "error")

    run(story)


def test_calls_at_once_never_use_more_than_the_budget() -> None:
    async def story() -> None:
        body = chat(prompt_tokens=40, completion_tokens=20)
        async with rigs.rig(answers(body), limits=Limits(tokens=2000)) as (up, world):
            asked = [world.call("think", prompt="hi", maxTokens=20) for _ in range(100)]
            ended = await asyncio.gather(*asked, return_exceptions=True)
            refused = [one for one in ended if isinstance(one, errors.BudgetExceeded)]
            assert len(up.seen) == 100 - len(refused) and refused
            assert world.used.tokens == 60 * len(up.seen) <= 2000

    run(story)


def test_a_key_that_comes_again_is_answered_from_the_record() -> None:
    async def story() -> None:
        async with rigs.rig(answers(chat("once"))) as (up, world):
            told = [await world.call("think", key="k", prompt="hi", maxTokens=5) for _ in range(2)]
            assert told[0] == told[1] and len(up.seen) == 1
            with pytest.raises(errors.Conflict):
                await world.call("think", key="k", prompt="other", maxTokens=5)

    run(story)


def test_half_a_surrogate_pair_in_an_answer_is_no_mishap() -> None:
    async def raw(request: web.Request) -> web.StreamResponse:
        body = json.dumps(chat("X")).replace("X", "\\ud83d")
        return web.Response(body=body.encode(), content_type="application/json")

    async def story() -> None:
        async with rigs.rig(raw) as (_, world):
            for _ in range(2):
                assert (await world.call("think", key="k", prompt="hi", maxTokens=5))["text"] == "\ud83d"

    run(story)


def test_a_model_that_is_not_the_routes_is_told_which_are() -> None:
    async def story() -> None:
        async with rigs.rig(answers(chat())) as (_, world):
            with pytest.raises(errors.NotFound, match="one of: gpt"):
                await world.call("think", prompt="hi", model="other")

    run(story)
