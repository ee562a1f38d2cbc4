"""A gate for calls about agents: real store, real journal, real policy, and nothing that starts a box."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from agentk.api import admit, kinds
from agentk.broker import exits, gate, policy
from agentk.broker.budgets import Budgets
from agentk.broker.budgets_limits import Limits
from agentk.broker.budgets_node import Owner
from agentk.broker.calling import agents, pausing
from agentk.broker.guests import Guests
from agentk.broker.words import Call, Guest
from agentk.store import feeding
from agentk.store import store as stores
from agentk.store.journal import Journal
from agentk.store.journal_anchor import StateAnchor

ALL = [
    {"name": "all", "effect": "Allow", "methods": ["*"]},
    {"name": "detached", "effect": "Allow", "methods": ["*"], "features": ["childrenDetached"]},
]
BASELINE = [
    {"name": "spawn", "effect": "Allow", "methods": ["agent.spawn", "agent.list", "exit"]},
    {
        "name": "family",
        "effect": "Allow",
        "methods": ["agent.kill", "agent.wait", "agent.pause", "agent.resume"],
        "targets": ["self", "descendants"],
    },
]
SPEC = {"command": ["true"], "restartPolicy": "Never"}
SPEC = {**SPEC, "resources": {"limits": {"memory": "64Mi", "pids": 8}}}
Object = dict[str, Any]


class World:
    """A store, a journal and a gate over them, which can be lost and made again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.anchor: list[str] = []
        self.store = stores.Store.open(folder)
        self.rules: list[dict[str, Any]] = ALL
        self.stopped: list[str] = []
        self.lineage: dict[str, tuple[str, ...]] = {}
        self.open()

    def open(self) -> None:
        self.journal = Journal.open(
            self.folder, StateAnchor(lambda: self.anchor[-1] if self.anchor else None, self.anchor.append)
        )
        self.guests, self.budgets = Guests(), Budgets()
        self.said = exits.Exits(self.journal)
        self.budgets.put("namespace/default", Owner("quota", "q"), Limits(), 0.0)
        table = agents.methods(
            store=self.store,
            guests=self.guests,
            said=self.said,
            stop=lambda guest: self.stopped.append(guest.name),
            spawned=self.spawned,
        ) | pausing.methods(store=self.store, guests=self.guests)
        rooms = gate.Rooms(table, lambda guest: policy.read("p", {"rules": self.rules}), self.journal,
                           self.budgets, lambda guest: ("namespace/default", guest.uid), no_turn)  # fmt: skip
        self.gate = gate.Gate(rooms)

    async def spawned(self, uid: str, parents: Sequence[str]) -> None:
        self.lineage[uid] = tuple(parents)

    def hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        self.guests.hear(kind, obj, gone)
        if kind is kinds.AGENT and not gone:
            uid = obj["metadata"]["uid"]
            self.budgets.put(uid, Owner("agent", obj["metadata"]["name"]), Limits(), 0.0)

    async def make(self, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> Object:
        obj = {"apiVersion": kinds.API_VERSION, "kind": "Agent", "spec": {**SPEC, **spec}}
        obj |= {"metadata": {"name": name, "namespace": "default", "annotations": annotations or {}}}
        made = await self.store.create(admit.admit(obj))
        await self.known(made["metadata"]["uid"])
        return made

    async def known(self, uid: str) -> None:
        with self.guests.listening(uid) as bell:
            if self.guests.of(uid) is None:
                await bell.wait()

    async def guest(self, name: str, attempt: int = 1) -> Guest:
        uid = (await self.get(name))["metadata"]["uid"]
        await self.known(uid)
        return self.guests.find(f"{uid}-{attempt}")

    async def get(self, name: str) -> Object:
        return await self.store.get(kinds.AGENT, "default", name)

    async def call(self, who: str, method: str, key: str = "", runtime: str = "", **params: Any) -> Any:
        asked = Call(await self.guest(who), method, params, key=key, runtime=runtime)
        return await self.gate.call(asked, nothing)

    async def status(self, name: str, **status: Any) -> None:
        uid = (await self.get(name))["metadata"]["uid"]
        await self.store.set_status(kinds.AGENT, "default", name, uid, status)


async def nothing(data: Any) -> None:
    """No stream."""


@contextlib.asynccontextmanager
async def no_turn(route: str, guest: Guest, tokens: int) -> Any:
    raise AssertionError("no call of these waits for a turn")
    yield


@contextlib.asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    made = World(folder)
    await made.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    for name in ("nsjail", "baseline"):
        kind = kinds.RUNTIME if name == "nsjail" else kinds.POLICY
        spec = {"type": "nsjail"} if name == "nsjail" else {"level": "baseline"}
        await made.store.create(
            {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": spec}
        )
    feed = feeding.Feed(made.store, asyncio.sleep, (kinds.AGENT, kinds.POLICY), made.hear)
    since = await feed.prime()
    watches = [
        asyncio.create_task(feed.run(kind, since[kind.plural])) for kind in (kinds.AGENT, kinds.POLICY)
    ]
    try:
        yield made
    finally:
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        made.journal.close()
        made.store.close()


Told = Callable[[World], Coroutine[Any, Any, None]]


def told(test: Told) -> Callable[[Path], None]:
    @wraps(test)
    def play(tmp_path: Path) -> None:
        async def run() -> None:
            async with world(tmp_path) as made:
                await test(made)

        asyncio.run(asyncio.wait_for(run(), 60))

    del play.__wrapped__  # type: ignore[attr-defined]
    return play
