"""Blobs are what their name says; host uids belong to one agent at a time."""

import asyncio
import hashlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentk.api import errors
from agentk.store import blobs
from agentk.store.store import Store

pytestmark = pytest.mark.anyio


async def test_a_blob_is_named_by_its_content(store: Store) -> None:
    digest = await store.put_blob(b"hello")
    assert digest == f"sha256:{hashlib.sha256(b'hello').hexdigest()}"
    assert await store.put_blob(b"hello", expected=digest) == digest
    assert await store.get_blob(digest) == b"hello" and store.blobs.digests() == [digest]


async def test_a_blobs_files_are_ours_alone(store: Store) -> None:
    path = store.blobs.path(await store.put_blob(b"hello"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert {parent.stat().st_mode & 0o777 for parent in list(path.parents)[:3]} == {0o700}
    assert list(path.parent.iterdir()) == [path]


async def test_data_that_is_not_what_it_should_be_is_refused(store: Store) -> None:
    with pytest.raises(errors.BadRequest, match="the data is sha256:"):
        await store.put_blob(b"hello", expected="sha256:" + "0" * 64)
    assert store.blobs.digests() == []


@pytest.mark.parametrize("digest", ["", "sha256:../../etc/passwd", "md5:abc", "sha256:" + "A" * 64])
async def test_a_name_that_is_no_digest_is_refused(store: Store, digest: str) -> None:
    with pytest.raises(errors.BadRequest, match="is no digest"):
        await store.get_blob(digest)


async def test_a_missing_blob_is_not_found(store: Store) -> None:
    with pytest.raises(errors.NotFound, match="no blob"):
        await store.get_blob("sha256:" + "0" * 64)


async def test_damage_is_found_and_sending_it_again_repairs(store: Store) -> None:
    digest = await store.put_blob(b"hello")
    store.blobs.path(digest).write_bytes(b"jello")
    with pytest.raises(errors.Unavailable, match="damaged on the disk"):
        await store.get_blob(digest)
    await store.put_blob(b"hello")
    assert await store.get_blob(digest) == b"hello"


async def test_too_large_a_blob_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "BLOB_BYTES_MAX", 10)
    with pytest.raises(errors.TooLarge, match="at most 10"):
        await store.put_blob(b"x" * 11)


async def test_only_old_blobs_nobody_uses_are_collected(store: Store) -> None:
    used, idle, fresh = [await store.put_blob(data) for data in (b"used", b"idle", b"fresh")]
    half = store.blobs.path(idle).parent / ".half.0000"
    half.touch()
    for path in (store.blobs.path(used), store.blobs.path(idle), half):
        os.utime(path, (time.time() - 1000,) * 2)
    assert await store.collect_blobs({used}, older_than_seconds=500) == [idle]
    assert store.blobs.digests() == sorted([used, fresh]) and not half.exists()


async def test_sending_a_blob_again_keeps_it_from_collection(store: Store) -> None:
    digest = await store.put_blob(b"hello")
    os.utime(store.blobs.path(digest), (0, 0))
    await store.put_blob(b"hello")
    assert await store.collect_blobs(set(), older_than_seconds=500) == []


async def test_an_agent_keeps_its_uid_over_a_restart(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    first = await store.host_uid("ns", "one", range(5000, 5010))
    second = await store.host_uid("ns", "two", range(5000, 5010))
    store.close()
    again = Store.open(tmp_path)
    assert (first, second) == (5000, 5001)
    assert await again.host_uid("ns", "one", range(5000, 5010)) == first
    assert await again.host_uids() == {"one": first, "two": second}
    again.close()


async def test_a_released_uid_is_the_last_to_be_given_again(store: Store) -> None:
    block = range(5000, 5003)
    await store.host_uid("ns", "one", block)
    await store.release_host_uid("one")
    await store.release_host_uid("one")
    given = [await store.host_uid("ns", f"n{n}", block) for n in range(3)]
    assert given == [5001, 5002, 5000]


async def test_a_uid_is_handed_over_to_who_has_none(store: Store) -> None:
    block = range(5000, 5003)
    await store.host_uid("ns", "waits", block)
    assert await store.hand_over_host_uid("waits", "other", "agent") == 5000
    assert await store.host_uids() == {"agent": 5000}
    assert await store.host_uid("other", "agent", block) == 5000
    assert await store.hand_over_host_uid("waits", "other", "late") is None, "it is given once"
    await store.host_uid("ns", "next", block)
    assert await store.hand_over_host_uid("next", "other", "agent") is None, "its files belong to the first"
    assert await store.host_uids() == {"agent": 5000, "next": 5001}


async def test_a_full_block_is_refused(store: Store) -> None:
    for n in range(3):
        await store.host_uid("ns", str(n), range(5000, 5003))
    with pytest.raises(errors.Unavailable, match="all 3 host uids from 5000 to 5002 are in use"):
        await store.host_uid("ns", "more", range(5000, 5003))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), max_size=40))
def test_no_two_agents_ever_share_a_uid(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]]
) -> None:
    async def run() -> None:
        store = Store.open(tmp_path_factory.mktemp("s"))
        block, held = range(70_000, 70_006), dict[str, int]()
        for allocate, n in steps:
            if not allocate:
                await store.release_host_uid(str(n))
                held.pop(str(n), None)
            elif str(n) in held or len(held) < len(block):
                held[str(n)] = await store.host_uid("ns", str(n), block)
                assert held[str(n)] in block
            assert len(set(held.values())) == len(held)
        assert await store.host_uids() == held
        store.close()

    asyncio.run(run())
