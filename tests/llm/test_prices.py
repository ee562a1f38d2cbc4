"""Prices are whole micro-dollars, rounded up, and what is unknown is None; token bounds are never too low."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from upstreams import item, route_of

from agentk.llm import asking, prices, routefields, routes, tokens


def rate(model: str, **params: Any) -> prices.Rate | None:
    route, found = routefields.read(route_of(item(model, **params)))
    assert route, found
    return prices.rate(route.deployments[0])


def cost(model: str, read: int, written: int, **told: Any) -> int:
    known = rate(model, **told.pop("params", {}))
    assert known
    return known.cost(asking.Usage(read, written, **told))


def test_the_list_is_read_without_importing_litellm() -> None:
    code = "import sys; from agentk.llm import prices; prices.load(); sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_known_model_costs_what_the_list_says() -> None:
    assert cost("openai/gpt-4o", 1000, 100) == 2500 + 1000
    assert cost("gpt-4o", 1000, 100) == 3500
    assert cost("deepseek/deepseek-chat", 1_000_000, 0) == 280_000


def test_a_fraction_of_a_micro_dollar_is_rounded_up() -> None:
    assert cost("openai/text-embedding-3-small", 1, 0) == 1
    assert cost("openai/text-embedding-3-small", 0, 0) == 0


def test_own_prices_win_whole() -> None:
    own = {"inputCostPerToken": "0.000001", "output_cost_per_token": 2e-6}
    assert cost("openai/gpt-4o", 1000, 100, cached_tokens=500, params=own) == 1000 + 200
    assert cost("openai/nobody-knows-it", 10, 0, params=own) == 10


def test_what_has_no_known_price_has_none() -> None:
    assert rate("openai/nobody-knows-it") is None
    assert rate("hosted_vllm/qwen") is None
    assert rate("openai/whisper-1") is None
    own = rate("ollama/never-heard-of")
    assert own and own.bound(1000, 1000) == 0


def test_a_name_of_another_provider_lends_no_price() -> None:
    assert rate("hosted_vllm/gpt-4o") is None


@given(st.integers(0, 10**6), st.integers(0, 10**5), st.data())
def test_a_bound_is_never_below_the_cost(read: int, written: int, data: st.DataObject) -> None:
    model = data.draw(
        st.sampled_from(["openai/gpt-4o", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-pro"])
    )
    cached = data.draw(st.integers(0, read))
    made = data.draw(st.integers(0, read - cached))
    known = rate(model)
    assert known
    usage = asking.Usage(read, written, cached, made)
    assert known.cost(usage) <= known.bound(read, written)


def test_long_prompts_cost_more_where_the_list_says_so() -> None:
    short, long = cost("gemini/gemini-2.5-pro", 200_000, 0), cost("gemini/gemini-2.5-pro", 200_001, 0)
    assert long > short * 1.5


def chat(content: Any, **body: Any) -> int:
    return tokens.upper_bound("openai.chat", {"messages": [{"role": "user", "content": content}], **body})


@given(st.text(max_size=300))
def test_every_byte_may_be_a_token(text: str) -> None:
    assert chat(text) >= len(text.encode("utf-8", "surrogatepass"))


def test_pictures_are_counted_by_number_not_by_bytes() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    assert tokens.IMAGE_TOKENS <= chat([picture]) < tokens.IMAGE_TOKENS + 1000
    assert chat([picture, picture]) > 2 * tokens.IMAGE_TOKENS


def test_tools_count() -> None:
    tool = {"type": "function", "function": {"name": "add", "description": "x" * 500}}
    assert chat("hi", tools=[tool]) > chat("hi") + 500


@pytest.mark.parametrize(
    ("dialect", "body", "most"),
    [
        ("openai.chat", {"max_tokens": 5, "max_completion_tokens": 9}, 9),
        ("openai.chat", {"max_tokens": 5, "n": 3}, 15),
        ("openai.chat", {}, None),
        ("openai.chat", {"max_tokens": True}, None),
        ("openai.responses", {"max_output_tokens": 7}, 7),
        ("anthropic.messages", {"max_tokens": 8}, 8),
        ("openai.embeddings", {}, 0),
    ],
)
def test_the_most_an_answer_may_be(dialect: Any, body: dict[str, Any], most: int | None) -> None:
    assert tokens.most_output(dialect, body) == most


def test_a_limit_is_written_only_where_there_is_none() -> None:
    free = asking.Ask("openai.responses", {"input": "x"})
    assert tokens.with_limit(free, 10).body["max_output_tokens"] == 10
    bound = asking.Ask("openai.chat", {"max_tokens": 3})
    assert tokens.with_limit(bound, 10) is bound


def test_the_scripted_provider_is_free() -> None:
    assert prices.rate(routes.Deployment("0", "a", {"model": "scripted/x"})) is not None
