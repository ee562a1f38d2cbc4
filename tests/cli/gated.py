"""A real control API with a journal, budgets and Policies behind it; the test makes the records an agent would."""

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from agentk.api import kinds
from agentk.broker import methods, policy
from agentk.broker.approving_answers import Answers
from agentk.broker.approving_words import Clock
from agentk.broker.budgets import Budgets
from agentk.broker.budgets_limits import of_agent, of_quota
from agentk.broker.budgets_node import Owner
from agentk.broker.guests import Guests
from agentk.broker.words import Amount, Guest
from agentk.client import client
from agentk.daemon.desk import Desk
from agentk.store.journal import Intent, Journal, Outcome, Settings
from agentk.store.journal_anchor import StateAnchor
from tests.cli.conftest import Daemon

NOW = 1_800_000_000.0
CLOCK = Clock(lambda: NOW)
RULES = [
    {"name": "models", "effect": "Allow", "methods": ["think"], "models": ["gpt-*"]},
    {"name": "no-shell", "effect": "Deny", "methods": ["exec"], "languages": ["shell"]},
    {"name": "code", "effect": "Allow", "methods": ["exec"]},
    {"name": "mail", "effect": "Ask", "methods": ["message.*"]},
]


class GatedDaemon(Daemon):
    def __init__(self, folder: Path, run: Path) -> None:
        self.anchor: list[str] = []
        self.quotas: list[str] = []
        self.limits: dict[str, dict[str, Any]] = {}  # spec.budget by agent
        super().__init__(folder, run)

    def _desk(self) -> Desk:
        anchor = StateAnchor(lambda: self.anchor[-1] if self.anchor else None, self.anchor.append)
        (self.folder / "journal").mkdir(mode=0o700, exist_ok=True)
        self.journal = Journal.open(self.folder / "journal", anchor, Settings())
        self.budgets, self.guests = Budgets(), Guests()
        self.given: list[tuple[str, Amount, float]] = []
        return Desk(
            self.journal,
            self.budgets,
            self.guests,
            facts(),
            lambda guest: policy.read(guest.policy_name, {"rules": RULES}),
            self._path,
            self._give,
            lambda: NOW,
            never,
            Answers(self.store, self.journal, CLOCK, self.guests),
        )

    def stop(self) -> None:
        super().stop()
        self.journal.close()

    def hear(self) -> None:
        """What the daemon's feeds would tell of the objects there are."""
        for kind in (kinds.POLICY, kinds.AGENT):
            for obj in self.api.list(client.Selection(kind)).items:
                self.guests.hear(kind, obj, gone=False)
        for obj in self.api.list(client.Selection(kinds.AGENT)).items:
            self._put(obj, "agent", of_agent(self.limits.get(obj["metadata"]["name"])))
        quotas = self.api.list(client.Selection(kinds.QUOTA)).items
        self.quotas = [str(obj["metadata"]["uid"]) for obj in quotas]
        for obj in quotas:
            self._put(obj, "quota", of_quota(obj["spec"]))

    def called(
        self, name: str, method: str, asked: bytes, outcome: Outcome | None, *, uid: str = "", **more: Any
    ) -> str:
        """One call of an agent, as the gate journals it; `outcome` None leaves it under way."""
        uid = uid or self.uid(name)
        intent = Intent("default", name, uid, 1, f"{uid}-1", method, asked, **more)

        async def make() -> str:
            if outcome is not None and outcome.status == "denied":
                await self.journal.record(intent, outcome)
                return ""
            effect = await self.journal.intend(intent)
            if outcome is not None:
                await self.journal.settle(effect, outcome)
            return effect

        return asyncio.run(make())

    def uid(self, name: str, kind: kinds.Kind = kinds.AGENT) -> str:
        return str(self.api.get(kind, "default", name)["metadata"]["uid"])

    def tamper(self, statement: str, *values: Any) -> None:
        """Change journal.db behind the daemon's back, while it is down."""
        self.stop()
        with closing(sqlite3.connect(self.folder / "journal" / "journal.db", isolation_level=None)) as conn:
            conn.execute(statement, values)
        self._start()

    def _put(self, obj: Mapping[str, Any], kind: Any, limits: Any) -> None:
        metadata = obj["metadata"]
        self.budgets.put(metadata["uid"], Owner(kind, metadata["name"]), limits, NOW)

    def _path(self, guest: Guest) -> tuple[str, ...]:
        return (*self.quotas, *reversed(guest.parents), guest.uid)

    async def _give(self, uid: str, amount: Amount, wall_seconds: float) -> None:
        self.budgets.add(uid, amount, NOW, wall_seconds=wall_seconds)
        self.given.append((uid, amount, wall_seconds))


async def never(context: Any, params: Any) -> Any:
    raise AssertionError("asking calls nothing")


def facts() -> dict[str, methods.Method]:
    """Methods that know what they are about, and are never called."""
    about = {
        "think": lambda guest, params: policy.Facts(models=(params.get("model", "usual"),)),
        "exec": lambda guest, params: policy.Facts(language=params.get("language", "python")),
        "message.send": lambda guest, params: policy.Facts(target=f"default/{params['to']}"),
        "noop": methods.no_facts,
    }
    return {
        name: methods.Method(name, methods.recording(name), methods.parser(name), never, told)
        for name, told in about.items()
    }
