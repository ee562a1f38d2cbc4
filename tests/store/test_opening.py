"""Opening says why it fails, and never works on a file that is damaged, newer than we are or in use."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors, kinds
from agentk.store import opening, schema
from agentk.store.store import Store

Make = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.anyio


def test_a_missing_directory_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable, match="does not exist") as caught:
        Store.open(tmp_path / "none")
    assert caught.value.hint == f"mkdir -p -m 700 {tmp_path / 'none'}"


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.Unavailable, match="is not a directory"):
        Store.open(tmp_path / "file")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "ro"
    folder.mkdir(mode=0o500)
    if os.geteuid():
        yield folder
        return
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"root may write everywhere, and cannot mount: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_directory_that_cannot_be_written_says_why(read_only: Path) -> None:
    with pytest.raises(
        errors.Unavailable, match=r"is not writable: (its file system is read-only|it belongs)"
    ):
        Store.open(read_only)


def test_a_second_daemon_learns_the_pid_of_the_first(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from agentk.store.store import Store; s = Store.open(pathlib.Path(sys.argv[1]))"
    )
    hold = f"{code}; print('open', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"open\n"
        with pytest.raises(errors.Unavailable) as caught:
            Store.open(tmp_path)
        assert caught.value.message.endswith(f"is locked by pid {other.pid}")
        other.kill()
    Store.open(tmp_path).close()  # the kernel gave the lock back


def test_a_newer_schema_is_refused_and_untouched(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "state.db")) as conn, conn:
        row = (schema.SET, "teleport", "2030-01-01")
        conn.execute("INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)", row)
    with pytest.raises(errors.Unavailable, match="newer agentk: it has the unknown migration teleport"):
        Store.open(tmp_path)


def test_a_migration_and_its_record_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(db: Any) -> None:
        db.conn.execute("CREATE TABLE half (v)")
        raise ValueError("power cut")

    Store.open(tmp_path).close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, half))
    with pytest.raises(ValueError, match="power cut"):
        Store.open(tmp_path)
    with closing(sqlite3.connect(tmp_path / "state.db")) as conn:
        assert not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'half'").fetchall()
        assert schema.pending(conn) == ["half"]
    assert list((tmp_path / "backups").iterdir())  # kept as it was before the upgrade


def test_files_are_ours_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    store = Store.open(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert {"state.db", "state.db-wal", "state.db-shm", "state.lock"} <= modes.keys()
    assert set(modes.values()) == {0o600}
    store.close()


async def test_an_opened_store_is_durable_to_power_loss(store: Store) -> None:
    pragmas = {
        name: store._conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
    }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}


def test_readers_cannot_write(store: Store) -> None:
    with pytest.raises(errors.Unavailable, match="readonly"):
        store._readers.now(lambda conn: conn.execute("DELETE FROM objects"))


@pytest.mark.parametrize(
    ("kind", "refused"),
    [("ext4", ""), ("nfs4", "nfs4"), ("9p", "9p"), ("fuse.sshfs", "fuse.sshfs"), ("fuse.gocryptfs", "")],
)
def test_network_file_systems_are_told_apart(kind: str, refused: str) -> None:
    table = (
        f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n36 22 0:45 / /mnt rw,noatime shared:7 - {kind} host:/x rw\n"
    )
    assert opening.network_type(table, "0:45") == refused
    assert opening.network_type(table, "8:1") == ""


def break_(database: Path) -> None:
    """Overwrite the middle of a closed database."""
    with database.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(os.urandom(size - 4096))


async def test_a_damaged_file_gives_way_to_the_newest_backup(tmp_path: Path, agent: Make) -> None:
    store = Store.open(tmp_path)
    kept = await store.create(agent("kept"))
    assert await store.backup_if_due()
    lost = await store.create(agent("lost"))
    store.close()
    break_(tmp_path / "state.db")

    again = Store.open(tmp_path)
    (notice,) = again.notices
    assert (
        "was damaged" in notice and "backup state-" in notice and "what was written since is lost" in notice
    )
    assert [name for name in os.listdir(tmp_path) if name.startswith("state.db.damaged-")]
    assert (await again.list(kinds.AGENT)).items == [kept]
    for since in (kept, lost):
        with pytest.raises(errors.Expired):
            await anext(again.watch(None, since=since["metadata"]["resourceVersion"]))
    made = await again.create(agent("new"))
    assert int(made["metadata"]["resourceVersion"]) > int(lost["metadata"]["resourceVersion"])
    again.close()
    with closing(Store.open(tmp_path)) as third:
        assert third.notices == [] and third.counts() == {"agents.agentk.dev": 2}


async def test_a_damaged_backup_is_passed_over(tmp_path: Path, agent: Make) -> None:
    store = Store.open(tmp_path)
    await store.create(agent("kept"))
    old = await store.backup_if_due()
    new = await store.backup_if_due(every_seconds=0)
    store.close()
    assert old and new and old != new
    break_(new)
    break_(tmp_path / "state.db")
    with closing(Store.open(tmp_path)) as again:
        assert old.name in again.notices[0] and again.counts() == {"agents.agentk.dev": 1}


@pytest.mark.parametrize("content", [b"not a database at all" * 500, b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_damaged_file_without_a_backup_is_set_aside(tmp_path: Path, agent: Make, content: bytes) -> None:
    (tmp_path / "state.db").write_bytes(content)
    with closing(Store.open(tmp_path)) as store:
        assert "there was no backup, so the store is empty" in store.notices[0]
        asyncio.run(store.create(agent()))
    (aside,) = tmp_path.glob("state.db.damaged-*")
    assert aside.read_bytes() == content


async def test_an_emptied_file_is_restored_too(tmp_path: Path, agent: Make) -> None:
    store = Store.open(tmp_path)
    await store.create(agent())
    await store.backup_if_due()
    store.close()
    os.truncate(tmp_path / "state.db", 0)
    with closing(Store.open(tmp_path)) as again:
        assert "it is empty" in again.notices[0] and again.counts() == {"agents.agentk.dev": 1}


def test_opening_an_up_to_date_file_imports_no_migrations(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    code = (
        "import sys, pathlib; from agentk.store.store import Store; Store.open(pathlib.Path(sys.argv[1])).close();"
        "sys.exit('sqlite_utils' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
