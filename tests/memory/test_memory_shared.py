"""Who sees, forgets and adds to whose pages in a Memory, asked at the gate: whatever its sharing says, and no more."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agentk.api import admit, errors, kinds
from agentk.broker import guests
from agentk.broker.words import Call
from agentk.daemon import gatehouse
from agentk.memory import keeping
from agentk.runtime.jails import Jails
from agentk.store.store import Store

Object = dict[str, Any]
Ask = Callable[..., Awaitable[Any]]


def made(kind: str, name: str, spec: Object, namespace: str = "default") -> Object:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return admit.admit({"apiVersion": kinds.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec})


@contextlib.asynccontextmanager
async def shared(folder: Path, **spec: Any) -> AsyncIterator[tuple[Ask, gatehouse.Gatehouse]]:
    """A gate without a launcher, and agents that use one Memory: `writer`, its `child`, and `reader`."""
    (folder / "store").mkdir(mode=0o700)
    store = Store.open(folder / "store")
    house = gatehouse.Gatehouse(store, Jails(folder / "no-launcher"))
    policy = {"level": "baseline", "rules": [{"name": "all", "effect": "Allow", "methods": ["*"]}]}
    await store.create(
        admit.admit({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    )
    await store.create(made("Policy", "baseline", policy, ""))
    await store.create(made("Memory", "team", spec))
    uids = {}
    for name in ("writer", "reader", "child"):
        agent = made("Agent", name, {"command": ["true"], "memory": {"ref": {"name": "team"}}})
        if name == "child":
            agent["metadata"]["annotations"] = {guests.SPAWNED_BY: uids["writer"]}
        uids[name] = str((await store.create(agent))["metadata"]["uid"])
    running = asyncio.create_task(house.run())
    await house.lives.opened()

    async def ask(who: str, method: str, /, **params: Any) -> Any:
        guest = house.guests.find(f"{uids[who]}-1")
        return await house.gate.call(Call(guest, f"memory.{method}", params), _unheard)

    try:
        yield ask, house
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await house.close()
        store.close()


@pytest.mark.parametrize(
    ("sharing", "sees", "changes"),
    [
        (None, False, False),
        ({"agents": ["writer"], "write": True}, False, False),
        ({"agents": ["reader"], "write": True}, False, False),
        ({"agents": ["writer", "read*"]}, True, False),
        ({"namespace": True}, True, False),
        ({"namespace": True, "write": True}, True, True),
        ({"namespace": True, "read": False, "write": True}, False, True),
    ],
)
def test_others_have_what_sharing_says(
    tmp_path: Path, sharing: Object | None, sees: bool, changes: bool
) -> None:
    async def story() -> None:
        async with (
            asyncio.timeout(60),
            shared(tmp_path, **({"sharing": sharing} if sharing else {})) as (ask, _),
        ):
            kept = (await ask("writer", "remember", content="the safe opens with 4711", name="safe"))["id"]
            for asked in ({"query": "safe"}, {"names": ["safe"]}, {"ids": [kept]}):
                assert len((await ask("reader", "recall", **asked))["items"]) == sees
            for asked in ({"query": "safe"}, {"query": ""}, {"query": "", "agents": ["writer"]}):
                assert len((await ask("reader", "search", **asked))["items"]) == sees
            try:
                await ask("reader", "remember", content="and with 4712", agent="writer")
                added = True
            except errors.NotFound:
                added = False
            assert added == changes
            for by in ("names", "ids"):
                forgot = await ask("reader", "forget", **{by: [kept if by == "ids" else "safe"]})
                assert forgot["forgotten"] == ([kept] if changes else [])
                assert len((await ask("writer", "recall", names=["safe"]))["items"]) == (not changes)
                if changes:
                    kept = (await ask("writer", "remember", content="4711", name="safe"))["id"]

    asyncio.run(story())


def test_who_was_spawned_has_a_room_of_its_own_and_its_parents_limits(tmp_path: Path) -> None:
    async def story() -> None:
        limits = {"pages": 2}
        async with asyncio.timeout(60), shared(tmp_path, limits=limits) as (ask, _):
            await ask("writer", "remember", content="mine", name="n")
            assert (await ask("child", "recall", names=["n"]))["items"] == []
            await ask("child", "remember", content="the child's", name="n")
            assert (await ask("writer", "recall", names=["n"]))["items"][0]["content"] == "mine"
            for who in ("writer", "child"):
                with pytest.raises(errors.TooLarge, match="all that it spawned"):
                    await ask(who, "remember", content="one more")
            await ask("reader", "remember", content="of another family")

    asyncio.run(story())


def test_what_nobody_used_for_longer_than_retention_goes_by_itself(tmp_path: Path) -> None:
    async def story() -> None:
        async with asyncio.timeout(60), shared(tmp_path, retention="1h") as (ask, house):
            for name in ("old", "new"):
                await ask("writer", "remember", content=f"a {name} thing", name=name)
            made = "UPDATE pages SET used = used - 4000 WHERE name = 'old'"
            await house.memory.db.write(lambda conn: conn.execute(made).fetchall())
            [room] = await house.memory.db.read(keeping.every)
            house.memory.wake(room.memory)
            while room.pages > 1:  # nothing tells of it but the disk
                await asyncio.sleep(0.01)
                [room] = await house.memory.db.read(keeping.every)
            assert (await ask("writer", "recall", names=["old", "new"]))["missing"] == ["old"]

    asyncio.run(story())


async def _unheard(data: Any) -> None:
    """No stream."""
