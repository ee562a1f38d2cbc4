"""Pages of one list show the store of one moment, whatever is written between them."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentk.api import errors, kinds
from agentk.store import changes, listing
from agentk.store.store import Settings, Store

Object = dict[str, Any]
Make = Callable[..., Object]
AGENT = kinds.AGENT

pytestmark = pytest.mark.anyio


async def rest(store: Store, page: listing.Page, limit: int = 2, **selected: str) -> list[Object]:
    items = list(page.items)
    while page.cont:
        page = await store.list(AGENT, limit=limit, cont=page.cont, **selected)
        items += page.items
    return items


async def test_pages_together_are_the_whole_list(store: Store, agent: Make) -> None:
    for name in "edcba":
        await store.create(agent(name))
    page = await store.list(AGENT, limit=2)
    assert [obj["metadata"]["name"] for obj in page.items] == ["a", "b"] and page.remaining == 3
    assert await rest(store, page) == (await store.list(AGENT)).items


async def test_a_page_that_holds_all_has_no_token(store: Store, agent: Make) -> None:
    await store.create(agent("a"))
    page = await store.list(AGENT, limit=1)
    assert page.cont == "" and page.remaining is None


async def test_later_pages_know_nothing_of_later_writes(store: Store, agent: Make) -> None:
    for name in "abcdef":
        await store.create(agent(name))
    before = (await store.list(AGENT)).items
    page = await store.list(AGENT, limit=2)
    await store.delete(AGENT, "default", "c")
    await store.modify(AGENT, "default", "d", lambda o: o and {**o, "spec": {"changed": True}})
    await store.create(agent("bb"))
    await store.delete(AGENT, "default", "e")
    await store.create(agent("e"))
    assert await rest(store, page) == before


async def test_selectors_hold_across_pages(store: Store, agent: Make) -> None:
    for n in range(9):
        await store.create(agent(f"a{n}", labels={"odd": str(n % 2)}))
    page = await store.list(AGENT, labels="odd=1", limit=2)
    assert page.remaining is None
    items = await rest(store, page, labels="odd=1")
    assert [obj["metadata"]["name"] for obj in items] == ["a1", "a3", "a5", "a7"]
    only = await store.list(AGENT, fields="metadata.name=a4")
    assert [obj["metadata"]["name"] for obj in only.items] == ["a4"]


async def test_a_namespace_holds_only_its_own(store: Store, agent: Make) -> None:
    for namespace in ("one", "two"):
        await store.create(agent("a", namespace))
    page = await store.list(AGENT, "two")
    assert [obj["metadata"]["namespace"] for obj in page.items] == ["two"]


async def test_a_token_the_log_has_left_behind_is_expired(tmp_path: Path, agent: Make) -> None:
    store = Store.open(tmp_path, Settings(log=changes.Retention(count=5), sweep_changes=1))
    for name in "abc":
        await store.create(agent(name))
    cont = (await store.list(AGENT, limit=1)).cont
    for n in range(30):
        await store.create(agent(f"x{n}"))
    with pytest.raises(errors.Expired, match="continue token is too old"):
        await store.list(AGENT, limit=1, cont=cont)
    store.close()


@pytest.mark.parametrize("cont", ["x", "====", "bm9uc2Vuc2U", "WzEsMiwzXQ", "ä", "W10"])
async def test_a_token_that_is_not_ours_is_refused(store: Store, cont: str) -> None:
    with pytest.raises(errors.BadRequest, match="continue token"):
        await store.list(AGENT, cont=cont)


async def test_the_log_is_bounded_by_age_count_and_size(tmp_path: Path, agent: Make) -> None:
    kept = changes.Retention(count=1000, age_seconds=3600, size_bytes=20_000)
    store = Store.open(tmp_path, Settings(log=kept, sweep_changes=10**9))
    for n in range(50):
        await store.modify(AGENT, "default", "a", lambda _, n=n: {**agent(), "spec": {"text": str(n) * 1000}})
    await store.sweep()
    size = "SELECT sum(length(body)) FROM changes"
    assert store._readers.now(lambda conn: conn.execute(size).fetchone()[0]) <= 20_000 + 3000
    await store.sweep(now_seconds=10**11)
    count = "SELECT count(*) FROM changes"
    assert store._readers.now(lambda conn: conn.execute(count).fetchone()[0]) == 0
    store.close()


step = st.tuples(st.sampled_from("wdw"), st.integers(0, 7))


@settings(max_examples=40)
@given(before=st.lists(step, max_size=12), between=st.lists(step, max_size=12), limit=st.integers(1, 4))
def test_any_history_gives_the_list_of_the_first_page(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[tuple[str, int]],
    between: list[tuple[str, int]],
    limit: int,
) -> None:
    async def run() -> None:
        store = Store.open(tmp_path_factory.mktemp("s"), Settings(sweep_changes=10**9))
        try:
            await play(store, before)
            await store.sweep(now_seconds=10**11)  # an empty log must do as well
            whole = (await store.list(AGENT)).items
            page = await store.list(AGENT, limit=limit)
            await play(store, between)
            assert await rest(store, page, limit) == whole
        finally:
            store.close()

    asyncio.run(run())


async def play(store: Store, steps: list[tuple[str, int]]) -> None:
    for number, (what, n) in enumerate(steps):
        name = f"a{n}"
        if what == "w":
            new = {"apiVersion": AGENT.api_version, "kind": "Agent", "metadata": {}, "spec": {"n": number}}
            await store.modify(AGENT, "d", name, lambda obj, new=new: {**(obj or new), "spec": new["spec"]})
        elif await store.find(AGENT, "d", name):
            await store.delete(AGENT, "d", name)
