"""Pools in a real household: boxes wait, are handed out once with all that is an agent's own, and leave nothing."""

import json
import threading
from typing import Any

from agentk.api import kinds
from agentk.cli import waiting
from agentk.client import client
from tests.flows import household
from tests.flows.household import Household, Space, agent, manifest, python

pytestmark = household.needs
TELL = """
import json, os, sys
from agentk.sdk import client
me = client.connect()
print(json.dumps({
    "env": os.environ.get("MINE"), "name": os.environ["AGENTK_AGENT"], "secret": os.environ.get("SECRET"),
    "file": open("/mnt/cfg/word").read() if os.path.exists("/mnt/cfg/word") else "", "cwd": os.getcwd(),
    "argv": sys.argv, "loaded": "email.message" in sys.modules, "uid": os.getuid(), "gate": me.noop("yes"),
}), flush=True)
open("/workspace/mine", "w").write("x")
import time
time.sleep(float(os.environ.get("SECONDS", "0")))
"""


def pool(name: str = "p", size: int = 2, **fields: Any) -> household.Object:
    template = {"modules": ["email.message"], "resources": {"limits": dict(household.TINY)}}
    template |= fields.pop("template", {})
    return manifest("Pool", name, spec={"size": size, "template": template, **fields})


def filled(space: Space, name: str = "p", **counts: int) -> household.Object:
    """The Pool's status once it is full, and has such numbers."""

    def holds() -> household.Object:
        status = space.get(name, kinds.POOL).get("status") or {}
        hand_out = status.get("handOut") or {}
        told = {**status, **hand_out}
        full = status.get("ready", -1) == status.get("wanted") and not status.get("creating")
        fits = full and all(told.get(key) == value for key, value in counts.items())
        return dict(told) if fits else {}

    return dict(household.until(f"pool {name} has {counts}", holds))


def boxes(space: Space) -> set[str]:
    """Uids of boxes of this namespace that wait, as the launcher has them recorded."""
    uid = space.get("p", kinds.POOL)["metadata"]["uid"]
    folder = space.home.places.state / "boxes"
    return {path.name.rpartition("-")[0] for path in folder.glob(f"pool-{uid[:8]}-*")}


def gone(space: Space, name: str = "p") -> None:
    uid = space.get(name, kinds.POOL)["metadata"]["uid"]
    space.api.delete(kinds.POOL, space.name, name)
    waiting.gone(space.api, kinds.POOL, space.name, name, uid, waiting.deadline(household.SECONDS))


@household.on_both
def test_an_agent_starts_in_a_box_that_waited_with_all_that_is_its_own(space: Space) -> None:
    secret = manifest("Secret", "s", stringData={"key": "deep-secret"})
    config = manifest("ConfigMap", "c", data={"word": "told"})
    space.apply(secret, config, pool())
    space.agentk("wait", "pool/p", "--for=condition=Ready", "--timeout=100s")
    filled(space, ready=2)
    spec = {
        "poolRef": {"name": "p"},
        "env": [
            {"name": "MINE", "value": "bound late"},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
        ],
        "volumes": [{"name": "cfg", "configMap": {"name": "c"}}],
        "volumeMounts": [{"name": "cfg", "mountPath": "/mnt/cfg"}],
    }
    space.apply(python("a", TELL, **spec))
    status = space.phase("a", "Succeeded", "Failed")
    assert status["start"]["type"] == "Warm", status
    assert status["phase"] == "Succeeded", space.log("a")
    told = json.loads(space.log("a")[0])
    assert told.pop("uid") >= 0
    assert told == {
        "env": "bound late",
        "name": "a",
        "secret": "deep-secret",
        "file": "told",
        "cwd": "/workspace",
        "argv": ["-c"],
        "loaded": True,
        "gate": "yes",
    }
    assert "StartedWarm" in space.events("a")
    status = filled(space, count=1, cold=0, claimed=0)
    assert 0 < status["p50Ms"] <= status["p95Ms"]


def test_a_changed_template_replaces_what_waits_and_not_what_runs(space: Space) -> None:
    space.apply(pool(), agent("old", "sleep", "1000", poolRef={"name": "p"}))
    space.running("old")
    filled(space)
    before = boxes(space)
    space.apply(
        pool(template={"modules": ["json"], "resources": {"limits": {**household.TINY, "open-files": 99}}})
    )
    household.until("they are others", lambda: len(boxes(space)) == 2 and not boxes(space) & before)
    filled(space, ready=2)
    assert space.status("old")["attempt"] == 1
    space.apply(python("new", TELL, poolRef={"name": "p"}))
    status = space.phase("new", "Succeeded", "Failed")
    assert (status["phase"], status["start"]["type"]) == ("Succeeded", "Warm"), space.log("new")


def test_a_second_attempt_has_its_files(space: Space) -> None:
    space.apply(pool())
    filled(space, ready=2)
    script = "import os; first = not os.path.exists('/workspace/x'); open('/workspace/x', 'w'); raise SystemExit(first)"
    backoff = {"initialSeconds": 0, "maxSeconds": 0}
    spec = {"poolRef": {"name": "p"}, "restartPolicy": "OnFailure", "restartBackoff": backoff}
    space.apply(python("a", script, **spec))
    status = space.phase("a", "Succeeded", "Failed")
    assert (status["phase"], status["attempt"]) == ("Succeeded", 2), status


@household.on_both
def test_a_deleted_pool_leaves_nothing_but_the_agents_in_its_boxes(space: Space) -> None:
    space.apply(pool())
    filled(space, ready=2)
    space.apply(agent("a", "sleep", "1000", poolRef={"name": "p"}))
    assert space.running("a")["start"]["type"] == "Warm"
    filled(space, claimed=1)
    waits = boxes(space)
    gone(space)
    assert space.status("a")["phase"] == "Running"
    space.home.clean(*waits)
    space.delete("a")


def test_many_at_once_get_a_box_each(space: Space) -> None:
    space.apply(pool(size=3, max=6, refillRate="50/s"))
    filled(space)
    names = [f"a{number}" for number in range(10)]
    space.apply(*(python(name, TELL, poolRef={"name": "p"}) for name in names))
    statuses = [space.phase(name, "Succeeded", "Failed") for name in names]
    assert [one["phase"] for one in statuses] == ["Succeeded"] * 10
    warm = sum(one["start"]["type"] == "Warm" for one in statuses)
    assert warm >= 3
    filled(space, count=warm, cold=10 - warm, claimed=0)
    uids = [one["hostUID"] for one in statuses if one.get("hostUID", -1) >= 0]
    assert len(set(uids)) == len(uids)


def test_what_a_pool_cannot_make_is_told(space: Space) -> None:
    space.apply(pool(template={"modules": ["no_such_module"]}))
    space.agentk("wait", "pool/p", "--for=condition=Stalled", "--timeout=100s")
    told = space.agentk("describe", "pool", "p").out
    assert "no_such_module" in told
    space.apply(python("a", TELL, poolRef={"name": "p"}))
    status = space.phase("a", "Succeeded", "Failed")
    assert (status["phase"], status["start"]["type"]) == ("Succeeded", "Cold")


def test_what_has_no_jail_cannot_wait(space: Space) -> None:
    bare = f"bare-{space.name}"
    free = manifest("Policy", "free", spec={"level": "privileged"})
    runtime = manifest("Runtime", bare, spec={"type": "process"})
    space.apply(free, runtime, pool(runtimeRef={"name": bare}, template={"policyRef": {"name": "free"}}))
    space.agentk("wait", "pool/p", "--for=condition=Stalled", "--timeout=100s")
    told = "only a Runtime of type nsjail or podman has boxes that wait, not process"
    household.until("that is told", lambda: told in space.agentk("describe", "pool", "p").out)
    gone(space)
    space.agentk("delete", "runtime", bare)


def test_an_agent_of_a_pool_that_is_not_there_is_refused(space: Space) -> None:
    ran = space.apply(agent("a", poolRef={"name": "none"}), code=1)
    assert 'there is no Pool "none"' in ran.err and "apply the Pool first" in ran.err
    space.apply(agent("a", poolRef={"name": "late"}), pool("late", size=0))
    assert space.running("a")["start"]["type"] == "Cold"
    gone(space, "late")
    space.apply(agent("a", poolRef={"name": "late"}, priority=3))
    assert space.get("a")["spec"]["priority"] == 3, "it may be changed without its Pool"
    assert space.status("a")["attempt"] == 1


def test_words_for_people(space: Space) -> None:
    space.apply(pool())
    filled(space, ready=2)
    header, row = space.agentk("get", "pools").lines
    assert header.split() == ["NAME", "SIZE", "READY", "CLAIMED", "P95", "AGE"]
    assert row.split()[:5] == ["p", "2", "2", "0", "<none>"]
    assert "refillRate" in space.agentk("explain", "pool.spec").out
    assert "p" in space.agentk("complete", "get", "pools", "").lines


def test_children_of_an_agent_in_a_pool_have_no_more_than_it(space: Space) -> None:
    program = """
from agentk.sdk import client, errors
me = client.connect()
child = me.agent_spawn({"command": ["python", "-c", "print(1)"], "poolRef": {"name": "p"}})
print("child", me.agent_wait(child.name).phase, flush=True)
for name in ("other", "none"):
    try:
        me.agent_spawn({"command": ["true"], "poolRef": {"name": name}})
    except errors.CallError as error:
        print("refused", type(error).__name__, flush=True)
"""
    space.apply(pool(size=3), pool("other", size=0))
    filled(space)
    space.apply(python("a", program, poolRef={"name": "p"}))
    space.phase("a", "Succeeded", "Failed")
    lines = space.log("a")
    assert lines[0] == "child Succeeded" and [line.split()[0] for line in lines[1:]] == ["refused"] * 2
    assert len(set(lines[1:])) == 1
    children = [
        one
        for one in space.api.list(client.Selection(kinds.AGENT, space.name)).items
        if one["metadata"]["name"] != "a"
    ]
    assert {one["spec"]["poolRef"]["name"] for one in children} == {"p"}


def test_two_namespaces_have_boxes_of_their_own(home: Household) -> None:
    with household.space(home) as one, household.space(home) as other:
        done = [threading.Thread(target=each.apply, args=(pool(),)) for each in (one, other)]
        for thread in done:
            thread.start()
        for thread in done:
            thread.join()
        filled(one, ready=2)
        filled(other, ready=2)
        assert not boxes(one) & boxes(other)
