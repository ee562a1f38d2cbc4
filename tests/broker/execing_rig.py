"""A gate with real jails to run programs in."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any

from agentk.broker import gate, jobs, policy, sessions
from agentk.broker.budgets import Budgets
from agentk.broker.budgets_limits import Limits
from agentk.broker.budgets_node import Owner
from agentk.broker.calling import execing
from agentk.broker.words import Call, Guest
from agentk.runtime import hands, jails
from agentk.store.journal import Journal
from agentk.store.journal_anchor import StateAnchor
from tests.runtime import launching
from tests.runtime.launching import Place

ALL = [{"name": "all", "effect": "Allow", "methods": ["*"]}]
Test = Callable[["World"], Coroutine[Any, Any, None]]


def redact(data: bytes) -> bytes:
    return data.replace(b"hunter2", b"***")


class World:
    """A gate, and boxes of agents a and b, which only wait."""

    def __init__(self, folder: Path, there: Place, runtime: jails.Jails) -> None:
        self.folder, self.there, self.runtime = folder, there, runtime
        self.anchor: list[str] = []
        self.rules: list[dict[str, Any]] = ALL
        self.idle_seconds = 600.0
        self.now = 1_700_000_000.0
        self.open()

    def open(self) -> None:
        self.journal = Journal.open(
            self.folder, StateAnchor(lambda: self.anchor[-1] if self.anchor else None, self.anchor.append)
        )
        self.jobs = jobs.Jobs(self.journal, self.runtime.exec_cancel, redact, lambda: self.now)
        self.sessions = sessions.Sessions(hands.Hands(self.runtime), self.idle_seconds)
        self.budgets = Budgets()
        for name in ("a", "b"):
            self.budgets.put(name, Owner("agent", name), Limits(), 0.0)
        rooms = gate.Rooms(
            execing.methods(execute=self.runtime.exec, jobs=self.jobs, stay=self.sessions),
            lambda guest: policy.read("p", {"level": "baseline", "rules": self.rules}),
            self.journal,
            self.budgets,
            lambda guest: (guest.uid,),
            lambda *about: contextlib.nullcontext(gate._NO_TURN),
        )
        self.gate = gate.Gate(rooms)

    async def call(
        self, method: str, *, who: str = "a", key: str = "", heard: list[Any] | None = None, **params: Any
    ) -> Any:
        async def emit(item: Any) -> None:
            if heard is not None:
                heard.append(item)

        guest = Guest(who, "default", who, 1, f"{who}-1", f"{who}-1")
        return await self.gate.call(Call(guest, method, params, key=key), emit)

    def begun(self, **params: Any) -> "asyncio.Task[Any]":
        return asyncio.create_task(self.call("exec", **params))

    def records(self) -> list[tuple[str, str, str]]:
        def read(conn: Any) -> list[tuple[str, str, str]]:
            sql = "SELECT kind, method, status FROM records WHERE uid <> '' AND method <> '' ORDER BY id"
            return [tuple(row) for row in conn.execute(sql)]

        return self.journal.read(read)

    def exists(self, name: str) -> bool:
        return (self.workspace / name).exists()

    def commands(self) -> list[str]:
        """Those that the launcher has beside boxes."""
        return [path.name for path in (self.there.state / "boxes").glob("*-exec-*")]


@contextlib.asynccontextmanager
async def world(folder: Path, there: Place) -> AsyncIterator[World]:
    async with launching.connected(there) as runtime:
        made = World(folder, there, runtime)
        for name in ("a", "b"):
            seen = await runtime.start(
                there.make("sleep", "1000", uid=name, env={"A": "of the agent"}, cwd="/tmp")
            )
            assert seen.process is not None
            if name == "a":
                made.workspace = Path(f"/proc/{seen.process.pid}/root/workspace")
        try:
            yield made
        finally:
            await made.jobs.close()
            await made.sessions.close()
            made.journal.close()
            for name in ("a", "b"):
                await runtime.remove(f"{name}-1")
                await runtime.release("default", name)


def living(test: Test) -> Callable[[Path, Place], None]:
    """A test in a world of its own."""

    @wraps(test)
    def run(tmp_path: Path, there: Place) -> None:
        async def flow() -> None:
            async with world(tmp_path, there) as made:
                await test(made)

        asyncio.run(flow())

    del run.__wrapped__  # type: ignore[attr-defined] # pytest would ask for its parameters
    return run
