"""A runtime whose boxes are entries of a dict and end when a test says so, and a house that has a steward in it.

The promises are the protocol's: every verb is repeatable, what is removed is gone, what changes by itself is told.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import virtual

from agentk.api import errors, kinds, objects
from agentk.control import loop
from agentk.runtime import box
from agentk.store import store as stores

LIVE = ("Starting", "Running")
Object = dict[str, Any]


class Runtime:
    def __init__(self, clock: virtual.Clock) -> None:
        self.clock = clock
        self.boxes: dict[str, box.Seen] = {}
        self.made: list[box.Box] = []
        self.most = 0  # running at once, ever
        self.refuse: errors.AgentkError | None = None
        self.away: errors.AgentkError | None = None
        self.stuck: asyncio.Event | None = None  # starts of agents named "stuck" wait for it
        self.deaf = False  # boxes do not end on SIGTERM
        self.answer = box.ExecResult(box.Exit(0, None, "wait", ""), b"", b"")
        self.released: list[str] = []
        self._bells: list[asyncio.Queue[str]] = []

    async def probe(self) -> box.Probe:
        return box.Probe(True, "", (box.Finding("memory", True, "a dict"),))

    async def start(self, made: box.Box) -> box.Seen:
        if made.annotations["name"] == "stuck" and self.stuck is not None:
            await self.stuck.wait()
        if self.refuse is not None:
            raise self.refuse
        if made.id not in self.boxes:
            now = self.clock.now()
            self.made.append(made)
            self.boxes[made.id] = box.Seen(
                id=made.id,
                uid=made.uid,
                namespace=made.namespace,
                attempt=made.attempt,
                leaf=made.leaf,
                phase="Running",
                process=box.Process(len(self.made), 1, now.boot_id),
                started_at=now.wall,
                started_boottime=now.boottime,
                annotations=made.annotations,
            )
            self.most = max(self.most, len(self.live()))
            assert len({one.uid for one in self.live()}) == len(self.live()), "an agent runs twice"
        return self.boxes[made.id]

    async def signal(self, box_id: str, signal: int, intent: box.Intent | None = None) -> None:
        if not self.deaf:
            self.end(box_id, 128 + signal, intent=intent)

    async def kill(self, box_id: str, intent: box.Intent) -> None:
        self.end(box_id, 137, intent=intent)

    async def list(self) -> Sequence[box.Seen]:
        if self.away is not None:
            raise self.away
        return list(self.boxes.values())

    async def counters(self, box_id: str) -> box.Counters:
        return box.Counters(cpu_usec=1)

    async def remove(self, box_id: str) -> None:
        if box_id in self.boxes and self.boxes[box_id].phase in LIVE:
            raise AssertionError("a running box was removed")
        self.boxes.pop(box_id, None)

    async def release(self, namespace: str, uid: str) -> None:
        self.released.append(uid)
        for box_id in [one.id for one in self.boxes.values() if one.uid == uid]:
            del self.boxes[box_id]

    async def exec(self, box_id: str, argv: Sequence[str], timeout_seconds: float) -> box.ExecResult:
        return self.answer

    async def freeze(self, box_id: str) -> None:
        self.boxes[box_id] = replace(self.boxes[box_id], frozen=True)

    async def thaw(self, box_id: str) -> None:
        self.boxes[box_id] = replace(self.boxes[box_id], frozen=False)

    async def changes(self) -> AsyncIterator[str]:
        bell: asyncio.Queue[str] = asyncio.Queue()
        self._bells.append(bell)
        while True:
            yield await bell.get()

    # what a test does

    def live(self) -> Sequence[box.Seen]:
        return [one for one in self.boxes.values() if one.phase in LIVE]

    def end(self, box_id: str, code: int, **fields: Any) -> None:
        one = self.boxes.get(box_id)
        if one is not None and one.phase in LIVE:
            end = box.Exit(code, None, "wait", self.clock.now().wall)
            self.boxes[box_id] = replace(one, phase="Exited", exit=replace(end, **fields))
            for bell in self._bells:
                bell.put_nowait(one.uid)

    def end_all(self, code: int) -> None:
        for one in self.live():
            self.end(one.id, code)


class House:
    """A real store, a model runtime, a virtual clock and a steward that can be stopped and built again."""

    def __init__(self, folder: Path) -> None:
        self.clock = virtual.Clock()
        self.runtime = Runtime(self.clock)
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
        return self.host_uids.setdefault(uid, 70000 + len(self.host_uids))

    async def release_host_uid(self, uid: str) -> None:
        self.host_uids.pop(uid, None)

    def begin(self) -> None:
        self.steward = loop.Steward(
            self.store,
            {"nsjail": self.runtime},
            self.clock,
            self.settings,
            stage=self.stage,
            host_uid=self.host_uid,
            release_host_uid=self.release_host_uid,
        )
        self._task = asyncio.create_task(self.steward.run())

    async def end(self) -> None:
        """As kill -9 does it: nothing is finished first."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

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

        return await asyncio.wait_for(wait(), 20)

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

        await asyncio.wait_for(wait(), 20)

    async def events(self, name: str) -> list[str]:
        await self.steward.idle()
        page = await self.store.list(kinds.EVENT, "default", fields=f"involvedObject.name={name}")
        return [event["reason"] for event in page.items]


@contextlib.asynccontextmanager
async def house(*, begin: bool = True, **settings: Any) -> AsyncIterator[House]:
    with tempfile.TemporaryDirectory() as folder:
        made = House(Path(folder))
        made.settings = replace(made.settings, **settings)
        await made.make("namespace", "default")
        await made.make("policy", "baseline", {"level": "baseline"})
        await made.make("runtime", "nsjail", {"type": "nsjail"})
        try:
            if begin:
                made.begin()
            yield made
        finally:
            await made.end()
            made.store.close()
