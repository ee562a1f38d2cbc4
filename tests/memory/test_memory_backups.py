"""A copy of memory.db is whole, ours alone, and has nothing of what was forgotten; what comes from elsewhere is read
before it is used."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agentk.api import errors
from agentk.daemon import restoring
from agentk.memory import backups, database, forgetting, keeping
from agentk.store import archives
from agentk.store.store import Store
from tests.memory.rooms import ask, opened, say


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Of a memory that remembers something and forgot something, taken while it is open."""
    final = tmp_path / "elsewhere" / database.DATABASE
    final.parent.mkdir()
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        for number in range(200):  # what is free afterwards is in the middle of what stays
            gone = say(conn, room, f"zwetschgenknödel {number}")
            say(conn, room, f"the kumquats of {number} are ripe")
            forgetting.forget(conn, [room.id], [gone])
        backups.copy_to(tmp_path / database.DATABASE, final)
    return final


def test_a_copy_is_found_by_words_and_by_nearness_and_belongs_to_us_alone(copy: Path) -> None:
    assert [one.name for one in copy.parent.iterdir()] == [copy.name]
    assert os.stat(copy).st_mode & 0o777 == 0o600
    assert backups.wrong(copy) == ""
    with opened(copy.parent) as conn:
        room = keeping.find(conn, "m", "a")
        assert room and room.pages == 200
        assert ask(conn, [room], "kumquats of 77")[0] == "the kumquats of 77 are ripe"
        assert say(conn, room, "and more")


def test_what_was_forgotten_is_not_in_a_copy(copy: Path) -> None:
    assert b"zwetschgen" not in copy.read_bytes()


def test_a_copy_is_never_written_over_another_file(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(FileExistsError):
        backups.copy_to(tmp_path / database.DATABASE, tmp_path / database.DATABASE)


def ruined(copy: Path) -> None:
    copy.write_bytes(copy.read_bytes()[:8000])


def newer(copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as conn, conn:
        conn.execute("INSERT INTO migrations VALUES ('of_tomorrow', 0)")


def acting(copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as conn, conn:
        conn.execute("CREATE TRIGGER t AFTER INSERT ON rooms BEGIN DELETE FROM pages; END")


def other(copy: Path) -> None:
    copy.unlink()
    with closing(sqlite3.connect(copy)) as conn, conn:
        conn.execute("CREATE TABLE pages (a)")


@pytest.mark.parametrize(
    ("change", "said"),
    [(ruined, "damaged"), (newer, "newer agentk"), (acting, "triggers"), (other, "no such table")],
)
def test_what_is_no_memory_of_ours_is_told(copy: Path, change: Callable[[Path], None], said: str) -> None:
    change(copy)
    assert said in backups.wrong(copy)


def test_a_backup_brings_objects_and_memory_back_together(tmp_path: Path) -> None:
    archive = tmp_path / "saved.tar"

    def texts() -> list[str]:
        with opened(tmp_path) as conn:
            room = keeping.find(conn, "m", "a")
            return [page.text for page in keeping.conversation(conn, room.id)] if room else []

    with closing(Store.open(tmp_path)) as store, opened(tmp_path) as conn:
        say(conn, keeping.room(conn, "m", "a", "a"), "before")
        asyncio.run(store.backup(archive, restoring.parts(tmp_path)))
        say(conn, keeping.room(conn, "m", "a", "a"), "after")
    archives.restore(tmp_path, archive, restoring.parts(tmp_path), [database.DATABASE])
    assert texts() == ["before", "after"]
    told = archives.restore(tmp_path, archive, restoring.parts(tmp_path))
    assert texts() == ["before"] and "and memory.db" in told[0]
    assert len(list(tmp_path.glob("memory.db.before-restore-*"))) == 1
    assert not list(tmp_path.glob("*.new*"))


def test_a_backup_with_a_wrong_memory_changes_nothing(tmp_path: Path, copy: Path) -> None:
    archive = tmp_path / "saved.tar"
    acting(copy)
    part = archives.Part(database.DATABASE, lambda final: shutil.copyfile(copy, final), backups.wrong)
    with closing(Store.open(tmp_path)) as store:
        asyncio.run(store.backup(archive, [part]))
    before = sorted(tmp_path.glob("*.db*"))
    with pytest.raises(errors.Invalid, match="triggers"):
        archives.restore(tmp_path, archive, [part])
    assert sorted(tmp_path.glob("*.db*")) == before
