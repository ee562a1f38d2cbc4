"""MiniMax, from "OpenAI API Compatible" and "Error Codes" in the MiniMax API documentation (platform.minimax.io)."""

import pytest

from agentk.llm import asking
from providers import compatible, guests
from providers.upstream import Desk, Upstream

FIELDS = "max_completion_tokens n reasoning_split thinking service_tier mask_sensitive_info"
PROVIDER = compatible.Provider(
    prefix="minimax",
    model="MiniMax-M2.1",
    base="/v1",
    path="/v1/chat/completions",
    schema=compatible.request(FIELDS.split(), reasoning=True),
    usage={
        "total_tokens": 60,
        "total_characters": 0,
        "prompt_tokens": 52,
        "completion_tokens": 8,
        "completion_tokens_details": {"reasoning_tokens": 3},
    },
    used=(52, 8, 0),
    answer={
        "input_sensitive": False,
        "output_sensitive": False,
        "base_resp": {"status_code": 0, "status_msg": ""},
    },
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
def test_its_errors_are_passed_on(desk: Desk, upstream: Upstream, stream: bool) -> None:
    message = "invalid params, invalid role in message (2013)"
    error = {"type": "bad_request_error", "message": message, "http_code": "400"}
    answer = {"type": "error", "error": error, "request_id": "0594"}
    told = compatible.refuses(desk, upstream, PROVIDER, 400, answer, stream)
    assert (told.message, told.type) == (message, "bad_request_error")
