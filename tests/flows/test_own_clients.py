"""Unmodified clients of OpenAI and Anthropic in a jail without network and key: what agentk sets is all they need."""

from collections.abc import Iterator

import pytest

from tests.flows import providing
from tests.flows.household import Space
from tests.flows.providing import KEY, Served, clients, prepare

pytestmark = providing.needs


@pytest.fixture
def provider() -> Iterator[Served]:
    with providing.serving() as server:
        yield server


OPENAI = """
import openai
HI = [{"role": "user", "content": "hi"}]
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
client = openai.OpenAI()
got = client.chat.completions.create(model="gpt", messages=HI, tools=[ADD])
print(got.choices[0].message.content, got.choices[0].message.tool_calls[0].function.name)
parts = client.chat.completions.create(model="gpt", messages=HI, stream=True)
print("".join(part.choices[0].delta.content or "" for part in parts))
print(client.responses.create(model="gpt", input="hi").output_text)
print(client.embeddings.create(model="gpt", input="hi", encoding_format="float").data[0].embedding)
print([model.id for model in client.models.list()])
try:
    client.chat.completions.create(model="other", messages=HI)
except openai.NotFoundError as error:
    print(error.code)
"""

ANTHROPIC = """
import anthropic
HI = [{"role": "user", "content": "hi"}]
ADD = {"name": "add", "input_schema": {"type": "object"}}
client = anthropic.Anthropic()
got = client.messages.create(model="claude", max_tokens=20, messages=HI, tools=[ADD])
print(got.content[0].text, got.content[1].name)
with client.messages.stream(model="claude", max_tokens=20, messages=HI) as stream:
    print("".join(stream.text_stream))
print(client.messages.count_tokens(model="claude", messages=HI).input_tokens)
try:
    client.messages.create(model="other", max_tokens=20, messages=HI)
except anthropic.NotFoundError as error:
    print(error.body["error"]["type"])
"""


def test_openais_client_needs_nothing_but_its_name(space: Space, provider: Served) -> None:
    prepare(space, provider)
    space.apply(clients("a", OPENAI))
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log("a"))
    assert space.agentk("logs", "a").lines == [
        "Hello add",
        "Hello",
        "Hello",
        "[0.5]",
        "['gpt', 'claude']",
        "model_not_found",
    ]
    assert {headers["authorization"] for _, headers, _ in provider.seen} == {f"Bearer {KEY}"}
    assert len(provider.seen) == 4


def test_anthropics_client_needs_nothing_but_its_name(space: Space, provider: Served) -> None:
    prepare(space, provider)
    space.apply(clients("a", ANTHROPIC))
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log("a"))
    assert space.agentk("logs", "a").lines == ["Hello add", "Hello", "12", "not_found_error"]
    assert {headers["x-api-key"] for _, headers, _ in provider.seen} == {KEY}


BUDGET = """
import openai
client = openai.OpenAI(max_retries=5)
HI = [{"role": "user", "content": "hi"}]
for most in (20, 5000, 20):
    try:
        client.chat.completions.create(model="gpt", messages=HI, max_tokens=most)
        print("answered")
    except openai.RateLimitError as error:
        print(error.code)
"""


def test_what_a_budget_refuses_is_asked_once_and_reaches_nobody(space: Space, provider: Served) -> None:
    prepare(space, provider)
    space.apply(clients("a", BUDGET, budget={"maxTokensPerRequest": 1000}))
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log("a"))
    assert space.agentk("logs", "a").lines == ["answered", "insufficient_quota", "answered"]
    assert len(provider.seen) == 2


ELSEWHERE = """
import openai, os
client = openai.OpenAI(max_retries=0)
HI = [{"role": "user", "content": "hi"}]
EVIL = os.environ["EVIL"]
PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": EVIL + "/x.png"}}]}]
TRIES = [
    {"extra_body": {"api_base": EVIL}},
    {"extra_body": {"base_url": EVIL}},
    {"extra_body": {"extra_headers": {"host": EVIL}}},
    {"extra_body": {"fallbacks": [{"model": "x", "api_base": EVIL}]}},
    {"extra_body": {"custom_llm_provider": "ollama"}},
    {"model": "ollama/llama3"},
    {"extra_body": {"tools": [{"type": "mcp", "server_url": EVIL}]}},
    {"messages": PICTURE},
]
for words in TRIES:
    try:
        client.chat.completions.create(**{"model": "gpt", "messages": HI, **words})
        print("answered", words)
    except openai.APIStatusError as error:
        print(error.status_code)
client.chat.completions.create(
    model="gpt", messages=HI, extra_headers={"authorization": "Bearer mine", "host": "127.0.0.1"}
)
print("done")
"""


def test_nothing_a_client_says_sends_a_call_elsewhere(space: Space, provider: Served) -> None:
    with providing.serving() as evil:
        prepare(space, provider)
        made = clients("a", ELSEWHERE)
        made["spec"]["env"].append({"name": "EVIL", "value": evil.url})
        space.apply(made)
        assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log("a"))
        lines = space.agentk("logs", "a").lines
        assert len(lines) == 9 and set(lines[:-1]) <= {"400", "403", "404"} and lines[-1] == "done"
        assert evil.seen == [] and len(provider.seen) == 1
        assert provider.seen[0][1]["authorization"] == f"Bearer {KEY}"
