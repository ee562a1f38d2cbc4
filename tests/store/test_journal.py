"""Written before it is done, found again after a crash, never done twice."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.store import journal_reading as reading
from agentk.store.journal import Intent, Journal, Outcome, Settings
from agentk.store.journal_anchor import StateAnchor
from agentk.store.journal_redaction import Redactor
from agentk.store.writer import Tx

pytestmark = pytest.mark.anyio


class Row(StateAnchor):
    """An anchor in one row of memory."""

    def __init__(self) -> None:
        self.text: str | None = None
        super().__init__(lambda: self.text, self.keep)

    def keep(self, text: str) -> None:
        self.text = text


def intent(method: str = "think", body: bytes = b'{"a":1}', **told: Any) -> Intent:
    fields: dict[str, Any] = {"namespace": "default", "agent": "a", "uid": "u1", "attempt": 1, "run": "r1"}
    return Intent(**{**fields, "method": method, "body": body, **told})


@pytest.fixture
def anchor() -> Row:
    return Row()


@pytest.fixture
async def journal(tmp_path: Path, anchor: Row) -> AsyncIterator[Journal]:
    opened = Journal.open(tmp_path, anchor)
    yield opened
    opened.close()


async def test_an_intent_is_on_the_disk_before_its_result(journal: Journal) -> None:
    effect = await journal.intend(intent(reserved={"tokens": 9}))
    assert len(effect) == 32
    (found,) = journal.read(lambda conn: reading.records(conn, uid="u1"))
    assert (found.kind, found.effect, found.asked, found.amounts) == (
        "intent",
        effect,
        b'{"a":1}',
        {"tokens": 9},
    )
    assert [(one.effect, one.in_flight) for one in journal.unknown()] == [(effect, True)]
    await journal.settle(effect, Outcome("ok", b'{"b":2}', {"tokens": 7, "calls": 1}, {"model": "m"}))
    assert journal.unknown() == []
    done = journal.read(lambda conn: reading.records(conn, run="r1", after=found.id))[0]
    assert (done.kind, done.of, done.answer, done.status) == ("result", found.id, b'{"b":2}', "ok")


async def test_an_effect_is_settled_once(journal: Journal) -> None:
    effect = await journal.intend(intent())
    await journal.settle(effect, Outcome("ok", b""))
    with pytest.raises(errors.Conflict, match="settled before"):
        await journal.settle(effect, Outcome("ok", b""))
    with pytest.raises(errors.Conflict, match="never begun"):
        await journal.settle("0" * 32, Outcome("ok", b""))


async def test_of_two_settlements_at_once_one_is_refused(journal: Journal) -> None:
    effect = await journal.intend(intent())
    answers = await asyncio.gather(
        *(journal.settle(effect, Outcome("ok", b"")) for _ in range(5)), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["Conflict"] * 4 + ["NoneType"]


async def test_equal_calls_are_different_effects(journal: Journal) -> None:
    effects = await asyncio.gather(*(journal.intend(intent()) for _ in range(50)))
    assert len(set(effects)) == 50


async def test_a_repeated_key_finds_its_call_and_its_answer(journal: Journal) -> None:
    assert journal.known("u1", 1, "k") is None
    effect = await journal.intend(intent(key="k"))
    known = journal.known("u1", 1, "k")
    assert known is not None and known.effect == effect and known.outcome is None
    assert known.digest == journal.digest("think", b'{"a":1}') != journal.digest("think", b'{"a":2}')
    await journal.settle(effect, Outcome("error", b"no", {"calls": 1}))
    known = journal.known("u1", 1, "k")
    assert known is not None and known.outcome == Outcome("error", b"no", {"calls": 1}, {})
    assert journal.known("u1", 2, "k") is None and journal.known("u2", 1, "k") is None
    assert journal.known("u1", 1, "") is None


async def test_of_two_calls_with_one_key_the_second_is_refused(journal: Journal) -> None:
    answers = await asyncio.gather(
        *(journal.intend(intent(key="k")) for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(answer, errors.Conflict) for answer in answers) == 3
    await journal.intend(intent(key="k", attempt=2))
    assert len(journal.unknown()) == 2
    assert (await journal.verify()).ok


async def test_a_denial_is_recorded_and_leaves_its_key_free(journal: Journal) -> None:
    await journal.record(intent(key="k"), Outcome("denied", b"", meta={"rule": "no"}))
    assert journal.known("u1", 1, "k") is None
    (found,) = journal.read(lambda conn: reading.records(conn, uid="u1"))
    assert (found.kind, found.status, found.meta) == ("note", "denied", {"rule": "no"})


async def test_a_local_call_and_its_record_are_one(journal: Journal) -> None:
    def put(tx: Tx) -> Outcome:
        tx.conn.execute("INSERT INTO kv (scope, key, version, value) VALUES ('u1', 'a', 1, x'01')")
        return Outcome("ok", b"1", {"calls": 1})

    outcome = await journal.local(intent("state.put", key="k"), put)
    assert outcome.body == b"1"
    with pytest.raises(errors.Conflict):
        await journal.local(intent("state.put", key="k"), lambda tx: put_other(tx))
    assert journal.read(lambda conn: conn.execute("SELECT key FROM kv").fetchall()) == [("a",)]
    known = journal.known("u1", 1, "k")
    assert known is not None and known.outcome is not None and known.outcome.body == b"1"


def put_other(tx: Tx) -> Outcome:
    tx.conn.execute("INSERT INTO kv (scope, key, version, value) VALUES ('u1', 'b', 1, x'01')")
    return Outcome("ok", b"")


async def test_a_local_call_that_raises_leaves_neither(journal: Journal) -> None:
    def fail(tx: Tx) -> Outcome:
        put_other(tx)
        raise errors.NotFound("nothing there")

    with pytest.raises(errors.NotFound):
        await journal.local(intent(), fail)
    assert journal.read(lambda conn: conn.execute("SELECT 1 FROM kv").fetchall()) == []
    assert journal.read(lambda conn: reading.records(conn, uid="u1")) == []
    await journal.intend(intent())
    assert (await journal.verify()).ok


async def test_failures_beside_successes_break_no_chain(journal: Journal) -> None:
    def fail(tx: Tx) -> Outcome:
        put_other(tx)
        raise ValueError

    calls = [
        journal.local(intent(), fail) if n % 3 else journal.intend(intent(key=str(n // 2))) for n in range(60)
    ]
    await asyncio.gather(*calls, return_exceptions=True)
    verdict = await journal.verify()
    assert verdict.ok, verdict


async def test_a_transaction_the_disk_refuses_is_forgotten(journal: Journal) -> None:
    def give_up(tx: Tx) -> None:
        tx.conn.execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    answers = await asyncio.gather(
        journal.intend(intent(key="k")), journal.write(give_up), return_exceptions=True
    )
    assert isinstance(answers[1], errors.Unavailable)
    effect = await journal.intend(intent(key="after"))
    await journal.settle(effect, Outcome("ok", b""))
    open_now = {one.effect for one in journal.unknown()}
    assert open_now == ({answers[0]} if isinstance(answers[0], str) else set())
    assert (await journal.verify()).ok


async def test_a_caller_cancelled_while_intending_leaves_nothing_open(journal: Journal) -> None:
    task = asyncio.ensure_future(journal.intend(intent()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while journal._abandoned:
        await asyncio.gather(*journal._abandoned)
    assert journal.unknown() == []
    records = journal.read(lambda conn: reading.records(conn, uid="u1"))
    assert [(one.kind, one.status) for one in records] == [("intent", ""), ("result", "cancelled")]


async def test_text_that_is_half_a_character_is_refused(journal: Journal) -> None:
    with pytest.raises(errors.BadRequest, match="Unicode"):
        await journal.intend(intent(key="\ud800"))
    await journal.intend(intent(meta={"a": "\ud800"}))
    assert (await journal.verify()).ok


async def test_what_was_left_by_a_clean_end_is_unknown_and_settled(tmp_path: Path, anchor: Row) -> None:
    first = Journal.open(tmp_path, anchor)
    meta: dict[str, str | int] = {"counted_tokens": 12, "counted_cost_micro_usd": 3}
    effect = await first.intend(intent(key="k", reserved={"tokens": 500, "calls": 1}, meta=meta))
    first.close()
    first.close()
    second = Journal.open(tmp_path, anchor)
    assert "1 calls were under way" in second.notices[0]
    (left,) = second.unknown()
    assert (left.effect, left.in_flight, left.reserved) == (effect, False, {"tokens": 500, "calls": 1})
    known = second.known("u1", 1, "k")
    assert known is not None and known.outcome is not None and known.outcome.status == "unknown"
    used = {"tokens": 12, "calls": 1, "cost_micro_usd": 3}
    assert second.read(lambda conn: reading.spent(conn, "u1")) == used
    second.close()
    third = Journal.open(tmp_path, anchor)
    assert [one.effect for one in third.unknown()] == [effect] and third.notices == []
    await third.settle(effect, Outcome("ok", b"found out", {"tokens": 20, "calls": 1}))
    assert third.unknown() == []
    used = {"tokens": 20, "calls": 1, "cost_micro_usd": 0}
    assert third.read(lambda conn: reading.spent(conn, "u1")) == used
    assert (await third.verify()).ok
    third.close()
    fourth = Journal.open(tmp_path, anchor)
    assert fourth.unknown() == []
    fourth.close()


CRASH = """
import asyncio, os, sys
from pathlib import Path
from agentk.store.journal import Intent, Journal, Outcome, Settings
from agentk.store.journal_anchor import StateAnchor
folder = Path(sys.argv[1])
row = folder / "row"
def save(text):  # whole or not at all, as a row of a database
    (folder / "new").write_text(text)
    os.replace(folder / "new", row)
async def main():
    anchor = StateAnchor(lambda: row.read_text() if row.exists() else None, save)
    journal = Journal.open(folder, anchor, Settings(seal_records=int(sys.argv[2])))
    async def call(n):
        while True:
            intent = Intent("default", "a", "u1", 1, f"r{n}", "exec", os.urandom(20), reserved={"calls": 1})
            effect = await journal.intend(intent)
            print("begun", effect, flush=True)
            await journal.settle(effect, Outcome("ok", b"done"))
            print("done", effect, flush=True)
    await asyncio.gather(*(call(n) for n in range(8)))
asyncio.run(main())
"""


def run_and_kill(folder: Path, seal_records: int) -> list[list[str]]:
    """Calls without end, killed in the middle; what callers were told."""
    child = subprocess.Popen(
        [sys.executable, "-c", CRASH, str(folder), str(seal_records)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    with child, child.stdout:
        told = [child.stdout.readline().split() for _ in range(200)]
        os.kill(child.pid, signal.SIGKILL)
        return told + [line.split() for line in child.stdout.read().splitlines()]


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.glob("journal.db*"))


@pytest.mark.parametrize("seal_records", [7, 10_000])
async def test_killed_at_any_moment_nothing_told_is_lost(tmp_path: Path, seal_records: int) -> None:
    told = run_and_kill(tmp_path, seal_records)
    anchor = Row()
    anchor.keep((tmp_path / "row").read_text())
    journal = Journal.open(tmp_path, anchor)
    records = journal.read(lambda conn: reading.records(conn, uid="u1", limit=-1))
    intents = {one.effect for one in records if one.kind == "intent"}
    results = {one.effect for one in records if one.kind == "result"}
    assert {line[1] for line in told if len(line) == 2 and line[0] == "begun"} <= intents
    assert {line[1] for line in told if len(line) == 2 and line[0] == "done"} <= results
    assert {one.effect for one in journal.unknown()} == intents - results
    assert {one.effect for one in records if one.kind == "unknown"} == intents - results
    verdict = await journal.verify()
    assert verdict.ok, verdict
    journal.close()


async def test_secrets_reach_neither_bodies_nor_meta(tmp_path: Path, anchor: Row) -> None:
    journal = Journal.open(tmp_path, anchor, Settings(redact=Redactor(["s3cr3t-value"])))
    effect = await journal.intend(
        intent(body=b'{"k":"s3cr3t-value"}', meta={"url": "http://x/?k=s3cr3t-value"})
    )
    await journal.settle(effect, Outcome("ok", b"s3cr3t-value" * 20_000))
    journal.close()
    assert b"s3cr3t" not in on_disk(tmp_path)


async def test_an_erased_body_leaves_a_tombstone_and_no_trace(
    tmp_path: Path, journal: Journal, anchor: Row
) -> None:
    secret = b'{"text":"' + b"forget me, " * 200 + b'"}'
    effect = await journal.intend(intent(body=secret, key="k"))
    again = await journal.intend(intent(body=secret))  # shares the body
    await journal.settle(effect, Outcome("ok", b"remember me not"))
    assert await journal.erase(effect, reason="asked to") == 2
    assert await journal.erase(effect) == 0
    for one in journal.read(lambda conn: reading.records(conn, uid="u1")):
        assert one.asked is None and one.answer is None
    known = journal.known("u1", 1, "k")
    assert known is not None and known.answer_erased and known.digest == ""
    third = await journal.intend(intent(body=secret))  # said anew: stored anew
    (fresh,) = [
        one for one in journal.read(lambda conn: reading.records(conn, uid="u1")) if one.effect == third
    ]
    assert fresh.asked == secret
    assert await journal.erase(fresh.asked_digest) == 1
    with pytest.raises(errors.NotFound):
        await journal.erase("f" * 64)
    assert (await journal.verify()).ok and again
    assert b"forget me" not in on_disk(tmp_path) and b"remember me" not in on_disk(tmp_path)


async def test_large_bodies_are_kept_small_and_equal_ones_once(journal: Journal) -> None:
    body = b'{"text":"' + b"the same again and again " * 20_000 + b'"}'
    for _ in range(20):
        await journal.intend(intent(body=body))
    assert journal.read(lambda conn: conn.execute("SELECT count(*) FROM bodies").fetchone()) == (1,)
    assert journal.read(lambda conn: reading.records(conn, uid="u1"))[-1].asked == body
    (stored,) = journal.read(lambda conn: conn.execute("SELECT sum(length(data)) FROM bodies").fetchone())
    assert stored < len(body) / 50


async def test_guests_state_is_written_without_a_record(journal: Journal) -> None:
    await journal.write(
        lambda tx: tx.conn.execute("INSERT INTO grants VALUES ('u1', 1, 1, 1, 0, 0)").rowcount
    )
    assert journal.read(lambda conn: conn.execute("SELECT tokens FROM grants").fetchone()) == (1,)
    assert await journal.read_apart(lambda conn: reading.records(conn, uid="u1")) == []
