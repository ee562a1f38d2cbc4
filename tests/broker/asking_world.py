"""A gate whose Policy asks, over a real store and a real journal, which outlive it; the clocks are set by hand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

from agentk.api import admit, kinds
from agentk.broker import gate, methods, policy
from agentk.broker.approving import Approvals
from agentk.broker.approving_keeping import Keeping
from agentk.broker.approving_words import Answer, Clock
from agentk.broker.budgets import Budgets
from agentk.broker.budgets_limits import Limits
from agentk.broker.budgets_node import Owner
from agentk.broker.calling import asking
from agentk.broker.guests import SPAWNED_BY, Guests
from agentk.broker.methods import Context, Done, Method
from agentk.broker.previews import File, Preview
from agentk.broker.stillness import Stillness
from agentk.broker.words import Call, Guest
from agentk.store import feeding
from agentk.store import store as stores
from agentk.store.journal import Journal, Settings
from agentk.store.journal_anchor import StateAnchor

Object = dict[str, Any]
ASK = [
    {"name": "careful", "effect": "Ask", "methods": ["exec"]},
    {"name": "rest", "effect": "Allow", "methods": ["*"]},
]
ALICE = "alice"
SECRET = b"hunter2-hunter2"


class World:
    """Lost and opened again as often as a story needs it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.anchor = folder, list[str]()
        self.store = stores.Store.open(folder)
        self.wall, self.boot, self.boot_id = 1_800_000_000.0, 0.0, "first"
        self.done: list[Object] = []  # what was really executed
        self.files: list[File] = []
        self.diff = ""
        self.awaited: dict[str, tuple[str, ...]] = {}

    async def begin(self) -> None:
        await self.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
        await self.open()
        await self.policy()

    async def open(self) -> None:
        """A daemon begins."""
        self.journal = Journal.open(
            self.folder,
            StateAnchor(lambda: self.anchor[-1] if self.anchor else None, self.anchor.append),
            Settings(redact),
        )
        self.guests, self.budgets, self.still = Guests(), Budgets(), Stillness()
        self.budgets.put("q", Owner("quota", "q"), Limits(), 0.0)
        clock = Clock(lambda: self.wall + self.boot, self.wall, self.boot_id)
        self.approvals = Approvals(
            self.store, self.journal, self.guests, clock, redact, self.awaited.__setitem__, self.still
        )
        self.keeping = Keeping(self.approvals, self.store, self.guests, clock)
        told = Method("exec", "effect", methods.parser("exec"), self._exec, about, preview=self._preview)
        noop = Method("noop", "none", methods.parser("noop"), self._exec)
        rooms = gate.Rooms(
            {"exec": told, "noop": noop, **asking.methods()},
            lambda guest: policy.read(guest.policy_name, guest.policy),
            self.journal,
            self.budgets,
            lambda guest: ("q",),
            no_turn,
            approve=self.approvals.ask,
            guest=lambda guest: self.guests.find(guest.box_id),
        )
        self.gate = gate.Gate(rooms)
        feed = feeding.Feed(self.store, asyncio.sleep, (kinds.POLICY, kinds.AGENT, kinds.APPROVAL), self.hear)
        since = await feed.prime()
        running = [asyncio.create_task(feed.run(kind, since[kind.plural])) for kind in
                   (kinds.POLICY, kinds.AGENT, kinds.APPROVAL)]  # fmt: skip
        self.tasks = [*running, asyncio.create_task(self.keeping.run())]

    async def lose(self) -> None:
        """The daemon is gone: what was on the disk stays, calls under way do not."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.journal.close()

    def hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        self.guests.hear(kind, obj, gone)
        self.approvals.hear(kind, obj, gone)

    async def policy(self, rules: list[Object] | None = None, **approvals: Any) -> None:
        spec = {"level": "baseline", "rules": ASK if rules is None else rules, "approvals": approvals}
        obj = {"apiVersion": kinds.API_VERSION, "kind": "Policy", "metadata": {"name": "p"}, "spec": spec}
        made = admit.admit(obj)
        await self.store.modify(kinds.POLICY, None, "p", lambda live: {**(live or {}), **made, "metadata": (
            live or made)["metadata"]})  # fmt: skip
        await self.until(lambda: self.guests._policies.get("p", {}) == made["spec"])

    async def agent(self, name: str = "a", parent: str = "") -> str:
        spec = {"command": ["true"], "policyRef": {"name": "p"}}
        obj = {"apiVersion": kinds.API_VERSION, "kind": "Agent", "spec": spec}
        spawned = {"annotations": {SPAWNED_BY: parent}} if parent else {}
        obj |= {"metadata": {"name": name, "namespace": "default", **spawned}}
        uid = str((await self.store.create(admit.admit(obj)))["metadata"]["uid"])
        await self.until(lambda: self.guests.of(uid))
        await self.status(uid, phase="Running", run={"firstAttempt": 1})
        await self.until(lambda: (self.guests.of(uid) or {}).get("status"))
        return uid

    async def status(self, uid: str, **status: Any) -> None:
        name = self.guests.of(uid)["metadata"]["name"]  # type: ignore[index]
        await self.store.set_status(kinds.AGENT, "default", name, uid, status)

    def call(
        self, uid: str, code: str = "x", key: str = "", attempt: int = 1, **more: Any
    ) -> "asyncio.Task[Any]":
        """A call of the agent under way."""
        guest = self.guests.find(f"{uid}-{attempt}")
        params = {"code": code, "language": "shell", **more}
        return asyncio.create_task(self.gate.call(Call(guest, "exec", params, key=key), unheard))

    async def parked(
        self, code: str = "x", key: str = "", **more: Any
    ) -> "tuple[str, asyncio.Task[Any], Object]":
        """An agent, its call that waits for a person, and what that person is asked."""
        uid = await self.agent()
        call = self.call(uid, code, key, **more)
        (asked,) = await self.asked()
        return uid, call, asked

    async def hangs_up(self, call: "asyncio.Task[Any]") -> None:
        call.cancel()
        await self.until(call.done)

    def question(self, uid: str, **params: Any) -> "asyncio.Task[Any]":
        call = Call(self.guests.find(f"{uid}-1"), "human.ask", params)
        return asyncio.create_task(self.gate.call(call, unheard))

    async def asked(self, phase: str = "Pending", count: int = 1) -> list[Object]:
        """The Approvals in this phase, as soon as there are so many."""
        found: list[Object] = []

        async def there() -> bool:
            found[:] = [one for one in await self.all() if phase_of(one) == phase]
            return len(found) >= count

        await self.until(there)
        assert len(found) == count, found
        return found

    async def all(self) -> list[Object]:
        return (await self.store.list(kinds.APPROVAL)).items

    async def answer(self, obj: Object, phase: Any = "Approved", **more: Any) -> Object:
        answer = Answer(phase, ALICE, 1000, **more)
        return await self.approvals.answers.give("default", obj["metadata"]["name"], answer)

    async def until(self, true: Callable[[], Any]) -> None:
        """Nothing here takes long; a test that hangs is ended by its own limit."""
        while True:
            found = true()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.01)

    def records(self) -> list[tuple[str, str]]:
        query = "SELECT method, status FROM records WHERE method <> '' AND kind <> 'intent' ORDER BY id"
        return self.journal.read(lambda conn: [tuple(row) for row in conn.execute(query)])

    async def _exec(self, context: Context, params: methods.Params) -> Done:
        self.done.append(params)
        return Done({"ran": params.get("code", "")})

    async def _preview(self, guest: Guest, params: methods.Params) -> Preview:
        return Preview(tuple(self.files), self.diff)


def about(guest: Guest, params: methods.Params) -> policy.Facts:
    return policy.Facts(language="shell")


def redact(data: bytes) -> bytes:
    return data.replace(SECRET, b"[redacted]")


def phase_of(obj: Object) -> str:
    return str((obj.get("status") or {}).get("phase") or "Pending")


async def unheard(data: Any) -> None:
    """No stream."""


@contextlib.asynccontextmanager
async def no_turn(route: str, guest: Guest, tokens: int) -> AsyncIterator[Any]:
    raise AssertionError("no call of these waits for a turn")
    yield


def told(story: Callable[[World], Awaitable[None]]) -> Callable[[Path], None]:
    """A test that is a story in one world, whose Policy asks about exec."""

    @wraps(story)
    def test(tmp_path: Path) -> None:
        async def whole() -> None:
            world = World(tmp_path)
            await world.begin()
            try:
                await asyncio.wait_for(story(world), 60)
            finally:
                await world.lose()
                world.store.close()

        asyncio.run(whole())

    del test.__wrapped__  # type: ignore[attr-defined]  # pytest would ask for its arguments
    return test
