"""A person is asked, and answers at a terminal; the agents are in real jails and the daemon may die at every step."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentk
from agentk.api import errors, kinds
from agentk.broker import crash
from agentk.client import client, wire
from tests.flows import household
from tests.flows.household import Household, Object, Space, python

pytestmark = household.needs

ASK = """
import agentk.sdk.client as sdk, agentk.sdk.errors as errors, sys
with sdk.connect() as agent:
    for code in sys.argv[1:]:
        try:
            print(agent.exec_shell(code).stdout.strip(), flush=True)
        except errors.CallError as error:
            print(error.reason + ":", error.message, flush=True)
"""
AGENTOS = (Path(__file__).parent / "agentos_client.py").read_text()
COUNTED = "echo once >> /workspace/done; wc -l < /workspace/done"


def policy(name: str, *, rules: list[Object] | None = None, **approvals: Any) -> Object:
    asked = {"name": "code", "effect": "Ask", "methods": ["exec"]}
    rest = {"name": "rest", "effect": "Allow", "methods": ["*"]}
    spec = {"level": "baseline", "rules": rules or [asked, rest], "approvals": approvals}
    return household.manifest("Policy", name, spec=spec)


def asker(name: str, space: Space, *codes: str, **spec: Any) -> Object:
    made = python(name, ASK, policyRef={"name": space.name}, **spec)
    made["spec"]["command"] += codes
    return made


def pending(space: Space, count: int = 1) -> list[str]:
    """Names of the Approvals that wait, as soon as there are so many."""

    def found() -> list[str]:
        there = space.api.list(client.Selection(kinds.APPROVAL, space.name)).items
        names = [one["metadata"]["name"] for one in there if phase(one) == "Pending"]
        return names if len(names) == count else []

    return list(household.until("somebody is asked", lambda: household.again(found)))


def phase(obj: Object) -> str:
    return str((obj.get("status") or {}).get("phase", "Pending"))


def done(space: Space, name: str) -> list[str]:
    assert space.phase(name, "Succeeded", "Failed")["reason"] == "Completed", "\n".join(space.log(name))
    return space.log(name)


def answer(space: Space, name: str, verb: str = "approve", **body: Any) -> None:
    """As the command does, without a process for it."""
    space.api.request("POST", kinds.APPROVAL.path(space.name, name, verb), body=body)


def forget(space: Space) -> None:
    space.api.delete(kinds.POLICY, "", space.name)


def test_a_person_is_asked_and_answers(space: Space) -> None:
    space.apply(policy(space.name), asker("a", space, "echo hello", "echo bye"))
    (name,) = pending(space)
    row = space.agentk("get", "approvals", "--no-headers").lines[0]
    assert row.split()[:2] == [name, "a"] and "exec: echo hello" in row and "Pending" in row
    told = space.agentk("describe", "approval", name).out
    assert space.get(name, kinds.APPROVAL)["spec"]["parts"][0]["digest"] not in told
    assert "echo hello" in told and "wants a person asked before exec of shell" in told
    space.agentk("wait", "agent/a", "--for=condition=AwaitingApproval", "--timeout=100s")
    assert f"agentk approve {name}" in space.agentk("describe", "agent", "a").out
    assert "agentk get approvals -l agentk.dev/agent=a" in space.agentk("approve", "a", code=1).err
    assert space.agentk("approve", name, "--reason", "harmless").lines == [
        f"approval.agentk.dev/{name} approved"
    ]
    space.agentk("wait", f"approval/{name}", "--for=condition=Approved", "--timeout=100s")
    (other,) = pending(space)
    assert "is Approved already" in space.agentk("approve", name, code=1).err
    space.agentk("deny", f"approval/{other}", "--reason", "not today")
    lost = space.agentk("wait", f"approval/{other}", "--for=condition=Approved", code=1)
    assert "not today" in lost.err
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    said, refused = done(space, "a")
    assert said == "hello" and refused.startswith(f"ApprovalDenied: {user} said no: not today")
    who = f"{user} (uid {os.getuid()})"
    assert any(
        "exec  shell  ok" in line and f"approved by {who}" in line
        for line in space.agentk("trace", "a").lines
    )
    calls = space.agentk("audit", "a", "-o", "json").json["items"]
    assert [(one["method"], one["status"]) for one in calls] == [
        ("approval.approve", "ok"), ("exec", "ok"), ("approval.deny", "ok"), ("exec", "denied"),
    ]  # fmt: skip
    assert calls[0]["meta"] == {"approval": name, "by": user, "byUid": os.getuid()}
    assert {"ApprovalRequested", "ApprovalApproved", "ApprovalDenied"} <= set(space.events("a"))
    forget(space)


def test_nobody_but_the_gate_makes_one(space: Space) -> None:
    space.create(policy(space.name), asker("a", space, "true"))
    (name,) = pending(space)
    obj = space.get(name, kinds.APPROVAL)
    told = space.agentk("apply", "-f", "-", stdin=json.dumps(obj), code=1).err
    assert "made by agentk alone" in told and "agentk approve" in told
    for method, path in (("PATCH", ""), ("PATCH", "/status"), ("PUT", "/status")):
        made = {**obj, "status": {"phase": "Approved"}}
        with pytest.raises(Exception, match="made by agentk alone"):
            space.api.request(
                method, kinds.APPROVAL.path(space.name, name) + path, body=made,
                content_type="application/merge-patch+json" if method == "PATCH" else "application/json",
            )  # fmt: skip
    assert phase(space.get(name, kinds.APPROVAL)) == "Pending"
    space.agentk("delete", "approval", name)
    assert done(space, "a")[0].startswith("ApprovalDenied: the Approval was deleted")
    forget(space)


def test_what_is_remembered_is_asked_once(space: Space) -> None:
    space.create(policy(space.name), asker("a", space, "echo 1", "echo 1", "printf 2", "printf 3"))
    pending(space)
    space.agentk("approve", "-l", "agentk.dev/agent=a", "--remember")
    (name,) = pending(space)
    assert "exec: printf 2" in space.get(name, kinds.APPROVAL)["spec"]["summary"]
    assert "goes with --remember" in space.agentk("approve", name, "--match", "code=printf *", code=2).err
    space.agentk("approve", name, "--remember", "--match", "code=printf *")
    assert done(space, "a") == ["1", "1", "2", "3"]
    forget(space)


def test_an_agent_that_is_killed_asks_no_more(space: Space) -> None:
    space.create(policy(space.name), asker("a", space, "true"))
    (name,) = pending(space)
    space.agentk("kill", "a", "--grace-period", "0")
    space.agentk("wait", f"approval/{name}", "--for=condition=Finished", "--timeout=100s")
    obj = space.get(name, kinds.APPROVAL)
    assert (phase(obj), obj["status"]["reason"]) == ("Expired", "its agent has ended")
    space.delete("a")
    there = client.Selection(kinds.APPROVAL, space.name)
    household.until("it went with its agent", lambda: not space.api.list(there).items)
    forget(space)


def test_a_frozen_agent_has_its_answer_when_it_can_read_it(space: Space) -> None:
    space.create(policy(space.name), asker("a", space, "echo hello"))
    (name,) = pending(space)
    space.agentk("suspend", "a")
    space.phase("a", "Suspended")
    answer(space, name)
    space.agentk("resume", "a")
    assert done(space, "a") == ["hello"]
    forget(space)


def test_time_answers_as_the_rule_says(space: Space) -> None:
    rules = [
        {
            "name": "soon", "effect": "Ask", "methods": ["exec"], "languages": ["shell"],
            "approval": {"timeout": "1s", "default": "Allow"},
        },
        {"name": "rest", "effect": "Allow", "methods": ["*"]},
    ]  # fmt: skip
    space.create(policy(space.name, rules=rules), asker("a", space, "echo late"))
    assert done(space, "a") == ["late"]
    del rules[0]["approval"]  # type: ignore[arg-type]
    space.create(policy(space.name, rules=rules, timeout="1s"), asker("b", space, "echo late"))
    assert done(space, "b")[0].startswith("ApprovalRequired: nobody has approved it in time")
    forget(space)


WRITE = """
import time
from agentos import AgentOS

kernel = AgentOS()
kernel.ask(0x02, command="printf 'one\\ntwo\\n' > notes.txt")
for content in ("one\\n2\\n", "other\\n"):
    told = kernel.ask(0x04, path="notes.txt", content=content)
    print(told.get("error") or told["success"], flush=True)
print(repr(kernel.ask(0x03, path="notes.txt")["content"]), flush=True)
"""


def test_who_is_asked_about_a_file_sees_the_diff_and_a_changed_one_refuses(space: Space) -> None:
    rules = [
        {"name": "writing", "effect": "Ask", "methods": ["exec"], "files": ["/workspace/*"], "languages": ["argv"]},
        {"name": "rest", "effect": "Allow", "methods": ["*"]},
    ]  # fmt: skip
    files = {"main.py": WRITE, "agentos.py": AGENTOS}
    space.create(
        policy(space.name, rules=rules),
        household.agent(
            "a", "python", "main.py", source={"inline": {"files": files}}, policyRef={"name": space.name}
        ),
    )
    (name,) = pending(space)
    told = space.agentk("describe", "approval", name).out
    assert [line.strip() for line in told.splitlines() if line.strip()[:1] in "+-@"][:5] == [
        "--- notes.txt", "+++ notes.txt", "@@ -1,2 +1,2 @@", "-two", "+2",
    ]  # fmt: skip
    answer(space, name)
    (name,) = pending(space)
    space.agentk("exec", "a", "--", "sh", "-c", "echo three >> /workspace/notes.txt")
    answer(space, name)
    (name,) = pending(space)  # READ, of what has one more line and was not overwritten
    answer(space, name)
    said = done(space, "a")
    assert said[0] == "True" and "notes.txt is not what it was" in said[1]
    assert said[2] == repr("one\n2\nthree\n")
    forget(space)


def test_a_script_that_changed_is_not_run(space: Space) -> None:
    """Whatever the agent's own environment says of where its programs are."""
    swap = ASK.replace("with sdk", "open('/workspace/job.sh', 'w').write('echo good')\nwith sdk")
    made = python(
        "a", swap, policyRef={"name": space.name}, env=[{"name": "PATH", "value": "/workspace:/usr/bin"}]
    )
    made["spec"]["command"] += ["sh job.sh", "sh job.sh"]
    space.create(policy(space.name), made)
    (name,) = pending(space)
    files = space.get(name, kinds.APPROVAL)["spec"]["files"]
    assert [one["path"] for one in files] == ["job.sh"]
    lie = "#!/bin/sh\\necho " + files[0]["sha256"] + "  -\\n"
    space.agentk(
        "exec", "a", "--", "sh", "-c",
        f"echo 'echo evil' > /workspace/job.sh; printf '{lie}' > /workspace/sha256sum; chmod +x /workspace/sha256sum",
    )  # fmt: skip
    answer(space, name)
    (name,) = pending(space)
    answer(space, name)
    said = done(space, "a")
    assert said[0].startswith("Conflict: job.sh is not what it was") and said[1] == "evil"
    forget(space)


TOOL = """
import agentk.sdk.client as sdk, agentk.sdk.errors as errors
with sdk.connect() as agent:
    for text in ("one", "two"):
        try:
            print(agent.tool_call("say", {"text": text}), flush=True)
        except errors.CallError as error:
            print(error.reason, error.message, flush=True)

import http.client, json
door = http.client.HTTPConnection("127.0.0.1", 8700)
call = {"name": "say", "arguments": {"text": "three"}}
headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
headers["mcp-protocol-version"] = "2025-11-25"
asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
door.request("POST", "/mcp", json.dumps(asked), headers)
told = door.getresponse().read().decode()
print("by MCP", "ApprovalDenied" in told and '"isError":true' in told.replace(" ", "") or told, flush=True)
"""


def test_a_grant_that_requires_approval_asks_for_the_tool_as_it_is(space: Space) -> None:
    text = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    say = {"argv": ["echo", "{text}"], "parameters": text}
    granted = [{"ref": {"name": "say"}, "requireApproval": ["*"]}]
    space.create(
        policy(space.name, rules=[{"name": "all", "effect": "Allow", "methods": ["*"]}]),
        household.manifest("Tool", "say", spec={"command": say}),
        python("a", TOOL, tools=granted, policyRef={"name": space.name}),
    )
    (name,) = pending(space)
    spec = space.get(name, kinds.APPROVAL)["spec"]
    assert (spec["rule"], spec["summary"]) == ("tools[say].requireApproval", 'tool.call: say {"text": "one"}')
    answer(space, name)
    (name,) = pending(space)
    changed = {"argv": ["echo", "evil", "{text}"], "parameters": text}
    space.create(household.manifest("Tool", "say", spec={"command": changed}))
    answer(space, name)
    (name,) = pending(space)
    assert space.get(name, kinds.APPROVAL)["spec"]["arguments"]["arguments"] == {"text": "three"}
    answer(space, name, "deny")
    said = [line for line in done(space, "a") if line]
    assert said[0] == "one" and said[1].startswith("Conflict tool/say is not what it was")
    assert said[2] == "by MCP True"
    forget(space)


def test_a_run_where_nobody_can_be_asked_says_so_and_ends() -> None:
    with household.folder() as folder:
        home = Household(folder)
        rules = [{"name": "all", "effect": "Ask", "methods": ["*"]}]
        asks = python("a", ASK, policyRef={"name": "p"})
        asks["spec"]["command"] += ["echo hello"]
        jail = household.manifest("Runtime", "nsjail", spec={"type": "nsjail", "enforcement": "BestEffort"})
        text = household.text(jail, policy("p", rules=rules), asks)
        ran = home.agentk("run", "-f", "-", stdin=text, code=123)
        assert "nobody can be asked here: exec: echo hello" in ran.err and "agentk approve a-" in ran.err
        assert ran.out == ""
        soon = policy("p", rules=rules, timeout="1s", default="Allow")
        ran = home.agentk("run", "-f", "-", stdin=household.text(jail, soon, asks))
        assert ran.out == "hello\n"


QUESTION = """
import agentk.sdk.client as sdk
with sdk.connect() as agent:
    print(agent.human_ask("Which one?", choices=["a", "b"]), flush=True)
    print(agent.human_ask("And now?", default="nothing", timeout_seconds=1), flush=True)
"""


def test_an_agent_asks_and_a_person_answers(space: Space) -> None:
    space.apply(python("a", QUESTION))
    (name,) = pending(space)
    assert "human.ask: Which one?" in space.agentk("get", "approvals").out
    told = space.agentk("approve", name, code=1).err
    assert "is a question" in told and f"agentk answer {name}" in told
    assert "one of: a, b" in space.agentk("answer", name, "--text", "c", code=1).err
    with (
        agentk.Client(space.name, socket=space.home.places.socket) as host,
        pytest.raises(agentk.AgentkError, match="is a question"),
    ):
        host.approve(host.list("approvals")[0]["metadata"]["name"])
    assert space.agentk("answer", name, "--text", "b").lines == [f"approval.agentk.dev/{name} answered"]
    assert done(space, "a") == ["b", "nothing"]
    calls = space.agentk("audit", "a", "-o", "json").json["items"]
    assert [one["method"] for one in calls] == ["approval.answer", "human.ask"] * 2


HTTP = """
import http.client, json, sys, time
body = json.dumps({"model": "any", "messages": [{"role": "user", "content": "hi"}]})

def ask(seconds):
    door = http.client.HTTPConnection("127.0.0.1", 8700, timeout=seconds)
    try:
        door.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        answer = door.getresponse()
        told = json.loads(answer.read())
        return answer.status, told.get("error", {}).get("code") or told["choices"][0]["message"]["content"]
    except (TimeoutError, OSError, http.client.HTTPException):
        return None
    finally:
        door.close()

print("hung up" if ask(0.5) is None else "answered", flush=True)
for _ in range(2):
    while (told := ask(600)) is None:
        time.sleep(0.1)
    print(*told, flush=True)
"""


def test_a_client_of_openai_waits_hangs_up_and_comes_again(alone: Space) -> None:
    rules = [
        {"name": "thinking", "effect": "Ask", "methods": ["think"]},
        {"name": "rest", "effect": "Allow", "methods": ["*"]},
    ]
    route = {"scripted": {"rules": [{"match": {}, "reply": {"text": "hello"}}]}}
    alone.create(
        policy(alone.name, rules=rules),
        household.manifest("ModelRoute", "default", spec=route),
        python("a", HTTP, policyRef={"name": alone.name}),
    )
    alone.logged("a", "hung up")
    (name,) = pending(alone)
    assert alone.get(name, kinds.APPROVAL)["spec"]["arguments"]["messages"][0]["content"] == "hi"
    alone.agentk("wait", f"approval/{name}", "--for=condition=Waiting", "--timeout=100s")
    alone.home.kill("daemon")
    alone.home.answers()
    alone.agentk("wait", f"approval/{name}", "--for=condition=Waiting", "--timeout=100s")
    assert pending(alone) == [name]
    answer(alone, name)
    (other,) = pending(alone)
    answer(alone, other, "deny")
    assert done(alone, "a") == ["hung up", "200 hello", "403 approval_denied"]


TUNNEL = """
import os, socket, time
host, port = "127.0.0.1", 8700
for _ in range(2):
    door = socket.create_connection((host, port))
    door.sendall(b"CONNECT blocked.invalid:443 HTTP/1.1\\r\\nhost: blocked.invalid:443\\r\\n\\r\\n")
    print(door.recv(65536).split(b"\\r\\n")[0].decode(), flush=True)
"""


def test_a_tunnel_waits_before_anything_is_dialled(space: Space) -> None:
    rules = [
        {"name": "out", "effect": "Ask", "methods": ["http.request"], "hosts": ["blocked.invalid"]},
        {"name": "rest", "effect": "Allow", "methods": ["*"]},
    ]
    egress = {"egress": {"allow": [{"host": "blocked.invalid"}]}}
    space.create(
        policy(space.name, rules=rules), python("a", TUNNEL, network=egress, policyRef={"name": space.name})
    )
    (name,) = pending(space)
    assert "CONNECT" in space.get(name, kinds.APPROVAL)["spec"]["summary"]
    answer(space, name, "deny")
    (name,) = pending(space)
    answer(space, name)
    said = done(space, "a")
    assert said[0].startswith("HTTP/1.1 403") and said[1].startswith("HTTP/1.1 5"), "no such host"
    forget(space)


# kill -9 at every step


@pytest.fixture(scope="module")
def fragile() -> Iterator[Household]:
    with household.household() as made:
        yield made


@pytest.fixture
def broken(fragile: Household) -> Iterator[Space]:
    with household.space(fragile) as made:
        yield made


# Where the daemon dies, and how many Approvals there are in the end: one that was used up and not acted upon is lost.
POINTS = {"approval.made": 1, "approval.answering": 1, "approval.answered": 1, "approval.used": 2}


@pytest.mark.parametrize("point", sorted(POINTS))
def test_the_daemon_dies_and_the_call_is_done_once(broken: Space, point: str) -> None:
    (broken.home.crashes / point).touch()
    broken.create(policy(broken.name), asker("a", broken, COUNTED))

    def answered() -> bool:
        there = household.again(lambda: broken.api.list(client.Selection(kinds.APPROVAL, broken.name)).items)
        for one in there:
            if phase(one) == "Pending":
                with contextlib.suppress(errors.AgentkError, wire.Cut):
                    answer(broken, one["metadata"]["name"])
        return household.again(lambda: broken.status("a")).get("phase") in kinds.FINAL_PHASES

    household.until("it is done", answered)
    assert done(broken, "a") == ["1"]
    assert not (broken.home.crashes / point).exists(), "nobody came by"
    found = broken.api.list(client.Selection(kinds.APPROVAL, broken.name)).items
    assert [phase(one) for one in found] == ["Approved"] * POINTS[point]
    forget(broken)


def test_every_point_of_asking_is_tried() -> None:
    assert set(POINTS) == set(crash.ASKING)
