"""Calls passed through to real local upstreams: what goes over the wire, what comes back, what it cost."""

import asyncio
import json
from typing import Any

import pytest
import upstreams
from aiohttp import web
from upstreams import KEY, ask_chat, chat, chunk, item, models_of, route_of, upstream, whole

from agentk.llm import asking


def run(work: Any) -> Any:
    return asyncio.run(work())


def test_only_the_body_of_the_guest_and_the_key_of_the_route_reach_the_upstream() -> None:
    async def work() -> upstreams.Seen:
        async with upstream(upstreams.answers(chat())) as up:
            obj = route_of(item("openai/gpt-4o", f"{up.url}/v1"))
            async with models_of(obj) as made:
                await whole(made, ask_chat(temperature=0.5))
            return up.seen[0]

    seen = run(work)
    assert (seen.method, seen.path) == ("POST", "/v1/chat/completions")
    assert seen.body == {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "hi there"}],
        "max_tokens": 50,
        "temperature": 0.5,
    }
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert set(seen.headers) == {
        "host",
        "authorization",
        "content-type",
        "accept",
        "accept-encoding",
        "user-agent",
        "content-length",
    }


ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 10,
        "cache_creation_input_tokens": 100,
        "cache_read_input_tokens": 1000,
        "output_tokens": 20,
    },
}


def ask_claude(stream: bool = False) -> asking.Ask:
    body = {"model": "gpt", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
    return asking.Ask("anthropic.messages", body, stream)


@pytest.mark.parametrize("end", ["", "/v1", "/v1/messages"])
def test_anthropic_is_asked_in_its_own_dialect_and_its_cache_is_priced(end: str) -> None:
    async def work() -> tuple[upstreams.Seen, asking.Usage]:
        async with upstreams.rig(
            upstreams.answers(ANTHROPIC), model="anthropic/claude-sonnet-4-5", end=end
        ) as (up, made):
            _, usage = await whole(made, ask_claude())
            return up.seen[0], usage

    seen, usage = run(work)
    assert seen.path == "/v1/messages"
    assert seen.headers["x-api-key"] == KEY and "authorization" not in seen.headers
    assert seen.headers["anthropic-version"] == "2023-06-01"
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (1110, 1000, 20)
    # 10 at 3, 100 written at 3.75, 1000 read at 0.30, 20 at 15 dollars a million
    assert usage.cost_micro_usd == 30 + 375 + 300 + 300


STREAM = (
    chunk({"role": "assistant", "content": ""}, usage=None),
    chunk({"content": "Hé"}, usage=None),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"usage":{"a":1}}'}}]}, usage=None),
    chunk(None, usage={"prompt_tokens": 7, "completion_tokens": 30, "total_tokens": 37}),
    b"data: [DONE]\n\n",
)


def cut(stream: bytes, size: int) -> list[bytes]:
    return [stream[n : n + size] for n in range(0, len(stream), size)]


@pytest.mark.parametrize("size", [3, 64, 10_000])
@pytest.mark.parametrize("wanted", [True, False])
def test_a_stream_is_the_upstreams_but_for_usage_nobody_asked_for(size: int, wanted: bool) -> None:
    async def work() -> tuple[bytes, asking.Usage, Any]:
        async with upstreams.rig(upstreams.streams(*cut(b"".join(STREAM), size))) as (up, made):
            options: dict[str, Any] = {"stream_options": {"include_usage": True}} if wanted else {}
            body, usage = await whole(made, ask_chat(stream=True, **options))
            return body, usage, up.seen[0].body

    body, usage, sent = run(work)
    assert sent["stream"] is True and sent["stream_options"] == {"include_usage": True}
    plain = b"".join(STREAM[:3] + STREAM[4:]).replace(b',"usage":null', b"")
    assert body == (b"".join(STREAM) if wanted else plain)
    assert (usage.input_tokens, usage.output_tokens, usage.counted) == (7, 30, False)
    assert usage.cost_micro_usd == -(-(7 * 250 + 30 * 1000) // 100)


def test_usage_on_the_last_choice_is_taken_out_too() -> None:
    last = chunk({}, usage={"prompt_tokens": 1, "completion_tokens": 2})

    async def work() -> tuple[bytes, asking.Usage]:
        async with upstreams.rig(upstreams.streams(last, b"data: [DONE]\n\n"), model="moonshot/kimi-k2") as (
            _up,
            made,
        ):
            return await whole(made, ask_chat(stream=True))

    body, usage = run(work)
    assert b"usage" not in body and b"choices" in body
    assert usage.output_tokens == 2


def sse(kind: str, **told: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **told})}\n\n".encode()


def test_an_anthropic_stream_passes_unchanged_and_is_counted() -> None:
    usage = {"input_tokens": 9, "cache_read_input_tokens": 1, "output_tokens": 1}
    stream = (
        sse("message_start", message={"usage": usage})
        + sse("content_block_delta", index=0, delta={"type": "text_delta", "text": "a"})
        + sse("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 12})
        + sse("message_stop")
    )

    async def work() -> tuple[bytes, asking.Usage]:
        async with upstreams.rig(
            upstreams.streams(*cut(stream, 17)), model="anthropic/claude-sonnet-4-5", end=""
        ) as (_up, made):
            return await whole(made, ask_claude(stream=True))

    body, used = run(work)
    assert body == stream
    assert (used.input_tokens, used.output_tokens, used.counted) == (10, 12, False)


def test_a_stream_of_responses_is_counted_at_its_end() -> None:
    usage = {"input_tokens": 4, "output_tokens": 6, "input_tokens_details": {"cached_tokens": 2}}
    stream = sse("response.output_text.delta", delta="hi") + sse(
        "response.completed", response={"usage": usage}
    )

    async def work() -> tuple[bytes, asking.Usage, str]:
        async with upstreams.rig(upstreams.streams(stream)) as (up, made):
            body = {"model": "gpt", "input": "hi", "max_output_tokens": 50}
            body, used = await whole(made, asking.Ask("openai.responses", body, True))  # type: ignore[assignment]
            return body, used, up.seen[0].path  # type: ignore[return-value]

    body, used, path = run(work)
    assert (body, path) == (stream, "/v1/responses")
    assert (used.input_tokens, used.cached_tokens, used.output_tokens) == (4, 2, 6)


def test_embeddings_pass() -> None:
    answer = {"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 5, "total_tokens": 5}}

    async def work() -> asking.Usage:
        async with upstreams.rig(upstreams.answers(answer), model="openai/text-embedding-3-small") as (
            _up,
            made,
        ):
            ask = asking.Ask("openai.embeddings", {"model": "gpt", "input": "hello"})
            return (await whole(made, ask))[1]

    used = run(work)
    assert (used.input_tokens, used.output_tokens, used.cost_micro_usd) == (5, 0, 1)


@pytest.mark.parametrize(
    ("model", "end", "path", "limit"),
    [
        (
            "groq/llama-3.3-70b-versatile",
            "/openai/v1",
            "/openai/v1/chat/completions",
            "max_completion_tokens",
        ),
        ("deepseek/deepseek-chat", "", "/chat/completions", "max_tokens"),
        ("moonshot/kimi-k2", "/v1", "/v1/chat/completions", "max_tokens"),
        ("dashscope/qwen-plus", "/compatible-mode/v1", "/compatible-mode/v1/chat/completions", "max_tokens"),
        ("minimax/MiniMax-M2", "/v1", "/v1/chat/completions", "max_completion_tokens"),
        ("hosted_vllm/qwen", "/v1", "/v1/chat/completions", "max_tokens"),
        ("ollama/llama3", "", "/v1/chat/completions", "max_tokens"),
        ("ollama_chat/llama3", "/v1", "/v1/chat/completions", "max_tokens"),
    ],
)
def test_each_provider_is_reached_where_it_is_and_bounded_by_the_name_it_knows(
    model: str, end: str, path: str, limit: str
) -> None:
    async def work() -> upstreams.Seen:
        async with upstreams.rig(upstreams.answers(chat()), model=model, end=end) as (up, made):
            await whole(made, ask_chat(max_completion_tokens=20))
            return up.seen[0]

    seen = run(work)
    assert seen.path == path and seen.body["model"] == model.partition("/")[2]
    limits = {name: seen.body[name] for name in ("max_tokens", "max_completion_tokens") if name in seen.body}
    assert limits == {limit: 20}


def test_headers_that_tell_of_other_calls_stay_here() -> None:
    headers = {"x-request-id": "r1", "x-ratelimit-remaining-requests": "3", "set-cookie": "a=b"}

    async def work() -> Any:
        async with upstreams.rig(upstreams.answers(chat(), headers=headers)) as (up, made):
            first = await made.send("default", "r", ask_chat())
            await whole(made, ask_chat())
            return first.headers, up.seen[1].headers

    got, second = run(work)
    assert got["x-request-id"] == "r1" and not {"x-ratelimit-remaining-requests", "set-cookie"} & set(got)
    assert "cookie" not in second


def refused(*handlers: upstreams.Handler, ask: asking.Ask | None = None, **spec: Any) -> asking.Refused:
    async def work() -> asking.Refused:
        async with upstreams.rig(*handlers, **spec) as (_up, made):
            with pytest.raises(asking.Refused) as told:
                await whole(made, ask or ask_chat())
            return told.value

    got: asking.Refused = run(work)
    assert KEY not in f"{got!s} {got!r} {got.__cause__!r} {got.__context__!r} {got.to_status()}"
    return got


def test_a_mistake_of_the_guest_comes_back_with_the_upstreams_number_and_words() -> None:
    error = {"message": f"bad {KEY}", "type": "invalid_request_error", "param": "temperature", "code": "c"}
    got = refused(upstreams.answers({"error": error}, status=400), retries=3)
    assert (got.status, got.type, got.param, got.provider_code) == (
        400,
        "invalid_request_error",
        "temperature",
        "c",
    )
    assert got.message == "bad [redacted]"


def test_what_is_said_of_the_key_is_not_passed_on() -> None:
    got = refused(upstreams.answers({"error": {"message": "Incorrect key sk-can**51d2"}}, status=401))
    assert (got.status, got.upstream_status) == (502, 401)
    assert "sk-" not in str(got)


def test_a_redirect_is_never_followed() -> None:
    async def work() -> tuple[asking.Refused, int]:
        async with upstream(upstreams.answers(chat())) as elsewhere:
            to = {"location": f"{elsewhere.url}/v1/chat/completions"}
            async with upstreams.rig(upstreams.answers({}, status=307, headers=to)) as (_up, made):
                with pytest.raises(asking.Refused) as told:
                    await whole(made, ask_chat())
            return told.value, len(elsewhere.seen)

    got, hits = run(work)
    assert hits == 0 and "redirect" in got.message


def test_an_answer_that_is_not_json_is_an_error_and_not_asked_for_again() -> None:
    async def html(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>", content_type="text/html")

    got = refused(html, upstreams.answers(chat()), retries=2)
    assert not got.retryable


def test_a_stream_broken_in_the_middle_fails_after_what_came_and_counts_it() -> None:
    async def work() -> tuple[bytes, asking.Usage, int]:
        pieces = [chunk({"content": "hello "}), chunk({"content": "world"})[:20]]
        async with upstreams.rig(upstreams.streams(*pieces, cut=True), retries=3) as (up, made):
            reply = await made.send("default", "r", ask_chat(stream=True))
            came = b""
            with pytest.raises(asking.Refused):
                async for piece in reply.chunks():
                    came += piece
            return came, reply.usage, len(up.seen)

    came, usage, hits = run(work)
    assert came == chunk({"content": "hello "}) and hits == 1
    assert usage.counted and usage.output_tokens == 2 and usage.input_tokens > 0 and usage.cost_micro_usd > 0


def test_a_guest_that_hangs_up_closes_the_upstream_at_once() -> None:
    async def work() -> asking.Usage:
        never = asyncio.Event()
        async with upstreams.rig(upstreams.streams(STREAM[1], STREAM[1], before=never)) as (up, made):
            reply = await made.send("default", "r", ask_chat(stream=True))
            async with reply:
                async for _ in reply.chunks():
                    break
            await up.hung_up.wait()
            return reply.usage

    usage = run(work)
    assert usage.counted and usage.output_tokens > 0


def test_a_cancelled_call_closes_the_upstream_at_once() -> None:
    async def work() -> bool:
        asked = asyncio.Event()

        async def silent(request: web.Request) -> web.StreamResponse:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        async with upstreams.rig(silent) as (up, made):
            call = asyncio.create_task(made.send("default", "r", ask_chat()))
            await asked.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await up.hung_up.wait()
            return True

    assert run(work)


def test_a_slow_first_byte_is_given_up_and_tried_again() -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def work() -> tuple[bytes, int]:
        spec: dict[str, Any] = {"retries": 1, "timeouts": {"firstByte": "50ms"}}
        async with upstreams.rig(silent, upstreams.streams(*STREAM), **spec) as (up, made):
            body, _ = await whole(made, ask_chat(stream=True))
            return body, len(up.seen)

    body, hits = run(work)
    assert hits == 2 and body.endswith(b"[DONE]\n\n")


def test_an_upstream_that_is_not_there_is_said_in_plain_words() -> None:
    async def work() -> asking.Refused:
        async with upstreams.serving(upstreams.answers({})) as url:
            gone = url
        async with models_of(route_of(item("openai/gpt-4o", f"{gone}/v1"))) as made:
            with pytest.raises(asking.Refused) as told:
                await whole(made, ask_chat())
            return told.value

    got = run(work)
    assert (got.status, got.upstream_status) == (502, 0) and "cannot be reached: does it run" in got.message
