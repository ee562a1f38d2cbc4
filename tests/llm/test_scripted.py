"""The scripted provider answers by its rules, and the vendors' own clients read what it says."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import openai
import pytest
import upstreams

from agentk.llm import asking

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
RULES = [
    {
        "match": {"lastMessage": {"contains": "sum"}},
        "reply": {
            "text": "Adding.",
            "toolCalls": [{"name": "add", "arguments": {"a": 1, "said": "{{last}}"}}],
        },
    },
    {"match": {"toolResult": {"name": "add", "contains": "3"}}, "reply": {"text": "It is {{toolResult}}."}},
    {
        "match": {"lastMessage": {"prefix": "fail"}},
        "error": {"status": 429, "code": "slow_down", "message": "wait"},
    },
    {
        "match": {"lastMessage": {"equals": "count"}},
        "reply": {"text": "x"},
        "usage": {"inputTokens": 5, "outputTokens": 9},
    },
]
ROUTE = upstreams.route_of(scripted={"rules": RULES})


def with_openai(work: Callable[[Any], Awaitable[Any]], obj: Any = ROUTE) -> Any:
    async def run() -> Any:
        async with (
            upstreams.models_of(obj) as made,
            upstreams.door(made) as url,
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
        ):
            return await work(client)

    return asyncio.run(run())


def with_anthropic(work: Callable[[Any], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with (
            upstreams.models_of(ROUTE) as made,
            upstreams.door(made) as url,
            anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client,
        ):
            return await work(client)

    return asyncio.run(run())


def said(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_without_a_rule_it_echoes() -> None:
    async def work(client: Any) -> Any:
        return await client.chat.completions.create(model="anything", messages=said("hi {{turn}}"))

    got = with_openai(work)
    assert got.choices[0].message.content == "hi {{turn}}"
    assert got.choices[0].finish_reason == "stop" and got.model == "anything"


def test_a_chat_calls_a_tool_and_reads_its_result() -> None:
    async def work(client: Any) -> Any:
        first = await client.chat.completions.create(model="m", messages=said("sum it"), tools=TOOLS)
        call = first.choices[0].message
        result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "3"}
        second = await client.chat.completions.create(
            model="m", messages=[*said("sum it"), call, result], tools=TOOLS
        )
        return first, second

    first, second = with_openai(work)
    assert first.choices[0].finish_reason == "tool_calls"
    assert json.loads(first.choices[0].message.tool_calls[0].function.arguments) == {"a": 1, "said": "sum it"}
    assert second.choices[0].message.content == "It is 3."


@pytest.mark.parametrize("wanted", [True, False])
def test_a_chat_streams_text_tools_and_usage_when_asked(wanted: bool) -> None:
    async def work(client: Any) -> Any:
        options = {"include_usage": True} if wanted else openai.NOT_GIVEN
        stream = await client.chat.completions.create(
            model="m", messages=said("sum it please"), stream=True, stream_options=options
        )
        return [chunk async for chunk in stream]

    chunks = with_openai(work)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert "".join(delta.content or "" for delta in deltas) == "Adding."
    assert json.loads("".join(call.function.arguments for call in calls))["said"] == "sum it please"
    assert [chunk.usage is not None for chunk in chunks if not chunk.choices] == ([True] if wanted else [])


def test_the_openai_stream_helper_puts_the_answer_together() -> None:
    async def work(client: Any) -> Any:
        async with client.chat.completions.stream(model="m", messages=said("sum")) as stream:
            return await stream.get_final_completion()

    assert with_openai(work).choices[0].message.tool_calls[0].function.name == "add"


def test_responses_whole() -> None:
    async def work(client: Any) -> Any:
        first = await client.responses.create(model="m", input="sum up")
        call = next(item for item in first.output if item.type == "function_call")
        told = {"type": "function_call_output", "call_id": call.call_id, "output": "3"}
        again: Any = [*said("sum up"), call.model_dump(), told]
        return first, await client.responses.create(model="m", input=again)

    first, second = with_openai(work)
    assert first.output_text == "Adding." and first.status == "completed"
    assert second.output_text == "It is 3."


def test_responses_stream_in_order() -> None:
    async def work(client: Any) -> Any:
        async with client.responses.stream(model="m", input="sum up") as stream:
            events = [event async for event in stream]
            return events, await stream.get_final_response()

    events, final = with_openai(work)
    assert [event.sequence_number for event in events if hasattr(event, "sequence_number")]
    assert final.output_text == "Adding."
    assert json.loads(final.output[1].arguments)["said"] == "sum up"


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_embeddings_are_the_same_every_time_and_near_for_near_texts() -> None:
    async def work(client: Any) -> Any:
        texts = ["the red fox", "the red fox", "a red fox runs", "quarterly revenue"]
        return await client.embeddings.create(model="m", input=texts, dimensions=64)

    one, same, near, far = (row.embedding for row in with_openai(work).data)
    assert one == same and len(one) == 64
    assert dot(one, near) > dot(one, far)


def test_an_error_has_its_number_and_code() -> None:
    async def work(client: Any) -> Any:
        await client.chat.completions.create(model="m", messages=said("fail now"))

    with pytest.raises(openai.RateLimitError) as told:
        with_openai(work)
    assert told.value.code == "slow_down"


def test_messages_whole_with_a_tool_and_its_result() -> None:
    async def work(client: Any) -> Any:
        first = await client.messages.create(model="m", max_tokens=100, messages=said("sum it"))
        call = first.content[1]
        result = [{"type": "tool_result", "tool_use_id": call.id, "content": "3"}]
        talk: Any = [*said("sum it"), {"role": "assistant", "content": first.content}]
        talk.append({"role": "user", "content": result})
        return first, await client.messages.create(model="m", max_tokens=100, messages=talk)

    first, second = with_anthropic(work)
    assert first.stop_reason == "tool_use" and first.content[1].input == {"a": 1, "said": "sum it"}
    assert second.content[0].text == "It is 3." and second.stop_reason == "end_turn"


def test_messages_stream_and_are_put_together() -> None:
    async def work(client: Any) -> Any:
        async with client.messages.stream(model="m", max_tokens=100, messages=said("sum all")) as stream:
            return await stream.get_final_message()

    final = with_anthropic(work)
    assert final.content[0].text == "Adding." and final.content[1].input["said"] == "sum all"
    assert final.usage.output_tokens > 1


def test_tokens_are_counted() -> None:
    async def work(client: Any) -> Any:
        return await client.messages.count_tokens(model="m", messages=said("hello"))

    assert with_anthropic(work).input_tokens > 0


def test_usage_of_a_rule_is_told_and_never_above_the_bound() -> None:
    async def work(client: Any) -> Any:
        one = await client.chat.completions.create(model="m", messages=said("count"))
        return one, await client.chat.completions.create(model="m", messages=said("count"), max_tokens=4)

    free, bound = with_openai(work)
    assert (free.usage.prompt_tokens, free.usage.completion_tokens) == (5, 9)
    assert bound.usage.completion_tokens == 4


def test_a_long_answer_is_cut_at_the_bound() -> None:
    async def work(client: Any) -> Any:
        return await client.chat.completions.create(model="m", messages=said("word " * 50), max_tokens=5)

    got = with_openai(work)
    assert got.choices[0].finish_reason == "length" and got.usage.completion_tokens <= 5


def test_the_same_request_has_the_same_answer_to_the_byte() -> None:
    async def run() -> tuple[bytes, bytes]:
        async with upstreams.models_of(ROUTE) as made:
            ask = upstreams.ask_chat("m", stream=True)
            return (await upstreams.whole(made, ask))[0], (await upstreams.whole(made, ask))[0]

    first, second = asyncio.run(run())
    assert first == second


def test_a_rule_with_repeat_leaves_its_turn_to_the_next() -> None:
    rules = [
        {"repeat": 1, "error": {"status": 500, "message": "once"}},
        {"reply": {"text": "better"}},
    ]

    async def run() -> bytes:
        async with upstreams.models_of(upstreams.route_of(scripted={"rules": rules}, retries=1)) as made:
            return (await upstreams.whole(made, upstreams.ask_chat("m")))[0]

    assert json.loads(asyncio.run(run()))["choices"][0]["message"]["content"] == "better"


def test_a_guest_that_hangs_up_pays_for_what_it_heard() -> None:
    async def run() -> asking.Usage:
        async with upstreams.models_of(ROUTE) as made:
            text = "one two three four five six seven eight nine ten eleven twelve"
            ask = upstreams.ask_chat("m", stream=True, messages=said(text))
            reply = await made.send("default", "r", ask)
            async with reply:
                async for _ in reply.chunks():
                    break
            return reply.usage

    usage = asyncio.run(run())
    assert usage.counted and 0 < usage.output_tokens < 10
