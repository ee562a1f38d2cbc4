"""Events say each thing once, count it, and are forgotten in time."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agentk.api import kinds
from agentk.store import events
from agentk.store.store import Settings, Store

Object = dict[str, Any]
Make = Callable[..., Object]
START = datetime(2026, 1, 1, tzinfo=UTC)

pytestmark = pytest.mark.anyio


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def said(
    store: Store, obj: Object, seconds: float = 0, message: str = "it died", **other: str
) -> Object:
    words = {"type": "Warning", "reason": "BackOff", "component": "steward"} | other
    return await store.record_event(obj, message=message, now=at(seconds), **words)


async def listed(store: Store) -> list[Object]:
    return (await store.list(kinds.EVENT)).items


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Store]:
    kept = events.Retention(age_seconds=3600, count=20, per_object=5)
    opened = Store.open(tmp_path, Settings(history=kept, sweep_changes=10**9))
    yield opened
    opened.close()


async def test_an_event_names_its_object(store: Store, agent: Make) -> None:
    made = await store.create(agent("a"))
    event = await said(store, made)
    assert event["involvedObject"]["uid"] == made["metadata"]["uid"]
    assert event["metadata"]["namespace"] == "default" and event["count"] == 1
    found = await store.list(kinds.EVENT, fields="involvedObject.name=a,type=Warning")
    assert found.items == [event]


async def test_the_same_within_ten_minutes_is_counted(store: Store, agent: Make) -> None:
    made = await store.create(agent())
    for seconds in (0, 300, 899):
        await said(store, made, seconds)
    (event,) = await listed(store)
    assert event["count"] == event["series"]["count"] == 3
    assert (event["firstTimestamp"], event["lastTimestamp"]) == (at(0), at(899))


async def test_the_same_much_later_is_said_anew(store: Store, agent: Make) -> None:
    made = await store.create(agent())
    await said(store, made, 0)
    await said(store, made, 601)
    assert [event["count"] for event in await listed(store)] == [1, 1]


async def test_what_differs_is_kept_apart(store: Store, agent: Make) -> None:
    one, two = await store.create(agent("one")), await store.create(agent("two"))
    await said(store, one)
    for other in ({"message": "other"}, {"reason": "Killed"}, {"type": "Normal"}, {"component": "quota"}):
        await said(store, one, **other)
    await said(store, two)
    assert [event["count"] for event in await listed(store)] == [1] * 6


async def test_many_at_once_are_still_one(store: Store, agent: Make) -> None:
    made = await store.create(agent())
    await asyncio.gather(*(said(store, made) for _ in range(100)))
    assert [event["count"] for event in await listed(store)] == [100]


async def test_events_of_a_cluster_object_are_in_default(store: Store) -> None:
    event = await said(store, {"apiVersion": "v1", "kind": "Namespace", "name": "n", "uid": "u"})
    assert event["metadata"]["namespace"] == "default"


async def test_a_long_message_is_cut(store: Store, agent: Make) -> None:
    event = await said(store, await store.create(agent()), message="x" * 5000)
    assert len(event["message"]) == 1024


async def test_one_object_keeps_a_few(small: Store, agent: Make) -> None:
    made = await small.create(agent())
    for n in range(12):
        await said(small, made, n, message=str(n))
    assert sorted(int(event["message"]) for event in await listed(small)) == [7, 8, 9, 10, 11]


async def test_all_together_are_bounded(small: Store, agent: Make) -> None:
    for n in range(30):
        await said(small, await small.create(agent(f"a{n}")), n)
    await small.sweep(START.timestamp() + 30)
    assert len(await listed(small)) == 20


async def test_old_ones_are_forgotten_and_watchers_hear_it(small: Store, agent: Make) -> None:
    made = await small.create(agent())
    await said(small, made, 0, message="old")
    young = await said(small, made, 3000, message="young")
    watch = small.watch(kinds.EVENT, since=small.resource_version())
    await small.sweep(START.timestamp() + 3601)
    assert await listed(small) == [young]
    assert (await anext(watch)).type == "DELETED"


async def test_a_time_that_is_none_does_no_harm(store: Store) -> None:
    involved = {"kind": "Agent", "namespace": "n", "name": "a"}
    names = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "n"}}
    await store.create({**names, "involvedObject": involved, "lastTimestamp": "yesterday"})
    assert len(await listed(store)) == 1
