"""Managed context: vendors' own clients append to their lists, and what reaches the model fits."""

import asyncio
import itertools
import json
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web

from agentk.broker.managing import managed, settings
from agentk.memory import contexts, keeping, layout, scoring, tokens
from tests.broker import managing_rig as rigs
from tests.broker import thinking_rig
from tests.llm.upstreams import chunk, streams

FACT = "My boat is called Halcyon and it is moored in Faro."
QUESTION = "Where is my boat moored?"


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


def said(n: int) -> str:
    return (
        FACT if n == 2 else f"Item {n} is about {'abcdefghij'[n % 10] * 12}, and there is more to tell of it."
    )


def size(body: dict[str, Any]) -> int:
    plain = {key: value for key, value in body.items() if key not in ("model", "stream", "stream_options")}
    return tokens.estimate(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode())


def test_what_an_agent_does_not_say_of_paging_its_memory_says() -> None:
    memory = {
        "paging": {
            "weights": {"recency": 3, "similarity": 2},
            "halfLives": {"recencyPages": 9},
            "fold": "model",
        }
    }
    mine = {"context": "managed", "paging": {"weights": {"recency": 0}, "halfLives": {"recency": "2s"}}}
    wanted = settings.of(mine, memory)
    assert wanted and wanted.by_model and wanted.tokens == settings.TOKENS
    assert wanted.settings.weights == scoring.Weights(recency=0, similarity=2)
    assert wanted.settings.halves == scoring.HalfLives(recency_seconds=2, recency_pages=9)
    theirs = settings.of({"context": "managed"}, {"contextTokens": 900})
    mine_too = settings.of({"context": "managed", "contextTokens": 700}, {"contextTokens": 900})
    assert theirs and mine_too and (theirs.tokens, mine_too.tokens) == (900, 700)
    assert settings.of({"contextTokens": 700}, {"contextTokens": 900}) is None


def test_an_openai_client_goes_on_within_a_budget_and_is_answered_of_what_left() -> None:
    async def story() -> None:
        knows = rigs.counts(lambda body: "Faro" if "Faro" in json.dumps(body["messages"]) else "?")
        async with rigs.rig(knows) as (up, world, _), thinking_rig.serving(world) as url:
            client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
            talk: list[Any] = [{"role": "system", "content": "You help."}]
            for n in range(60):
                talk.append({"role": "user", "content": said(n) if n < 59 else QUESTION})
                got = await client.chat.completions.create(model="gpt", messages=talk, max_tokens=5)
                talk.append(got.choices[0].message.model_dump(exclude_none=True))
            assert got.choices[0].message.content == "Faro"
            assert max(size(seen.body) for seen in up.seen) <= 1_000
            assert talk[5] not in up.seen[-2].body["messages"], "it had left"
            assert up.seen[-1].body["messages"][0] == talk[0]
            assert up.seen[-1].body["messages"][-1] == talk[-2]
            assert world.records()[-1] == ("result", "think", "ok")
            await client.close()

    run(story)


def test_a_stream_is_the_models_own() -> None:
    async def story() -> None:
        pieces = [
            chunk({"role": "assistant", "content": "Yes"}),
            chunk({}, finish="stop"),
            b"data: [DONE]\n\n",
        ]
        async with rigs.rig(streams(*pieces)) as (up, world, _), thinking_rig.serving(world) as url:
            client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
            talk: list[Any] = []
            for n in range(30):
                talk.append({"role": "user", "content": said(n)})
                stream = await client.chat.completions.create(
                    model="gpt", messages=talk, stream=True, max_tokens=5
                )
                words = [piece.choices[0].delta.content or "" async for piece in stream]
                talk.append({"role": "assistant", "content": "".join(words)})
            assert words == ["Yes", ""]
            assert max(size(seen.body) for seen in up.seen) <= 1_000
            assert len(up.seen[-1].body["messages"]) < len(talk) - 1
            await client.close()

    run(story)


def test_an_anthropic_client_gets_marks_for_the_cache() -> None:
    async def story() -> None:
        message = {
            "id": "m", "type": "message", "role": "assistant", "model": "c", "stop_reason": "end_turn",
            "stop_sequence": None, "content": [{"type": "text", "text": "Yes."}],
        }  # fmt: skip
        handler = rigs.counting(message, "input_tokens", cache_read_input_tokens=20)
        kinds = {"model": "anthropic/claude", "end": "", "name": "claude"}
        async with (
            rigs.rig(handler, **kinds) as (up, world, keeper),
            thinking_rig.serving(world) as url,
        ):
            client = anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0)
            talk: list[Any] = []
            for n in range(40):
                talk.append({"role": "user", "content": said(n)})
                got = await client.messages.create(
                    model="claude", system="Help.", messages=talk, max_tokens=5
                )
                talk.append({"role": "assistant", "content": got.content[0].text})
            sent = up.seen[-1].body
            marks = json.dumps(sent).count("cache_control")
            assert 1 <= marks <= 4 and "cache_control" in json.dumps(sent["messages"][-1])
            assert sent["messages"][0]["role"] == "user" and sent["system"] == "Help."
            assert len(sent["messages"]) < len(talk) - 1
            assert isinstance(world.managing, managed.Managed)
            await world.managing.close()
            windows = await keeper.read(lambda conn: contexts.newest(conn, [1]))
            assert len(windows) == 1 and windows[0].cached == 20 * 39
            await client.close()

    run(story)


def test_responses_keep_reasoning_calls_and_results_together() -> None:
    async def story() -> None:
        document = {
            "id": "r", "object": "response", "created_at": 0, "model": "m", "status": "completed",
            "output": [],
        }  # fmt: skip
        async with (
            rigs.rig(rigs.counting(document, "input_tokens", total_tokens=0)) as (up, world, _),
            thinking_rig.serving(world) as url,
        ):
            client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
            talk: list[Any] = []
            for n in range(20):
                talk.append({"role": "user", "content": said(n)})
                call = {"type": "function_call", "call_id": f"c{n}", "name": "look", "arguments": "{}"}
                talk += [call, {"type": "function_call_output", "call_id": f"c{n}", "output": f"found {n}"}]
                await client.responses.create(
                    model="gpt", input=talk, instructions="Help.", max_output_tokens=20
                )
            for seen in up.seen:
                items = seen.body["input"]
                calls = [item["call_id"] for item in items if item.get("type") == "function_call"]
                assert calls == [
                    item["call_id"] for item in items if item.get("type") == "function_call_output"
                ]
                assert size(seen.body) <= 1_000
            assert len(up.seen[-1].body["input"]) < len(talk)
            await client.close()

    run(story)


def test_think_is_managed_too() -> None:
    async def story() -> None:
        async with rigs.rig(rigs.counts()) as (up, world, _):
            talk: list[Any] = []
            for n in range(40):
                talk.append({"role": "user", "content": said(n)})
                told = await world.call("think", messages=talk, system="Help.", maxTokens=5)
                talk.append(told["message"])
            assert up.seen[-1].body["messages"][0] == {"role": "system", "content": "Help."}
            assert max(size(seen.body) for seen in up.seen) <= 1_000
            assert len(up.seen[-1].body["messages"]) < len(talk)

    run(story)


def test_what_is_asked_once_is_sent_as_it_came_and_not_kept() -> None:
    async def story() -> None:
        async with rigs.rig(rigs.counts()) as (up, world, keeper):
            await world.call("think", prompt="hi", maxTokens=5)
            await world.call("think", messages=[{"role": "user", "content": "hi"}], maxTokens=5)
            assert [seen.body["messages"] for seen in up.seen] == [[{"role": "user", "content": "hi"}]] * 2
            assert await keeper.read(lambda conn: keeping.rooms(conn, "m")) == []

    run(story)


def test_what_cannot_fit_is_refused_in_the_words_of_the_client_and_on_record() -> None:
    async def story() -> None:
        async with rigs.rig(rigs.counts()) as (up, world, _), thinking_rig.serving(world) as url:
            client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
            with pytest.raises(openai.BadRequestError, match=r"contextTokens is 1000") as refused:
                await client.chat.completions.create(
                    model="gpt", messages=[{"role": "user", "content": "x" * 9_000}]
                )
            assert refused.value.code == "context_length_exceeded"
            assert not up.seen and world.records() == [("note", "think", "denied")]
            await client.close()

    run(story)


def test_a_model_writes_the_notes_and_they_count_for_the_agent() -> None:
    async def story() -> None:
        def text(body: Any) -> str:
            return "The boat: Halcyon." if "notes" in str(body["messages"][0]["content"]) else "yes"

        memory = {"contextTokens": 1_000, "paging": {"fold": "model"}}
        async with rigs.rig(rigs.counts(text), memory=memory) as (up, world, _):
            talk: list[Any] = []
            for n in range(40):
                talk.append({"role": "user", "content": said(n)})
                talk.append((await world.call("think", messages=talk, maxTokens=5))["message"])
            folds = [seen.body for seen in up.seen if "You keep the notes" in str(seen.body["messages"][0])]
            assert folds and FACT in json.dumps(folds[0], ensure_ascii=False)
            assert layout.RECAP in json.dumps(up.seen[-1].body) and "The boat: Halcyon." in json.dumps(
                up.seen[-1].body
            )
            assert world.used.calls == 40 + len(folds)

    run(story)


def test_a_fold_that_fails_changes_nothing_and_the_next_one_tells_of_it_all() -> None:
    async def story() -> None:
        fails = itertools.count()

        async def handle(request: web.Request) -> web.StreamResponse:
            body = await request.json()
            if "You keep the notes" in str(body["messages"][0]) and next(fails) < 2:
                return web.json_response({"error": {"message": "no"}}, status=400)
            return await rigs.counts()(request)

        memory = {"contextTokens": 1_000, "paging": {"fold": "model"}}
        async with rigs.rig(handle, memory=memory) as (up, world, keeper):
            talk: list[Any] = []
            for n in range(60):
                talk.append({"role": "user", "content": said(n)})
                talk.append((await world.call("think", messages=talk, maxTokens=5))["message"])
            [known] = await keeper.read(lambda conn: contexts.newest(conn, [1]))
            first = known.window.notes[0]
            told = [slot.seq for slot in known.window.slots if slot.note == first.id]
            folds = [seen.body for seen in up.seen if "You keep the notes" in str(seen.body["messages"][0])]
            assert len(folds) > 2 and FACT in json.dumps(folds[2], ensure_ascii=False) and told[0] < 8
            assert all(slot.note for slot in known.window.slots if not slot.resident)

    run(story)


def test_a_daemon_that_comes_again_goes_on_with_the_same_window() -> None:
    async def talked(folder: str, breaks: int) -> list[Any]:
        talk: list[Any] = []
        sent: list[Any] = []
        clock = itertools.count(1_000_000)
        for part in range(breaks + 1):
            async with rigs.rig(rigs.counts(), folder=folder, clock=clock) as (up, world, _):
                for n in range(48 * part // (breaks + 1), 48 * (part + 1) // (breaks + 1)):
                    talk.append({"role": "user", "content": said(n)})
                    talk.append((await world.call("think", messages=talk, maxTokens=5))["message"])
                sent += [seen.body["messages"] for seen in up.seen]
        return sent

    async def story() -> None:
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            assert await talked(one, 0) == await talked(other, 3)

    run(story)


def test_two_clients_that_began_alike_have_a_window_each() -> None:
    async def story() -> None:
        async with rigs.rig(rigs.counts()) as (up, world, keeper):
            start: list[Any] = [
                {"role": "user", "content": "Hello."},
                {"role": "assistant", "content": "Hi."},
            ]
            talks = [[*start], [*start]]
            for n in range(30):
                for who, talk in enumerate(talks):
                    talk.append({"role": "user", "content": f"client{who} {said(n)}"})
                    talk.append((await world.call("think", messages=talk, maxTokens=5))["message"])
            for seen in up.seen:
                text = json.dumps(seen.body)
                assert not ("client0" in text and "client1" in text)
            assert len(await keeper.read(lambda conn: contexts.newest(conn, [1]))) == 2

    run(story)


def test_what_is_sent_twice_at_once_is_kept_once() -> None:
    async def story() -> None:
        async with rigs.rig(rigs.counts()) as (_, world, keeper):
            talk = [
                {"role": ("user", "assistant")[n % 2], "content": "Look." if n % 2 else said(n)}
                for n in range(41)
            ]
            for more in (21, 41):
                asked = (world.call("think", messages=talk[:more], maxTokens=5) for _ in range(3))
                await asyncio.gather(*asked)
                [room] = await keeper.read(lambda conn: keeping.rooms(conn, "m"))
                [known] = await keeper.read(lambda conn: contexts.newest(conn, [1]))
                assert len(known.window.slots) == more
                assert room.pages == more + len(known.window.notes)

    run(story)


def test_a_full_memory_stops_no_conversation() -> None:
    async def story() -> None:
        async with rigs.rig(rigs.counts()) as (up, world, keeper):
            keeper._limits = keeping.Limits(20, 10**8, 20, 10**8)
            talk: list[Any] = []
            for n in range(30):
                talk.append({"role": "user", "content": said(n)})
                talk.append((await world.call("think", messages=talk, maxTokens=5))["message"])
            assert max(size(seen.body) for seen in up.seen) <= 1_000
            assert (await keeper.read(lambda conn: keeping.rooms(conn, "m")))[0].pages <= 20

    run(story)
