"""kill -9 at every step of a call: no effect happens twice, no answer is made up, nothing stays reserved.

What the provider saw is counted at the provider. The programs are an agent's SDK and OpenAI's own client; both come
again by themselves, and both must meet the call that they had made, or be told that nobody knows.
"""

import os
import signal
from collections.abc import Iterator

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
    return sum(body["messages"][-1]["content"] == words for _, _, body in provider.seen)


def done(space: Space, name: str) -> list[str]:
    assert space.phase(name, "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log(name))
    return space.agentk("logs", name).lines


@pytest.mark.parametrize("program", [THINK, OPENAI], ids=["sdk", "openai"])
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
        os.kill(pid, signal.SIGKILL)
    assert pids and done(broken, "a") == ["asks", "soon"], "the only turn of the route came free"
    assert broken.status("a")["attempt"] == 2
