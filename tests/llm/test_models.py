"""Tries, fallbacks, cool-downs, limits, cache and bounds: the same for every way to a model."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
import upstreams
from upstreams import KEY, answers, ask_chat, chat, item, models_of, route_of, upstream, whole

from agentk.api import errors
from agentk.llm import asking, caching, choosing, routes

BUSY = answers({"error": {"message": "busy", "type": "overloaded"}}, status=503)
SLOW = answers({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "7"})
OK = answers(chat())


def run(work: Any) -> Any:
    return asyncio.run(work())


def test_a_failure_is_tried_again_with_growing_patience() -> None:
    async def work() -> Any:
        async with upstreams.rig(BUSY, BUSY, OK, retries=2) as (up, made):
            body, _ = await whole(made, ask_chat())
            return json.loads(body), made.slept, len(up.seen)  # type: ignore[attr-defined]

    assert run(work) == (chat(), [0.25, 0.5], 3)


def test_the_upstreams_own_patience_is_kept() -> None:
    async def work() -> Any:
        async with upstreams.rig(SLOW, OK, retries=1) as (_, made):
            await whole(made, ask_chat())
            return made.slept  # type: ignore[attr-defined]

    assert run(work) == [7.0]


def test_when_tries_are_used_up_the_last_error_stands() -> None:
    async def work() -> Any:
        async with upstreams.rig(SLOW, retries=1) as (up, made):
            with pytest.raises(asking.Refused) as told:
                await whole(made, ask_chat())
            return told.value, len(up.seen)

    got, hits = run(work)
    assert (got.status, got.retry_after_seconds, hits) == (429, 7, 2)


def test_a_mistake_of_the_guest_is_not_tried_again_nor_elsewhere() -> None:
    bad = answers({"error": {"message": "bad"}}, status=400)

    async def work() -> int:
        async with upstream(bad) as up, upstream(OK) as other:
            items = [item("openai/a", up.url, "gpt"), item("openai/b", other.url, "b")]
            async with models_of(route_of(*items, retries=3, fallbacks=[{"gpt": ["b"]}])) as made:
                with pytest.raises(asking.Refused):
                    await whole(made, ask_chat())
            return len(up.seen) + len(other.seen)

    assert run(work) == 1


def test_another_deployment_of_the_name_is_tried_without_waiting() -> None:
    async def work() -> Any:
        async with upstream(BUSY) as up, upstream(OK) as other:
            items = [item("openai/a", up.url), item("openai/b", other.url)]
            async with models_of(route_of(*items, retries=1)) as made:
                await whole(made, ask_chat())
                return made.slept, len(up.seen), other.seen[0].body["model"]  # type: ignore[attr-defined]

    assert run(work) == ([], 1, "b")


def test_a_fallback_answers_and_says_which_model_it_was() -> None:
    async def work() -> asking.Usage:
        async with upstream(BUSY) as up, upstream(OK) as other:
            items = [item("openai/a", up.url), item("openai/gpt-4o", other.url, "b")]
            async with models_of(route_of(*items, fallbacks=[{"*": ["b"]}])) as made:
                return (await whole(made, ask_chat()))[1]

    assert run(work).model == "gpt-4o"


def test_a_deployment_that_keeps_failing_is_left_alone() -> None:
    async def work() -> tuple[int, int]:
        async with upstream(BUSY) as up, upstream(OK) as other:
            items = [item("openai/a", up.url), item("openai/b", other.url, "b")]
            spec = {"fallbacks": [{"gpt": ["b"]}], "cooldown": {"allowedFails": 2, "time": "1h"}}
            async with models_of(route_of(*items, **spec)) as made:
                for _ in range(5):
                    await whole(made, ask_chat())
            return len(up.seen), len(other.seen)

    assert run(work) == (2, 5)


def test_a_wrong_key_is_left_alone_at_once() -> None:
    denied = answers({"error": {"message": "no"}}, status=401)

    async def work() -> tuple[int, int]:
        async with upstream(denied) as up, upstream(OK) as other:
            items = [item("openai/a", up.url), item("openai/b", other.url, "b")]
            async with models_of(route_of(*items, retries=4, fallbacks=[{"gpt": ["b"]}])) as made:
                await whole(made, ask_chat())
                await whole(made, ask_chat())
            return len(up.seen), len(other.seen)

    assert run(work) == (1, 2)


def test_the_only_deployment_is_never_left_alone() -> None:
    async def work() -> int:
        async with upstreams.rig(BUSY, cooldown={"allowedFails": 1, "time": "1h"}) as (up, made):
            for _ in range(3):
                with pytest.raises(asking.Refused):
                    await whole(made, ask_chat())
            return len(up.seen)

    assert run(work) == 3


def test_a_missing_key_is_named_and_nothing_is_sent() -> None:
    async def nothing(namespace: str, name: str, key: str) -> str:
        raise errors.NotFound("gone")

    async def work() -> tuple[str, int]:
        async with upstream(OK) as up:
            async with models_of(route_of(item("openai/a", up.url))) as made:
                made._tries._secret = nothing
                with pytest.raises(asking.Refused) as told:
                    await whole(made, ask_chat())
            return str(told.value), len(up.seen)

    told, hits = run(work)
    assert 'key "k" of Secret "keys"' in told and hits == 0


def test_rpm_of_a_route_refuses_and_says_when() -> None:
    async def work() -> errors.TooManyRequests:
        async with models_of(route_of(scripted={}, rpm=2)) as made:
            await whole(made, ask_chat())
            await whole(made, ask_chat())
            with pytest.raises(errors.TooManyRequests) as told:
                await whole(made, ask_chat())
            return told.value

    got = run(work)
    assert got.retry_after_seconds and 1 <= got.retry_after_seconds <= 60


def test_rpm_of_a_deployment_sends_the_next_call_elsewhere() -> None:
    async def work() -> list[int]:
        async with upstream(OK) as up, upstream(OK) as other:
            items = [item("openai/a", up.url, rpm=1), item("openai/b", other.url, rpm=1)]
            async with models_of(route_of(*items)) as made:
                await whole(made, ask_chat())
                await whole(made, ask_chat())
                with pytest.raises(errors.TooManyRequests):
                    await whole(made, ask_chat())
            return [len(up.seen), len(other.seen)]

    assert run(work) == [1, 1]


def test_the_same_request_is_answered_from_the_cache_and_costs_nothing() -> None:
    async def work() -> Any:
        async with upstreams.rig(OK, cache={"ttl": "1h"}) as (up, made):
            first, paid = await whole(made, ask_chat())
            again, free = await whole(made, ask_chat())
            await whole(made, ask_chat(temperature=1))
            return (
                first == again,
                paid.cost_micro_usd > 0,
                free.cost_micro_usd,
                free.output_tokens,
                len(up.seen),
            )

    assert run(work) == (True, True, 0, 0, 2)


def test_an_answer_that_was_not_heard_to_its_end_is_not_kept() -> None:
    async def work() -> int:
        stream = upstreams.streams(upstreams.chunk({"content": "a"}), b"data: [DONE]\n\n")
        async with upstreams.rig(stream, cache={}) as (up, made):
            reply = await made.send("default", "r", ask_chat(stream=True))
            async with reply:
                async for _ in reply.chunks():
                    break
            await whole(made, ask_chat(stream=True))
            return len(up.seen)

    assert run(work) == 2


def test_the_cache_is_bounded_in_bytes_and_forgets_with_time() -> None:
    kept = caching.Answers(routes.Cache(seconds=10, max_bytes=10))
    for name in "abc":
        kept.put(name, (b"12345",), {}, asking.Usage(), now=0)
    kept.put("big", (b"x" * 11,), {}, asking.Usage(), now=0)
    assert [kept.get(name, now=1) is not None for name in ("a", "b", "c", "big")] == [
        False,
        True,
        True,
        False,
    ]
    assert kept.get("c", now=10) is None


class Worker:
    """A translator that says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, Any, asking.Ask]] = []

    async def send(
        self,
        route_key: str,
        model_list: Sequence[Mapping[str, Any]],
        router_settings: Mapping[str, Any],
        ask: asking.Ask,
    ) -> asking.Reply:
        self.asked.append((route_key, model_list, router_settings, ask))
        return Said()


class Said(asking.Reply):
    def __init__(self) -> None:
        self.usage = asking.Usage(10, 5, cost_micro_usd=77, model="gemini-2.5-pro")

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b"{}"

    async def aclose(self) -> None:
        pass


def test_what_must_be_translated_goes_to_the_worker_with_its_key() -> None:
    async def work() -> Any:
        worker = Worker()
        async with models_of(route_of(item("gemini/gemini-2.5-pro")), worker=worker) as made:
            _, usage = await whole(made, ask_chat())
            await whole(made, ask_chat())
        return worker.asked, usage

    asked, usage = run(work)
    key, [sent], settings, ask = asked[0]
    assert sent["litellm_params"] == {"model": "gemini/gemini-2.5-pro", "api_key": KEY}
    assert ask.body["model"] == sent["model_name"] and settings["num_retries"] == 0
    assert KEY not in key and key == asked[1][0] and key.startswith("default/r/")
    assert usage.cost_micro_usd == 63  # 10 at 1.25 and 5 at 10 dollars a million, up: not the worker's 77


def test_without_a_worker_it_is_said() -> None:
    async def work() -> None:
        async with models_of(route_of(item("gemini/x"))) as made:
            await whole(made, ask_chat())

    with pytest.raises(errors.Unavailable):
        run(work)


def bound(ask: asking.Ask, *items: Any, **spec: Any) -> asking.Bound:
    async def work() -> asking.Bound:
        async with models_of(route_of(*items, **spec)) as made:
            return made.bound("default", "r", ask)

    got: asking.Bound = run(work)
    return got


def test_the_bound_is_that_of_the_dearest_deployment_a_call_may_reach() -> None:
    dear, cheap = item("openai/gpt-4o", name="b"), item("openai/gpt-4o-mini")
    alone, together = bound(ask_chat(), cheap), bound(ask_chat(), cheap, dear, fallbacks=[{"gpt": ["b"]}])
    assert alone.cost_micro_usd and together.cost_micro_usd
    assert together.cost_micro_usd > alone.cost_micro_usd and alone.tokens >= 50


def test_an_unknown_price_makes_the_cost_unknown() -> None:
    assert bound(ask_chat(), item("openai/gpt-4o"), item("openai/secret-model")).cost_micro_usd is None
    assert bound(ask_chat(service_tier="priority"), item("openai/gpt-4o")).cost_micro_usd is None


def test_what_cannot_be_bounded_is_refused_unless_the_route_bounds_it() -> None:
    free = asking.Ask("openai.chat", {"model": "gpt", "messages": []})
    with pytest.raises(errors.BadRequest, match="cannot be bounded"):
        bound(free, item("hosted_vllm/x", "http://h/v1"))
    spec = {"defaults": {"maxTokens": 100}}
    assert 100 < bound(free, item("hosted_vllm/x", "http://h/v1"), **spec).tokens < 400


def test_the_default_bound_is_what_the_upstream_gets() -> None:
    async def work() -> Any:
        async with upstreams.rig(OK, defaults={"maxTokens": 100}) as (up, made):
            await whole(made, asking.Ask("openai.chat", {"model": "gpt", "messages": []}))
            return up.seen[0].body

    assert run(work)["max_completion_tokens"] == 100


def test_settled_use_is_never_above_the_bound() -> None:
    async def work() -> Any:
        rules = [{"reply": {"text": "word " * 999}, "usage": {"inputTokens": 5000, "outputTokens": 9000}}]
        async with models_of(route_of(scripted={"rules": rules})) as made:
            most = made.bound("default", "r", ask_chat(n=2))
            _, usage = await whole(made, ask_chat(n=2))
            return most.tokens, usage.input_tokens + usage.output_tokens

    most, used = run(work)
    assert used <= most and used == 5000 + 2 * 50


def test_a_route_that_is_unchanged_keeps_what_it_learned() -> None:
    async def work() -> None:
        async with models_of(route_of(scripted={}, rpm=1)) as made:
            await whole(made, ask_chat())
            made.set_route(route_of(scripted={}, rpm=1))
            with pytest.raises(errors.TooManyRequests):
                await whole(made, ask_chat())
            assert made.set_route(route_of(scripted={}, rpm=-1)) != []
            with pytest.raises(errors.NotFound):
                made.models("default", "r")

    run(work)


GROUP = tuple(routes.Deployment(f"{n}", "g", {"model": "openai/x"}, weight=n + 1) for n in range(3))


def choose(strategy: routes.Strategy, states: dict[str, choosing.State], die: float = 0.0) -> str:
    route = routes.Route("ns", "r", GROUP, strategy=strategy)
    choice = choosing.choose(
        route, GROUP, states.__getitem__, now=100, tokens=1, avoid=frozenset(), only=False, die=lambda: die
    )
    assert choice.deployment
    return choice.deployment.id


def test_strategies() -> None:
    states = {"0": choosing.State(), "1": choosing.State(), "2": choosing.State()}
    assert [choose("simple-shuffle", states, die) for die in (0.1, 0.4, 0.9)] == ["0", "1", "2"]
    states["0"].in_flight = states["1"].in_flight = 1
    assert choose("least-busy", states) == "2"
    states["0"].answered(2.0)
    states["1"].answered(0.1)
    states["2"].answered(1.0)
    assert choose("latency-based-routing", states) == "1"
    states["1"].window.add(99, 10)
    states["2"].window.add(99, 20)
    assert choose("usage-based-routing", states) == "0"


def test_a_window_says_how_long_until_a_call_fits() -> None:
    window = choosing.Window()
    window.add(0, 50)
    window.add(10, 40)
    assert window.wait(20, rpm=0, tpm=100, tokens=10) == 0
    assert window.wait(20, rpm=0, tpm=100, tokens=20) == 40
    assert window.wait(20, rpm=2, tpm=0, tokens=1) == 40
    assert window.wait(20, rpm=0, tpm=100, tokens=500) == 50
    assert window.wait(70, rpm=1, tpm=1, tokens=500) == 0
