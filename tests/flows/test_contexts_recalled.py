"""What left a conversation comes back in a real household: by its words, by a model's vectors, and by its id."""

import json
import math
from collections.abc import Iterator

import pytest

from tests.flows import household, loopback
from tests.flows.household import Object, Space, manifest, python

pytestmark = household.needs

BUDGET = 700
# Each of them is in the model's prompt, or is not: the answer says which.
RULES = [
    {
        "match": {"lastMessage": {"contains": "vessel"}, "anyMessage": {"contains": "called Miu"}},
        "reply": {"text": "Not below."},
    },
    {
        "match": {"lastMessage": {"contains": "vessel"}, "anyMessage": {"contains": "in Faro"}},
        "reply": {"text": "In Faro."},
    },
    {
        "match": {"lastMessage": {"contains": "Well?"}, "anyMessage": {"contains": "called Miu"}},
        "reply": {"text": "Miu."},
    },
    {"reply": {"text": "Noted."}},
]
CHAT = """
import sys
from agentk.sdk import client
agent, asked = client.connect(), sys.argv[1]
messages = []
def say(text):
    messages.append({"role": "user", "content": text})
    told = agent.think(messages=messages)
    messages.append({"role": "assistant", "content": told.text})
    return told.text
for n in range(34):
    say({2: "My boat lies in Faro.", 3: "Some cat is called Miu."}.get(n, f"Number {n} has {n * 7} parts, or so."))
while (found := agent.memory_search("", limit=1)).embedded < found.pages:
    pass
print(say(asked), flush=True)
[cat] = agent.memory_search("Miu cat", limit=1, kinds=["user"]).items
print(agent.recall(ids=[cat.id]).items[0].content, flush=True)
print(say("Well?"), flush=True)
"""


class Embedding(loopback.Answering):
    """A model that knows that a vessel is a boat, and a little of everything else."""

    def do_POST(self) -> None:
        body = json.loads(self.asked())
        data = [
            {"object": "embedding", "index": n, "embedding": _meant(text)}
            for n, text in enumerate(body["input"])
        ]
        self.server.seen += body["input"]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        self.answer(json.dumps({"object": "list", "data": data, "model": "e", "usage": usage}).encode())


def _meant(text: str) -> list[float]:
    if "vessel" in text:
        return [0.9, 0.3, math.sqrt(0.1)]
    return [float("Faro" in text), float("Miu" in text), float("Faro" not in text and "Miu" not in text)]


@pytest.fixture(scope="module")
def embedding() -> Iterator[loopback.Server]:
    with loopback.serving(loopback.Server(Embedding)) as server:
        yield server


def played(space: Space, asked: str, **memory: object) -> None:
    agent = python("a", CHAT, memory={"context": "managed", "contextTokens": BUDGET, "ref": {"name": "team"}})
    agent["spec"]["command"].append(asked)
    space.apply(
        manifest("ModelRoute", "default", spec={"scripted": {"rules": RULES}}),
        manifest("Memory", "team", spec=dict(memory)),
        agent,
    )
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log("a"))


def told(space: Space) -> tuple[Object, Object]:
    """The pages of the boat and of the cat, of which the first came by likeness and the other by its id."""
    [window] = space.agentk("memory", "map", "a", "-o", "json").json["items"]
    assert window["tokens"]["total"] <= BUDGET
    calls = space.agentk("trace", "a", "-o", "json").json["root"]["children"]
    sent = [call["context"]["sentTokens"] for call in calls if call.get("context")]
    assert len(sent) > 30 and max(sent) <= BUDGET
    boat, cat = (next(page for page in window["pages"] if page["seq"] == seq) for seq in (5, 7))
    assert "brought back before message 71" in space.agentk("memory", "explain", "a/7").out
    return boat, cat


def test_a_page_that_shares_words_comes_back_and_one_below_the_threshold_does_not(space: Space) -> None:
    played(space, "In which harbour lies my vessel, my boat?", paging={"recallThreshold": 0.35})
    assert space.log("a") == ["In Faro.", '{"role":"user","content":"Some cat is called Miu."}', "Miu."]
    boat, cat = told(space)
    assert (boat["faults"], cat["faults"]) == (1, 1)


def test_a_page_that_means_the_same_comes_back_by_the_vectors_of_a_route(
    space: Space, embedding: loopback.Server
) -> None:
    params = {"model": "openai/e", "apiBase": f"{embedding.url}/v1"}
    space.apply(
        manifest("ModelRoute", "embeds", spec={"modelList": [{"modelName": "e", "litellmParams": params}]})
    )
    played(
        space,
        "At which harbour does that vessel berth?",
        embedder={"modelRef": {"name": "embeds"}, "model": "e"},
    )
    assert space.log("a")[0] == "In Faro." and space.log("a")[2] == "Miu."
    boat, cat = told(space)
    assert (boat["faults"], cat["faults"]) == (1, 1)
    assert any("vessel" in text for text in embedding.seen)
