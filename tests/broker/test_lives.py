"""What the steward is told of agents' budgets, over restarts: real budgets, real journal, a clock of the test's own."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors, kinds
from agentk.broker import exits, lives
from agentk.broker.budgets import Budgets, Spent
from agentk.broker.budgets_limits import Limits
from agentk.broker.budgets_node import Owner
from agentk.broker.guests import HELD, Guests
from agentk.broker.words import Amount, Guest
from agentk.store.journal import Journal
from agentk.store.journal_anchor import StateAnchor

NOON = 1_767_268_800.0


class House:
    """A parent and its child; `again` is another daemon on the same disk."""

    def __init__(self, folder: Path, limits: Limits, child: Limits | None = None) -> None:
        self.folder, self.limits, self.child = folder, limits, child or Limits()
        self.now = NOON
        self.anchor: list[str] = []
        self.woken: list[str] = []
        self.statuses: dict[str, Any] = {}
        self.spent: list[Spent] = []

    async def begin(self) -> "House":
        anchor = StateAnchor(lambda: self.anchor[-1] if self.anchor else None, self.anchor.append)
        self.journal = Journal.open(self.folder, anchor)
        self.lives, self.guests = lives.Lives(), Guests()
        self.budgets = Budgets(self.lives.changed, self.lives.moved)
        for uid, limits in (("parent", self.limits), ("child", self.child)):
            owner = [{"kind": "Agent", "uid": "parent", "name": "parent", "controller": True}]
            metadata = {"uid": uid, "name": uid, "namespace": "default"}
            metadata |= {"ownerReferences": owner if uid == "child" else []}
            obj = {"metadata": metadata, "spec": {}, "status": self.statuses.get(uid, {})}
            self.guests.hear(kinds.AGENT, obj, False)
            self.budgets.put(uid, Owner("agent", uid), limits, self.now)
        self.budgets.load(self.spent, self.now)
        self.lives.listen(self.woken.append)
        rooms = lives.Rooms(
            self.budgets, self.guests, exits.Exits(self.journal), self.journal, self.path, lambda: self.now
        )
        await self.lives.open(rooms)
        return self

    def path(self, agent: Any) -> tuple[str, ...]:
        return ("parent", "child") if agent["metadata"]["uid"] == "child" else ("parent",)

    async def again(self, *, save: bool = True) -> None:
        if save:
            await self.lives.save()
        self.journal.close()
        await self.begin()

    def wall(self, uid: str = "parent") -> float:
        return self.budgets.standing(uid, self.now).wall_seconds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def play(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


def test_wall_time_goes_on_while_no_daemon_is_there(folder: Path) -> None:
    async def story() -> None:
        house = await House(folder, Limits(wall_seconds=100)).begin()
        house.lives.runs("parent", 0)
        house.now += 10
        await house.again()
        house.now += 30  # nobody was there, and it ran on
        house.lives.runs("parent", 40)
        assert house.wall() == 40
        house.lives.rests("parent")
        house.now += 50
        assert house.wall() == 40, "what is frozen uses nothing"
        house.lives.runs("parent", 90)
        house.now += 61
        assert house.lives.overdrawn("parent") is not None
        house.journal.close()

    play(story())


def test_what_ended_meanwhile_counts_up_to_its_end(folder: Path) -> None:
    async def story() -> None:
        house = await House(folder, Limits(wall_seconds=100)).begin()
        house.lives.runs("child", 0)
        house.now += 10
        await house.again()
        house.now += 30
        house.lives.rests("child", 25)
        assert house.wall() == 15, "its parent's time too"
        house.lives.rests("child", 25)
        assert house.wall() == 15
        house.journal.close()

    play(story())


def test_what_was_frozen_meanwhile_does_not_count(folder: Path) -> None:
    async def story() -> None:
        house = await House(folder, Limits(wall_seconds=100)).begin()
        house.lives.runs("parent", 0)
        house.now += 10
        house.lives.rests("parent")
        await house.again()
        house.now += 30
        house.lives.rests("parent")
        assert house.wall() == 10
        house.lives.runs("parent", 40)
        house.now += 1
        assert house.wall() == 11
        house.journal.close()

    play(story())


def test_a_box_older_than_the_first_record_of_it_counts_whole(folder: Path) -> None:
    async def story() -> None:
        house = await House(folder, Limits(wall_seconds=100)).begin()
        house.lives.runs("parent", 12)
        assert house.wall() == 12
        house.journal.close()

    play(story())


def test_a_child_is_stopped_by_its_parents_wall_time(folder: Path) -> None:
    async def story() -> None:
        house = await House(folder, Limits(wall_seconds=5)).begin()
        house.lives.runs("child", 0)
        house.now += 6
        house.budgets.look(house.now)
        assert set(house.woken) == {"parent", "child"}
        told = house.lives.overdrawn("child")
        assert told is not None and told.message == "the wall time of agent/parent is used up"
        house.budgets.add("parent", Amount(), house.now, wall_seconds=10)
        assert house.lives.overdrawn("child") is None
        house.journal.close()

    play(story())


def test_a_refusal_outlives_the_daemon(folder: Path) -> None:
    async def story() -> None:
        house = await House(folder, Limits(tokens=10)).begin()
        with pytest.raises(errors.BudgetExceeded):
            house.budgets.reserve(("parent", "child"), Amount(11, 1), house.now)
        assert house.lives.overdrawn("child") is None, "what can never fit is the caller's fault"
        held = house.budgets.reserve(("parent", "child"), Amount(1, 1), house.now)
        house.budgets.settle(held, Amount(7, 1), house.now)
        with pytest.raises(errors.BudgetExceeded):
            house.budgets.reserve(("parent", "child"), Amount(8, 1), house.now)
        told = house.lives.overdrawn("child")
        assert told is not None and "tokens of agent/parent" in told.message
        house.statuses["child"] = {"run": {"refused": list(told.refused)}}
        house.spent = [Spent(("parent", "child"), Amount(7, 1), house.now)]
        await house.again()
        assert house.lives.overdrawn("child") is not None
        house.budgets.put("parent", Owner("agent", "parent"), Limits(tokens=50), house.now)
        assert house.lives.overdrawn("child") is None
        assert house.woken[-1] == "child"
        house.journal.close()

    play(story())


def test_usage_as_a_status_tells_it(folder: Path) -> None:
    async def story() -> None:
        house = await House(folder, Limits(tokens=100, per_seconds=3600, wall_seconds=60)).begin()
        assert house.lives.usage("child") is None
        held = house.budgets.reserve(("parent", "child"), Amount(9, 1, 5), house.now)
        house.budgets.settle(held, Amount(7, 1, 1_500_000), house.now)
        assert house.lives.usage("child") == {"tokens": 7, "calls": 1, "costUsd": "1.50"}
        house.lives.runs("parent", 0)
        house.now += 3.5
        assert house.lives.usage("parent") == {
            "tokens": 7, "calls": 1, "costUsd": "1.50", "wallTime": "3s", "windowEnds": "2026-01-01T13:00:00Z",
        }  # fmt: skip
        assert house.budgets.drain() == {"parent", "child"} and house.budgets.drain() == set()
        house.journal.close()

    play(story())


def test_before_it_is_open_nothing_is_said() -> None:
    early = lives.Lives()
    assert early.overdrawn("x") is None and early.usage("x") is None and early.said("x", 1) is None
    early.runs("x", 0)
    early.rests("x")
    early.announce("x-1", "x-1")


def refused(house: House, calls: int = 1) -> errors.BudgetExceeded:
    with pytest.raises(errors.BudgetExceeded) as caught:
        house.budgets.reserve(("parent",), Amount(calls=calls), house.now)
    return caught.value


PARENT = Guest("parent", "default", "parent", 1, "parent-1", "parent-1")


def test_a_call_waits_for_budget_as_long_as_its_agent_stands_still(folder: Path) -> None:
    async def story() -> None:
        house = await House(folder, Limits(calls=0)).begin()
        waiting = [
            asyncio.create_task(house.lives.patience(PARENT, refused(house))),
            asyncio.create_task(house.lives.patience(PARENT, refused(house))),
        ]
        gone = asyncio.create_task(house.lives.patience(PARENT, refused(house)))
        await asyncio.sleep(0)
        gone.cancel()  # its guest hung up
        await asyncio.gather(gone, return_exceptions=True)
        assert not any(task.done() for task in waiting)
        house.budgets.add("parent", Amount(calls=1), house.now)
        await asyncio.gather(*waiting)
        assert house.lives._held == {}
        house.journal.close()

    play(story())


@pytest.mark.parametrize(
    ("spec", "annotations"),
    [({"budget": {"onExceeded": "Kill"}}, {}), ({}, {HELD: "true"}), (None, {})],
    ids=["is-ended", "cannot-be-frozen", "is-no-agent"],
)
def test_who_is_not_frozen_is_told(folder: Path, spec: Any, annotations: dict[str, str]) -> None:
    async def story() -> None:
        house = await House(folder, Limits(calls=0)).begin()
        metadata = {"uid": "parent", "name": "parent", "namespace": "default", "annotations": annotations}
        house.guests.hear(kinds.AGENT, {"metadata": metadata, "spec": spec}, spec is None)
        refusal = refused(house)
        with pytest.raises(errors.BudgetExceeded) as caught:
            await house.lives.patience(PARENT, refusal)
        assert caught.value is refusal
        house.journal.close()

    play(story())


def test_a_call_that_no_budget_would_hold_is_told_at_once(folder: Path) -> None:
    async def story() -> None:
        house = await House(folder, Limits(tokens=10, tokens_per_request=5)).begin()
        with pytest.raises(errors.BudgetExceeded) as caught:
            house.budgets.reserve(("parent",), Amount(tokens=6), house.now)
        with pytest.raises(errors.BudgetExceeded):
            await house.lives.patience(PARENT, caught.value)
        house.journal.close()

    play(story())
