"""Groq, from "Chat Completions" and "Errors" in GroqDocs (console.groq.com/docs/api-reference)."""

import pytest

from agentk.llm import asking
from providers import compatible, guests
from providers.upstream import Desk, Upstream

FIELDS = (
    "frequency_penalty presence_penalty logit_bias logprobs top_logprobs max_completion_tokens n "
    "parallel_tool_calls reasoning_effort reasoning_format include_reasoning seed service_tier user "
    "metadata store"
)
PROVIDER = compatible.Provider(
    prefix="groq",
    model="openai/gpt-oss-20b",
    base="/openai/v1",
    path="/openai/v1/chat/completions",
    schema=compatible.request(FIELDS.split()),
    usage={
        "queue_time": 0.09,
        "prompt_tokens": 38,
        "prompt_time": 0.003,
        "completion_tokens": 4,
        "completion_time": 0.02,
        "total_tokens": 42,
        "total_time": 0.03,
    },
    used=(38, 4, 0),
    answer={"x_groq": {"id": "req_1"}, "service_tier": "on_demand", "system_fingerprint": "fp_1"},
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
def test_its_rate_limit_is_passed_on(desk: Desk, upstream: Upstream, stream: bool) -> None:
    message = "Rate limit reached for model `openai/gpt-oss-20b` on tokens per minute (TPM): Limit 8000"
    error = {"message": message, "type": "tokens", "code": "rate_limit_exceeded"}
    told = compatible.refuses(desk, upstream, PROVIDER, 429, {"error": error}, stream, retry_after="7")
    assert (told.message, told.type, told.provider_code) == (message, "tokens", "rate_limit_exceeded")
    assert told.retry_after_seconds == 7
