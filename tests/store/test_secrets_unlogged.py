"""The values of Secrets are in their object and nowhere else."""

import asyncio
import base64
from typing import Any

import pytest

from agentk.api import kinds
from agentk.store.store import Store

pytestmark = pytest.mark.anyio

VALUE = base64.b64encode(b"the-very-secret-value").decode()


def secret(value: str = VALUE) -> dict[str, Any]:
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": f'{{"data":{{"k":"{value}"}}}}'}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "n", "annotations": annotations},
        "data": {"k": value},
    }


async def test_the_log_holds_no_value(store: Store) -> None:
    await store.create(secret())
    await store.sweep(now_seconds=10**11)
    await store.modify(kinds.SECRET, "n", "s", lambda o: o and {**o, "data": {"k": VALUE, "more": VALUE}})
    await store.delete(kinds.SECRET, "n", "s")
    logged = store._readers.now(lambda conn: conn.execute("SELECT body FROM changes").fetchall())
    assert len(logged) == 3
    assert not any(VALUE in body for (body,) in logged)


async def test_a_watcher_gets_the_values(store: Store) -> None:
    watch = store.watch(kinds.SECRET)
    waiting = asyncio.ensure_future(anext(watch))
    made = await store.create(secret())
    assert (await waiting).obj == made
    changed = await store.modify(kinds.SECRET, "n", "s", lambda o: o and {**o, "data": {"k": "bmV3"}})
    assert (await anext(watch)).obj == changed


async def test_a_deleted_secret_is_told_without_values(store: Store) -> None:
    watch = store.watch(kinds.SECRET, since=store.resource_version())
    await store.create(secret())
    await store.delete(kinds.SECRET, "n", "s")
    await store.create(secret("b3RoZXI="))
    told = [await anext(watch) for _ in range(3)]
    assert [change.type for change in told] == ["ADDED", "DELETED", "ADDED"]
    assert ["data" in change.obj for change in told] == [False, False, True]


async def test_later_pages_of_a_list_have_the_values(store: Store) -> None:
    for name in ("a", "b"):
        await store.create({**secret(), "metadata": {"name": name, "namespace": "n"}})
    page = await store.list(kinds.SECRET, limit=1)
    await store.modify(kinds.SECRET, "n", "b", lambda o: o and {**o, "data": {"k": "bmV3"}})
    (item,) = (await store.list(kinds.SECRET, limit=1, cont=page.cont)).items
    assert item["data"] == {"k": "bmV3"}
