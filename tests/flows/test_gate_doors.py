"""The doors of a box lead to the gate, both of them, from the first instruction on."""

import json

from tests.flows import household
from tests.flows.household import Space, python

pytestmark = household.needs

ASK = """
import json, os, socket, sys, urllib.error, urllib.request

def native(line):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(os.environ["AGENTK_SOCKET"])
        sock.sendall(line.encode() + b"\\n")
        return json.loads(sock.makefile().readline())

def http(path):
    try:
        return urllib.request.urlopen(os.environ["ANTHROPIC_BASE_URL"] + path).status
    except urllib.error.HTTPError as error:
        return error.code

def both():
    told = native(json.dumps({"jsonrpc": "2.0", "id": 7, "method": "no.such", "params": {}}))
    print(told["id"], told["error"]["data"]["reason"], http("/nothing/here"), flush=True)

both()
"""


@household.on_both
def test_a_program_reaches_the_gate_by_both_doors(space: Space) -> None:
    space.apply(python("a", ASK))
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed"
    assert space.agentk("logs", "a").lines == ["7 MethodNotAllowed 404"]


@household.on_both
def test_a_box_knows_where_models_are_and_holds_no_key(space: Space) -> None:
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    space.apply(python("a", script, network={"egress": {"allow": [{"host": "api.example.com"}]}}))
    space.apply(python("b", script))
    for name in ("a", "b"):
        assert space.phase(name, "Succeeded", "Failed")["reason"] == "Completed", space.log(name)
    env = json.loads(space.agentk("logs", "a").out)
    assert env["OPENAI_BASE_URL"] == "http://127.0.0.1:8700/v1"
    assert env["ANTHROPIC_BASE_URL"] == env["HTTPS_PROXY"] == env["http_proxy"] == "http://127.0.0.1:8700"
    assert env["OPENAI_API_KEY"] == env["ANTHROPIC_API_KEY"] == "agentk-holds-the-key"
    assert env["TRACEPARENT"].split("-")[0] == "00" and len(env["TRACEPARENT"]) == 55
    assert "HTTPS_PROXY" not in json.loads(space.agentk("logs", "b").out)


THINK = """
import agentk.sdk.client as sdk
with sdk.connect() as agent:
    print(agent.think("What is the capital of France?"))
"""


@household.on_both
def test_an_agent_thinks_without_a_key_and_it_is_on_record(space: Space) -> None:
    rules = [{"match": {"lastMessage": {"contains": "France"}}, "reply": {"text": "Paris."}}]
    space.apply(household.manifest("ModelRoute", "default", spec={"scripted": {"rules": rules}}))
    space.apply(python("a", THINK))
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log("a"))
    assert space.agentk("logs", "a").lines == ["Paris."]
