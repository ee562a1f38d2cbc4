"""A server compatible with OpenAI, from "Create chat completion" and "Error codes" in the OpenAI API reference."""

import pytest

from agentk.llm import asking
from providers import compatible, guests
from providers.upstream import Desk, Upstream

FIELDS = (
    "frequency_penalty presence_penalty logit_bias logprobs top_logprobs max_completion_tokens n "
    "parallel_tool_calls reasoning_effort seed service_tier user metadata store modalities audio "
    "prediction verbosity prompt_cache_key safety_identifier web_search_options functions function_call"
)
PROVIDER = compatible.Provider(
    prefix="openai",
    model="gpt-4o-mini",
    base="/v1",
    path="/v1/chat/completions",
    schema=compatible.request(FIELDS.split()),
    usage={
        "prompt_tokens": 50,
        "completion_tokens": 6,
        "total_tokens": 56,
        "prompt_tokens_details": {"cached_tokens": 32, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    },
    used=(50, 6, 32),
    answer={"service_tier": "default", "system_fingerprint": "fp_1"},
)


@pytest.mark.parametrize("dialect", guests.BUT_RESPONSES)
def test_the_request_is_what_it_publishes(desk: Desk, upstream: Upstream, dialect: asking.Dialect) -> None:
    compatible.asks(desk, upstream, PROVIDER, dialect)


@pytest.mark.parametrize("dialect", guests.BUT_RESPONSES)
def test_a_tool_call_streams(desk: Desk, upstream: Upstream, dialect: asking.Dialect) -> None:
    compatible.streams_a_call(desk, upstream, PROVIDER, dialect)


@pytest.mark.parametrize("dialect", guests.BUT_RESPONSES)
def test_a_stream_cut_short_is_an_error(desk: Desk, upstream: Upstream, dialect: asking.Dialect) -> None:
    compatible.breaks_off(desk, upstream, PROVIDER, dialect)


@pytest.mark.parametrize("stream", [False, True])
def test_its_errors_are_passed_on(desk: Desk, upstream: Upstream, stream: bool) -> None:
    message = "Invalid value: 'x'. Supported values are: 'low', 'medium', and 'high'."
    error = {
        "message": message,
        "type": "invalid_request_error",
        "param": "verbosity",
        "code": "unsupported_value",
    }
    told = compatible.refuses(desk, upstream, PROVIDER, 400, {"error": error}, stream)
    assert (told.message, told.type, told.param) == (message, "invalid_request_error", "verbosity")
    assert (told.provider_code, told.retryable) == ("unsupported_value", False)
