"""Objects live by Kubernetes' rules: versions, conflicts, generations, finalizers, preconditions."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors, kinds
from agentk.store import opening
from agentk.store.store import Store

Object = dict[str, Any]
Make = Callable[..., Object]
AGENT = kinds.AGENT

pytestmark = pytest.mark.anyio


def version(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])


def with_priority(number: int) -> Callable[[Object | None], Object | None]:
    def change(obj: Object | None) -> Object | None:
        assert obj is not None
        return {**obj, "spec": {**obj["spec"], "priority": number}}

    return change


async def test_a_list_of_heads_has_no_files_of_skills(tmp_path: Path) -> None:
    def skill(name: str, text: str) -> Object:
        source = {"inline": {"files": {"SKILL.md": text}}}
        metadata = {"name": name, "namespace": "default", "labels": {"a": name}}
        spec = {"description": "x", "source": source}
        return {"apiVersion": kinds.API_VERSION, "kind": "Skill", "metadata": metadata, "spec": spec}

    opened = Store.open(tmp_path)
    for name in "abc":
        await opened.create(skill(name, "x" * 100_000))
    await opened.modify(kinds.SKILL, "default", "b", lambda there: {**(there or {}), **skill("b", "yy")})
    await opened.delete(kinds.SKILL, "default", "c")
    found = (await opened.list(kinds.SKILL, heads=True, labels="a in (a,b)")).items
    assert [one["spec"]["source"] for one in found] == [{"bytes": 100_008}, {"bytes": 10}]
    watch = opened.watch(kinds.SKILL, since="1")
    told = [await anext(watch) for _ in range(5)]
    assert [one.type for one in told] == ["ADDED"] * 3 + ["MODIFIED", "DELETED"]
    assert ["inline" in one.obj["spec"]["source"] for one in told] == [True, True, False, True, False]
    watch = opened.watch(kinds.SKILL, since="1", heads=True)
    assert [(await anext(watch)).obj["spec"]["source"] for _ in range(4)][-1] == {"bytes": 10}
    logged = opened._readers.now(
        lambda conn: conn.execute("SELECT max(length(body)) FROM changes").fetchone()
    )
    assert logged[0] < 1000
    read = await opened.find(kinds.SKILL, "default", "b")
    assert await opened.find(kinds.SKILL, "default", "b", known=read) is read
    assert await opened.find(kinds.SKILL, "default", "a", known=read) != read
    whole = (await opened.list(kinds.SKILL)).items
    assert [one["metadata"] for one in found] == [one["metadata"] for one in whole]
    opened.close()
    with sqlite3.connect(tmp_path / opening.DATABASE) as conn:  # as an older agentk left it
        conn.execute("DROP TABLE heads")
        conn.execute("DELETE FROM _sqlite_migrations WHERE name = 'heads'")
    again = Store.open(tmp_path)
    assert (await again.list(kinds.SKILL, heads=True)).items == found
    again.close()


async def test_what_is_created_is_got_and_listed(store: Store, agent: Make) -> None:
    made = await store.create(agent())
    assert made["metadata"]["uid"] and made["metadata"]["generation"] == 1
    assert await store.get(AGENT, "default", "a") == made
    assert (await store.list(AGENT)).items == [made]


async def test_it_is_still_there_after_opening_again(store: Store, agent: Make) -> None:
    made = await store.create(agent())
    store.close()
    again = Store.open(store.folder)
    assert await again.get(AGENT, "default", "a") == made
    again.close()


async def test_a_taken_name_is_refused(store: Store, agent: Make) -> None:
    await store.create(agent())
    with pytest.raises(errors.AlreadyExists, match='"a" already exists'):
        await store.create(agent())


async def test_a_missing_object_is_not_found(store: Store) -> None:
    with pytest.raises(errors.NotFound, match=r'agents\.agentk\.dev "nobody" not found'):
        await store.get(AGENT, "default", "nobody")
    assert await store.find(AGENT, "default", "nobody") is None


async def test_a_namespaced_kind_needs_a_namespace(store: Store) -> None:
    with pytest.raises(errors.BadRequest, match="none was named"):
        await store.get(AGENT, None, "a")


async def test_the_second_writer_of_one_version_gets_a_conflict(store: Store, agent: Make) -> None:
    first = (await store.create(agent()))["metadata"]["resourceVersion"]
    await store.modify(AGENT, "default", "a", with_priority(1), expect_resource_version=first)
    with pytest.raises(errors.Conflict, match="has been modified"):
        await store.modify(AGENT, "default", "a", with_priority(2), expect_resource_version=first)
    assert (await store.get(AGENT, "default", "a"))["spec"]["priority"] == 1


async def test_no_concurrent_change_is_lost(store: Store, agent: Make) -> None:
    await store.create(agent())

    def more(obj: Object | None) -> Object | None:
        assert obj is not None
        obj["spec"]["priority"] += 1
        return obj

    await asyncio.gather(*(store.modify(AGENT, "default", "a", more) for _ in range(200)))
    assert (await store.get(AGENT, "default", "a"))["spec"]["priority"] == 200


async def test_modify_makes_what_does_not_exist(store: Store, agent: Make) -> None:
    made = await store.modify(AGENT, "default", "new", lambda obj: agent("new") if obj is None else obj)
    assert made["metadata"]["uid"]
    assert await store.get(AGENT, "default", "new") == made


async def test_writing_the_same_writes_nothing(store: Store, agent: Make) -> None:
    made = await store.create(agent())
    same = await store.modify(AGENT, "default", "a", lambda obj: obj)
    assert same == made and store.resource_version() == made["metadata"]["resourceVersion"]


async def test_generation_moves_with_the_spec_only(store: Store, agent: Make) -> None:
    made = await store.create(agent())
    labelled = await store.modify(
        AGENT, "default", "a", lambda o: o and {**o, "metadata": {**o["metadata"], "labels": {"x": "y"}}}
    )
    changed = await store.modify(AGENT, "default", "a", with_priority(7))
    generations = [obj["metadata"]["generation"] for obj in (made, labelled, changed)]
    assert generations == [1, 1, 2]
    assert version(made) < version(labelled) < version(changed)


async def test_an_edit_cannot_take_uid_or_creation_time_away(store: Store, agent: Make) -> None:
    made = await store.create(agent())
    after = await store.modify(AGENT, "default", "a", lambda _: agent(labels={"x": "y"}))
    for part in ("uid", "creationTimestamp", "name", "namespace"):
        assert after["metadata"][part] == made["metadata"][part]


async def test_an_edit_of_another_objects_uid_is_a_conflict(store: Store, agent: Make) -> None:
    await store.create(agent())
    with pytest.raises(errors.Conflict, match="another object"):
        await store.modify(AGENT, "default", "a", lambda _: agent(uid="other"))


async def test_an_equal_status_writes_nothing(store: Store, agent: Make) -> None:
    uid = (await store.create(agent()))["metadata"]["uid"]
    first = await store.set_status(AGENT, "default", "a", uid, {"phase": "Running", "attempt": 1})
    again = await store.set_status(AGENT, "default", "a", uid, {"attempt": 1, "phase": "Running"})
    assert first == again and first is not None
    assert store.resource_version() == first["metadata"]["resourceVersion"]
    assert first["metadata"]["generation"] == 1


async def test_a_status_for_an_object_that_is_gone_is_dropped(store: Store, agent: Make) -> None:
    uid = (await store.create(agent()))["metadata"]["uid"]
    await store.delete(AGENT, "default", "a")
    assert await store.set_status(AGENT, "default", "a", uid, {"phase": "Failed"}) is None
    await store.create(agent())
    assert await store.set_status(AGENT, "default", "a", uid, {"phase": "Failed"}) is None
    assert "status" not in await store.get(AGENT, "default", "a")


async def test_delete_checks_uid_and_version(store: Store, agent: Make) -> None:
    made = await store.create(agent())
    for wrong in ({"uid": "other"}, {"resource_version": "1"}):
        with pytest.raises(errors.Conflict):
            await store.delete(AGENT, "default", "a", **wrong)
    gone = await store.delete(AGENT, "default", "a", uid=made["metadata"]["uid"])
    assert version(gone) > version(made)
    assert await store.find(AGENT, "default", "a") is None


async def test_finalizers_hold_an_object_until_the_last_is_gone(store: Store, agent: Make) -> None:
    await store.create(agent(finalizers=["one", "two"]))
    marked = await store.delete(AGENT, "default", "a", now="2026-01-01T00:00:00Z")
    assert marked["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:00Z"
    assert await store.delete(AGENT, "default", "a", now="2027-01-01T00:00:00Z") == marked

    def without(name: str) -> Callable[[Object | None], Object | None]:
        def change(obj: Object | None) -> Object | None:
            assert obj is not None
            obj["metadata"]["finalizers"].remove(name)
            return obj

        return change

    await store.modify(AGENT, "default", "a", without("one"))
    assert await store.find(AGENT, "default", "a") is not None
    await store.modify(AGENT, "default", "a", without("two"))
    assert await store.find(AGENT, "default", "a") is None


async def test_a_change_to_nothing_deletes_through_the_finalizers(store: Store, agent: Make) -> None:
    await store.create(agent("plain"))
    await store.create(agent("held", finalizers=["x"]))
    await store.modify(AGENT, "default", "plain", lambda _: None)
    await store.modify(AGENT, "default", "held", lambda _: None)
    assert await store.find(AGENT, "default", "plain") is None
    assert (await store.get(AGENT, "default", "held"))["metadata"]["deletionTimestamp"]


async def test_a_dry_run_answers_and_leaves_no_trace(store: Store, agent: Make) -> None:
    made = await store.create(agent())
    tried = await store.modify(AGENT, "default", "a", with_priority(9), dry_run=True)
    assert tried["spec"]["priority"] == 9 and "resourceVersion" not in tried["metadata"]
    await store.create(agent("b"), dry_run=True)
    await store.delete(AGENT, "default", "a", dry_run=True)
    assert (await store.list(AGENT)).items == [made]
    assert store.resource_version() == made["metadata"]["resourceVersion"]


async def test_a_dry_run_that_changes_nothing_keeps_the_version(store: Store, agent: Make) -> None:
    made = await store.create(agent())
    assert await store.modify(AGENT, "default", "a", lambda obj: obj, dry_run=True) == made


async def test_only_a_live_namespace_takes_new_objects(store: Store, agent: Make) -> None:
    with pytest.raises(errors.NotFound, match='namespaces "default" not found'):
        await store.create(agent(), in_live_namespace=True)
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "finalizers": ["x"]}}
    await store.create(space)
    await store.create(agent(), in_live_namespace=True)
    await store.delete(kinds.NAMESPACE, None, "default")
    with pytest.raises(errors.Forbidden, match="is being deleted"):
        await store.modify(AGENT, "default", "b", lambda _: agent("b"), in_live_namespace=True)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes"])
async def test_what_json_cannot_hold_is_refused(store: Store, agent: Make, value: object) -> None:
    with pytest.raises(errors.Invalid, match="cannot be stored"):
        await store.create({**agent(), "spec": {"value": value}})


async def test_half_a_surrogate_pair_survives(store: Store, agent: Make) -> None:
    made = await store.create({**agent(), "spec": {"message": "\udce4 \x00 ä"}})
    assert (await store.get(AGENT, "default", "a"))["spec"] == made["spec"]


async def test_an_object_too_large_is_refused(store: Store, agent: Make) -> None:
    with pytest.raises(errors.TooLarge, match="at most"):
        await store.create({**agent(), "spec": {"value": "x" * (2 << 20)}})


async def test_dependents_follow_owner_references(store: Store, agent: Make) -> None:
    owner = await store.create(agent("owner"))
    reference = {"apiVersion": owner["apiVersion"], "kind": "Agent", "name": "owner"}
    reference["uid"] = owner["metadata"]["uid"]
    child = await store.create(agent("child", ownerReferences=[reference]))
    assert await store.dependents(reference["uid"]) == [child]
    await store.modify(
        AGENT, "default", "child", lambda o: o and {**o, "metadata": {**o["metadata"], "ownerReferences": []}}
    )
    assert await store.dependents(reference["uid"]) == []


async def test_counts_are_by_kind(store: Store, agent: Make) -> None:
    await asyncio.gather(store.create(agent("a")), store.create(agent("b")))
    assert store.counts() == {"agents.agentk.dev": 2}
