"""Vendors' own clients with streams, tools and marks of their own: shapes are the model's, and caches are told of."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web

from agentk.broker.managing import managed
from agentk.memory import contexts, layout, messages, tokens
from agentk.memory.contexts import Known
from tests.broker import managing_rig as rigs
from tests.broker import thinking_rig
from tests.llm.upstreams import Handler, Upstream, chunk, streams

MARK = {"cache_control": {"type": "ephemeral"}}


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


def said(n: int) -> str:
    return f"Item {n} is about {'abcdefghij'[n % 10] * 12}, and there is more to tell of it."


async def kept(world: thinking_rig.World, keeper: rigs.Keeper) -> list[Known]:
    assert isinstance(world.managing, managed.Managed)
    await world.managing.close()
    return await keeper.read(lambda conn: contexts.newest(conn, [1]))


def counted(body: Any) -> int:
    plain = {key: value for key, value in body.items() if key not in ("model", "stream", "stream_options")}
    return tokens.estimate(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode())


def telling(made: Callable[[int, int], list[bytes]]) -> Handler:
    """A stream that says truly what was read, a third of it from a cache."""

    async def handle(request: web.Request) -> web.StreamResponse:
        read = counted(await request.json())
        return await streams(*made(read, read // 3))(request)

    return handle


def sums(up: Upstream) -> tuple[int, int]:
    """Of all prompts but the first, which was asked once and is no conversation yet."""
    read = [counted(seen.body) for seen in up.seen[1:]]
    return sum(read), sum(one // 3 for one in read)


def event(name: str, **told: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **told})}\n\n".encode()


def test_a_stream_of_openais_tells_what_came_from_its_cache() -> None:
    async def story() -> None:
        def made(read: int, cached: int) -> list[bytes]:
            usage = {"prompt_tokens": read, "completion_tokens": 1, "total_tokens": read + 1}
            told = {**usage, "prompt_tokens_details": {"cached_tokens": cached}}
            last = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}
            return [
                chunk({"role": "assistant", "content": "Yes"}),
                chunk({}, finish="stop"),
                f"data: {json.dumps({**last, 'usage': told})}\n\n".encode(),
                b"data: [DONE]\n\n",
            ]

        async with rigs.rig(telling(made)) as (up, world, keeper), thinking_rig.serving(world) as url:
            client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
            talk: list[Any] = []
            for n in range(20):
                talk.append({"role": "user", "content": said(n)})
                asked = {"stream_options": {"include_usage": True}} if n % 2 else {}
                stream = await client.chat.completions.create(
                    model="gpt", messages=talk, stream=True, max_tokens=5, **asked
                )
                chunks = [piece async for piece in stream]
                told = [piece.usage for piece in chunks if piece.usage]
                assert bool(told) is bool(asked), "who did not ask for usage is not told"
                talk.append({"role": "assistant", "content": "Yes"})
            [known] = await kept(world, keeper)
            assert (known.read, known.cached) == sums(up)
            await client.close()

    run(story)


def test_a_responses_stream_is_the_models_own_and_its_cache_is_told_of() -> None:
    async def story() -> None:
        response = {"id": "r", "object": "response", "created_at": 0, "model": "m", "output": []}
        response |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
        begun = event("response.created", sequence_number=0, response={**response, "status": "in_progress"})
        place = {"item_id": "i", "output_index": 0, "content_index": 0, "logprobs": []}
        delta = event("response.output_text.delta", sequence_number=1, delta="Yes", **place)

        def made(read: int, cached: int) -> list[bytes]:
            usage = {"input_tokens": read, "output_tokens": 1, "total_tokens": read + 1}
            details = {"input_tokens_details": {"cached_tokens": cached}}
            done = {**response, "status": "completed", "usage": {**usage, **details}}
            return [begun, delta, event("response.completed", sequence_number=2, response=done)]

        async with rigs.rig(telling(made)) as (up, world, keeper), thinking_rig.serving(world) as url:
            client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
            talk: list[Any] = []
            for n in range(30):
                talk.append({"role": "user", "content": said(n)})
                stream = await client.responses.create(
                    model="gpt", input=talk, stream=True, max_output_tokens=20
                )
                types = [one.type async for one in stream]
                assert types == ["response.created", "response.output_text.delta", "response.completed"]
                talk.append({"role": "assistant", "content": "Yes"})
            assert len(up.seen[-1].body["input"]) < len(talk) - 1
            [known] = await kept(world, keeper)
            assert (known.read, known.cached) == sums(up)
            await client.close()

    run(story)


def answered(read: int, cached: int) -> list[bytes]:
    """Anthropic's input_tokens leave out what its cache gave and took."""
    usage = {"input_tokens": read - cached - 5, "cache_read_input_tokens": cached}
    usage |= {"cache_creation_input_tokens": 5, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": [], "usage": usage}
    block = {"type": "tool_use", "id": "ID", "name": "look", "input": {}}
    return [
        event("message_start", message={**message, "stop_reason": None, "stop_sequence": None}),
        event("content_block_start", index=0, content_block=block),
        event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '{"n": 1}'}),
        event("content_block_stop", index=0),
        event(
            "message_delta",
            delta={"stop_reason": "tool_use", "stop_sequence": None},
            usage={"output_tokens": 9},
        ),
        event("message_stop"),
    ]


@pytest.mark.parametrize("own", [0, 1, 2, 4])
def test_a_stream_of_anthropics_with_tools_and_marks_of_its_own(own: int) -> None:
    async def story() -> None:
        kinds: dict[str, Any] = {"model": "anthropic/claude", "end": "", "name": "claude"}
        async with (
            rigs.rig(telling(answered), **kinds) as (up, world, keeper),
            thinking_rig.serving(world) as url,
        ):
            client = anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0)
            tool: Any = {
                "name": "look",
                "input_schema": {"type": "object", "properties": {"cache_control": {}}},
            }
            # Marks of the client: on its tools, on its system text, and on its newest messages.
            tool |= MARK if own > 1 else {}
            system: Any = [{"type": "text", "text": "Help.", **(MARK if own else {})}]
            talk: list[Any] = [{"role": "user", "content": "Look at each."}]
            for n in range(24):
                marked = (
                    [{**one, "content": [{**one["content"][-1], **MARK}]} for one in talk[-2:] if n]
                    if own == 4
                    else []
                )
                sent = [*talk[: len(talk) - len(marked)], *marked]
                async with client.messages.stream(
                    model="claude", system=system, messages=sent, tools=[tool], max_tokens=20
                ) as stream:
                    got = await stream.get_final_message()
                assert got.content[0].type == "tool_use" and got.stop_reason == "tool_use"
                assert got.usage.cache_read_input_tokens == counted(up.seen[-1].body) // 3
                use = {"type": "tool_use", "id": f"t{n}", "name": "look", "input": {"n": 1}}
                result = {"type": "tool_result", "tool_use_id": f"t{n}", "content": said(n)}
                talk += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
            for seen in up.seen[1:]:
                body = seen.body
                marks = [*messages.marks([body["tools"], body["system"]]), *messages.marks(body["messages"])]
                assert 1 <= len(marks) <= 4
                assert any(messages.marks(body["messages"][-1])), "what the next prompt begins with is cached"
                uses = [b["id"] for m in body["messages"] for b in _blocks(m) if b.get("type") == "tool_use"]
                results = [
                    b["tool_use_id"]
                    for m in body["messages"]
                    for b in _blocks(m)
                    if b.get("type") == "tool_result"
                ]
                assert uses == results
            assert len(up.seen[-1].body["messages"]) < len(talk) - 2
            [known] = await kept(world, keeper)
            assert (known.read, known.cached) == sums(up)
            await client.close()

    run(story)


def _blocks(message: Any) -> list[Any]:
    return message["content"] if isinstance(message["content"], list) else []


def test_marks_that_last_longer_than_ours_are_left_alone_and_what_may_not_bear_one_gets_none() -> None:
    items = ({"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": " "}]})
    prompt = layout.Prompt(items, 1, (), 0, "", 1)
    assert [len([*messages.marks(one)]) for one in layout.marked(prompt, {})] == [1, 0]
    longer = {"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}
    assert layout.marked(prompt, longer) == list(items)
    full = {"tools": [{"name": str(n), **MARK} for n in range(4)]}
    assert layout.marked(prompt, full) == list(items)
    assert layout.marked(
        prompt, {"tools": full["tools"][:3], "cache_control": {"type": "ephemeral"}}
    ) == list(items)
