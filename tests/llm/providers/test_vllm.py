"""vLLM, from "OpenAI-Compatible Server" in the vLLM documentation: OpenAI's fields and its extra parameters."""

import pytest

from agentk.llm import asking
from providers import compatible, guests
from providers.upstream import Desk, Upstream

FIELDS = (
    "frequency_penalty presence_penalty logit_bias logprobs top_logprobs max_completion_tokens n "
    "parallel_tool_calls reasoning_effort seed user best_of top_k min_p repetition_penalty length_penalty "
    "stop_token_ids ignore_eos min_tokens skip_special_tokens echo add_generation_prompt chat_template "
    "structured_outputs priority"
)
PROVIDER = compatible.Provider(
    prefix="hosted_vllm",
    model="Qwen/Qwen3-8B",
    base="/v1",
    path="/v1/chat/completions",
    schema=compatible.request(FIELDS.split(), reasoning=True),
    usage={"prompt_tokens": 21, "total_tokens": 33, "completion_tokens": 12, "prompt_tokens_details": None},
    used=(21, 12, 0),
    answer={"system_fingerprint": None},
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
    message = "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens."
    error = {"message": message, "type": "BadRequestError", "param": None, "code": 400}
    told = compatible.refuses(desk, upstream, PROVIDER, 400, {"error": error}, stream)
    assert (told.message, told.type, told.provider_code) == (message, "BadRequestError", "400")
