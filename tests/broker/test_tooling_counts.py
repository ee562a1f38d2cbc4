"""How often a Tool may be called holds over restarts, for parallel calls, and for a whole family."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.broker.tooling.counting import Counts
from agentk.broker.words import Guest
from agentk.store.journal import Journal
from agentk.store.journal_anchor import StateAnchor

AGENTS: dict[str, dict[str, Any]] = {
    name: {"metadata": {"name": name}, "spec": {"tools": [{"ref": {"name": "t"}, **more}]}}
    for name, more in {"top": {"maxCalls": 5}, "child": {"maxCalls": 4}, "free": {}}.items()
}


def guest(name: str, *parents: str) -> Guest:
    return Guest(name, "default", name, 1, f"{name}-1", f"{name}-1", AGENTS[name]["spec"], parents=parents)


class Home:
    def __init__(self, folder: Path) -> None:
        self.folder, self.anchor = folder, [""]
        self.open()

    def open(self) -> None:
        anchor = StateAnchor(lambda: self.anchor[-1] or None, self.anchor.append)
        self.journal = Journal.open(self.folder, anchor)
        self.counts = Counts(self.journal, AGENTS.get)

    async def tried(self, who: Guest, times: int) -> int:
        """How many of so many calls at once were let through."""
        told = await asyncio.gather(
            *(self.counts.count(who, "t") for _ in range(times)), return_exceptions=True
        )
        assert all(one is None or isinstance(one, errors.BudgetExceeded) for one in told), told
        return told.count(None)


def test_calls_in_parallel_and_after_a_restart_never_pass_the_bound(tmp_path: Path) -> None:
    async def story() -> None:
        home = Home(tmp_path)
        assert await home.tried(guest("child"), 3) == 3
        home.journal.close()
        home.open()
        assert await home.tried(guest("child"), 20) == 1
        with pytest.raises(errors.BudgetExceeded, match='agent "child" has called Tool "t" 4 times'):
            await home.counts.count(guest("child"), "t")
        home.journal.close()

    asyncio.run(story())


def test_a_family_has_what_its_head_has(tmp_path: Path) -> None:
    async def story() -> None:
        home = Home(tmp_path)
        assert await home.tried(guest("child", "top"), 3) == 3
        assert (
            await home.tried(guest("free", "top"), 10) == 2
        )  # it has no bound of its own, and its parent has
        assert await home.tried(guest("top"), 10) == 0
        assert home.counts.counted("child", "t") == 3, "a refused call counts for nobody"
        home.journal.close()

    asyncio.run(story())
