"""kill -9 at every step of a call: no effect happens twice, no answer is made up, nothing stays reserved.

What the provider saw is counted at the provider. The programs are an agent's SDK and the clients of OpenAI and of
Anthropic; all come again by themselves, and must meet the call that they had made, or be told that nobody knows.
"""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentk.broker import crash
from tests.flows import household, providing
from tests.flows.household import Household, Space, python
from tests.flows.providing import Served, clients, prepare

pytestmark = providing.needs

THINK = """
import agentk.sdk.client as sdk, agentk.sdk.errors as errors
with sdk.connect() as agent:
    try:
        print(agent.think("hi", model="gpt", max_tokens=20))
    except errors.OutcomeUnknown:
        print("OutcomeUnknown")
    print(agent.think("again", model="gpt", max_tokens=20))
"""

OPENAI = """
import openai
client = openai.OpenAI(max_retries=3)
for words in ("hi", "again"):
    try:
        got = client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": words}], max_tokens=20)
        print(got.choices[0].message.content)
    except openai.ConflictError as error:
        print("OutcomeUnknown")
"""

ANTHROPIC = """
import anthropic
client = anthropic.Anthropic(max_retries=3)
for words in ("hi", "again"):
    try:
        got = client.messages.create(model="claude", messages=[{"role": "user", "content": words}], max_tokens=20)
        print(got.content[0].text)
    except anthropic.ConflictError as error:
        print("OutcomeUnknown")
"""

TRANSLATED = """
import openai
client = openai.OpenAI(max_retries=0)
for words in ("hi", "again"):
    try:
        got = client.chat.completions.create(
            model="claude", messages=[{"role": "user", "content": words}], max_tokens=20
        )
        print(got.choices[0].message.content, flush=True)
    except openai.APIStatusError as error:
        print(error.status_code, flush=True)
"""

COUNT = """
import agentk.sdk.client as sdk
with sdk.connect() as agent:
    agent.queue_put("q", {"n": 1})
    agent.queue_put("q", {"n": 2})
    print([item.item["n"] for item in agent.queue_get("q", max=10)])
"""

# What the program is told, and how often the provider was asked the first thing.
TOLD = {
    "call.intended": ("OutcomeUnknown", 0),
    "call.handled": ("OutcomeUnknown", 1),
    "call.settled": ("Hello", 1),
}


@pytest.fixture(scope="module")
def fragile() -> Iterator[Household]:
    with household.household() as home:
        yield home


@pytest.fixture
def broken(fragile: Household) -> Iterator[Space]:
    with household.space(fragile) as made:
        yield made


@pytest.fixture
def provider() -> Iterator[Served]:
    with providing.serving() as server:
        yield server


def asked(provider: Served, words: str) -> int:
    """How often, in whatever form the words came."""
    return sum(f'"{words}"' in json.dumps(body["messages"][-1]["content"]) for _, _, body in provider.seen)


def done(space: Space, name: str) -> list[str]:
    assert space.phase(name, "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log(name))
    return space.agentk("logs", name).lines


@pytest.mark.parametrize("program", [THINK, OPENAI, ANTHROPIC], ids=["sdk", "openai", "anthropic"])
@pytest.mark.parametrize("point", sorted(TOLD))
def test_the_daemon_dies_in_a_call(broken: Space, provider: Served, point: str, program: str) -> None:
    prepare(broken, provider)
    told, hits = TOLD[point]
    (broken.home.crashes / point).touch()
    broken.apply(clients("a", program, budget={"maxCalls": 2}))
    assert done(broken, "a") == [told, "Hello"], "two calls fit the budget, one of them lost"
    assert (asked(provider, "hi"), asked(provider, "again")) == (hits, 1)
    assert not (broken.home.crashes / point).exists(), "nobody came by"


def test_the_daemon_dies_when_a_local_call_is_on_the_disk(broken: Space) -> None:
    (broken.home.crashes / "call.local").touch()
    broken.apply(python("a", COUNT))
    assert done(broken, "a") == ["[1, 2]"]
    assert not (broken.home.crashes / "call.local").exists()


def worker(space: Space) -> int:
    """Process id of LiteLLM's worker, 0 when there is none."""
    daemon = space.home.pid("daemon")
    found = [pid for pid, argv in household.processes() if any("worker_main" in word for word in argv)]
    return next(
        (pid for pid in found if household.read(Path(f"/proc/{pid}/stat")).split()[3] == str(daemon)), 0
    )


def test_the_worker_dies_in_a_call_that_is_told_so_and_the_next_one_is_answered(
    broken: Space, provider: Served
) -> None:
    prepare(broken, provider)
    provider.hold.clear()
    broken.apply(clients("a", TRANSLATED))
    household.until("the provider is asked", lambda: asked(provider, "hi"))
    os.kill(worker(broken), signal.SIGKILL)
    provider.hold.set()
    first, second = done(broken, "a")
    assert (first[:1], second) == ("5", "Hello")
    assert (asked(provider, "hi"), asked(provider, "again")) == (1, 1), (
        "what may have happened is not done again"
    )


def test_every_point_of_a_call_is_tried() -> None:
    assert {*TOLD, "call.local"} == set(crash.POINTS)


SLOW = """
import agentk.sdk.client as sdk, os
print("asks", flush=True)
with sdk.connect() as agent:
    if os.path.exists("/workspace/was-here"):
        print(agent.think("again", max_tokens=20), flush=True)
    else:
        open("/workspace/was-here", "w").close()
        agent.think("hi", max_tokens=20)
"""


def test_an_agent_dies_in_a_call_and_what_it_had_reserved_is_free(broken: Space) -> None:
    rules = [
        {"match": {"lastMessage": {"equals": "hi"}}, "reply": {"text": "late"}, "delay": "10m"},
        {"reply": {"text": "soon"}},
    ]
    spec = {"scripted": {"rules": rules}, "maxConcurrent": 1}
    broken.apply(household.manifest("ModelRoute", "default", spec=spec))
    backoff = {"initialSeconds": 0, "maxSeconds": 1}
    broken.apply(python("a", SLOW, restartPolicy="OnFailure", restartBackoff=backoff))
    broken.logged("a", "asks")
    broken.running("a")
    pids = [pid for pid, argv in household.processes() if SLOW in argv]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it went with the one before it
            os.kill(pid, signal.SIGKILL)
    assert pids and done(broken, "a") == ["asks", "soon"], "the only turn of the route came free"
    assert broken.status("a")["attempt"] == 2
