"""DeepSeek, from "Create Chat Completion" and "Error Codes" in the DeepSeek API Docs (api-docs.deepseek.com)."""

import pytest

from agentk.llm import asking
from providers import compatible, guests
from providers.upstream import Desk, Upstream

FIELDS = "thinking reasoning_effort frequency_penalty presence_penalty logprobs top_logprobs user_id"
PROVIDER = compatible.Provider(
    prefix="deepseek",
    model="deepseek-chat",
    base="",
    path="/chat/completions",
    schema=compatible.request(FIELDS.split(), reasoning=True),
    usage={
        "prompt_tokens": 40,
        "completion_tokens": 5,
        "total_tokens": 45,
        "prompt_tokens_details": {"cached_tokens": 24},
        "prompt_cache_hit_tokens": 24,
        "prompt_cache_miss_tokens": 16,
    },
    used=(40, 5, 24),
    answer={"system_fingerprint": "fp_1"},
    usage_in_last=True,
)


@pytest.mark.parametrize("dialect", guests.BUT_MESSAGES)
def test_the_request_is_what_it_publishes(desk: Desk, upstream: Upstream, dialect: asking.Dialect) -> None:
    compatible.asks(desk, upstream, PROVIDER, dialect)


@pytest.mark.parametrize("dialect", guests.BUT_MESSAGES)
def test_a_tool_call_streams(desk: Desk, upstream: Upstream, dialect: asking.Dialect) -> None:
    compatible.streams_a_call(desk, upstream, PROVIDER, dialect)


@pytest.mark.parametrize("dialect", guests.BUT_MESSAGES)
def test_a_stream_cut_short_is_an_error(desk: Desk, upstream: Upstream, dialect: asking.Dialect) -> None:
    compatible.breaks_off(desk, upstream, PROVIDER, dialect)


@pytest.mark.parametrize("stream", [False, True])
def test_an_empty_balance_is_passed_on(desk: Desk, upstream: Upstream, stream: bool) -> None:
    error = {
        "message": "Insufficient Balance",
        "type": "unknown_error",
        "param": None,
        "code": "invalid_request_error",
    }
    told = compatible.refuses(desk, upstream, PROVIDER, 402, {"error": error}, stream)
    assert (told.message, told.type, told.retryable) == ("Insufficient Balance", "unknown_error", False)
    assert told.status == 502  # our account is nothing a guest can mend
