"""One writer for all: each caller's work stands or falls alone, and is told only what is on the disk."""

import asyncio
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors, kinds
from agentk.store import writer
from agentk.store.store import Store

pytestmark = pytest.mark.anyio


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "t.db", isolation_level=None, check_same_thread=False)) as made:
        made.execute("CREATE TABLE t (v INTEGER PRIMARY KEY)")
        yield made


@pytest.fixture
def writing(conn: sqlite3.Connection) -> Iterator[writer.Writer]:
    made = writer.Writer(conn, lambda changed: None, lambda changes: None, "test-write")
    yield made
    made.close()


def put(value: int) -> Callable[[writer.Tx], int]:
    def work(tx: writer.Tx) -> int:
        tx.conn.execute("INSERT INTO t VALUES (?)", (value,))
        if value % 3 == 0:
            raise ValueError(value)
        return value

    return work


def stored(conn: sqlite3.Connection) -> set[int]:
    return {value for (value,) in conn.execute("SELECT v FROM t")}


async def test_a_failure_undoes_only_itself(writing: writer.Writer, conn: sqlite3.Connection) -> None:
    told = await asyncio.gather(*(writing.run(put(n)) for n in range(100)), return_exceptions=True)
    kept = {n for n in range(100) if n % 3}
    assert {answer for answer in told if isinstance(answer, int)} == kept
    assert stored(conn) == kept


async def test_a_constraint_in_one_function_is_its_callers_alone(writing: writer.Writer) -> None:
    told = await asyncio.gather(*(writing.run(put(1)) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in told] == [int, errors.Unavailable, errors.Unavailable]


async def test_a_cancelled_caller_harms_no_one(writing: writer.Writer, conn: sqlite3.Connection) -> None:
    leaving = asyncio.ensure_future(writing.run(put(1)))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await writing.run(put(2)) == 2
    assert stored(conn) == {1, 2}


async def test_what_was_queued_before_close_is_written(conn: sqlite3.Connection) -> None:
    made = writer.Writer(conn, lambda changed: None, lambda changes: None, "test-write")
    waiting = [asyncio.ensure_future(made.run(put(n))) for n in (1, 2, 4)]
    await asyncio.sleep(0)
    made.close()
    assert await asyncio.gather(*waiting) == [1, 2, 4]
    with pytest.raises(errors.Unavailable, match="closed"):
        await made.run(put(5))


async def test_upkeep_that_fails_is_logged_and_the_writer_lives(
    conn: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(tx: writer.Tx) -> None:
        raise KeyError("bug")

    made = writer.Writer(conn, lambda changed: None, lambda changes: broken, "test-write")
    assert [await made.run(put(n)) for n in (1, 2)] == [1, 2]
    made.close()
    assert "upkeep failed" in caplog.text


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a full disk needs the right to mount a small one: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.root
async def test_a_full_disk_is_told_to_every_caller_and_costs_nothing(
    tiny_disk: Path, agent: Callable[..., dict[str, Any]]
) -> None:
    large = {"command": ["x" * 40_000]}
    with closing(Store.open(tiny_disk)) as store:
        makings = (store.create({**agent(f"a{n:03}"), "spec": large}) for n in range(200))
        told = await asyncio.gather(*makings, return_exceptions=True)
        refused = [answer for answer in told if isinstance(answer, errors.Unavailable)]
        made = [answer["metadata"]["name"] for answer in told if isinstance(answer, dict)]
        assert len(refused) + len(made) == 200 and refused
        assert "full" in refused[0].message and "free some space" in refused[0].hint
        assert sorted(obj["metadata"]["name"] for obj in (await store.list(kinds.AGENT)).items) == sorted(
            made
        )

    await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=64m", tiny_disk], check=True)
    with closing(Store.open(tiny_disk)) as store:
        await store.create(agent("room-again"))
        assert store.counts() == {"agents.agentk.dev": len(made) + 1}
