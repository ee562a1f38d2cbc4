"""Managed context in a real household: a program that only appends, people who look, and a daemon that dies."""

import json
import secrets
from collections.abc import Iterator

import pytest

from agentk.broker import crash
from agentk.memory import database, driver, keeping
from tests.flows import household
from tests.flows.household import Household, Space, python

pytestmark = household.needs

RULES = [
    {
        "match": {"lastMessage": {"contains": "Where is"}, "anyMessage": {"contains": "moored in Faro"}},
        "reply": {"text": "In Faro."},
    },
    {"match": {"lastMessage": {"contains": "Where is"}}, "reply": {"text": "Nobody told me."}},
    {"reply": {"text": "Noted as {{turn}}."}},
]

CHAT = """
import json, os, urllib.request
messages = [{"role": "system", "content": "Listen."}]
def say(text):
    messages.append({"role": "user", "content": text})
    asked = {"model": "scripted", "messages": messages}
    for _ in range(60):
        body = json.dumps(asked).encode()
        headers = {"content-type": "application/json", "x-stainless-retry-count": str(_)}
        request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body, headers)
        try:
            told = json.load(urllib.request.urlopen(request, timeout=60))
            break
        except OSError as error:
            last = error
            if getattr(error, "code", 0) == 409:  # nobody knows whether it was answered: asked once more on purpose
                asked["user"] = "again"
    else:
        raise last
    messages.append(told["choices"][0]["message"])
    return told
for n in range(1, TURNS):
    say("My boat is moored in Faro." if n == 3 else f"Number {n} has {n * 7} parts, as everybody knows by now.")
told = say("Where is my boat?")
print(told["choices"][0]["message"]["content"], told["usage"]["prompt_tokens"] <= 700, flush=True)
"""
MEMORY = {"context": "managed", "contextTokens": 700}


def chat(space: Space, turns: int, **spec: object) -> None:
    space.apply(household.manifest("ModelRoute", "default", spec={"scripted": {"rules": RULES}}))
    space.apply(python("a", CHAT.replace("TURNS", str(turns)), memory=MEMORY, **spec))
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log("a"))


def test_a_program_that_only_appends_is_answered_of_what_left_its_window(space: Space) -> None:
    chat(space, 60)
    assert space.log("a") == ["In Faro. True"]
    drawn = space.agentk("memory", "map", "a").out
    assert (
        "counted by: scripted" in drawn
        and "of 700 tokens" in drawn
        and "swapped" in drawn
        and "\x1b" not in drawn
    )
    [window] = space.agentk("memory", "map", "a", "-o", "json").json["items"]
    assert window["tokens"]["total"] <= 700 and window["faults"] >= 1 and window["evictions"] > 60
    assert [page["seq"] for page in window["pages"] if page["kind"] != "episode"] == list(range(1, 120))
    counted = space.agentk("memory", "stats", "a", "-o", "json").json
    assert {what: counted[what] for what in ("faults", "evictions")} == {
        what: window[what] for what in ("faults", "evictions")
    }
    told = space.agentk("memory", "explain", "a/5").out
    assert "brought back before message 119" in told and "moored in Faro" in told and "similarity" in told
    swapped = next(page for page in window["pages"] if not page["resident"])
    assert "swapped  counted by: scripted" in space.agentk("memory", "explain", swapped["id"]).out
    traced = space.agentk("trace", "a").lines[-1]
    assert "sent " in traced and "recalled" in traced and "counted by scripted" in traced
    root = space.agentk("trace", "a", "-o", "json").json["root"]["children"][-1]["context"]
    assert root["sentTokens"] <= 700 < root["askedTokens"] and "recalled:5" in root["shown"]


# Talks of a word in its first turn, in many, in one that fails and one that is too long; then forgets all of it.
FORGETS = """
import json, os, urllib.error, urllib.request
from agentk.sdk import client
messages = []
def say(text):
    messages.append({"role": "user", "content": text})
    body = json.dumps({"model": "scripted", "messages": messages}).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body, headers)
    try:
        messages.append(json.load(urllib.request.urlopen(request, timeout=60))["choices"][0]["message"])
    except urllib.error.HTTPError as error:
        print(error.code)
        messages.pop()
word = "DROW"[::-1]
for n in range(16):
    say(f"Number {n} is called {word}, as all who are here have known for long by now.")
say(f"{word} fails")
say(word * 200)
with client.connect() as agent:
    while found := agent.memory_search(limit=100).items:
        done = agent.memory_forget(ids=[page.id for page in found])
    print(done.erased)
"""


def test_what_is_forgotten_of_a_conversation_is_in_no_record_of_its_calls(space: Space) -> None:
    word = f"kumquat{secrets.token_hex(8)}"
    fails = {"match": {"lastMessage": {"contains": "fails"}}, "error": {"status": 400, "message": "no"}}
    space.apply(household.manifest("ModelRoute", "default", spec={"scripted": {"rules": [fails, *RULES]}}))
    mine = {"context": "managed", "contextTokens": 500, "paging": {"fold": "model"}}
    space.apply(python("a", FORGETS.replace("DROW", word[::-1]), memory=mine))
    ended = space.phase("a", "Succeeded", "Failed")
    assert ended["reason"] == "Completed" and space.log("a") == ["400", "400", "True"], space.log("a")
    told = space.agentk("audit", "a", "--limit", "0", "-o", "json")
    assert told.out.count('"think"') > 19, "notes were asked of the model"
    assert word not in told.out
    store = space.home.places.state / "store"
    assert not [path for path in store.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


@pytest.fixture(scope="module")
def fragile() -> Iterator[Household]:
    with household.household() as home:
        yield home


STEPS = [
    *((point, "extractive") for point in crash.CONTEXT),
    *((point, "model") for point in ("context.folded", "context.written")),
]


@pytest.mark.parametrize(("point", "fold"), STEPS)
def test_the_daemon_dies_in_a_turn_and_nothing_is_lost(fragile: Household, point: str, fold: str) -> None:
    with household.space(fragile) as broken:
        (broken.home.crashes / point).touch()
        noting = {
            "match": {"anyMessage": {"contains": "You keep the notes"}},
            "reply": {"text": "Of numbers."},
        }
        broken.apply(
            household.manifest("ModelRoute", "default", spec={"scripted": {"rules": [noting, *RULES]}})
        )
        talks = CHAT.replace("TURNS", "24") + "print(json.dumps(messages))\n"
        broken.apply(python("a", talks, memory={**MEMORY, "paging": {"fold": fold}}))
        assert broken.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(broken.log("a"))
        assert not (broken.home.crashes / point).exists(), "nobody came by"
        answered, said = broken.log("a")
        assert answered == "In Faro. True"
        windows = broken.agentk("memory", "map", "a", "-o", "json").json["items"]
        assert len(windows) == 1
        pages = [page for page in windows[0]["pages"] if page["kind"] != "episode"]
        assert [page["seq"] for page in pages] == list(range(1, 48))
        notes = {page["id"] for page in windows[0]["pages"] if page["kind"] == "episode"}
        assert notes and all(page["note"] in notes for page in pages if not page["resident"])
        kept = _kept(broken, [page["id"] for page in pages])
        assert [json.loads(content) for content in kept] == json.loads(said)[1:-1], (
            "word for word, in their order"
        )
        exported = broken.agentk("memory", "ls", "a", "--limit", "200", "-o", "json").json["items"]
        assert {page["id"] for page in exported} == {page["id"] for page in pages} | notes, "nothing twice"


def _kept(space: Space, ids: list[str]) -> list[bytes]:
    conn = driver.connect(space.home.places.state / "store" / database.DATABASE, reading=True)
    try:
        rooms = [number for (number,) in conn.execute("SELECT id FROM rooms").fetchall()]
        return [page.content for page in keeping.get(conn, rooms, ids)]
    finally:
        conn.close()
