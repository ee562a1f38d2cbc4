"""The worker as a process: it dies, it is cancelled, it is slow, and no key of a route is found anywhere near it."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from providers.upstream import (
    KEY,
    WAIT_SECONDS,
    Answer,
    Desk,
    Upstream,
    deployment,
    events,
    serving,
    working,
)

from agentk.api import errors
from agentk.llm import asking
from agentk.llm.worker import ROLE, Worker

CONTROLS = (
    "api_key api_base base_url custom_llm_provider fallbacks extra_headers extra_body headers mock_response model_list "
    "specific_deployment caching litellm_params context_window_fallbacks"
)
HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    yield from working()


@pytest.fixture
def upstream(desk: Desk) -> Iterator[Upstream]:
    yield from serving(desk)


def chat(stream: bool = False, **more: Any) -> asking.Ask:
    return asking.Ask("openai.chat", {"model": "m", "messages": HI, "max_tokens": 9} | more, stream)


def model(upstream: Upstream, **params: Any) -> dict[str, Any]:
    return deployment("openai/gpt-4o-mini", upstream.url + "/v1", **params)


def completion(text: str = "Hello") -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }


def chunk(text: str | None, finish: str | None = None) -> dict[str, Any]:
    delta = {"role": "assistant", "content": text} if text is not None else {}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [choice],
    }


async def within(work: Any) -> Any:
    async with asyncio.timeout(WAIT_SECONDS):
        return await work


def test_killed_in_the_middle_of_a_call_it_says_so_and_the_next_call_works(
    desk: Desk, upstream: Upstream
) -> None:
    upstream.will_hang()
    upstream.will(completion())

    async def kill() -> None:
        call = asyncio.create_task(desk.asked(model(upstream), chat()))
        await within(upstream.arrived.wait())
        assert desk.worker.pid
        os.kill(desk.worker.pid, signal.SIGKILL)
        await within(call)

    with pytest.raises(asking.Refused, match=r"worker died \(SIGKILL\) during this call") as caught:
        desk.run(kill())
    assert not caught.value.retryable  # the model may have answered: asking again could pay twice
    assert desk.ask(model(upstream), chat()).document["choices"][0]["message"]["content"] == "Hello"
    assert len(upstream.seen) == 2


def test_killed_in_the_middle_of_a_stream_what_was_sent_is_counted(desk: Desk, upstream: Upstream) -> None:
    upstream.will_stream(events(chunk("some text of this answer"), done=False), hang=True)

    async def kill() -> tuple[bytes, asking.Usage, BaseException | None]:
        reply = await desk.send(model(upstream), chat(stream=True))
        pieces = reply.chunks()
        first = await anext(pieces)
        assert desk.worker.pid
        os.kill(desk.worker.pid, signal.SIGKILL)
        with pytest.raises(asking.Refused, match="whether the model answered is not known") as caught:
            await within(anext(pieces))
        return first, reply.usage, caught.value

    first, usage, _ = desk.run(kill())
    assert b"some text" in first
    assert usage.counted
    assert usage.input_tokens > 0 and usage.output_tokens > 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_cancelled_call_closes_its_upstream(desk: Desk, upstream: Upstream, stream: bool) -> None:
    upstream.will_hang()

    async def cancel() -> None:
        call = asyncio.create_task(desk.asked(model(upstream), chat(stream)))
        await within(upstream.arrived.wait())
        call.cancel()
        await within(upstream.closed.wait())

    desk.run(cancel())


@pytest.mark.parametrize("dialect", ["openai.chat", "openai.responses", "anthropic.messages"])
def test_a_stream_left_early_closes_its_upstream(desk: Desk, upstream: Upstream, dialect: Any) -> None:
    upstream.will_stream(events(chunk("Hel"), chunk("lo"), done=False), hang=True)
    bodies: dict[str, Any] = {"openai.responses": {"input": "Hi", "max_output_tokens": 9}}
    body = {"model": "m"} | bodies.get(dialect, {"messages": HI, "max_tokens": 9})
    groq = deployment("groq/openai/gpt-oss-20b", upstream.url + "/v1")

    async def leave() -> asking.Usage:
        async with await desk.send(groq, asking.Ask(dialect, body, stream=True)) as reply:
            await within(anext(reply.chunks()))
        await within(upstream.closed.wait())
        return reply.usage

    assert desk.run(leave()).counted


def test_a_slow_reader_holds_up_its_upstream_and_nobody_else(desk: Desk, upstream: Upstream) -> None:
    pieces = events(*[chunk("x" * 100_000)] * 200, chunk(None, "stop"))
    upstream.will_stream(pieces)
    upstream.will(completion())

    async def read() -> None:
        async with await desk.send(model(upstream), chat(stream=True)):
            other = await desk.asked(model(upstream), chat())
            assert other.document["choices"]
            assert upstream.written < sum(map(len, pieces))

    desk.run(read())


def test_a_long_stream_arrives_whole_and_in_order(desk: Desk, upstream: Upstream) -> None:
    texts = [f"{n}:" + "x" * 20_000 for n in range(60)]
    upstream.will_stream(events(*map(chunk, texts), chunk(None, "stop")))
    answer = desk.ask(model(upstream), chat(stream=True))
    assert [c["choices"][0]["delta"].get("content") for c in answer.chunks[:-1]] == texts
    assert answer.events[-1].data == b"[DONE]"


def test_an_answer_larger_than_a_frame_piece_arrives_whole(desk: Desk, upstream: Upstream) -> None:
    upstream.will(completion("ä" * 400_000))
    answer = desk.ask(model(upstream), chat())
    assert answer.document["choices"][0]["message"]["content"] == "ä" * 400_000
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (10, 2)


def test_many_calls_at_once_get_their_own_answers(desk: Desk, upstream: Upstream) -> None:
    upstream.will(completion())

    async def all_of_them() -> list[Answer]:
        return await asyncio.gather(*(desk.asked(model(upstream), chat(seed=n)) for n in range(40)))

    assert len(desk.run(all_of_them())) == 40
    assert sorted(seen.body["seed"] for seen in upstream.seen) == list(range(40))


def test_no_key_is_in_the_environment_or_the_command_line(desk: Desk, upstream: Upstream) -> None:
    upstream.will(completion())
    desk.ask(model(upstream), chat())
    for name in ("environ", "cmdline"):
        try:
            said = Path(f"/proc/{desk.worker.pid}/{name}").read_bytes()
        except PermissionError:
            continue  # nobody but root can look
        assert said and KEY.encode() not in said


def test_the_environment_is_made_not_inherited() -> None:
    given = {
        "PATH": "/bin",
        "OPENAI_API_KEY": KEY,
        "HTTPS_PROXY": "http://p:1",
        "https_proxy": "http://p:2",
        "HOME": "/root",
    }
    made = ROLE.environment(given)
    assert KEY not in made.values()
    assert (made["PATH"], made["HTTPS_PROXY"], made["https_proxy"]) == ("/bin", "http://p:1", "http://p:2")
    assert made["HOME"] == "/nonexistent"
    assert made["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
def test_no_error_holds_a_key_or_an_address(desk: Desk, upstream: Upstream, status: int) -> None:
    said = f"key {KEY} is wrong (Bearer {KEY}), you sent {KEY[:6]}********{KEY[-4:]} to {upstream.url}/v1"
    upstream.will({"error": {"message": said, "type": "some_type", "code": KEY}}, status=status)
    with pytest.raises(asking.Refused) as caught:
        desk.ask(model(upstream), chat())
    shown = repr(vars(caught.value)) + str(caught.value.to_status())
    assert KEY not in shown and KEY[:6] not in shown and upstream.url not in shown
    assert "is wrong" in caught.value.message
    assert (caught.value.upstream_status, caught.value.type) == (status, "some_type")
    assert len(upstream.seen) == 1  # tried once: retries are the caller's


def test_an_upstream_that_is_not_there_may_be_asked_again(desk: Desk) -> None:
    with pytest.raises(asking.Refused) as caught:
        desk.ask(deployment("openai/gpt-4o-mini", "http://127.0.0.1:9/v1"), chat())
    assert (caught.value.upstream_status, caught.value.retryable) == (0, True)
    assert "127.0.0.1" not in caught.value.message


def test_a_timeout_is_no_answer(desk: Desk, upstream: Upstream) -> None:
    upstream.will_hang()
    with pytest.raises(asking.Refused) as caught:
        desk.ask(model(upstream), chat(), timeout=0.2)
    assert (caught.value.upstream_status, caught.value.type) == (0, "timeout")


@pytest.mark.parametrize("field", CONTROLS.split())
def test_no_field_of_a_request_becomes_a_control(desk: Desk, upstream: Upstream, field: str) -> None:
    upstream.will(completion())
    ask = chat()
    with pytest.raises(errors.BadRequest, match=field):
        desk.ask(model(upstream), asking.Ask(ask.dialect, {**ask.body, field: {"a": "b"}}))
    assert upstream.seen == []


def test_no_model_of_a_request_selects_another_provider(desk: Desk, upstream: Upstream) -> None:
    upstream.will(completion())
    desk.ask(model(upstream), chat(model="anthropic/claude-sonnet-4-5"))
    assert [(seen.path, seen.body["model"]) for seen in upstream.seen] == [
        ("/v1/chat/completions", "gpt-4o-mini")
    ]


@pytest.mark.parametrize("value", ["os.environ/PATH", "oidc/file//etc/passwd"])
def test_no_route_reads_the_environment_or_a_file(desk: Desk, upstream: Upstream, value: str) -> None:
    with pytest.raises(errors.BadRequest, match="Secret"):
        desk.ask(model(upstream, api_key=value), chat())
    assert upstream.seen == []


def test_no_guest_gets_the_tool_calls_of_another(desk: Desk, upstream: Upstream) -> None:
    function = {"name": "send", "arguments": '{"to": "somebody"}'}
    call = {"id": "call_0", "type": "function", "function": function}
    answer = completion()
    answer["choices"][0] |= {
        "finish_reason": "tool_calls",
        "message": {"role": "assistant", "tool_calls": [call]},
    }
    upstream.will(answer | {"service_tier": "on_demand"})
    upstream.will(completion() | {"service_tier": "on_demand"})
    groq = deployment("groq/openai/gpt-oss-20b", upstream.url)
    tool = {"type": "function", "name": "send", "parameters": {"type": "object"}}
    desk.ask(groq, asking.Ask("openai.responses", {"model": "m", "input": "Hi", "tools": [tool]}))
    orphan = [{"type": "function_call_output", "call_id": "call_0", "output": "sent"}]
    desk.ask(groq, asking.Ask("openai.responses", {"model": "m", "input": orphan, "tools": [tool]}))
    assert "somebody" not in str(upstream.seen[1].body)


def test_a_picture_is_never_fetched_for_a_guest(desk: Desk, upstream: Upstream) -> None:
    part = {"type": "image_url", "image_url": {"url": upstream.url + "/picture.png"}}
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [part]}]}
    with pytest.raises(asking.Refused):
        desk.ask(deployment("gemini/gemini-2.5-flash", upstream.url), asking.Ask("openai.chat", body))
    assert [seen.path for seen in upstream.seen if "picture" in seen.path] == []


def test_the_cost_is_rounded_up_and_a_route_may_have_its_own(desk: Desk, upstream: Upstream) -> None:
    upstream.will(completion())
    assert desk.ask(model(upstream), chat()).usage.cost_micro_usd == 3  # 10 × 0.15 + 2 × 0.60 = 2.7
    own = model(upstream, input_cost_per_token=0.001, output_cost_per_token=0.01)
    assert desk.ask(own, chat()).usage.cost_micro_usd == 30_000
    unknown = deployment("openai/nobody-knows-this", upstream.url + "/v1")
    assert desk.ask(unknown, chat()).usage.cost_micro_usd == 0


def test_a_worker_that_cannot_start_says_why_and_rests() -> None:
    async def start() -> list[asking.Refused]:
        worker, told = Worker(python="/bin/false"), []
        for _ in range(3):
            with pytest.raises(asking.Refused) as caught:
                await worker.start()
            told.append(caught.value)
        await worker.close()
        return told

    first, second, third = asyncio.run(start())
    assert "cannot be started" in first.message and "exit code 1" in first.message
    assert first.retryable and second.retryable
    assert third.retry_after_seconds


def test_closed_it_is_gone_and_stays_so() -> None:
    async def close() -> int:
        worker = Worker()
        await worker.start()
        pid = worker.pid
        await worker.close()
        await worker.close()
        with pytest.raises(errors.Unavailable):
            await worker.start()
        assert pid
        return pid

    pid = asyncio.run(close())
    assert not Path(f"/proc/{pid}").exists()


ORPHAN = """
import asyncio
from agentk.llm.worker import Worker

async def main():
    worker = Worker()
    await worker.start()
    print(worker.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_it_ends_with_the_daemon_however_that_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout
        worker = os.pidfd_open(int(daemon.stdout.readline()))
        daemon.kill()
        ended, _, _ = select.select([worker], [], [], WAIT_SECONDS)
        os.close(worker)
    assert ended
