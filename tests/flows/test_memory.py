"""Memory with a real daemon and jails: kept, found, shared, embedded anew, bounded, and forgotten for good."""

import base64
import json
import secrets
import tempfile
from pathlib import Path
from typing import Any

from agentk.api import kinds
from agentk.cli import waiting
from tests.flows import household
from tests.flows.household import Household, Object, Space, manifest, python, until
from tests.flows.test_examples import output
from tests.memory.test_sentences import model

pytestmark = household.needs

CALLING = """
import json, sys
from agentk.sdk import client, errors
agent = client.connect()
def told(one):
    made = one._asdict()
    return {**made, "items": [item._asdict() for item in made["items"]]} if "items" in made else made
for name, arguments in json.loads(sys.argv[1][::-1]):
    try:
        print(json.dumps(told(getattr(agent, "memory_" + name)(**arguments))), flush=True)
    except errors.CallError as error:
        print(json.dumps([error.reason, str(error)]), flush=True)
"""


def calls(
    space: Space, memory: Object | None, *made: tuple[str, Object], name: str = "a", **spec: Any
) -> list[Any]:
    """What an agent with this memory is told, one line a call."""
    agent = python(name, CALLING, **({} if memory is None else {"memory": memory}), **spec)
    agent["spec"]["command"].append(json.dumps(made)[::-1])  # so that nothing of it is in the object
    space.apply(agent)
    ended = space.phase(name, "Succeeded", "Failed")
    assert ended["reason"] == "Completed", "\n".join(space.log(name))
    return [json.loads(line) for line in space.log(name)]


def gone(space: Space, name: str) -> None:
    uid = space.get(name)["metadata"]["uid"]
    space.api.delete(kinds.AGENT, space.name, name)
    waiting.gone(space.api, kinds.AGENT, space.name, name, uid, waiting.deadline(household.SECONDS))


def memory(name: str, **spec: Any) -> Object:
    return manifest("Memory", name, spec=spec)


def texts(answer: Object) -> list[str]:
    return [item["content"] for item in answer["items"]]


def test_what_an_agent_remembers_is_found_and_outlives_it(space: Space) -> None:
    space.apply(memory("team"))
    kept, found, *_ = calls(
        space,
        {"ref": {"name": "team"}},
        ("remember", {"content": "Invoices are due on the fifth.", "name": "invoices", "tags": ["money"]}),
        ("search", {"query": "when is an invoice due?"}),
        ("remember", {"content": "The cat sleeps."}),
    )
    assert kept["embedded"] and kept["name"] == "invoices"
    assert found["items"][0]["id"] == kept["id"] and found["items"][0]["agent"] == "a"
    gone(space, "a")
    told, named, none = calls(
        space,
        {"ref": {"name": "team"}},
        ("recall", {"query": "due invoice", "tags": ["money"]}),
        ("recall", {"names": ["invoices", "nothing"]}),
        ("recall", {"query": "zzzz qqqq"}),
    )
    assert texts(told) == texts(named) == ["Invoices are due on the fifth."]
    assert named["missing"] == ["nothing"] and none["items"] == []
    status = until(
        "its status", lambda: (space.get("team", kinds.MEMORY).get("status") or {}).get("searches") == 3
    )
    assert status
    told_of = space.get("team", kinds.MEMORY)["status"]
    assert (told_of["pages"], told_of["agents"], told_of["hitRate"]) == (2, 1, "67%")


def test_pages_are_an_agents_own_unless_they_are_shared(space: Space) -> None:
    space.apply(memory("closed"), memory("open", sharing={"agents": ["wr*", "reader"], "write": True}))
    for where in ("closed", "open"):
        ref = {"ref": {"name": where}}
        calls(
            space, ref, ("remember", {"content": "the safe opens with 4711", "name": "safe"}), name="writer"
        )
        gone(space, "writer")
    asks = [
        ("recall", {"names": ["safe"]}),
        ("recall", {"query": "safe 4711"}),
        ("forget", {"names": ["safe"]}),
    ]
    for name, where, sees in (
        ("reader", "closed", 0),
        ("outsider", "open", 0),
        ("reader2", "open", 0),
        ("reader", "open", 1),
    ):
        named, asked, forgot = calls(space, {"ref": {"name": where}}, *asks, name=name)
        assert (len(named["items"]), len(asked["items"]), len(forgot["forgotten"])) == (sees, sees, sees), (
            name
        )
        gone(space, name)


def test_what_is_forgotten_is_in_no_file_of_the_daemon(space: Space) -> None:
    secret = f"kumquat{secrets.token_hex(16)}"
    kept, found, told, gone, again = calls(
        space,
        {},
        ("remember", {"content": f"The word is {secret}. " * 2000, "name": f"word-{secret[:9]}"}),
        ("search", {"query": "word"}),
        ("recall", {"query": "word"}),
        ("forget", {"names": [f"word-{secret[:9]}"]}),
        ("recall", {"names": [f"word-{secret[:9]}"]}),
    )
    assert secret in told["items"][0]["content"] and secret in found["items"][0]["snippet"]
    assert gone == {"forgotten": [kept["id"]], "erased": True, "checkpoints": 0} and again["items"] == []
    assert _held(space, secret) == []


def test_a_memory_that_is_deleted_is_forgotten_with_its_pages(space: Space) -> None:
    secret = f"kumquat{secrets.token_hex(16)}"
    space.apply(memory("team"))
    for name, mine in (("a", {"ref": {"name": "team"}}), ("b", {})):
        calls(space, mine, ("remember", {"content": f"{name} {secret}"}), name=name)
    assert "memory.db" in "".join(_held(space, secret))
    space.api.delete(kinds.MEMORY, space.name, "team")
    gone(space, "b")
    until(
        "nothing of it is in the memory", lambda: not any("memory" in name for name in _held(space, secret))
    )


def test_the_example_shares_what_its_scout_found(home: Household) -> None:
    def seen() -> None:
        there = Space(home, "shared-memory")
        # A line may be seen before all of it is written.
        household.until(
            "the visitor has looked", lambda: any(line[-1:].isdigit() for line in there.log("visitor"))
        )
        assert there.log("visitor") == ["sees: 0"]

    assert output(home, "shared-memory", "analyst", seen) == [
        "finds: The roof of hall 3 is leaking since March. by scout",
        "whole: The key of the archive lies in the kitchen.",
        "forgets: True",
    ]


def _held(space: Space, secret: str) -> list[str]:
    """Files of the daemon's store that have it."""
    store = space.home.places.state / "store"
    return [path.name for path in store.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_limits_and_what_is_not_given_refuse(space: Space) -> None:
    small = {"limits": {"pages": 2, "bytes": 100}}
    first, large, second, third, nan, syntax = calls(
        space,
        small,
        ("remember", {"content": "one"}),
        ("remember", {"content": "x" * 101}),
        ("remember", {"content": "two", "name": "t"}),
        ("remember", {"content": "three"}),
        ("remember", {"content": "n", "importance": float("nan")}),
        ("search", {"query": '"one" OR stem:room1x NEAR(*'}),
    )
    assert first["id"] and second["id"]
    assert large[0] == third[0] == "RequestEntityTooLarge" and "limits.pages" in third[1]
    assert isinstance(nan, list)
    assert {item["snippet"] for item in syntax["items"]} <= {"one", "two"}
    assert calls(space, None, ("search", {}), name="b")[0][0] == "NotFound"


def test_a_new_embedder_takes_over_behind_the_back_of_searches(space: Space) -> None:
    space.apply(
        memory("team"),
        manifest("ModelRoute", "mine", spec={"scripted": {"rules": [{"reply": {"text": "hi"}}]}}),
    )
    ref = {"ref": {"name": "team"}}
    calls(space, ref, *[("remember", {"content": f"fact {n} about topic{n}"}) for n in range(50)])
    space.apply(memory("team", embedder={"modelRef": {"name": "nowhere"}, "model": "scripted"}))

    def embedding() -> Object:
        told: Object = (space.get("team", kinds.MEMORY).get("status") or {}).get("embedding") or {}
        return told

    until("it says why it does not get on", lambda: "nowhere" in embedding().get("error", ""))
    (found,) = calls(
        space, ref, ("recall", {"query": "topic7", "limit": 1}), name="b", policyRef={"name": "privileged"}
    )
    assert found["items"] == []  # its own room is empty, and b is not a
    space.apply(memory("team", embedder={"modelRef": {"name": "mine"}, "model": "scripted"}))
    until("all is embedded anew", lambda: embedding().get("done") == embedding().get("total") == 50)
    assert embedding()["embedder"] == "route/mine/scripted" and "error" not in embedding()
    gone(space, "a")
    kept, told = calls(
        space,
        ref,
        ("remember", {"content": "a thing that is new"}),
        ("search", {"query": "topic33", "limit": 1}),
    )
    assert kept["embedded"] and told["items"][0]["snippet"] == "fact 33 about topic33"
    assert told["embedder"] == "route/mine/scripted"


def test_a_child_has_its_parents_memory_or_none_and_no_room_by_its_name(space: Space) -> None:
    space.apply(memory("team"), memory("other"))
    ref = {"ref": {"name": "team"}}
    calls(space, ref, ("remember", {"content": "mine alone", "name": "n"}), name="victim")
    gone(space, "victim")
    child = python("victim", CALLING, memory=ref)["spec"]
    child["command"].append(json.dumps([("recall", {"names": ["n"]}), ("search", {})])[::-1])
    spawning = f"""
import json
from agentk.sdk import client, errors
agent = client.connect()
spec = json.loads({json.dumps(json.dumps(child))})
for memory in ({{"ref": {{"name": "other"}}}}, {{}}):
    try:
        agent.agent_spawn({{**spec, "memory": memory}}, name="wider")
        print("spawned")
    except errors.CallError as error:
        print(error.reason)
made = agent.agent_spawn(spec, name="victim")
print(agent.agent_wait("victim", wait_seconds=60).finished)
"""
    space.apply(python("parent", spawning, memory=ref))
    space.phase("parent", "Succeeded", "Failed")
    assert space.log("parent")[:2] == ["Invalid", "Invalid"], space.log("parent")
    named, listed = (json.loads(line) for line in space.log("victim"))
    assert named["items"] == [] and listed["pages"] == 0


def test_people_look_add_move_and_forget(space: Space, tmp_path: Path) -> None:
    space.apply(
        memory("team"), python("a", "pass", memory={"ref": {"name": "team"}}), python("b", "pass", memory={})
    )
    odd = "ä\x01\r\n" * 1000
    kept = space.agentk(
        "memory", "put", "a", "Invoices are due on the fifth.", "--name", "invoices", "--tag", "money"
    )
    space.agentk("memory", "put", "memory/team", "-", "--agent", "a", stdin=odd)
    page = kept.out.split()[0]
    assert page in space.agentk("memory", "ls", "a", "--tag", "money").out
    assert page in space.agentk("memory", "search", "memory/team", "due", "invoice").out
    assert space.agentk("memory", "get", "a", "invoices").out == "Invoices are due on the fifth."
    space.agentk("memory", "export", "a", "-f", str(tmp_path / "a.jsonl"))
    for _ in range(2):
        space.agentk("memory", "import", "b", "-f", str(tmp_path / "a.jsonl"))
    told = space.agentk("memory", "export", "b").lines
    first, second = (json.loads(line) for line in told[1:])
    assert first["content"] == "Invoices are due on the fifth." and first["id"] != page
    assert first["origin"]["from"] == f"{space.name}/a" and first["origin"]["page"] == page
    assert base64.b64decode(second["contentBase64"]).decode() == odd
    assert space.agentk("memory", "stats", "b", "-o", "json").json["pages"] == 2
    gone = space.agentk("memory", "forget", "a", "invoices")
    assert gone.out == f"{page} forgotten\n" and "Nothing of it is left" in gone.err
    space.agentk("memory", "forget", "memory/team", "--all")
    assert space.agentk("memory", "ls", "memory/team").out == ""
    bad = space.agentk("memory", "import", "b", stdin='{"format": "agentk/memory/1"}\n{"id": 7}\n', code=1)
    assert "line 2" in bad.err
    assert "the first line says" in space.agentk("memory", "import", "b", stdin="{}\n", code=1).err
    assert "none of system, user" in space.agentk("memory", "ls", "b", "--kind", "notes", code=1).err
    space.agentk("memory", "get", "a", "invoices", code=1)


def test_a_sentence_model_of_the_owners_embeds_in_a_process_of_its_own() -> None:
    with tempfile.TemporaryDirectory(prefix="akm-") as place:
        folder = model(Path(place) / "tiny")
        for path in (Path(place), folder):
            path.chmod(0o755)
        with household.household(AGENTK_SENTENCE_MODEL=str(folder)) as home, household.space(home) as space:
            kept, found = calls(
                space,
                {"embedder": {"sentence": True}},
                ("remember", {"content": "the invoice is due"}),
                ("search", {"query": "due invoice"}),
            )
            assert kept["embedded"] and found["items"][0]["by"] == ["vector", "words"]
            assert found["embedder"].startswith("sentence/tiny-") and found["embedded"] == 1
