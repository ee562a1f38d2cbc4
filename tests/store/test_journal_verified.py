"""Whatever is flipped, dropped, moved or cut off a journal, verifying finds it and names the first record of it."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentk.store import journal_chain as chain
from agentk.store import journal_verifying as verifying
from agentk.store import readers
from agentk.store.journal import Intent, Journal, Outcome, Settings
from agentk.store.journal_anchor import StateAnchor
from agentk.store.journal_retention import Retention


class Row(StateAnchor):
    def __init__(self) -> None:
        self.text: str | None = None
        super().__init__(lambda: self.text, self.keep)

    def keep(self, text: str) -> None:
        self.text = text


async def fill(folder: Path, anchor: StateAnchor) -> None:
    """Every kind of record: calls of several runs, an erased body, trimmed ones, a checkpoint, unknown ones."""
    kept = Settings(seal_records=8, kept=Retention(bodies_seconds=1e9, records_seconds=1e9))
    journal = Journal.open(folder, anchor, kept)
    for n in range(24):
        body = b"%d" % n * (1 if n % 5 else 9000)
        call = Intent(
            "default", "a", f"u{n % 3}", 1, f"r{n % 4}", "think", body, f"k{n}", {"calls": 1}, trace="t"
        )
        effect = await journal.intend(call)
        if n % 6:
            await journal.settle(effect, Outcome("ok", b"answer %d" % n, {"tokens": n}, {"model": "m"}))
        if n == 12:
            await journal.erase(await journal.record(call, Outcome("denied", b"no")))
            await journal.seal()
        if n == 9:
            await journal.seal()
            old = Settings(kept=Retention(0.0, 0.0))
            await sweep_with(journal, old)
    journal.close()
    again = Journal.open(folder, anchor, kept)
    again.close()


async def sweep_with(journal: Journal, others: Settings) -> None:
    mine, journal._settings = journal._settings, others
    await journal.sweep()
    journal._settings = mine


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder, anchor = tmp_path_factory.mktemp("journal"), Row()
    asyncio.run(fill(folder, anchor))
    with closing(sqlite3.connect(folder / "journal.db")) as conn:
        conn.execute("PRAGMA journal_mode = DELETE").fetchall()
    state = anchor.load()
    assert state
    return folder / "journal.db", state


def verified(path: Path, anchored: dict[str, Any] | None) -> verifying.Verdict:
    with closing(readers.connect(path)) as conn:
        return verifying.verify(conn, anchored)


@pytest.fixture(scope="module")
def tampered(
    made: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Callable[[sqlite3.Connection], object]], verifying.Verdict]:
    path, state = made
    copy = tmp_path_factory.mktemp("copy") / "journal.db"

    def tamper(how: Callable[[sqlite3.Connection], object]) -> verifying.Verdict:
        shutil.copyfile(path, copy)
        with closing(sqlite3.connect(copy, isolation_level=None)) as conn:
            conn.execute("DROP INDEX records_slot")
            how(conn)
        return verified(copy, state)

    return tamper


Tamper = Callable[[Callable[[sqlite3.Connection], object]], verifying.Verdict]


def test_what_was_written_is_proved(made: tuple[Path, dict[str, Any]]) -> None:
    path, state = made
    verdict = verified(path, state)
    assert verdict.ok and verdict.notes == ()
    with closing(readers.connect(path)) as conn:
        first, last, kinds = conn.execute(
            "SELECT min(id), max(id), count(DISTINCT kind) FROM records"
        ).fetchone()
    assert verdict.anchored_through == last and verdict.records == last - first + 1
    assert first > 1 and kinds >= 7


TABLES = {
    "records": (*chain.COLUMNS, "hash"),
    "bodies": ("id", "codec", "salt", "data"),
    "runs": ("uid", "run", "last", "seq", "hash"),
    "head": ("last", "hash", "mac"),
    "meta": ("key", "value"),
}


def flip(value: object, at: int, by: int) -> object:
    """The value with one byte changed; of a text, its bytes."""
    if value is None:
        return by
    if isinstance(value, int):
        return value ^ (by << 8 * (at % 4))
    raw = bytearray(value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else b"")
    if raw:
        raw[at % len(raw)] ^= by
    else:
        raw.append(by)
    return bytes(raw)


SLOW = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@SLOW
@given(data=st.data())
def test_any_flipped_byte_is_found(tampered: Tamper, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(sorted(TABLES)))
    column = data.draw(st.sampled_from(TABLES[table]))
    place, at, by = (
        data.draw(st.integers(0, 10**6)),
        data.draw(st.integers(0, 10**5)),
        data.draw(st.integers(1, 255)),
    )
    touched: list[Any] = []

    def how(conn: sqlite3.Connection) -> None:
        order = {"meta": "key", "runs": "uid || run"}.get(table, "rowid")
        rows = conn.execute(
            f"SELECT {order}, {column}, typeof({column}) FROM {table} ORDER BY {order}"
        ).fetchall()
        row, value, kind = rows[place % len(rows)]
        new = flip(value, at, by)
        cast = "CAST(? AS TEXT)" if kind == "text" else "?"
        conn.execute(f"UPDATE OR REPLACE {table} SET {column} = {cast} WHERE {order} = ?", (new, row))
        touched.append(row)

    verdict = tampered(how)
    assert verdict.bad is not None, (table, column, touched)
    if table == "records" and column not in ("id",):
        assert verdict.bad.record == touched[0], (column, verdict.bad)


@SLOW
@given(data=st.data())
def test_any_dropped_record_is_found_and_named(tampered: Tamper, data: st.DataObject) -> None:
    place, many = data.draw(st.integers(0, 10**6)), data.draw(st.integers(1, 5))
    gone: list[int] = []

    def how(conn: sqlite3.Connection) -> None:
        ids = [number for (number,) in conn.execute("SELECT id FROM records ORDER BY id")]
        gone.extend(ids[place % len(ids) :][:many])
        conn.executemany("DELETE FROM records WHERE id = ?", [(number,) for number in gone])

    verdict = tampered(how)
    assert verdict.bad is not None and verdict.bad.record == gone[0], (gone, verdict.bad)


@SLOW
@given(data=st.data())
def test_any_two_records_that_changed_places_are_found(tampered: Tamper, data: st.DataObject) -> None:
    one, other = data.draw(st.integers(0, 10**6)), data.draw(st.integers(0, 10**6))
    moved: list[int] = []

    def how(conn: sqlite3.Connection) -> None:
        ids = [number for (number,) in conn.execute("SELECT id FROM records ORDER BY id")]
        a, b = ids[one % len(ids)], ids[other % len(ids)]
        b = b if a != b else ids[(other + 1) % len(ids)]
        moved.append(min(a, b))
        for old, new in ((a, -1), (b, a), (-1, b)):
            conn.execute("UPDATE records SET id = ? WHERE id = ?", (new, old))

    verdict = tampered(how)
    assert verdict.bad is not None and verdict.bad.record == moved[0]


@SLOW
@given(keep=st.integers(0, 10**6))
def test_a_cut_end_is_found_even_when_all_that_is_keyed_is_made_anew(
    tampered: Tamper, made: tuple[Path, dict[str, Any]], keep: int
) -> None:
    left: list[int] = []

    def how(conn: sqlite3.Connection) -> None:
        ids = [number for (number,) in conn.execute("SELECT id FROM records ORDER BY id")]
        last = ids[keep % (len(ids) - 1)]
        conn.execute("DELETE FROM records WHERE id > ?", (last,))
        key, journal = (
            conn.execute("SELECT value FROM meta WHERE key = ?", (name,)).fetchone()[0]
            for name in ("key", "journal")
        )
        digest = conn.execute("SELECT hash FROM records WHERE id = ?", (last,)).fetchone()[0]
        mac = chain.head_mac(key, journal, chain.Head(last, digest))
        conn.execute("UPDATE head SET last = ?, hash = ?, mac = ?", (last, digest, mac))
        left.append(last)

    verdict = tampered(how)
    assert verdict.bad is not None
    assert verdict.bad.record <= left[0] + 1


def test_a_history_written_anew_with_the_key_is_found_by_its_anchor(tampered: Tamper) -> None:
    def how(conn: sqlite3.Connection) -> None:
        """Change one record, and every hash after it."""
        meta = dict(conn.execute("SELECT key, value FROM meta"))
        rows = conn.execute(f"{chain.SELECT} ORDER BY id").fetchall()
        start = len(rows) // 2
        heads: dict[Any, chain.Head] = {}
        last = chain.Head(0, b"")
        for place, row in enumerate(rows):
            owner, digest = (row[5], row[6]), row[-1]
            if place >= start and owner in heads:
                columns = [*row[:-1]]
                if place == start:
                    columns[10] = "noop"
                digest = chain.link(heads[owner].hash, last.hash, columns)
                conn.execute(
                    "UPDATE records SET method = ?, hash = ? WHERE id = ?", (columns[10], digest, row[0])
                )
            heads[owner] = last = chain.Head(row[0], digest)
        conn.execute(
            "UPDATE head SET hash = ?, mac = ?",
            (last.hash, chain.head_mac(meta["key"], meta["journal"], last)),
        )

    verdict = tampered(how)
    assert verdict.bad is not None


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM head",
        "DELETE FROM runs WHERE uid = 'u1'",
        "INSERT INTO runs VALUES ('u9', 'r9', 1, 1, x'00')",
        "DELETE FROM meta",
        "DELETE FROM records",
        "DELETE FROM records; DELETE FROM head; DELETE FROM bodies",
        "INSERT INTO bodies VALUES (9999, 0, x'00', x'00')",
        "DELETE FROM bodies WHERE id = (SELECT max(id) FROM bodies)",
        "UPDATE bodies SET codec = 2, salt = x'', data = x'' WHERE id = (SELECT max(id) FROM bodies)",
        "UPDATE records SET asked_digest = CAST(lower(hex(asked_digest)) AS TEXT) WHERE asked IS NOT NULL",
        "UPDATE records SET agent = CAST(agent AS BLOB)",
        "UPDATE records SET agent = CAST(x'ff' AS TEXT)",
        "INSERT INTO records SELECT (SELECT max(id) + 1 FROM records), before, seq + 1, at, kind, uid, run, attempt,"
        " namespace, agent, method, 'x', of, parent, key, slot, trace, status, amounts, meta, asked, asked_digest,"
        " answer, answer_digest, hash FROM records ORDER BY id DESC LIMIT 1",
    ],
)
def test_other_ways_to_tamper_are_found(tampered: Tamper, statement: str) -> None:
    verdict = tampered(lambda conn: conn.executescript(statement))
    assert verdict.bad is not None


def test_another_anchor_is_not_its_anchor(made: tuple[Path, dict[str, Any]]) -> None:
    path, state = made
    assert verified(path, {**state, "journal": "other"}).bad
    assert verified(path, {**state, "hash": "00" * 32}).bad
    assert verified(path, {**state, "mac": "00" * 32}).bad
    assert verified(path, {**state, "record": state["record"] - 1}).bad
    unanchored = verified(path, None)
    assert unanchored.ok and unanchored.anchored_through == 0 and unanchored.notes
