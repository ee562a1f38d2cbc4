"""Moonshot (Kimi), from "Chat" and "Errors" in the Kimi API platform documentation (platform.moonshot.ai/docs/api)."""

import pytest

from agentk.llm import asking
from providers import compatible, guests
from providers.upstream import Desk, Upstream

FIELDS = (
    "max_completion_tokens n presence_penalty frequency_penalty prompt_cache_key safety_identifier thinking"
)
PROVIDER = compatible.Provider(
    prefix="moonshot",
    model="kimi-k2-0905-preview",
    base="/v1",
    path="/v1/chat/completions",
    schema=compatible.request(FIELDS.split(), reasoning=True),
    usage={"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37, "cached_tokens": 16},
    used=(30, 7, 16),
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
    message = "Your account reached max request: 3, please try again after 1 seconds"
    error = {"message": message, "type": "rate_limit_reached_error"}
    told = compatible.refuses(desk, upstream, PROVIDER, 429, {"error": error}, stream)
    assert (told.message, told.type, told.retryable) == (message, "rate_limit_reached_error", True)
