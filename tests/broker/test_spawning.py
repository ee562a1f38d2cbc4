"""What agents may do with agents, through the real gate: real store, real journal, real policy."""

import asyncio
from pathlib import Path

import pytest

from agentk.api import errors, kinds
from agentk.broker import exits
from agentk.broker.calling import agents, children
from agentk.store.journal import Journal
from agentk.store.journal_anchor import StateAnchor
from agentk.store.journal_words import Intent
from tests.broker.spawning_world import BASELINE, Object, World, told, world


@told
async def test_a_child_is_owned_and_has_its_parents_bounds(world: World) -> None:
    await world.make("boss", backoffLimit=2)
    made = await world.call("boss", "agent.spawn", spec={"command": ["echo"]}, labels={"role": "w"})
    child = await world.get(made["name"])
    assert child["metadata"]["uid"] == made["uid"] and made["name"].startswith("boss-")
    owner = child["metadata"]["ownerReferences"][0]
    assert (owner["name"], owner["controller"]) == ("boss", True)
    assert child["spec"]["resources"]["limits"]["memory"] == "64Mi"
    assert (child["spec"]["backoffLimit"], child["spec"]["restartPolicy"]) == (2, "Never")
    assert child["metadata"]["labels"] == {"role": "w"}
    parents = ((await world.guest("boss")).uid,)
    assert (await world.guest(made["name"])).parents == world.lineage[made["uid"]] == parents


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"resources": {"limits": {"memory": "1Gi"}}}, "spec.resources.limits.memory"),
        ({"restartPolicy": "Always"}, "spec.restartPolicy"),
        ({"policyRef": {"name": "privileged"}}, "spec.policyRef.name"),
        ({"env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
         "spec.env[0].valueFrom.secretKeyRef"),
        ({"volumes": [{"name": "h", "hostPath": {"path": "/etc"}}]}, "spec.volumes[0].hostPath"),
        ({"source": {"path": "x", "digest": "sha256:" + "0" * 64}}, "spec.source.digest"),
        ({"nonsense": 1}, "spec.nonsense"),
        ({"command": "no list"}, "spec.command"),
    ],
)  # fmt: skip
def test_a_wider_child_is_refused_by_the_field(tmp_path: Path, spec: Object, field: str) -> None:
    async def run() -> None:
        async with world(tmp_path) as made:
            await made.make("boss")
            with pytest.raises(errors.Invalid) as caught:
                await made.call("boss", "agent.spawn", spec={"command": ["true"], **spec})
            assert field in [cause.field for cause in caught.value.causes]
            assert len((await made.store.list(kinds.AGENT)).items) == 1

    asyncio.run(run())


POOL = {
    "apiVersion": "agentk.dev/v1alpha1",
    "kind": "Pool",
    "metadata": {"name": "p", "namespace": "default"},
    "spec": {"size": 1, "template": {"source": {"inline": {"files": {"m.py": "1"}}}}},
}


@told
async def test_a_child_takes_from_its_parents_pool_what_is_not_bounded(world: World) -> None:
    limits = {"memory": "512Mi", "pids": 100000}
    template = {**POOL["spec"]["template"], "resources": {"limits": limits}, "policyRef": {"name": "loose"}}
    await world.store.create({**POOL, "spec": {"size": 1, "template": template}})
    await world.make("boss", poolRef={"name": "p"})
    made = await world.call("boss", "agent.spawn", spec={"command": ["x"], "poolRef": {"name": "p"}})
    child = (await world.get(made["name"]))["spec"]
    assert child["source"] == template["source"] and child["poolRef"] == {"name": "p"}
    boss = (await world.get("boss"))["spec"]
    assert child["resources"]["limits"]["memory"] == boss["resources"]["limits"]["memory"] == "64Mi"
    assert child["policyRef"] == boss["policyRef"]
    made = await world.call("boss", "agent.spawn", spec={"command": ["x"]})
    assert not {"poolRef", "source"} & set((await world.get(made["name"]))["spec"])


@told
async def test_what_a_pools_template_has_and_the_parent_has_not_is_refused(world: World) -> None:
    template = {
        "source": {"path": "x", "digest": "sha256:" + "0" * 64},
        "environment": {"python": {"venv": "/v"}},
    }
    await world.store.create({**POOL, "spec": {"size": 1, "template": template}})
    await world.make("boss", poolRef={"name": "p"})
    with pytest.raises(errors.Invalid) as caught:
        await world.call("boss", "agent.spawn", spec={"command": ["x"], "poolRef": {"name": "p"}})
    assert {"spec.source.digest", "spec.environment.python"} <= {one.field for one in caught.value.causes}


@told
async def test_a_pool_that_is_not_the_parents_is_refused_whether_it_is_there_or_not(world: World) -> None:
    await world.store.create({**POOL, "metadata": {"name": "zz", "namespace": "default"}})
    await world.make("boss")
    told = []
    for name in ("zz", "none"):
        with pytest.raises(errors.Invalid) as caught:
            await world.call("boss", "agent.spawn", spec={"command": ["x"], "poolRef": {"name": name}})
        told.append([(one.field, one.message.replace(name, "")) for one in caught.value.causes])
    assert told[0] == told[1] and told[0][0][0] == "spec.poolRef.name"


@told
async def test_the_same_key_is_the_same_child(world: World) -> None:
    await world.make("boss")
    calls = [world.call("boss", "agent.spawn", key="k", spec={"command": ["true"]}) for _ in range(5)]
    answers = await asyncio.gather(*calls)
    answers.append(await world.call("boss", "agent.spawn", key="k", spec={"command": ["true"]}))
    assert len({one["uid"] for one in answers}) == 1
    assert len((await world.store.list(kinds.AGENT)).items) == 2
    other = await world.call("boss", "agent.spawn", spec={"command": ["true"]})
    assert other["uid"] != answers[0]["uid"]


@told
async def test_a_name_that_is_taken_tells_no_more(world: World) -> None:
    await world.make("boss")
    await world.make("other")
    with pytest.raises(errors.AlreadyExists, match="taken"):
        await world.call("boss", "agent.spawn", spec={"command": ["true"]}, name="other")


@told
async def test_a_detached_child_needs_the_feature_and_has_no_owner(world: World) -> None:
    await world.make("boss")
    made = await world.call("boss", "agent.spawn", spec={"command": ["true"]}, detached=True)
    child = await world.get(made["name"])
    assert "ownerReferences" not in child["metadata"]
    boss = await world.guest("boss")
    assert (await world.guest(made["name"])).parents == (boss.uid,), "it uses the budget of who spawned it"
    assert (await world.call("boss", "agent.kill", name=made["name"]))["killed"]
    world.rules = BASELINE
    with pytest.raises(errors.Denied, match="childrenDetached"):
        await world.call("boss", "agent.spawn", spec={"command": ["true"]}, detached=True)


@told
async def test_a_detached_child_stands_alone_when_its_parent_is_gone(world: World) -> None:
    await world.make("boss")
    made = await world.call("boss", "agent.spawn", spec={"command": ["true"]}, detached=True)
    boss = await world.guest("boss")
    await world.store.delete(kinds.AGENT, "default", "boss")
    with world.guests.listening(boss.uid) as bell:
        while world.guests.of(boss.uid):
            await bell.wait()
            bell.clear()
    assert (await world.guest(made["name"])).parents == ()
    assert children.depth(await world.get(made["name"])) == 1


@told
async def test_children_are_counted_also_in_parallel(world: World) -> None:
    await world.make("boss")
    calls = [
        world.call("boss", "agent.spawn", spec={"command": ["true"]}) for _ in range(agents.CHILDREN_MAX + 7)
    ]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [one for one in answers if isinstance(one, errors.TooManyRequests)]
    assert len(refused) == 7
    assert len((await world.store.list(kinds.AGENT)).items) == agents.CHILDREN_MAX + 1
    some = next(one["name"] for one in answers if isinstance(one, dict))
    await world.call("boss", "agent.kill", name=some)
    await until_gone(world, some)
    await world.call("boss", "agent.spawn", spec={"command": ["true"]})


async def until_gone(world: World, name: str) -> None:
    found = world.guests.named("default", name)
    if found:
        with world.guests.listening(found["metadata"]["uid"]) as bell:
            while world.guests.named("default", name):
                await bell.wait()
                bell.clear()


@told
async def test_depth_is_bounded(world: World) -> None:
    await world.make("boss")
    name = "boss"
    for _ in range(agents.DEPTH_MAX):
        name = (await world.call(name, "agent.spawn", spec={"command": ["true"]}))["name"]
    with pytest.raises(errors.Forbidden, match="deep"):
        await world.call(name, "agent.spawn", spec={"command": ["true"]})


@told
async def test_who_is_being_deleted_spawns_nobody(world: World) -> None:
    boss = await world.make("boss")
    boss["metadata"]["finalizers"] = ["agentk.dev/box"]
    await world.store.modify(kinds.AGENT, "default", "boss", lambda obj: boss)
    await world.store.delete(kinds.AGENT, "default", "boss")
    with pytest.raises(errors.Forbidden, match="deleted"):
        await world.call("boss", "agent.spawn", spec={"command": ["true"]})


@told
async def test_only_the_family_is_there(world: World) -> None:
    await world.make("boss")
    await world.make("sibling")
    world.rules = BASELINE
    child = await world.call("boss", "agent.spawn", spec={"command": ["true"]}, labels={"role": "w"})
    grandchild = await world.call(child["name"], "agent.spawn", spec={"command": ["true"]})
    listed = await world.call("boss", "agent.list")
    assert {one["name"] for one in listed["items"]} == {"boss", child["name"], grandchild["name"]}
    parents = {one["name"]: one["parent"] for one in listed["items"]}
    assert parents == {"boss": "", child["name"]: "boss", grandchild["name"]: child["name"]}
    assert [one["name"] for one in (await world.call(child["name"], "agent.list"))["items"]][-1:] == [
        grandchild["name"]
    ]
    assert len((await world.call("boss", "agent.list", labelSelector="role=w"))["items"]) == 1
    for name in ("sibling", "nobody"):
        assert await world.call("boss", "agent.kill", name=name) == {"killed": False}
        with pytest.raises(errors.NotFound, match="spawned"):
            await world.call("boss", "agent.wait", name=name)
    with pytest.raises(errors.AgentkError):
        await world.call(child["name"], "agent.kill", name=child["name"])
    assert await world.call(child["name"], "agent.kill", name="boss") == {"killed": False}
    assert len((await world.store.list(kinds.AGENT)).items) == 4
    assert await world.call("boss", "agent.kill", name=grandchild["name"]) == {"killed": True}


@told
async def test_pages_of_the_family(world: World) -> None:
    await world.make("boss")
    for _ in range(4):
        await world.call("boss", "agent.spawn", spec={"command": ["true"]})
    seen, cont = [], ""
    while True:
        page = await world.call("boss", "agent.list", limit=2, **{"continue": cont})
        seen += [one["name"] for one in page["items"]]
        cont = page.get("continue", "")
        if not cont:
            break
    assert len(seen) == 5 and seen == sorted(set(seen))


@told
async def test_waiting_is_woken_by_the_end(world: World) -> None:
    await world.make("boss")
    child = await world.call("boss", "agent.spawn", spec={"command": ["true"]})
    waiting = asyncio.create_task(world.call("boss", "agent.wait", name=child["name"]))
    await world.status(child["name"], phase="Running", attempt=1)
    await world.call(child["name"], "exit", code=3, message="no luck", result={"n": [1]})
    assert world.stopped == [child["name"]]
    await world.status(
        child["name"], phase="Failed", reason="Error", exitCode=3, message="no luck", attempt=1
    )
    assert await waiting == {
        "name": child["name"], "finished": True, "phase": "Failed", "reason": "Error", "exitCode": 3,
        "message": "no luck", "result": {"n": [1]},
    }  # fmt: skip


@told
async def test_waiting_ends_when_the_agent_is_gone_or_the_time_is_over(world: World) -> None:
    await world.make("boss")
    child = await world.call("boss", "agent.spawn", spec={"command": ["true"]})
    assert await world.call("boss", "agent.wait", name=child["name"], waitSeconds=0) == {
        "name": child["name"], "finished": False, "phase": "Pending",
    }  # fmt: skip
    waiting = asyncio.create_task(world.call("boss", "agent.wait", name=child["name"]))
    await asyncio.sleep(0)
    await world.call("boss", "agent.kill", name=child["name"])
    ended = await waiting
    assert (ended["finished"], ended["phase"]) == (True, "Terminating")
    assert await world.call("boss", "agent.wait", name=child["name"]) == ended, "also a little late"
    await world.make("other")
    with pytest.raises(errors.NotFound):
        await world.call("other", "agent.wait", name=child["name"])


@told
async def test_the_result_has_to_be_what_the_spec_asks_for_when_it_went_well(world: World) -> None:
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    await world.make("a", output=schema)
    for given in ({}, {"result": {"n": "x"}}, {"result": {}}):
        with pytest.raises(errors.BadRequest):
            await world.call("a", "exit", **given)
    with pytest.raises(errors.BadRequest, match="code"):
        await world.call("a", "exit", result={"n": 1}, reason="MaxSteps")
    await world.call("a", "exit", result={"n": 1}, steps=4)
    said = world.said.of((await world.guest("a")).uid, 1)
    assert said is not None and (said.steps, said.result) == (4, b'{"n":1}')
    await world.make("b", output=schema)
    await world.call("b", "exit", code=1, result="not that", reason="LLMError")


@told
async def test_depth_counts_down_from_parent_to_child(world: World) -> None:
    await world.make("top", depth=2)
    child = (await world.call("top", "agent.spawn", spec={"command": ["true"]}))["name"]
    assert (await world.get(child))["spec"]["depth"] == 1
    with pytest.raises(errors.Invalid):
        await world.call(child, "agent.spawn", spec={"command": ["true"], "depth": 1})
    last = (await world.call(child, "agent.spawn", spec={"program": "react", "goal": "Help."}))["name"]
    with pytest.raises(errors.Forbidden, match="none below it"):
        await world.call(last, "agent.spawn", spec={"command": ["true"]})


@told
async def test_how_it_ends_is_said_once(world: World) -> None:
    await world.make("a")
    await world.call("a", "exit", result=None)
    with pytest.raises(errors.Conflict, match="already"):
        await world.call("a", "exit", code=1)
    uid = (await world.guest("a")).uid
    said = world.said.of(uid, 1)
    assert said is not None and (said.code, said.reason, said.result) == (0, "Completed", b"null")
    assert world.said.of(uid, 2) is None
    world.journal.close()
    found = Journal.open(world.folder, StateAnchor(lambda: world.anchor[-1], world.anchor.append))
    world.journal = found
    again = exits.Exits(found)
    assert again.of(uid, 1) == said
    await again.keep(set())
    assert again.of(uid, 1) is None


@pytest.mark.parametrize("made", [True, False])
def test_a_spawn_cut_short_by_a_crash_is_found_again(tmp_path: Path, made: bool) -> None:
    async def run() -> None:
        async with world(tmp_path) as one:
            boss = await one.make("boss")
            guest = await one.guest("boss")
            body = b'{"detached":false,"labels":{},"spec":{"command":["true"]}}'
            intent = Intent("default", "boss", guest.uid, 1, guest.run_id, "agent.spawn", body, key="k")
            effect = await one.journal.intend(intent)
            if made:
                wish = children.Wish({"command": ["true"]})
                await one.store.create(children.child(wish, boss, effect, None))
            one.journal.close()
            one.open()
            for agent in (await one.store.list(kinds.AGENT)).items:
                one.hear(kinds.AGENT, agent, False)
            one.guests.hear(kinds.POLICY, await one.store.get(kinds.POLICY, None, "baseline"), False)
            await agents.reconcile(one.journal, one.store)
            if made:
                told = await one.call("boss", "agent.spawn", key="k", spec={"command": ["true"]})
                assert told["name"] == children.generated_name("boss", effect)
                assert len((await one.store.list(kinds.AGENT)).items) == 2
            else:
                with pytest.raises(errors.Unavailable, match="before"):
                    await one.call("boss", "agent.spawn", key="k", spec={"command": ["true"]})

    asyncio.run(run())
