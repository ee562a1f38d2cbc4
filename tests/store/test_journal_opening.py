"""Opening says why it fails; a damaged journal is set aside, and a new one says so in its first record."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agentk.api import errors
from agentk.store import journal_reading as reading
from agentk.store import journal_verifying as verifying
from agentk.store import readers
from agentk.store.journal import Intent, Journal, Outcome
from agentk.store.journal_anchor import StateAnchor

pytestmark = pytest.mark.anyio


class Row(StateAnchor):
    def __init__(self) -> None:
        self.text: str | None = None
        super().__init__(lambda: self.text, self.keep)

    def keep(self, text: str) -> None:
        self.text = text


CALL = Intent("default", "a", "u1", 1, "r1", "exec", b"{}")


async def made(folder: Path, anchor: StateAnchor, calls: int = 3) -> None:
    journal = Journal.open(folder, anchor)
    for _ in range(calls):
        await journal.intend(CALL)
    journal.close()


def aside(folder: Path) -> list[Path]:
    return list(folder.glob("journal.db.damaged-*"))


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable, match="does not exist"):
        Journal.open(tmp_path / "none", Row())


async def test_a_second_one_is_told_of_the_first(tmp_path: Path) -> None:
    first = Journal.open(tmp_path, Row())
    with pytest.raises(errors.Unavailable, match="is locked by pid"):
        Journal.open(tmp_path, Row())
    first.close()
    Journal.open(tmp_path, Row()).close()


async def test_a_newer_journal_is_left_alone(tmp_path: Path) -> None:
    await made(tmp_path, Row())
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as conn:
        conn.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('journal', 'dreams', '')"
        )
    with pytest.raises(errors.Unavailable, match="newer agentk: it has the unknown migration dreams"):
        Journal.open(tmp_path, Row())


@pytest.mark.parametrize("damage", [b"not a database at all, not at all", b""])
async def test_a_damaged_journal_is_set_aside_and_told(tmp_path: Path, damage: bytes) -> None:
    anchor = Row()
    await made(tmp_path, anchor)
    path = tmp_path / "journal.db"
    path.write_bytes(damage * 500)
    journal = Journal.open(tmp_path, anchor)
    if damage:
        assert "was damaged (file is not a database)" in journal.notices[0]
        assert [file.read_bytes() for file in aside(tmp_path)] == [damage * 500]
        (first,) = journal.read(lambda conn: reading.records(conn, limit=1))
        assert "was damaged" in first.meta["notice"]
    assert any("not the journal that was anchored" in notice for notice in journal.notices)
    await journal.intend(CALL)
    verdict = await journal.verify()
    assert verdict.bad is None and not verdict.ok and verdict.gaps[0].record == 1
    journal.close()


async def test_a_database_of_another_kind_is_set_aside(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "journal.db")) as conn:
        conn.execute("CREATE TABLE mine (a)")
    journal = Journal.open(tmp_path, Row())
    assert "it is no journal" in journal.notices[0]
    journal.close()


async def test_a_cut_end_is_told_at_opening_and_ever_after(tmp_path: Path) -> None:
    anchor = Row()
    await made(tmp_path, anchor)
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as conn:
        conn.execute("DELETE FROM records WHERE id > 4")
        conn.execute("DELETE FROM bodies WHERE id > 2")
    journal = Journal.open(tmp_path, anchor)
    assert "records after 4 are missing" in journal.notices[0]
    verdict = await journal.verify()
    assert verdict.bad is None and [gap.record for gap in verdict.gaps] == [5]
    journal.close()


async def test_an_anchor_that_cannot_be_saved_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(text: str) -> None:
        raise OSError("no")

    journal = Journal.open(tmp_path, StateAnchor(lambda: "not json", refuse))
    await journal.intend(CALL)
    journal.close()
    assert "anchor could not be saved" in caplog.text
    with closing(readers.connect(tmp_path / "journal.db")) as conn:
        verdict = verifying.verify(conn, None)
    assert verdict.ok and verdict.anchored_through == 0 and "no anchor" in verdict.notes[0]


async def test_what_was_just_answered_is_in_doubt_for_a_guest_that_comes_again(tmp_path: Path) -> None:
    anchor = Row()
    first = Journal.open(tmp_path, anchor)
    for key in ("a-1", "b-1"):
        effect = await first.intend(replace(CALL, key=key))
        await first.settle(effect, Outcome("ok", b"{}"))
    assert first.left_behind("u1", 1, "a-") == [], "its guest is still there"
    await first.intend(replace(CALL, key="a-0"))
    first.close()
    second = Journal.open(tmp_path, anchor)
    assert second.left_behind("u1", 1, "a-") == ["a-0", "a-1"]
    assert second.left_behind("u1", 2, "a-") == second.left_behind("u2", 1, "a-") == []
    second.close()
