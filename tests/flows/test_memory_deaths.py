"""kill -9 at every step of remembering, forgetting and embedding anew: nothing is kept twice, lost, or left behind."""

import secrets
from collections.abc import Iterator

import pytest

from agentk.api import kinds
from agentk.broker import crash
from tests.flows import household
from tests.flows.household import Household, Object, manifest, python, until

pytestmark = household.needs

CALLING = """
import sys
from agentk.sdk import client, errors
agent = client.connect()
secret = sys.argv[1][::-1]
kept = agent.remember("It is " + secret)
print(len(agent.memory_search("", limit=10).items), flush=True)
agent.recall(secret)
print(len(agent.forget(ids=[kept.id]).forgotten), flush=True)
print(len(agent.memory_search("", limit=10).items), flush=True)
"""


@pytest.fixture(scope="module")
def fragile() -> Iterator[Household]:
    with household.household() as home:
        yield home


@pytest.mark.parametrize("point", [*sorted({*crash.MEMORY} - {"memory.embedded"}), "call.handled"])
def test_the_daemon_dies_in_a_call_of_memory(fragile: Household, point: str) -> None:
    secret = f"kumquat{secrets.token_hex(16)}"
    with household.space(fragile) as broken:
        (broken.home.crashes / point).touch()
        agent = python("a", CALLING, memory={})
        agent["spec"]["command"].append(secret[::-1])
        broken.apply(agent)
        assert broken.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(broken.log("a"))
        kept, forgotten, left = broken.log("a")
        # Who asks again after a death was told by nobody what went; gone it is all the same.
        assert (kept, left) == ("1", "0") and forgotten in ("1", "0")
        assert not (broken.home.crashes / point).exists(), "nobody came by"
        until("nothing of it is in a file of the daemon", lambda: not _held(fragile, secret))


def test_the_daemon_dies_while_pages_are_embedded_anew(fragile: Household) -> None:
    saying = "from agentk.sdk import client\nagent = client.connect()\n"
    saying += "for n in range(100): agent.remember(f'fact {n} about topic{n}')\n"
    with household.space(fragile) as broken:
        spec: Object = {"dimensions": 64}
        broken.apply(
            manifest("Memory", "team", spec=spec), python("a", saying, memory={"ref": {"name": "team"}})
        )
        broken.phase("a", "Succeeded")
        (broken.home.crashes / "memory.embedded").touch()
        broken.apply(manifest("Memory", "team", spec={"dimensions": 32}))

        def embedding() -> Object:
            told = household.again(lambda: broken.get("team", kinds.MEMORY))
            found: Object = (told.get("status") or {}).get("embedding") or {}
            return found

        broken.home.answers()
        until(
            "all are embedded",
            lambda: embedding().get("embedder", "").endswith("/32") and embedding()["done"] == 100,
        )
        assert not (broken.home.crashes / "memory.embedded").exists(), "nobody came by"
        assert broken.get("team", kinds.MEMORY)["status"]["pages"] == 100


def _held(home: Household, secret: str) -> list[str]:
    store = home.places.state / "store"
    return [path.name for path in store.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
