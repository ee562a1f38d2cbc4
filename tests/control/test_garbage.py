import asyncio
from typing import Any

from agentk.api import kinds, objects
from agentk.control import garbage
from tests.control import stories
from tests.control.stories import story

CONFIGMAP, AGENT, NAMESPACE = kinds.CONFIGMAP, kinds.AGENT, kinds.NAMESPACE


async def owned(
    house: stories.ModelHouse, name: str, *owners: dict[str, Any], **metadata: Any
) -> dict[str, Any]:
    references = [objects.owner_reference(owner, controller=False) for owner in owners]
    names = {"name": name, "namespace": "default", "ownerReferences": references, **metadata}
    return await house.store.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": names})


async def exists(house: stories.ModelHouse, name: str) -> bool:
    return await house.store.find(CONFIGMAP, "default", name) is not None


async def finalized(house: stories.ModelHouse, name: str, finalizer: str) -> None:
    def add(obj: Any) -> Any:
        return objects.with_finalizer(obj, finalizer)

    await house.store.modify(CONFIGMAP, "default", name, add)


@story
async def test_dependents_of_dependents_go_with_their_owner() -> None:
    async with stories.house() as house:
        one = await house.make("configmap", "one")
        two = await owned(house, "two", one)
        await owned(house, "three", two)
        await house.store.delete(CONFIGMAP, "default", "one")
        await house.gone("three", "configmap")
        assert not await exists(house, "two")


@story
async def test_an_agent_owned_by_another_object_is_ended() -> None:
    async with stories.house() as house:
        owner = await house.make("configmap", "owner")
        agent = await house.agent("a")
        await house.change(
            "a", lambda obj: obj["metadata"].update(ownerReferences=[objects.owner_reference(owner)])
        )
        await house.until("a", phase="Running")
        await house.store.delete(CONFIGMAP, "default", "owner")
        await house.gone("a")
        assert house.runtime.released == [agent["metadata"]["uid"]]


@story
async def test_one_owner_left_keeps_it() -> None:
    async with stories.house() as house:
        left, right = await house.make("configmap", "left"), await house.make("configmap", "right")
        await owned(house, "child", left, right)
        await house.store.delete(CONFIGMAP, "default", "left")

        async for change in house.store.watch(CONFIGMAP, "default", "0"):
            metadata = change.obj["metadata"]
            references = metadata.get("ownerReferences", [])
            if metadata["name"] == "child" and len(references) == 1:
                assert references[0]["name"] == "right"
                break


@story
async def test_what_names_an_owner_that_never_was_goes() -> None:
    async with stories.house() as house:
        owner = await house.make("configmap", "owner")
        await house.store.delete(CONFIGMAP, "default", "owner")
        await owned(house, "child", owner)
        await house.gone("child", "configmap")


@story
async def test_owners_deleted_while_nobody_looked_are_noticed() -> None:
    async with stories.house(begin=False) as house:
        owner = await house.make("configmap", "owner")
        await owned(house, "child", owner)
        await house.store.delete(CONFIGMAP, "default", "owner")
        house.begin()
        await house.gone("child", "configmap")


@story
async def test_a_foreground_owner_waits_for_its_dependents() -> None:
    async with stories.house() as house:
        owner = await house.make("configmap", "owner")
        await finalized(house, "owner", garbage.FOREGROUND)
        await owned(house, "child", owner, finalizers=["example.com/slow"])
        await house.store.delete(CONFIGMAP, "default", "owner")
        async for change in house.store.watch(CONFIGMAP, "default", "0"):
            if change.obj["metadata"]["name"] == "child" and objects.is_deleting(change.obj):
                break
        assert await exists(house, "owner")
        await house.store.modify(
            CONFIGMAP,
            "default",
            "child",
            lambda obj: objects.without_finalizer(obj or {}, "example.com/slow"),
        )
        await house.gone("owner", "configmap")
        assert not await exists(house, "child")


@story
async def test_orphans_stay() -> None:
    async with stories.house() as house:
        owner = await house.make("configmap", "owner")
        await owned(house, "child", owner)
        await finalized(house, "owner", garbage.ORPHAN)
        await house.store.delete(CONFIGMAP, "default", "owner")
        await house.gone("owner", "configmap")
        child = await house.store.get(CONFIGMAP, "default", "child")
        assert "ownerReferences" not in child["metadata"]


@story
async def test_a_namespace_goes_with_all_that_is_in_it() -> None:
    async with stories.house() as house:
        await house.make("configmap", "c")
        await house.make("secret", "s")
        await house.agent("a")
        await house.until("a", phase="Running")
        await house.until("default", "namespace", phase="Active")
        await house.store.delete(NAMESPACE, None, "default")
        await house.gone("default", "namespace")
        for kind in (AGENT, CONFIGMAP, kinds.SECRET):
            assert not (await house.store.list(kind, "default")).items
        assert not house.runtime.boxes


@story
async def test_a_namespace_waits_for_an_agent_that_hears_no_signal() -> None:
    async with stories.house() as house:
        house.runtime.deaf = True
        await house.agent("a", terminationGracePeriodSeconds=30)
        await house.until("a", phase="Running")
        await house.until("default", "namespace", phase="Active")
        await house.store.delete(NAMESPACE, None, "default")
        await house.until("a", phase="Terminating")
        assert (await house.until("default", "namespace", phase="Terminating"))["phase"] == "Terminating"
        await house.steward.idle()
        advance = asyncio.create_task(house.clock.advance(30))
        await house.gone("default", "namespace")
        await advance
