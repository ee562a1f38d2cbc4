"""OpenAI's dialect: the real client against a door of ours, and bounds, keys and paths."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import openai as client
import pytest

from agentk.api.errors import (
    AgentkError,
    ApprovalRequired,
    BadRequest,
    BudgetExceeded,
    Denied,
    Invalid,
    NotFound,
    OutcomeUnknown,
    TooManyRequests,
    UpstreamError,
)
from agentk.broker.dialects import asked, openai
from agentk.broker.dialects.http import HttpService, Respond
from agentk.broker.dialects.http_reading import Request
from tests.broker.openai_requests import CHAT, MESSAGES, RESPONSES, judged, post

# The real client


async def answering(request: Request, respond: Respond) -> None:
    """A model that says what it was asked, in OpenAI's words."""
    try:
        told = judged(request, ("default", "org/model"))
        if told.model == "missing":
            raise NotFound("no such model", field="model")
    except AgentkError as problem:
        answer = openai.error(problem, "req_1")
        respond.whole(answer.status, answer.headers, answer.body)
        return
    if told.method == "models":
        answer = openai.model(told.model) if told.model else openai.models(["default", "org/model"])
        respond.whole(answer.status, answer.headers, answer.body)
    elif told.stream:
        respond.start(200, {"content-type": "text/event-stream"})
        for word in ("Hel", "lo"):
            await respond.write(chunk({"content": word}))
        await respond.write(b"data: [DONE]\n\n")
        respond.end()
    else:
        respond.whole(200, {"content-type": "application/json"}, json.dumps(canned(told)).encode())


def chunk(delta: Mapping[str, str]) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    told = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(told).encode()


def canned(told: asked.Asked) -> dict[str, Any]:
    if told.dialect == "openai.embeddings":
        data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        return {
            "object": "list",
            "model": "m",
            "data": data,
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }
    if told.dialect == "openai.responses":
        text = {"type": "output_text", "text": "Hello", "annotations": []}
        message = {
            "type": "message",
            "id": "m",
            "role": "assistant",
            "status": "completed",
            "content": [text],
        }
        return {
            "id": "r",
            "object": "response",
            "created_at": 1,
            "model": "m",
            "output": [message],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
    message = {"role": "assistant", "content": "Hello"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


@asynccontextmanager
async def talking(
    handler: Callable[[Request, Respond], Awaitable[None]], **settings: Any
) -> AsyncIterator[client.AsyncOpenAI]:
    service = HttpService(handler)
    server = await asyncio.get_running_loop().create_server(
        lambda: service.connection(by_unix=False), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    try:
        async with client.AsyncOpenAI(
            api_key="none", base_url=f"http://127.0.0.1:{port}/v1", **settings
        ) as sdk:
            yield sdk
    finally:
        server.close()
        await service.close()


def test_sdk_chat_plain_and_streamed() -> None:
    async def main() -> None:
        async with talking(answering) as sdk:
            answer = await sdk.chat.completions.create(model="default", messages=MESSAGES)  # type: ignore[arg-type]
            assert answer.choices[0].message.content == "Hello"
            stream = await sdk.chat.completions.create(model="default", messages=MESSAGES, stream=True)  # type: ignore
            words = [part.choices[0].delta.content async for part in stream]
            assert words == ["Hel", "lo"]

    asyncio.run(main())


def test_sdk_sends_its_own_answer_back() -> None:
    async def main() -> None:
        async with talking(answering) as sdk:
            first = await sdk.chat.completions.create(model="default", messages=MESSAGES)  # type: ignore[arg-type]
            talk: Any = [*MESSAGES, first.choices[0].message, {"role": "user", "content": "more"}]
            await sdk.chat.completions.create(model="default", messages=talk)
            reply = await sdk.responses.create(model="default", input="hi")
            items: Any = [*reply.output, {"role": "user", "content": "more"}]
            again = await sdk.responses.create(model="default", input=items)
            assert again.output_text == "Hello"

    asyncio.run(main())


def test_sdk_embeddings_and_models() -> None:
    async def main() -> None:
        async with talking(answering) as sdk:
            answer = await sdk.embeddings.create(model="default", input=["a", "b"], encoding_format="float")
            assert answer.data[0].embedding == [0.5]
            assert [model.id async for model in sdk.models.list()] == ["default", "org/model"]
            assert (await sdk.models.retrieve("org/model")).id == "org/model"

    asyncio.run(main())


def test_sdk_is_told_which_field_is_refused() -> None:
    async def main() -> None:
        async with talking(answering) as sdk:
            with pytest.raises(client.BadRequestError) as caught:
                await sdk.chat.completions.create(
                    model="default",
                    messages=MESSAGES,  # type: ignore[arg-type]
                    extra_body={"api_base": "http://evil.example"},
                )
            assert caught.value.param == "api_base"
            assert caught.value.request_id == "req_1"
            assert "ModelRoute" in caught.value.message

    asyncio.run(main())


ERRORS = [
    (Denied("rule 'x' says no"), client.PermissionDeniedError, "policy_denied", 1),
    (ApprovalRequired("ask first"), client.PermissionDeniedError, "approval_required", 1),
    (BudgetExceeded("spent"), client.RateLimitError, "insufficient_quota", 1),
    (OutcomeUnknown("maybe"), client.ConflictError, "outcome_unknown", 1),
    (NotFound("which?", field="model"), client.NotFoundError, "model_not_found", 1),
    (Invalid("no"), client.BadRequestError, "invalid", 1),
    (TooManyRequests("later", retry_after_seconds=0), client.RateLimitError, "rate_limit_exceeded", 3),
    (UpstreamError("broken", retry_after_seconds=0), client.InternalServerError, "upstream_error", 3),
]


@pytest.mark.parametrize("problem, kind, code, tries", ERRORS, ids=[type(e[0]).__name__ for e in ERRORS])
def test_sdk_knows_each_error_and_retries_only_what_may_be(
    problem: AgentkError,
    kind: type[client.APIStatusError],
    code: str,
    tries: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001)
    seen: list[bool] = []

    async def failing(request: Request, respond: Respond) -> None:
        seen.append(asked.retried(request.headers))
        answer = openai.error(problem)
        respond.whole(answer.status, answer.headers, answer.body)

    async def main() -> None:
        async with talking(failing, max_retries=2) as sdk:
            with pytest.raises(kind) as caught:
                await sdk.chat.completions.create(model="default", messages=MESSAGES)  # type: ignore[arg-type]
            assert caught.value.code == code

    asyncio.run(main())
    assert seen == [False, True, True][:tries]


def test_sdk_sees_an_error_inside_a_stream() -> None:
    async def breaking(request: Request, respond: Respond) -> None:
        respond.start(200, {"content-type": "text/event-stream"})
        await respond.write(chunk({"content": "Hel"}))
        await respond.write(openai.stream_error(UpstreamError("broken"), "openai.chat"))
        respond.end()

    async def main() -> None:
        async with talking(breaking) as sdk:
            stream = await sdk.chat.completions.create(model="default", messages=MESSAGES, stream=True)  # type: ignore
            with pytest.raises(client.APIError, match="broken"):
                async for _ in stream:
                    pass

    asyncio.run(main())


# Bounds, keys, paths


@pytest.mark.parametrize(
    "dialect, body, expected",
    [
        ("openai.chat", {}, {"max_tokens": 100}),
        ("openai.chat", {"n": 3}, {"n": 3, "max_tokens": 33}),
        ("openai.chat", {"max_tokens": None}, {"max_tokens": 100}),
        ("openai.chat", {"max_completion_tokens": 500}, {"max_completion_tokens": 500}),
        ("openai.responses", {}, {"max_output_tokens": 100}),
        ("openai.embeddings", {}, {}),
    ],
)
def test_a_bound_is_written_when_the_guest_gave_none(
    dialect: str, body: dict[str, Any], expected: dict[str, Any]
) -> None:
    before = dict(body)
    assert asked.bounded(body, dialect, 100) == expected
    assert body == before


def test_responses_are_not_stored_unless_asked_for() -> None:
    assert openai.prepared(RESPONSES, "openai.responses")["store"] is False
    assert openai.prepared({**RESPONSES, "store": True}, "openai.responses")["store"] is True
    assert "store" not in openai.prepared(CHAT, "openai.chat")


@pytest.mark.parametrize(
    "count, expected", [("0", False), ("1", True), ("12", True), ("", False), ("x", False)]
)
def test_retries_are_told_by_the_sdk(count: str, expected: bool) -> None:
    assert asked.retried({"x-stainless-retry-count": count}) is expected


def test_idempotency_key_is_bounded() -> None:
    assert asked.idempotency_key({"idempotency-key": "abc"}) == "abc"
    with pytest.raises(BadRequest):
        asked.idempotency_key({"idempotency-key": "a" * 300})


@pytest.mark.parametrize(
    "method, path", [("GET", "/v1/chat/completions"), ("POST", "/v1/models"), ("GET", "/v1/responses/resp_1")]
)
def test_other_paths_and_methods_are_refused(method: str, path: str) -> None:
    with pytest.raises(AgentkError):
        openai.read(Request(method, path))


def test_form_is_not_json() -> None:
    with pytest.raises(BadRequest):
        openai.read(post("/v1/chat/completions", CHAT, {"content-type": "text/plain"}))
