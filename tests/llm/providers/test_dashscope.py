"""Qwen on DashScope, from "OpenAI compatible - Chat" and "Error codes" of Alibaba Cloud Model Studio."""

import pytest

from agentk.llm import asking
from providers import compatible, guests
from providers.upstream import Desk, Upstream

FIELDS = (
    "modalities audio top_k presence_penalty n enable_thinking thinking_budget seed logprobs top_logprobs "
    "parallel_tool_calls enable_search search_options translation_options"
)
PROVIDER = compatible.Provider(
    prefix="dashscope",
    model="qwen-plus",
    base="/compatible-mode/v1",
    path="/compatible-mode/v1/chat/completions",
    schema=compatible.request(FIELDS.split(), reasoning=True),
    usage={
        "prompt_tokens": 22,
        "completion_tokens": 9,
        "total_tokens": 31,
        "prompt_tokens_details": {"cached_tokens": 0},
    },
    used=(22, 9, 0),
    answer={"system_fingerprint": None},
)


@pytest.mark.parametrize("dialect", guests.DIALECTS)
def test_the_request_is_what_it_publishes(desk: Desk, upstream: Upstream, dialect: asking.Dialect) -> None:
    compatible.asks(desk, upstream, PROVIDER, dialect)


@pytest.mark.parametrize("dialect", guests.DIALECTS)
def test_a_tool_call_streams(desk: Desk, upstream: Upstream, dialect: asking.Dialect) -> None:
    compatible.streams_a_call(desk, upstream, PROVIDER, dialect)


@pytest.mark.parametrize("dialect", guests.DIALECTS)
def test_a_stream_cut_short_is_an_error(desk: Desk, upstream: Upstream, dialect: asking.Dialect) -> None:
    compatible.breaks_off(desk, upstream, PROVIDER, dialect)


@pytest.mark.parametrize("stream", [False, True])
def test_its_errors_are_passed_on(desk: Desk, upstream: Upstream, stream: bool) -> None:
    error = {
        "message": "You exceeded your current requests list, limit: 60",
        "type": "limit_requests",
        "param": None,
        "code": "limit_requests",
    }
    told = compatible.refuses(desk, upstream, PROVIDER, 429, {"error": error, "request_id": "f1"}, stream)
    assert (told.message, told.type, told.provider_code) == (
        error["message"],
        "limit_requests",
        "limit_requests",
    )
