"""An agent's calls, newest first and a page at a time, over several runs; and what it spent, read once."""

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors
from agentk.store import journal_calls as telling
from agentk.store import journal_reading as reading
from agentk.store.journal import Intent, Journal, Outcome, Settings
from agentk.store.journal_anchor import StateAnchor
from agentk.store.journal_retention import Retention


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    anchor: list[str] = []
    made = Journal.open(tmp_path, StateAnchor(lambda: anchor[-1] if anchor else None, anchor.append))
    yield made
    made.close()


def intent(uid: str, run: str, method: str = "think") -> Intent:
    return Intent("default", "a", uid, 1, run, method, b'{"prompt":"x"}')


async def called(journal: Journal, uid: str, run: str, tokens: int = 1, **more: Any) -> str:
    effect = await journal.intend(intent(uid, run, **more))
    await journal.settle(effect, Outcome("ok", b"{}", {"tokens": tokens, "calls": 1}))
    return effect


def pages(journal: Journal, uid: str, limit: int, run: str = "") -> list[int]:
    found, cont = [], ""
    while True:
        page = journal.read(partial(telling.page, uid=uid, run=run, limit=limit, cont=cont))
        assert len(page.calls) <= limit
        found += [one.begun.id for one in page.calls]
        cont = page.cont
        if not cont:
            return found


@given(
    made=st.lists(st.tuples(st.sampled_from("uv"), st.sampled_from("123")), max_size=25),
    limit=st.integers(1, 7),
)
def test_pages_tell_every_call_once_and_the_newest_first(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[str, str]], limit: int
) -> None:
    anchor: list[str] = []
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal.open(folder, StateAnchor(lambda: anchor[-1] if anchor else None, anchor.append))

    async def fill() -> None:
        for uid, run in made:
            await called(journal, uid, run)

    asyncio.run(fill())
    for uid in "uv":
        found = pages(journal, uid, limit)
        assert len(found) == len(set(found)) == sum(one == uid for one, _ in made)
        assert found == sorted(found, reverse=True)
        assert len(pages(journal, uid, limit, run="2")) == made.count((uid, "2"))
    journal.close()


def test_a_cursor_is_of_its_agent_alone(journal: Journal) -> None:
    async def fill() -> None:
        for _ in range(3):
            await called(journal, "u", "1")
            await called(journal, "v", "1")

    asyncio.run(fill())
    cont = journal.read(lambda conn: telling.page(conn, "u", limit=1)).cont
    assert journal.read(lambda conn: telling.page(conn, "v", limit=9, cont=cont)).calls == []
    with pytest.raises(errors.BadRequest):
        journal.read(lambda conn: telling.page(conn, "u", cont="1.x"))


def test_what_was_spent_is_the_same_read_at_once_or_bit_by_bit(journal: Journal) -> None:
    def spent(had: telling.Spent | None = None) -> telling.Spent:
        return journal.read(lambda conn: telling.spent(conn, "u", had))

    async def story() -> None:
        had = spent()
        assert had.amounts == (0, 0, 0)
        for run in ("1", "2", "1"):
            await called(journal, "u", run, tokens=5)
            await called(journal, "v", run, tokens=100)
        effect = await journal.intend(intent("u", "2"))
        await journal.settle(effect, Outcome("unknown", b"", {"tokens": 40, "calls": 1}))
        had = spent(had)
        assert had.amounts == (55, 4, 0)
        await journal.settle(effect, Outcome("ok", b"", {"tokens": 7, "calls": 1}))  # somebody found out
        assert spent(had).amounts == spent().amounts == (22, 4, 0)
        told = journal.read(lambda conn: reading.spent(conn, "u"))
        assert told == {"tokens": 22, "calls": 4, "cost_micro_usd": 0}

    asyncio.run(story())


def test_what_retention_took_ends_the_pages(journal: Journal) -> None:
    async def story() -> None:
        for _ in range(5):
            await called(journal, "u", "1")
        had = journal.read(lambda conn: telling.spent(conn, "u"))
        await journal.seal()
        journal._settings = Settings(kept=Retention(0.0, 0.0))
        await journal.sweep()
        journal._settings = Settings()
        await called(journal, "u", "1")
        assert len(pages(journal, "u", 2)) <= 6
        assert journal.read(lambda conn: telling.spent(conn, "u", had)).amounts == (6, 6, 0)

    asyncio.run(story())


def test_who_bore_a_name_is_known_after_they_are_gone(journal: Journal) -> None:
    async def fill() -> None:
        await called(journal, "old", "1")
        await called(journal, "new", "1")

    asyncio.run(fill())
    assert journal.read(lambda conn: telling.uids(conn, "default", "a")) == ["new", "old"]
    assert journal.read(lambda conn: telling.uids(conn, "other", "a")) == []
