"""A real store and a steward in it, that can be stopped and built again; what a story needs to ask and wait."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

from agentk.api import errors, kinds, objects
from agentk.control import clock as clocks
from agentk.control import loop, seeing
from agentk.runtime import box
from agentk.store import store as stores
from tests.control import model, virtual

WAIT_SECONDS = 30.0  # for a loaded machine; nothing asserts it

Object = dict[str, Any]
Story = Callable[[], Coroutine[Any, Any, None]]


def story(test: Story) -> Callable[[], None]:
    """A test told as a coroutine."""

    @wraps(test)
    def play() -> None:
        asyncio.run(asyncio.wait_for(test(), 100))

    return play


class House:
    def __init__(self, folder: Path, clock: clocks.Clock, runtimes: Mapping[str, box.Runtime]) -> None:
        self._clock, self._runtimes = clock, runtimes
        self.store = stores.Store.open(folder)
        self.settings = loop.Settings()
        self.host_uids: dict[str, int] = {}
        self.missing_sources: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self.steward: loop.Steward

    async def stage(self, digest: str) -> str:
        if digest in self.missing_sources:
            raise errors.NotFound(f"source {digest} was never sent")
        return f"/sources/{digest.removeprefix('sha256:')}"

    async def host_uid(self, namespace: str, uid: str) -> int:
        return self.host_uids.setdefault(uid, max(self.host_uids.values(), default=69999) + 1)

    async def release_host_uid(self, uid: str) -> None:
        self.host_uids.pop(uid, None)

    async def hand_over_host_uid(self, giver: str, namespace: str, taker: str) -> int | None:
        if giver not in self.host_uids or taker in self.host_uids:
            return None
        self.host_uids[taker] = self.host_uids.pop(giver)
        return self.host_uids[taker]

    async def held_host_uids(self) -> dict[str, int]:
        return dict(self.host_uids)

    def begin(self) -> None:
        self.steward = loop.Steward(
            self.store,
            self._runtimes,
            self._clock,
            self.settings,
            stage=self.stage,
            host_uid=self.host_uid,
            release_host_uid=self.release_host_uid,
            host_uids=seeing.HostUids(self.hand_over_host_uid, self.held_host_uids),
        )
        self._task = asyncio.create_task(self.steward.run())

    async def end(self) -> None:
        """As kill -9 does it: nothing is finished first."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def over(self) -> None:
        """Returns when the steward has died."""
        assert self._task is not None
        await asyncio.wait([self._task])

    async def make(self, kind: str, name: str, spec: Object | None = None, **fields: Any) -> Object:
        of = kinds.resource(kind)
        obj: Object = {"apiVersion": of.api_version, "kind": of.kind, "metadata": {"name": name}, **fields}
        if spec is not None:
            obj["spec"] = spec
        if of.namespaced:
            obj["metadata"]["namespace"] = "default"
        return await self.store.create(obj)

    async def agent(self, name: str, **spec: Any) -> Object:
        return await self.make("agent", name, {"command": ["python"], **spec})

    async def change(self, name: str, change: Callable[[Object], None], kind: str = "agent") -> None:
        of = kinds.resource(kind)

        def changed(obj: Object | None) -> Object:
            assert obj is not None
            new: Object = {**obj, "metadata": {**obj["metadata"]}}
            if "spec" in obj:
                new["spec"] = {**obj["spec"]}
            change(new)
            return objects.replace(of, obj, new)

        await self.store.modify(of, "default" if of.namespaced else None, name, changed)

    async def edit(self, name: str, **spec: Any) -> None:
        await self.change(name, lambda obj: obj["spec"].update(spec))

    async def annotate(self, name: str, **annotations: str) -> None:
        notes = {f"agentk.dev/{key}": value for key, value in annotations.items()}
        await self.change(name, lambda obj: obj["metadata"].update(annotations=notes))

    async def status(self, name: str) -> Object:
        return (await self.store.get(kinds.AGENT, "default", name)).get("status") or {}

    async def until(self, name: str, kind: str = "agent", **wanted: Any) -> Object:
        """The status once it says so."""
        of = kinds.resource(kind)

        async def wait() -> Object:
            async for change in self.store.watch(of, None, "0"):
                status = change.obj.get("status") or {}
                if change.obj["metadata"]["name"] == name and all(
                    status.get(key) == value for key, value in wanted.items()
                ):
                    return status
            raise AssertionError("the store was closed")

        try:
            return await asyncio.wait_for(wait(), WAIT_SECONDS)
        except TimeoutError:
            namespace = "default" if of.namespaced else None
            found = await self.store.find(of, namespace, name)
            raise AssertionError(f"{name} never became {wanted}: {found}") from None

    async def gone(self, name: str, kind: str = "agent") -> None:
        of = kinds.resource(kind)
        since = self.store.resource_version()
        namespace = "default" if of.namespaced else None

        async def wait() -> None:
            if await self.store.find(of, namespace, name) is None:
                return
            async for change in self.store.watch(of, None, since):
                if change.type == "DELETED" and change.obj["metadata"]["name"] == name:
                    return

        await asyncio.wait_for(wait(), WAIT_SECONDS)

    async def events(self, name: str) -> list[str]:
        await self.steward.idle()
        page = await self.store.list(kinds.EVENT, "default", fields=f"involvedObject.name={name}")
        return [event["reason"] for event in page.items]


class ModelHouse(House):
    def __init__(self, folder: Path) -> None:
        self.clock = virtual.Clock()
        self.runtime = model.Runtime(self.clock)
        super().__init__(folder, self.clock, {"nsjail": self.runtime})

    async def run_clock(self) -> None:
        """Let time go by whenever there is nothing to do now."""
        while True:
            with contextlib.suppress(TimeoutError):  # one that has died is never idle
                async with asyncio.timeout(0.1):
                    await self.steward.idle()
            await self.clock.advance(1)


async def furnish(house: House) -> None:
    """What ships."""
    await house.make("namespace", "default")
    await house.make("policy", "baseline", {"level": "baseline"})
    await house.make("runtime", "nsjail", {"type": "nsjail"})


@contextlib.asynccontextmanager
async def house(*, begin: bool = True, **settings: Any) -> AsyncIterator[ModelHouse]:
    """With all that ships, a model runtime and a clock that stands still."""
    with tempfile.TemporaryDirectory() as folder:
        made = ModelHouse(Path(folder))
        made.settings = replace(made.settings, **settings)
        await furnish(made)
        try:
            if begin:
                made.begin()
            yield made
        finally:
            await made.end()
            made.store.close()
