"""Agents that talk, share and say, through the gate, each in a real jail."""

import re
import sqlite3
from contextlib import closing

from agentk.broker.guests import SPAWNED_BY
from tests.flows import household
from tests.flows.household import Object, Space, python

pytestmark = household.needs

ASKING = """
from agentk.sdk import client
agent = client.connect()
answers = []
agent.message_send("answering", {"question": 6 * 7})
while len(answers) < 3:
    for message in agent.message_recv(wait_seconds=60):
        answers.append((message.from_.split("/")[1], message.body, bool(message.reply_to)))
        agent.message_ack([message.id])
        if len(answers) < 3:
            agent.message_send("answering", {"question": len(answers)}, reply_to=message.id)
print(answers)
"""
ANSWERING = """
from agentk.sdk import client
agent = client.connect()
for _ in range(3):
    (message,) = agent.message_recv(max=1, wait_seconds=60)
    agent.message_send(message.from_, message.body["question"] + 1, reply_to=message.id)
    agent.message_ack([message.id])
"""


def test_two_agents_talk(space: Space) -> None:
    space.apply(python("answering", ANSWERING), python("asking", ASKING))
    for name in ("asking", "answering"):
        assert space.phase(name, "Succeeded", "Failed")["reason"] == "Completed", space.log(name)
    expected = [("answering", 43, True), ("answering", 2, True), ("answering", 3, True)]
    assert space.log("asking") == [str(expected)]


COUNTING = """
from agentk.sdk import client
agent = client.connect()
for _ in range(20):
    with agent.lock("counter", wait_seconds=60):
        seen = agent.state_get("count", scope="family").value or 0
        agent.state_put("count", seen + 1, scope="family")
agent.event_emit("counting.done", {"who": agent.hello().agent})
"""
WATCHING = """
from agentk.sdk import client
agent = client.connect()
print("listening", flush=True)
done, exited = set(), set()
for event in agent.events(["counting.*", "agent.*"], after=0):
    if event.type == "counting.done":
        done.add(event.data["who"])
    if event.type == "agent.exited":
        exited.add((event.source.split("/")[1], event.data["reason"], event.data["phase"]))
    if len(done) == 2 and len(exited) == 2:
        break
print(agent.state_get("count", scope="family").value, sorted(done), sorted(exited))
"""


def test_siblings_share_a_lock_and_those_above_hear_of_them(space: Space) -> None:
    space.apply(python("top", WATCHING))
    space.logged("top", "listening")
    uid = space.get("top")["metadata"]["uid"]
    space.apply(spawned("one", uid), spawned("two", uid))
    assert space.phase("top", "Succeeded", "Failed")["reason"] == "Completed", space.log("top")
    exits = [("one", "Completed", "Succeeded"), ("two", "Completed", "Succeeded")]
    assert space.log("top")[-1] == f"40 ['one', 'two'] {exits}"
    scopes = stored(space)
    assert f"family/{uid}" in scopes
    for name in ("one", "two", "top"):
        space.delete(name)
    household.until("what they kept is erased", lambda: f"family/{uid}" not in stored(space))


def spawned(name: str, parent: str) -> Object:
    made = python(name, COUNTING)
    made["metadata"]["annotations"] = {SPAWNED_BY: parent}
    return made


def stored(space: Space) -> set[str]:
    """Whose things are kept."""
    path = space.home.places.state / "store" / "journal.db"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as conn:
        return {scope for (scope,) in conn.execute("SELECT scope FROM holdings")}


SAYING = """
import sys
from agentk.sdk import client
agent = client.connect()
sys.stderr.write("torn ")
sys.stderr.flush()
agent.log("first\\nof two", level="warning", fields={"count": 3, "who": "me", "path": "a b", "list": [1]})
agent.log("x" * 60000)
print("torn too", file=sys.stderr)
"""


@household.on_both
def test_what_an_agent_says_is_in_its_log_as_whole_lines(space: Space) -> None:
    space.apply(python("saying", SAYING))
    assert space.phase("saying", "Succeeded", "Failed")["reason"] == "Completed", space.log("saying")
    lines = space.agentk("logs", "saying").lines
    assert 'level=warning msg="first\\nof two" count=3 who=me path="a b" list=[1]' in lines
    assert f'level=info msg="{"x" * 60000}"' in lines
    assert "torn torn too" in lines and len(lines) == 3


SURVIVING = """
from agentk.sdk import client
agent = client.connect()
print("ready", flush=True)
(message,) = agent.message_recv(wait_seconds=300)
agent.log("heard", fields={"body": message.body})
"""


def test_a_wait_survives_the_daemon(alone: Space) -> None:
    alone.apply(python("waits", SURVIVING))
    alone.logged("waits", "ready")
    alone.home.kill("daemon")
    send = 'from agentk.sdk import client\nclient.connect().message_send("waits", "after")'
    household.again(lambda: alone.apply(python("sends", send)))
    assert alone.phase("waits", "Succeeded", "Failed")["reason"] == "Completed", alone.log("waits")
    assert any(re.search("msg=.?heard.? body=after", line) for line in alone.agentk("logs", "waits").lines)
