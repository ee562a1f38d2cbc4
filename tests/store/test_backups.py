"""A backup holds everything, a restore brings it back, and neither trusts what it reads."""

import asyncio
import io
import os
import shutil
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors, kinds
from agentk.store import archives, backups
from agentk.store.store import Store

Make = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.anyio


@pytest.fixture
async def archive(tmp_path: Path, agent: Make) -> Path:
    """A backup of one agent and one blob."""
    folder = tmp_path / "first"
    folder.mkdir()
    with closing(Store.open(folder)) as store:
        await store.create(agent("saved"))
        await store.put_blob(b"source")
        await store.backup(tmp_path / "b.tar")
    return tmp_path / "b.tar"


async def test_a_restore_brings_objects_and_blobs_back(tmp_path: Path, archive: Path) -> None:
    told = archives.restore(tmp_path, archive)
    assert told == [f"{archive} was restored, with 1 blobs"]
    with closing(Store.open(tmp_path)) as store:
        assert store.counts() == {"agents.agentk.dev": 1}
        assert await store.get_blob(store.blobs.digests()[0]) == b"source"


async def test_a_backup_is_ours_alone_and_leaves_nothing_else(tmp_path: Path, archive: Path) -> None:
    assert os.stat(archive).st_mode & 0o777 == 0o600
    assert set(os.listdir(tmp_path)) == {"first", "b.tar"}
    assert not [name for name in os.listdir(tmp_path / "first") if name.startswith(".")]


async def test_a_restore_makes_earlier_versions_expired(tmp_path: Path, archive: Path, agent: Make) -> None:
    folder = tmp_path / "first"
    with closing(Store.open(folder)) as store:
        epoch = store.epoch()
        later = await store.create(agent("later"))
        cont = (await store.list(kinds.AGENT, limit=1)).cont
    told = archives.restore(folder, archive)
    assert "is kept as" in told[1]
    with closing(Store.open(folder)) as store:
        assert store.epoch() != epoch and store.counts() == {"agents.agentk.dev": 1}
        with pytest.raises(errors.Expired):
            await anext(store.watch(None, since=later["metadata"]["resourceVersion"]))
        with pytest.raises(errors.Expired):
            await store.list(kinds.AGENT, cont=cont)
        again = await store.create(agent("again"))
        assert int(again["metadata"]["resourceVersion"]) > int(later["metadata"]["resourceVersion"])


async def test_restoring_twice_never_gives_a_version_twice(
    tmp_path: Path, archive: Path, agent: Make
) -> None:
    versions = []
    for _ in range(3):
        archives.restore(tmp_path, archive)
        with closing(Store.open(tmp_path)) as store:
            made = [await store.create(agent(f"a{n}")) for n in range(5)]
            versions += [int(obj["metadata"]["resourceVersion"]) for obj in made]
    assert versions == sorted(set(versions)) and versions[-1] < 2**53


async def test_a_running_store_is_not_restored(tmp_path: Path, archive: Path) -> None:
    with (
        closing(Store.open(tmp_path)) as store,
        pytest.raises(errors.Unavailable, match=f"locked by pid {os.getpid()}"),
    ):
        archives.restore(store.folder, archive)


async def test_a_backup_while_others_write_is_one_moment(tmp_path: Path, store: Store, agent: Make) -> None:
    async def write() -> None:
        for n in range(300):
            await store.create(agent(f"a{n:03}"))

    writing = asyncio.ensure_future(write())
    await store.create(agent("first"))
    await store.backup(tmp_path / "b.tar")
    await writing
    target = tmp_path / "other"
    target.mkdir()
    archives.restore(target, tmp_path / "b.tar")
    with closing(Store.open(target)) as restored:
        names = [obj["metadata"]["name"] for obj in (await restored.list(kinds.AGENT)).items]
    assert names == [*(f"a{n:03}" for n in range(len(names) - 1)), "first"]


def remade(archive: Path, **changed: bytes) -> Path:
    """The archive with members replaced or added; dots and slashes in names written as __ and ___."""
    made = archive.with_name("remade.tar")
    with tarfile.open(archive) as old, tarfile.open(made, "w") as new:
        members = {m.name: old.extractfile(m).read() for m in old}  # type: ignore[union-attr]
        members |= {k.replace("___", "/").replace("__", "."): v for k, v in changed.items()}
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            new.addfile(info, io.BytesIO(data))
    return made


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"state__db": b"no database" * 1000}, "damaged database"),
        ({"____ssh": b"x"}, "which no backup of ours does"),
        ({"blobs___sha256___aa___" + "a" * 64: b"forged"}, "not a whole backup"),
        ({"agentk-backup__json": b'{"format": 99}'}, "format we do not know"),
    ],
)
async def test_a_forged_archive_changes_nothing(
    tmp_path: Path, archive: Path, changed: dict[str, bytes], message: str
) -> None:
    with pytest.raises(errors.Invalid, match=message):
        archives.restore(tmp_path / "first", remade(archive, **changed))
    with closing(Store.open(tmp_path / "first")) as store:
        assert store.counts() == {"agents.agentk.dev": 1} and store.notices == []


async def test_a_cut_archive_changes_nothing(tmp_path: Path, archive: Path) -> None:
    os.truncate(archive, os.stat(archive).st_size // 2)
    with pytest.raises(errors.Invalid):
        archives.restore(tmp_path / "first", archive)
    with closing(Store.open(tmp_path / "first")) as store:
        assert store.counts() == {"agents.agentk.dev": 1}


async def test_what_a_restore_sets_aside_is_whole(
    tmp_path: Path, archive: Path, store: Store, agent: Make
) -> None:
    """After kill -9 the last commits are only in the log beside the database."""
    await store.create(agent("acknowledged"))
    crashed, looked = tmp_path / "crashed", tmp_path / "looked"
    for name in ("state.db", "state.db-wal"):
        await asyncio.to_thread(crashed.mkdir, exist_ok=True)
        await asyncio.to_thread(shutil.copy, store.folder / name, crashed / name)
    archives.restore(crashed, archive)
    (aside,) = [name for name in os.listdir(crashed) if name.startswith("state.db.before-restore-")]
    os.mkdir(looked)
    os.rename(crashed / aside, looked / "state.db")
    with closing(Store.open(looked)) as found:
        assert [obj["metadata"]["name"] for obj in (await found.list(kinds.AGENT)).items] == ["acknowledged"]


def test_what_a_crash_left_half_done_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".backup-x" / "deep").mkdir(parents=True)
    (tmp_path / "state.db.new").touch()
    Store.open(tmp_path).close()
    assert set(os.listdir(tmp_path)) == {"state.db", "state.lock"}


async def test_a_backup_into_nowhere_says_so(store: Store, tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable, match="No such file or directory"):
        await store.backup(tmp_path / "none" / "b.tar")


async def test_a_backup_is_due_once_a_day_and_the_newest_stay(store: Store, agent: Make) -> None:
    await store.create(agent())
    assert await store.backup_if_due() is not None
    assert await store.backup_if_due() is None
    for _ in range(4):
        newest = await store.backup_if_due(every_seconds=0, keep=3)
    kept = backups.saved(store.folder)
    assert len(kept) == 3 and kept[0] == newest
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
