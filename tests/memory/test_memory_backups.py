"""A copy of memory.db is whole, ours alone, and has nothing of what was forgotten; what comes from elsewhere is read
before it is used."""

import asyncio
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agentk.api import errors
from agentk.daemon import restoring
from agentk.memory import backups, database, driver, forgetting, keeping
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
    with closing(database.Database(tmp_path)) as db:
        db.copy(final)
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
    with closing(database.Database(tmp_path)) as db, pytest.raises(FileExistsError):
        db.copy(tmp_path / database.DATABASE)


def test_what_is_kept_and_forgotten_meanwhile_is_so_in_the_copy(tmp_path: Path) -> None:
    """It is taken in pieces, between which everybody goes on."""
    with opened(tmp_path) as conn:
        room = keeping.room(conn, "m", "a", "a")
        secret = say(conn, room, "zwetschgenknödel " * 100)
        for _ in range(8):
            say(conn, room, "long", content=os.urandom(1 << 20))
        copying = driver.Copying(conn, tmp_path / "copy.db")
        assert copying.step()
        forgetting.forget(conn, [room.id], [secret])
        say(conn, room, "the kumquats are ripe")
        assert database.checkpoint(conn)
        while copying.step():
            continue
        copying.close()
    copied = (tmp_path / "copy.db").read_bytes()
    assert b"zwetschgen" not in copied and b"the kumquats are ripe" in copied
    assert backups.wrong(tmp_path / "copy.db") == ""


def test_who_looks_a_page_up_waits_for_no_search(tmp_path: Path) -> None:
    async def act() -> None:
        go = threading.Event()
        with closing(database.Database(tmp_path)) as db:
            searches = [asyncio.create_task(db.read(lambda conn: go.wait(), scan=True)) for _ in range(20)]
            assert await db.read(keeping.every) == []
            go.set()
            assert all(await asyncio.gather(*searches))

    asyncio.run(act())


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

    def says(text: str) -> None:
        with opened(tmp_path) as conn:
            say(conn, keeping.room(conn, "m", "a", "a"), text)

    says("before")
    with closing(Store.open(tmp_path)) as store, closing(database.Database(tmp_path)) as db:
        asyncio.run(store.backup(archive, {database.DATABASE: db.copy}))
    says("after")
    archives.restore(tmp_path, archive, restoring.PARTS, [database.DATABASE])
    assert texts() == ["before", "after"]
    told = archives.restore(tmp_path, archive, restoring.PARTS)
    assert texts() == ["before"] and "and memory.db" in told[0]
    assert len(list(tmp_path.glob("memory.db.before-restore-*"))) == 1
    assert not list(tmp_path.glob("*.new*"))


def test_a_backup_with_a_wrong_memory_changes_nothing(tmp_path: Path, copy: Path) -> None:
    archive = tmp_path / "saved.tar"
    acting(copy)

    def save(final: Path) -> None:
        shutil.copyfile(copy, final)

    with closing(Store.open(tmp_path)) as store:
        asyncio.run(store.backup(archive, {database.DATABASE: save}))
    before = sorted(tmp_path.glob("*.db*"))
    with pytest.raises(errors.Invalid, match="triggers"):
        archives.restore(tmp_path, archive, restoring.PARTS)
    assert sorted(tmp_path.glob("*.db*")) == before
