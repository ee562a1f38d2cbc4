"""What Checkpoints may take of the daemon's disk."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors, kinds
from agentk.daemon import checkpoint_room
from agentk.store.store import Store

pytestmark = pytest.mark.anyio

FILE = "workspace.tar"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "store").mkdir(mode=0o700)
    made = Store.open(tmp_path / "store")
    yield made
    made.close()


async def put(store: Store, kind: kinds.Kind, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    obj = {"apiVersion": kind.api_version, "kind": kind.kind, "spec": spec}
    return await store.create(obj | {"metadata": {"name": name, "namespace": "n"}})


def room(tmp_path: Path, store: Store, most: int = 1000) -> checkpoint_room.Room:
    (tmp_path / "kept").mkdir(exist_ok=True)
    return checkpoint_room.Room(tmp_path / "kept", store, most, FILE)


async def test_a_namespace_has_the_room_of_the_configuration(tmp_path: Path, store: Store) -> None:
    there = room(tmp_path, store)
    first, second = [await there.begin(one) for one in await made(store, 2)]
    first.take(600)
    with pytest.raises(errors.TooLarge, match="checkpointMaxSize, for namespace n, allows 1000 of"):
        second.take(401)  # they are written at the same time
    second.take(400)
    assert await there.used("n") == (2, 1000)


async def test_quotas_take_its_place_and_the_smallest_holds(tmp_path: Path, store: Store) -> None:
    there = room(tmp_path, store)
    await put(store, kinds.QUOTA, "wide", {"hard": {"checkpointBytes": "5k"}})
    place = await there.begin((await made(store, 1))[0])
    place.take(4000)
    await put(store, kinds.QUOTA, "tight", {"hard": {"checkpointBytes": "4k", "checkpoints": 2}})
    second = await there.begin((await made(store, 1))[0])
    with pytest.raises(errors.TooLarge, match="Quota tight allows 4000 of"):
        second.take(1)
    with pytest.raises(errors.TooLarge, match="Quota tight allows 2 Checkpoints, and there are 2"):
        await there.begin((await made(store, 1))[0])


async def test_what_was_there_before_counts(tmp_path: Path, store: Store) -> None:
    whole, half = await made(store, 2)
    for name in (whole["metadata"]["uid"], half["metadata"]["uid"] + checkpoint_room.HALF, "nobody"):
        (tmp_path / "kept" / name).mkdir(parents=True)
        (tmp_path / "kept" / name / FILE).write_bytes(bytes(300))
    there = room(tmp_path, store)
    assert await there.used("n") == (2, 600)
    there.forget(whole["metadata"]["uid"])
    assert await there.used("n") == (1, 300)


async def test_the_last_of_the_disk_is_nobodys(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_room, "_FREE_BYTES", 2**62)
    monkeypatch.setattr(checkpoint_room, "_FREE_SHARE", 1)  # all of it is to stay free
    place = await room(tmp_path, store).begin((await made(store, 1))[0])
    with pytest.raises(errors.TooLarge, match="the daemon's disk is nearly full"):
        place.take(1)


async def made(store: Store, count: int) -> list[dict[str, Any]]:
    spec = {"agentRef": {"name": "a"}}
    return [await put(store, kinds.CHECKPOINT, f"c{uuid.uuid4().hex[:8]}", spec) for _ in range(count)]
