"""The tree of budgets follows the objects, and after a restart it is where it was, whoever is gone meanwhile."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors, kinds
from agentk.broker.accounts import Accounts
from agentk.broker.budgets import Budgets
from agentk.broker.guests import Guests
from agentk.broker.words import Amount, Guest
from agentk.store.journal import Intent, Journal, Outcome
from agentk.store.journal_anchor import StateAnchor

pytestmark = pytest.mark.anyio
NOW = 1_800_000_000.0
BORN = "2020-01-01T00:00:00Z"


class World:
    """One process's view; made again over the same folder it is the next process."""

    def __init__(self, folder: Path) -> None:
        self.anchor = ""
        self.journal = Journal.open(folder, StateAnchor(lambda: self.anchor, self._save))
        self.guests, self.budgets = Guests(), Budgets()
        self.at = NOW
        self.accounts = Accounts(self.budgets, self.guests, self.journal, lambda: self.at)

    def _save(self, text: str) -> None:
        self.anchor = text

    def hear(
        self, kind: kinds.Kind, uid: str, spec: dict[str, Any], *, parent: str = "", gone: bool = False
    ) -> None:
        metadata: dict[str, Any] = {"uid": uid, "name": uid, "namespace": "n", "creationTimestamp": BORN}
        if parent:
            metadata["ownerReferences"] = [{"kind": "Agent", "uid": parent, "controller": True}]
        obj = {"metadata": metadata, "spec": spec}
        self.guests.hear(kind, obj, gone)
        self.accounts.hear(kind, obj, gone)

    def agent(self, uid: str, parent: str = "", **budget: Any) -> None:
        self.hear(kinds.AGENT, uid, {"budget": budget}, parent=parent)

    def quota(self, uid: str, **spec: Any) -> None:
        self.hear(kinds.QUOTA, uid, spec)

    async def use(self, uid: str, tokens: int) -> None:
        intent = Intent("n", uid, uid, 1, f"{uid}-1", "think", b"{}")
        effect = await self.journal.intend(intent)
        await self.journal.settle(effect, Outcome("ok", b"{}", {"tokens": tokens, "calls": 1}))

    def left(self, uid: str) -> int | None:
        guest = self.guests.find(f"{uid}-1")
        return self.budgets.left(self.accounts.path(guest), self.at).tokens


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def world(folder: Path) -> Iterator[World]:
    made = World(folder)
    made.guests.hear(kinds.POLICY, {"metadata": {"name": "baseline", "uid": "p"}, "spec": {}}, False)
    yield made
    made.journal.close()


def again(world: World, folder: Path) -> World:
    world.journal.close()
    made = World(folder)
    made.anchor = world.anchor
    made.guests.hear(kinds.POLICY, {"metadata": {"name": "baseline", "uid": "p"}, "spec": {}}, False)
    return made


def test_a_path_goes_from_the_quotas_to_the_agent(world: World) -> None:
    world.quota("b", hard={"tokens": 9})
    world.quota("a", hard={"tokens": 5})
    world.agent("top")
    world.agent("kid", parent="top")
    guest = world.guests.find("kid-1")
    assert world.accounts.path(guest) == ("a", "b", "top", "kid")
    assert world.left("kid") == 5
    world.hear(kinds.QUOTA, "a", {}, gone=True)
    assert world.accounts.path(guest) == ("b", "top", "kid")
    assert world.left("kid") == 9


def test_an_agent_named_like_a_quota_takes_nothing_with_it(world: World) -> None:
    world.quota("same", hard={"tokens": 5})
    metadata = {"uid": "x", "name": "same", "namespace": "n"}
    world.accounts.hear(kinds.AGENT, {"metadata": metadata, "spec": {}}, False)
    world.accounts.hear(kinds.AGENT, {"metadata": metadata, "spec": {}}, True)
    world.agent("a")
    assert world.left("a") == 5


def test_a_budget_that_cannot_be_read_allows_nothing(world: World) -> None:
    world.agent("a", maxCostUsd="much")
    assert world.left("a") == 0


def test_other_kinds_are_nothing_to_it(world: World) -> None:
    world.accounts.hear(kinds.SECRET, {"metadata": {"uid": "s", "name": "s", "namespace": "n"}}, False)


async def test_what_was_used_is_used_after_a_restart(world: World, folder: Path) -> None:
    await world.use("a", 30)
    await world.use("a", 10)
    await world.use("b", 5)
    later = again(world, folder)
    try:
        later.quota("q", hard={"tokens": 100})
        later.agent("a", maxTokens=50)
        later.agent("b")
        await later.accounts.load()
        assert later.left("a") == 10
        assert later.left("b") == 55, "the namespace's, less what both used"
    finally:
        later.journal.close()


async def test_what_a_child_used_stays_its_parents_when_it_is_gone(world: World, folder: Path) -> None:
    await world.journal.write(
        lambda tx: tx.conn.execute("INSERT INTO lineage VALUES ('kid', 'mid top')").rowcount
    )
    await world.use("kid", 40)
    later = again(world, folder)
    try:
        later.agent("top", maxTokens=100)
        await later.accounts.load()
        assert later.left("top") == 60
    finally:
        later.journal.close()


async def test_an_effect_nobody_knows_of_counts_with_what_it_had_reserved(world: World, folder: Path) -> None:
    intent = Intent("n", "a", "a", 1, "a-1", "think", b"{}", reserved={"tokens": 25, "calls": 1})
    await world.journal.intend(intent)
    later = again(world, folder)
    try:
        later.agent("a", maxTokens=50)
        await later.accounts.load()
        assert later.left("a") == 25
    finally:
        later.journal.close()


async def test_a_gift_is_kept(world: World, folder: Path) -> None:
    world.agent("a", maxTokens=10)
    await world.accounts.add("a", Amount(tokens=5))
    assert world.left("a") == 15
    later = again(world, folder)
    try:
        later.agent("a", maxTokens=10)
        await later.accounts.load()
        assert later.left("a") == 15
    finally:
        later.journal.close()


async def test_a_gift_to_what_has_no_such_limit_is_refused_and_not_kept(world: World) -> None:
    world.agent("a", maxCalls=10)
    with pytest.raises(errors.Invalid, match="no limit"):
        await world.accounts.add("a", Amount(tokens=5))
    assert world.journal.read(lambda conn: conn.execute("SELECT count(*) FROM grants").fetchone()) == (0,)


def test_a_guest_of_nobody_counts_for_itself_alone(world: World) -> None:
    guest = Guest("u", "elsewhere", "a", 1, "u-1", "u-1")
    assert world.accounts.path(guest) == ("u",)
