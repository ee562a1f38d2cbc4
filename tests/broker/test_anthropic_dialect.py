"""Anthropic's dialect: the real client against a door of ours, the allow-list against the client's own types."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anthropic as client
import pytest

from agentk.api.errors import (
    AgentkError,
    BudgetExceeded,
    Denied,
    NotFound,
    OutcomeUnknown,
    TooManyRequests,
    Unavailable,
)
from agentk.broker.dialects import anthropic, asked
from agentk.broker.dialects.http import HttpService, Respond
from agentk.broker.dialects.http_reading import Request
from tests.broker.anthropic_rig import MESSAGES, judged


async def answering(request: Request, respond: Respond) -> None:
    """A model that says hello, in Anthropic's words."""
    try:
        told = judged(request)
    except AgentkError as problem:
        answer = anthropic.error(problem, "req_1")
        respond.whole(answer.status, answer.headers, answer.body)
        return
    if told.method == "models":
        answer = anthropic.model(told.model) if told.model else anthropic.models(["default"])
        respond.whole(answer.status, answer.headers, answer.body)
    elif told.dialect == "anthropic.count_tokens":
        respond.whole(200, {"content-type": "application/json"}, b'{"input_tokens": 7}')
    elif told.stream:
        respond.start(200, {"content-type": "text/event-stream"})
        for event in EVENTS:
            await respond.write(
                b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode())
            )
        respond.end()
    else:
        respond.whole(200, {"content-type": "application/json"}, json.dumps(MESSAGE).encode())


MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
]


@asynccontextmanager
async def talking(
    handler: Callable[[Request, Respond], Awaitable[None]], **settings: Any
) -> AsyncIterator[client.AsyncAnthropic]:
    service = HttpService(handler)
    server = await asyncio.get_running_loop().create_server(
        lambda: service.connection(by_unix=False), "127.0.0.1", 0
    )
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with client.AsyncAnthropic(api_key="none", base_url=url, **settings) as sdk:
            yield sdk
    finally:
        server.close()
        await service.close()


def test_sdk_messages_plain_streamed_and_sent_back() -> None:
    async def main() -> None:
        async with talking(answering) as sdk:
            answer = await sdk.messages.create(model="default", max_tokens=10, messages=MESSAGES)
            assert answer.content[0].type == "text"
            talk: Any = [*MESSAGES, {"role": "assistant", "content": answer.content}, *MESSAGES]
            async with sdk.messages.stream(model="default", max_tokens=10, messages=talk) as stream:
                assert [text async for text in stream.text_stream] == ["Hello"]

    asyncio.run(main())


def test_sdk_count_tokens_and_models() -> None:
    async def main() -> None:
        async with talking(answering) as sdk:
            counted = await sdk.messages.count_tokens(model="default", messages=MESSAGES)
            assert counted.input_tokens == 7
            assert [model.id async for model in sdk.models.list()] == ["default"]

    asyncio.run(main())


def test_sdk_is_told_which_field_is_refused() -> None:
    async def main() -> None:
        async with talking(answering) as sdk:
            with pytest.raises(client.BadRequestError, match="api_base") as caught:
                await sdk.messages.create(
                    model="default",
                    max_tokens=10,
                    messages=MESSAGES,
                    extra_body={"api_base": "http://evil.example"},
                )
            assert caught.value.request_id == "req_1"

    asyncio.run(main())


ERRORS = [
    (Denied("rule 'x' says no"), client.PermissionDeniedError, "permission_error", 1),
    (BudgetExceeded("spent"), client.RateLimitError, "rate_limit_error", 1),
    (OutcomeUnknown("maybe"), client.ConflictError, "invalid_request_error", 1),
    (NotFound("which?"), client.NotFoundError, "not_found_error", 1),
    (TooManyRequests("later", retry_after_seconds=0), client.RateLimitError, "rate_limit_error", 3),
    (Unavailable("later", retry_after_seconds=0), client.InternalServerError, "overloaded_error", 3),
]


@pytest.mark.parametrize("problem, kind, word, tries", ERRORS, ids=[type(e[0]).__name__ for e in ERRORS])
def test_sdk_knows_each_error_and_retries_only_what_may_be(
    problem: AgentkError,
    kind: type[client.APIStatusError],
    word: str,
    tries: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("anthropic._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("anthropic._base_client.MAX_RETRY_DELAY", 0.001)
    seen: list[bool] = []

    async def failing(request: Request, respond: Respond) -> None:
        seen.append(asked.retried(request.headers))
        answer = anthropic.error(problem)
        respond.whole(answer.status, answer.headers, answer.body)

    async def main() -> None:
        async with talking(failing, max_retries=2) as sdk:
            with pytest.raises(kind) as caught:
                await sdk.messages.create(model="default", max_tokens=10, messages=MESSAGES)
            body: Any = caught.value.body
            assert body["error"]["type"] == word

    asyncio.run(main())
    assert seen == [False, True, True][:tries]


def test_sdk_sees_an_error_inside_a_stream() -> None:
    async def breaking(request: Request, respond: Respond) -> None:
        respond.start(200, {"content-type": "text/event-stream"})
        await respond.write(anthropic.stream_error(Unavailable("broken")))
        respond.end()

    async def main() -> None:
        async with talking(breaking) as sdk:
            stream = await sdk.messages.create(model="default", max_tokens=10, messages=MESSAGES, stream=True)
            with pytest.raises(client.APIError, match="broken"):
                async for _ in stream:
                    pass

    asyncio.run(main())


def test_models_is_anthropics_when_its_client_asks() -> None:
    assert anthropic.takes(Request("GET", "/v1/models", headers={"anthropic-version": "2023-06-01"}))
    assert not anthropic.takes(Request("GET", "/v1/models"))
    assert not anthropic.takes(Request("POST", "/v1/chat/completions"))


@pytest.mark.parametrize("method, path", [("GET", "/v1/messages"), ("POST", "/v1/messages/batches")])
def test_other_paths_and_methods_are_refused(method: str, path: str) -> None:
    with pytest.raises(AgentkError):
        anthropic.read(Request(method, path))
