"""What an installation begins with, over versions: followed where nobody changed it, left alone where somebody did."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import admit, kinds, manifest, objects, ownership
from agentk.daemon import furnishing
from agentk.data import files
from agentk.store import store as stores

pytestmark = pytest.mark.anyio
POLICY = """\
apiVersion: agentk.dev/v1alpha1
kind: Policy
metadata: {name: %s}
spec:
  level: baseline
  rules: [{name: a, effect: Allow, methods: [%s]}]
"""
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class House:
    def __init__(self, folder: Path) -> None:
        self.store = stores.Store.open(folder)
        self.marker, self.manifests = folder / "furnished", folder / "manifests"
        self.manifests.mkdir()

    async def ships(self, version: str, **policies: str) -> None:
        """A daemon of this version starts."""
        (self.manifests / "10-namespace.yaml").write_text(NAMESPACE)
        text = "---\n".join(POLICY % one for one in policies.items())
        (self.manifests / "20-policies.yaml").write_text(text)
        await furnishing.furnish(self.store, self.manifests, self.marker, version)

    async def methods(self, name: str) -> str:
        found = await self.store.get(kinds.POLICY, None, name)
        return str(found["spec"]["rules"][0]["methods"][0])

    async def applies(self, name: str, method: str) -> None:
        """A person, with the command line."""
        (written,) = manifest.parse(POLICY % (name, method), "file")
        wanted = admit.admit(written.obj, written, partial=True)

        def change(found: Any) -> Any:
            made = ownership.apply(found, wanted, "agentk", False, stores.now_text())
            return objects.replace(kinds.POLICY, found, admit.admit(made))

        await self.store.amend(kinds.POLICY, await self.store.get(kinds.POLICY, None, name), change)

    async def told(self) -> list[tuple[str, str]]:
        events = (await self.store.list(kinds.EVENT, None)).items
        return sorted((one["involvedObject"]["name"], one["reason"]) for one in events)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.store.close()


async def test_what_nobody_changed_follows_and_what_somebody_changed_is_left_and_told_of_once(
    house: House,
) -> None:
    await house.ships("1", mine="noop", theirs="noop", gone="noop")
    assert await house.told() == []
    await house.applies("theirs", "log")
    await house.store.delete(kinds.POLICY, None, "gone")
    for _ in range(2):
        await house.ships("2", mine="hello", theirs="hello", gone="hello", new="hello")
        assert [await house.methods(one) for one in ("mine", "theirs", "new")] == ["hello", "log", "hello"]
        assert await house.told() == [("mine", "FollowsVersion"), ("theirs", "KeptAsChanged")]
        assert await house.store.find(kinds.POLICY, None, "gone") is None
    await house.ships("3", mine="task", theirs="task")
    assert [await house.methods(one) for one in ("mine", "theirs")] == ["task", "log"]
    await house.applies("theirs", "task")  # as it is shipped: from here on it follows
    await house.ships("4", mine="exit", theirs="exit")
    assert [await house.methods(one) for one in ("mine", "theirs")] == ["exit", "exit"]


async def test_a_house_that_kept_no_digests_follows_where_it_is_sure(house: House) -> None:
    await house.ships("1", mine="noop", theirs="noop")
    for name in ("mine", "theirs"):  # as they were made before there were digests

        def forgets(found: Any) -> Any:
            metadata = found["metadata"]
            kept = {key: value for key, value in metadata.items() if key != "annotations"}
            kept["managedFields"] = [one for one in metadata["managedFields"] if one["manager"] == "agentk"]
            return objects.replace(kinds.POLICY, found, {**found, "metadata": kept})

        await house.store.amend(kinds.POLICY, await house.store.get(kinds.POLICY, None, name), forgets)
    house.marker.write_text(json.dumps(["10-namespace.yaml", "20-policies.yaml"]))
    await house.applies("theirs", "log")
    await house.ships("2", mine="hello", theirs="hello")
    assert [await house.methods(one) for one in ("mine", "theirs")] == ["hello", "log"]
    assert await house.told() == [("mine", "FollowsVersion"), ("theirs", "KeptAsChanged")]


async def test_one_of_a_persons_own_is_not_taken_for_what_a_later_version_ships(house: House) -> None:
    await house.ships("1", mine="noop")
    (written,) = manifest.parse(POLICY % ("new", "log"), "file")
    owned = ownership.apply(
        None, admit.admit(written.obj, written, partial=True), "agentk", False, stores.now_text()
    )
    await house.store.create(admit.admit(owned))
    for version in ("2", "3"):
        await house.ships(version, mine="noop", new="hello")
        assert await house.methods("new") == "log"
    assert await house.told() == [("new", "KeptAsChanged")]


async def test_all_that_ships_is_known_to_be_as_it_was_made(house: House) -> None:
    await furnishing.furnish(house.store, files.folder("manifests"), house.marker, "1")
    texts = {path.name: path.read_text() for path in files.folder("manifests").glob("*.yaml")}
    for one in furnishing._shipped(texts):
        live = await house.store.get(one.kind, *one.at)
        assert furnishing.decide(one, live, {one.key}, "") == "leave", one.key
        older = furnishing.Shipped(one.file, one.kind, one.wanted, {**one.whole, "spec": {"older": True}})
        assert furnishing.decide(older, live, {one.key}, "") == "follow", one.key
