"""A gate whose models are real upstreams over HTTP, and a door of it on a loopback port, as an agent has one."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agentk.broker import gate, policy
from agentk.broker.budgets import Budgets, Left
from agentk.broker.budgets_limits import Limits
from agentk.broker.budgets_node import Owner
from agentk.broker.calling import passing, routing, thinking
from agentk.broker.dialects import serving_http
from agentk.broker.dialects.http import HttpService, Respond
from agentk.broker.dialects.http_reading import Request
from agentk.broker.turns import Settings, Turns
from agentk.broker.words import Call, Guest
from agentk.llm import models as llm
from agentk.store.journal import Journal
from agentk.store.journal_anchor import StateAnchor
from tests.llm import upstreams

ALLOW = [{"name": "all", "effect": "Allow", "methods": ["*"]}]
GUEST = Guest("u", "default", "a", 1, "u-1", "u-1", {"modelRef": {"name": "r"}})


def path(guest: Guest) -> tuple[str, ...]:
    return (f"namespace/{guest.namespace}", guest.uid)


class World:
    """One guest, its budget, one route, and everything on record."""

    def __init__(
        self,
        folder: Path,
        made: llm.Models,
        limits: Limits | None = None,
        turns: Settings | None = None,
        rules: list[dict[str, Any]] | None = None,
        anchor: list[str] | None = None,
        managing: "Callable[[World], routing.Managing] | None" = None,
        guest: Guest = GUEST,
    ) -> None:
        self.guest = guest
        self.models = made
        self.anchor = anchor or []
        self.journal = Journal.open(
            folder, StateAnchor(lambda: self.anchor[-1] if self.anchor else None, self.anchor.append)
        )
        self.budgets, self.turns = Budgets(), Turns(turns or Settings())
        self.budgets.put("namespace/default", Owner("quota", "q"), Limits(), 0.0)
        self.budgets.put("u", Owner("agent", "a"), limits or Limits(), 0.0)
        self.rules = policy.read("test", {"level": "baseline", "rules": ALLOW if rules is None else rules})
        self.managing = managing(self) if managing else None
        rooms = gate.Rooms(
            thinking.methods(models=made, left=self.left, managing=self.managing),
            lambda guest: self.rules,
            self.journal,
            self.budgets,
            path,
            lambda route, guest, tokens: self.turns.turn(f"{guest.uid}", cost_tokens=tokens),
            {
                **passing.forms(models=made, left=self.left, managing=self.managing),
                "fold": thinking.methods(models=made, left=self.left, managing=self.managing)["think"],
            },
        )
        self.gate = gate.Gate(rooms)
        self.requests: list[Request] = []
        answer = serving_http.handler(self.gate, lambda: self.guest, self.journal.left_behind)

        async def noted(request: Request, respond: Respond) -> None:
            self.requests.append(request)
            await answer(request, respond)

        self.service = HttpService(noted)
        self.emitted: list[Any] = []
        self.told = asyncio.Event()  # something was emitted

    def left(self, guest: Guest) -> Left:
        return self.budgets.left(path(guest), 0.0)

    async def call(self, name: str, key: str = "", **params: Any) -> Any:
        return await self.gate.call(Call(self.guest, name, params, key=key), self.emit)

    async def emit(self, data: Any) -> None:
        self.emitted.append(data)
        self.told.set()

    @property
    def used(self) -> Any:
        return self.budgets.standing("u", 0.0).used

    @property
    def held(self) -> Any:
        return self.budgets.standing("u", 0.0).held

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)

    async def idle(self) -> None:
        """Returns once no request is being answered."""
        await self.until(lambda: not self.service.tasks and not self.held.calls)

    @contextlib.contextmanager
    def survivor(self) -> Iterator["World"]:
        """What is there after a kill of the process, at this very moment: another, on the disk as it is."""
        with tempfile.TemporaryDirectory() as folder:
            for file in self.journal.path.parent.iterdir():
                shutil.copy(file, folder)
            made = World(Path(folder), self.models, anchor=list(self.anchor))
            try:
                yield made
            finally:
                made.journal.close()

    def records(self) -> list[tuple[str, str, str]]:
        def read(conn: Any) -> list[tuple[str, str, str]]:
            rows = conn.execute("SELECT kind, method, status FROM records WHERE method <> '' ORDER BY id")
            return [tuple(row) for row in rows]

        return self.journal.read(read)


@contextlib.asynccontextmanager
async def serving(world: World) -> AsyncIterator[str]:
    """The door's address."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: world.service.connection(by_unix=False), "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await world.service.close()


@contextlib.asynccontextmanager
async def world_of(obj: Mapping[str, Any], **settings: Any) -> AsyncIterator[World]:
    """The world of one route object."""
    with tempfile.TemporaryDirectory() as folder:
        async with upstreams.models_of(obj) as made:
            world = World(Path(folder), made, **settings)
            try:
                yield world
            finally:
                world.journal.close()


@contextlib.asynccontextmanager
async def rig(
    *handlers: upstreams.Handler,
    model: str = "openai/gpt-4o",
    end: str = "/v1",
    name: str = "gpt",
    spec: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[upstreams.Upstream, World]]:
    """An upstream and a world whose one model it is."""
    async with upstreams.upstream(*handlers) as up:
        route = upstreams.route_of(upstreams.item(model, up.url + end, name), **(spec or {}))
        async with world_of(route, **settings) as world:
            yield up, world
