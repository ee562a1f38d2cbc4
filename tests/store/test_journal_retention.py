"""What is old goes, bodies first, and what stays is proved as before."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agentk.api import errors
from agentk.store import journal_reading as reading
from agentk.store import journal_retention as retention
from agentk.store.journal import Intent, Journal, Outcome, Settings
from agentk.store.journal_anchor import StateAnchor
from agentk.store.journal_retention import Retention
from agentk.store.writer import Tx

pytestmark = pytest.mark.anyio

NEVER = 1e9


class Row(StateAnchor):
    def __init__(self) -> None:
        self.text: str | None = None
        super().__init__(lambda: self.text, self.keep)

    def keep(self, text: str) -> None:
        self.text = text


Open = Callable[[Retention], Journal]


@pytest.fixture
async def reopen(tmp_path: Path) -> AsyncIterator[Open]:
    """The same journal with another retention; the one before is closed."""
    anchor, opened = Row(), list[Journal]()

    def reopen(kept: Retention) -> Journal:
        for one in opened:
            one.close()
        opened.append(
            Journal.open(tmp_path, anchor, Settings(kept=kept, seal_records=10, seal_seconds=NEVER))
        )
        return opened[-1]

    yield reopen
    for one in opened:
        one.close()


async def calls(journal: Journal, many: int, uid: str = "u1", body: bytes = b"asked") -> None:
    for n in range(many):
        call = Intent("default", "a", uid, 1, f"{uid}-{n % 3}", "think", body, key=f"{n}")
        effect = await journal.intend(call)
        await journal.settle(effect, Outcome("ok", b"answer", {"tokens": 2, "calls": 1}))


async def sweep(journal: Journal) -> None:
    """As ever, after something more happened: the newest segment always stays."""
    await journal.seal()
    await journal.record(Intent("default", "b", "u0", 1, "r0", "think", b""), Outcome("denied", b""))
    await journal.sweep()


async def test_nothing_goes_before_its_time(reopen: Open) -> None:
    journal = reopen(Retention())
    await calls(journal, 20)
    before = journal.read(lambda conn: reading.records(conn, uid="u1"))
    await sweep(journal)
    assert journal.read(lambda conn: reading.records(conn, uid="u1")) == before


async def test_old_bodies_go_and_their_records_stay(reopen: Open) -> None:
    journal = reopen(Retention(bodies_seconds=0, records_seconds=NEVER))
    await calls(journal, 20)
    await sweep(journal)
    await calls(journal, 1, "u2")
    found = journal.read(lambda conn: reading.records(conn, uid="u1"))
    assert len(found) == 40 and all(one.asked is None and one.answer is None for one in found)
    assert {one.asked for one in journal.read(lambda conn: reading.records(conn, uid="u2"))} == {
        b"asked",
        None,
    }
    known = journal.known("u1", 1, "3")
    assert known is not None and known.digest == "" and known.answer_erased
    verdict = await journal.verify()
    assert verdict.ok, verdict


async def test_old_records_become_a_checkpoint_that_keeps_the_sums(reopen: Open) -> None:
    journal = reopen(Retention(bodies_seconds=0, records_seconds=0))
    used = {"tokens": 60, "calls": 30, "cost_micro_usd": 0}
    for times in range(1, 4):
        await calls(journal, 10)
        await sweep(journal)
        assert journal.read(lambda conn: reading.spent(conn, "u1"))["calls"] == 10 * times
        verdict = await journal.verify()
        assert verdict.ok and verdict.anchored_through, verdict
        journal = reopen(Retention(bodies_seconds=0, records_seconds=0))
        await journal.write(lambda tx: tx.conn.execute("DELETE FROM items").rowcount)
        # keys of what went are free again: the guest that used them is long gone
        assert journal.known("u1", 1, "0") is None
    assert journal.read(lambda conn: reading.spent(conn, "u1")) == used
    (count,) = journal.read(lambda conn: conn.execute("SELECT count(*) FROM records").fetchone())
    assert count < 30


async def test_what_is_in_flight_is_never_cut(reopen: Open) -> None:
    journal = reopen(Retention(bodies_seconds=0, records_seconds=0))
    await calls(journal, 10)
    effect = await journal.intend(Intent("default", "a", "u9", 1, "r9", "exec", b"stays"))
    await calls(journal, 10, "u2")
    await sweep(journal)
    (found,) = journal.read(lambda conn: reading.records(conn, uid="u9"))
    assert found.asked == b"stays"
    await journal.settle(effect, Outcome("ok", b""))
    await sweep(journal)
    assert journal.read(lambda conn: reading.records(conn, uid="u9")) == []
    assert (await journal.verify()).ok


async def test_an_unknown_effect_that_went_can_no_longer_be_settled(reopen: Open) -> None:
    effect = await reopen(Retention()).intend(Intent("default", "a", "u9", 1, "r9", "exec", b"left"))
    journal = reopen(Retention(bodies_seconds=0, records_seconds=0))
    assert [one.effect for one in journal.unknown()] == [effect]
    await calls(journal, 20)
    await sweep(journal)
    assert journal.unknown() == []
    with pytest.raises(errors.Conflict):
        await journal.settle(effect, Outcome("ok", b""))
    assert (await journal.verify()).ok


async def test_too_many_bytes_take_bodies_first(reopen: Open) -> None:
    limit = 400_000
    journal = reopen(Retention(NEVER, NEVER, limit))
    for n in range(60):
        await calls(journal, 1, f"u{n}", bytes(str(n), "ascii") * 8000)
    await sweep(journal)
    assert journal.read(retention.used_bytes) <= limit
    found = journal.read(lambda conn: reading.records(conn, limit=-1))
    assert found[0].id == 1 and any(one.asked for one in found)
    assert (await journal.verify()).ok


async def test_guests_go_on_while_it_sweeps(reopen: Open) -> None:
    journal = reopen(Retention(bodies_seconds=0, records_seconds=0))
    await calls(journal, 50)
    await asyncio.gather(sweep(journal), *(calls(journal, 20, f"v{n}") for n in range(5)))
    verdict = await journal.verify()
    assert verdict.ok, verdict
    assert journal.read(lambda conn: reading.spent(conn, "u1"))["calls"] == 50


async def test_what_guests_keep_costs_the_journal_nothing(reopen: Open) -> None:
    journal = reopen(Retention())

    def keep(tx: Tx) -> None:
        tx.conn.execute(
            "INSERT INTO kv (scope, key, version, value) VALUES ('agent/u', 'k', 1, zeroblob(8000000))"
        )

    before = journal.read(retention.used_bytes)
    await journal.write(keep)
    assert journal.read(retention.used_bytes) - before < 100_000
