"""Whatever a guest or an upstream sends: an answer or an error of ours, in time, and never a crash."""

import asyncio
import json
import sys
from typing import Any, get_args

import pytest
import upstreams
from hypothesis import given, settings
from hypothesis import strategies as st

from agentk.api import errors
from agentk.llm import asking, metering, routefields, scriptedrules, sse

KEYS = [
    "role",
    "content",
    "type",
    "text",
    "tool_calls",
    "function",
    "id",
    "name",
    "tool_call_id",
    "usage",
    "choices",
    "delta",
    "input_tokens",
    "output_tokens",
    "prompt_tokens",
    "response",
    "message",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.text(max_size=20) | st.floats(allow_nan=False),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.sampled_from(KEYS), below, max_size=5),
    max_leaves=20,
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "messages": JSON,
        "input": JSON,
        "system": JSON,
        "instructions": JSON,
        "n": JSON,
        "max_tokens": JSON,
        "tools": JSON,
        "dimensions": JSON,
        "stream_options": JSON,
    },
)


@settings(max_examples=150)
@given(st.sampled_from(get_args(asking.Dialect)), BODIES, st.booleans())
def test_the_script_answers_any_body(dialect: asking.Dialect, body: dict[str, Any], stream: bool) -> None:
    async def work() -> tuple[bytes, asking.Usage, asking.Bound]:
        rules = [{"match": {"toolResult": {"glob": "*a*"}}, "reply": {"text": "{{toolResult}}"}}]
        async with upstreams.models_of(upstreams.route_of(scripted={"rules": rules})) as made:
            ask = asking.Ask(dialect, body, stream)
            most = made.bound("default", "r", ask)
            return (*await upstreams.whole(made, ask), most)

    told, usage, most = asyncio.run(work())
    assert told and usage.input_tokens + usage.output_tokens <= most.tokens
    json.dumps(told.decode("utf-8"))


def test_a_body_nested_too_deeply_is_refused() -> None:
    async def work() -> None:
        async with upstreams.models_of(upstreams.route_of(scripted={})) as made:
            deep: Any = []
            for _ in range(sys.getrecursionlimit() * 2):
                deep = [deep]
            made.bound("default", "r", upstreams.ask_chat(tools=deep))

    with pytest.raises(errors.BadRequest):
        asyncio.run(work())


@given(st.sampled_from(get_args(asking.Dialect)), st.lists(JSON, max_size=5), JSON)
def test_usage_is_read_out_of_anything(dialect: asking.Dialect, events: list[Any], whole: Any) -> None:
    meter = metering.Meter(asking.Ask(dialect, {}, True), "m")
    for event in events:
        for name in (b"", b"message_start", b"message_delta"):
            meter.event(sse.read(sse.write(json.dumps(event).encode(), name)))
    assert meter.usage().output_tokens >= 0
    meter.document(whole)
    usage = meter.usage()
    assert min(usage.input_tokens, usage.output_tokens, usage.cached_tokens) >= 0


@given(JSON)
def test_any_spec_is_a_route_or_problems(spec: Any) -> None:
    for told in (spec, {"modelList": spec}, {"model_list": [{"model_name": "a", "litellm_params": spec}]}):
        route, found = routefields.read({"metadata": {}, "spec": told if isinstance(told, dict) else {}})
        assert (route is None) == bool(found)


@pytest.mark.parametrize("glob", ["*a*a*a*a*a*a*a*a*a*a*b", "*[ab]*[ab]*[ab]*[ab]*c", "?*?*?*?*?*?*?*x"])
def test_no_pattern_takes_long(glob: str) -> None:
    talk = scriptedrules.Conversation(last="a" * 1_000_000)
    # One that went back over its stars would need centuries: the suite's own time limit is the assertion.
    assert not scriptedrules.matches({"lastMessage": {"glob": glob}}, talk)


def test_what_a_guest_says_is_no_template() -> None:
    talk = scriptedrules.Conversation(last="{{system}}", system="hidden")
    assert scriptedrules.answered({"reply": {"text": "{{last}}"}}, talk).text == "{{system}}"
