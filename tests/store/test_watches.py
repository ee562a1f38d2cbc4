"""A watch tells everything, once, in order, whoever writes and however slowly it is read."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors, kinds
from agentk.store import changes
from agentk.store.store import Settings, Store
from agentk.store.watching import Change

Object = dict[str, Any]
Make = Callable[..., Object]
AGENT = kinds.AGENT

pytestmark = pytest.mark.anyio


async def take(watch: AsyncIterator[Change], count: int) -> list[tuple[str, str]]:
    """Type and name of the next changes."""
    told = []
    async with asyncio.timeout(30):
        while len(told) < count:
            change = await anext(watch)
            told.append((change.type, change.obj["metadata"].get("name", "")))
    return told


def labelled(**labels: str) -> Callable[[Object | None], Object | None]:
    def change(obj: Object | None) -> Object | None:
        assert obj is not None
        return {**obj, "metadata": {**obj["metadata"], "labels": labels}}

    return change


@pytest.fixture
def short(tmp_path: Path) -> Iterator[Store]:
    """A store whose log keeps ten changes."""
    settings = Settings(log=changes.Retention(count=10), sweep_changes=1)
    opened = Store.open(tmp_path, settings)
    yield opened
    opened.close()


async def test_from_nothing_comes_first_all_there_is(store: Store, agent: Make) -> None:
    await store.create(agent("a"))
    watch = store.watch(AGENT)
    assert await take(watch, 1) == [("ADDED", "a")]
    await store.create(agent("b"))
    await store.delete(AGENT, "default", "a")
    assert await take(watch, 2) == [("ADDED", "b"), ("DELETED", "a")]


async def test_from_a_version_comes_only_what_is_younger(store: Store, agent: Make) -> None:
    await store.create(agent("a"))
    since = (await store.list(AGENT)).resource_version
    await store.create(agent("b"))
    assert await take(store.watch(AGENT, since=since), 1) == [("ADDED", "b")]


async def test_versions_grow_and_are_the_objects_own(store: Store, agent: Make) -> None:
    watch = store.watch(AGENT)
    waiting = asyncio.ensure_future(anext(watch))
    made = await store.create(agent("a"))
    change = await waiting
    assert change.obj == made and change.resource_version == made["metadata"]["resourceVersion"]


async def test_other_kinds_and_namespaces_are_not_told(store: Store, agent: Make) -> None:
    watch = store.watch(AGENT, "here")
    waiting = asyncio.ensure_future(take(watch, 1))
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "here"}}
    await store.create(config)
    await store.create(agent("far", "there"))
    await store.create(agent("near", "here"))
    assert await waiting == [("ADDED", "near")]


async def test_every_kind_can_be_watched_at_once(store: Store, agent: Make) -> None:
    await store.create(agent("before"))  # changes after it come in order; a first listing goes by kind
    watch = store.watch(None, since=store.resource_version())
    waiting = asyncio.ensure_future(take(watch, 2))
    await store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})
    await store.create(agent("a"))
    assert await waiting == [("ADDED", "n"), ("ADDED", "a")]


async def test_leaving_a_selection_is_a_deletion_and_entering_it_an_addition(
    store: Store, agent: Make
) -> None:
    await store.create(agent("before"))
    watch = store.watch(AGENT, since=store.resource_version(), labels="team=red")
    waiting = asyncio.ensure_future(take(watch, 4))
    await store.create(agent("a", labels={"team": "red"}))
    await store.create(agent("b", labels={"team": "blue"}))
    await store.modify(AGENT, "default", "a", labelled(team="red", more="yes"))
    await store.modify(AGENT, "default", "a", labelled(team="blue"))
    await store.modify(AGENT, "default", "b", labelled(team="red"))
    await store.delete(AGENT, "default", "a")
    assert await waiting == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "b")]


async def test_a_selection_is_kept_although_the_version_before_was_compacted(
    short: Store, agent: Make
) -> None:
    await short.create(agent("a", labels={"team": "red"}))
    for n in range(50):
        await short.create(agent(f"x{n}"))
    watch = short.watch(AGENT, since=short.resource_version(), labels="team=red")
    await short.modify(AGENT, "default", "a", labelled(team="blue"))
    assert await take(watch, 1) == [("DELETED", "a")]


async def test_fields_select_too(store: Store, agent: Make) -> None:
    watch = store.watch(AGENT, fields="status.phase=Running")
    waiting = asyncio.ensure_future(take(watch, 2))
    uid = (await store.create(agent("a")))["metadata"]["uid"]
    await store.set_status(AGENT, "default", "a", uid, {"phase": "Starting"})
    await store.set_status(AGENT, "default", "a", uid, {"phase": "Running"})
    await store.set_status(AGENT, "default", "a", uid, {"phase": "Succeeded"})
    assert await waiting == [("ADDED", "a"), ("DELETED", "a")]


async def test_a_watcher_too_old_is_told_so(short: Store, agent: Make) -> None:
    first = await short.create(agent("a"))
    for n in range(30):
        await short.create(agent(f"x{n}"))
    with pytest.raises(errors.Expired, match="too old") as caught:
        await anext(short.watch(AGENT, since=first["metadata"]["resourceVersion"]))
    assert "list again" in caught.value.hint


async def test_a_version_never_given_is_expired(store: Store) -> None:
    with pytest.raises(errors.Expired):
        await anext(store.watch(AGENT, since="999999"))
    with pytest.raises(errors.BadRequest, match="no resourceVersion"):
        await anext(store.watch(AGENT, since="soon"))


async def test_a_watcher_that_falls_behind_the_log_is_told_so(short: Store, agent: Make) -> None:
    watch = short.watch(AGENT, since=short.resource_version())
    waiting = asyncio.ensure_future(take(watch, 1))
    await short.create(agent("a"))
    await waiting
    for n in range(100):
        await short.create(agent(f"x{n}"))
    with pytest.raises(errors.Expired):
        await take(watch, 100)


async def test_a_quiet_watcher_survives_the_compaction_of_what_is_not_its_own(
    short: Store, agent: Make
) -> None:
    watch = short.watch(kinds.CONFIGMAP, since=short.resource_version())
    waiting = asyncio.ensure_future(take(watch, 1))
    for n in range(100):
        await short.create(agent(f"x{n}"))
    await short.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}})
    assert await waiting == [("ADDED", "c")]


async def test_bookmarks_move_a_quiet_watcher_on(short: Store, agent: Make) -> None:
    watch = short.watch(kinds.CONFIGMAP, bookmark_seconds=0.01)
    first = await anext(watch)
    assert first.type == "BOOKMARK" and "k8s.io/initial-events-end" in first.obj["metadata"]["annotations"]
    for n in range(50):
        await short.create(agent(f"x{n}"))
    async with asyncio.timeout(30):
        while (mark := await anext(watch)).resource_version != short.resource_version():
            assert mark.type == "BOOKMARK"
    assert mark.obj["kind"] == "ConfigMap"


async def test_closing_the_store_ends_a_watch(store: Store) -> None:
    watch = store.watch(None)
    waiting = asyncio.ensure_future(anext(watch, "ended"))
    await asyncio.sleep(0)
    store.close()
    assert await waiting == "ended"


async def test_no_gap_and_no_double_under_many_writers(store: Store, agent: Make) -> None:
    """Eight writers, six watchers that begin at different moments: each one's copy ends equal to the store."""
    dice = random.Random(7)
    done = asyncio.Event()

    async def write(n: int) -> None:
        for step in range(60):
            name = f"w{n}-{step % 7}"
            await store.modify(AGENT, "default", name, lambda obj, s=step: _next(obj, agent, s))
            if dice.random() < 0.3:
                await store.delete(AGENT, "default", name)

    async def follow(start: int) -> None:
        async for change in store.watch(None):
            if int(change.resource_version) >= start:
                break
        copy: dict[str, Object] = {}
        last, marked = 0, False
        async for change in store.watch(AGENT, since="" if start % 2 else "1", bookmark_seconds=0.05):
            _follow(copy, change)
            version = int(change.resource_version)
            listed = (
                change.type == "ADDED" and not marked and start % 2
            )  # the first list is in order of names
            assert listed or version > last or (change.type == "BOOKMARK" and version == last)
            last, marked = max(last, version), marked or change.type == "BOOKMARK"
            if done.is_set() and change.type == "BOOKMARK" and str(last) == store.resource_version():
                break
            if dice.random() < 0.05:
                await asyncio.sleep(0.005)
        stored = (await store.list(AGENT)).items
        assert copy == {obj["metadata"]["name"]: obj for obj in stored}

    followers = [asyncio.ensure_future(follow(start)) for start in (1, 50, 101, 160, 201, 300)]
    await asyncio.gather(*(write(n) for n in range(8)))
    done.set()
    async with asyncio.timeout(60):
        await asyncio.gather(*followers)


def _next(obj: Object | None, agent: Make, step: int) -> Object:
    return {**agent("ignored"), "spec": {"step": step}} if obj is None else {**obj, "spec": {"step": step}}


def _follow(copy: dict[str, Object], change: Change) -> None:
    if change.type == "BOOKMARK":
        return
    name = change.obj["metadata"]["name"]
    assert (change.type == "ADDED") == (name not in copy)
    if change.type == "DELETED":
        del copy[name]
    else:
        copy[name] = change.obj
