"""Budgets: never overshot by calls in parallel, true after any order of settling, the same after a restart."""

import asyncio

import pytest

from agentk.api import errors
from agentk.broker import budgets as b
from agentk.broker.budgets_limits import Limits
from agentk.broker.budgets_node import Owner
from agentk.broker.words import Amount

HOUR = 3600.0
NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z


class House:
    """A quota, an agent, what it spawned, and another agent, with a log of what was told."""

    def __init__(self, now: float = NOON, **nodes: Limits) -> None:
        self.told: list[tuple[str, bool, str]] = []
        self.tree = b.Budgets(
            lambda key, standing: self.told.append((key, standing.exceeded, standing.which))
        )
        for key in ("quota", "parent", "child", "other"):
            owner = Owner("quota", "team") if key == "quota" else Owner("agent", key)
            self.tree.put(key, owner, nodes.get(key, Limits()), now)

    def use(self, path: tuple[str, ...], tokens: int, now: float = NOON) -> None:
        self.tree.settle(self.tree.reserve(path, Amount(tokens, 1), now), Amount(tokens, 1), now)

    def used(self, key: str, now: float = NOON) -> int:
        return self.tree.standing(key, now).used.tokens


PARENT, CHILD, OTHER = ("quota", "parent"), ("quota", "parent", "child"), ("quota", "other")


# The tree.


def test_a_childs_use_counts_for_all_above_it() -> None:
    house = House()
    house.use(CHILD, 7)
    house.use(PARENT, 5)
    house.use(OTHER, 2)
    assert [house.used(key) for key in ("quota", "parent", "child", "other")] == [14, 12, 7, 2]


def test_a_parents_limit_binds_its_child_and_nothing_is_held_by_what_was_refused() -> None:
    house = House(parent=Limits(tokens=10))
    with pytest.raises(errors.BudgetExceeded, match="agent/parent"):
        house.tree.reserve(CHILD, Amount(11, 1), NOON)
    assert all(house.tree.standing(key, NOON).held == Amount() for key in CHILD)


def test_100_calls_in_parallel_do_not_overshoot() -> None:
    house = House(quota=Limits(tokens=1000), parent=Limits(cost_micro_usd=550))

    async def call(path: tuple[str, ...]) -> bool:
        await asyncio.sleep(0)
        try:
            reservation = house.tree.reserve(path, Amount(30, 1, 20), NOON)
        except errors.BudgetExceeded:
            return False
        await asyncio.sleep(0)
        house.tree.settle(reservation, reservation.bound, NOON)
        return True

    async def all_at_once() -> list[bool]:
        return await asyncio.gather(*(call((PARENT, CHILD, OTHER)[n % 3]) for n in range(100)))

    assert sum(asyncio.run(all_at_once())) == 33
    quota, parent = house.tree.standing("quota", NOON), house.tree.standing("parent", NOON)
    assert quota.used == Amount(990, 33, 660) and quota.held == Amount()
    assert parent.used.cost_micro_usd <= 550


def test_the_truth_above_the_bound_is_counted() -> None:
    house = House(parent=Limits(tokens=100))
    reservation = house.tree.reserve(PARENT, Amount(90, 1), NOON)
    house.tree.settle(reservation, Amount(130, 1), NOON)
    standing = house.tree.standing("parent", NOON)
    assert (standing.used.tokens, standing.exceeded, standing.which) == (130, True, "tokens")


def test_settling_again_corrects_what_was_counted() -> None:
    house = House()
    reservation = house.tree.reserve(CHILD, Amount(90, 1), NOON)
    for tokens in (40, 40, 25):
        house.tree.settle(reservation, Amount(tokens, 1), NOON)
    assert house.used("quota") == 25
    assert house.tree.standing("quota", NOON).held == Amount()


def test_a_call_that_did_not_happen_gives_back_all_and_only_once() -> None:
    house = House(parent=Limits(tokens=100))
    first, second = (house.tree.reserve(PARENT, Amount(50, 1), NOON) for _ in range(2))
    for _ in range(3):
        house.tree.settle(first, Amount(), NOON)
    assert house.tree.left(PARENT, NOON).tokens == 50
    house.tree.settle(second, Amount(), NOON)
    assert house.used("parent") == 0


def test_an_unknown_budget_refuses_instead_of_letting_through() -> None:
    with pytest.raises(errors.Unavailable):
        House().tree.reserve(("quota", "stranger"), Amount(1, 1), NOON)


def test_what_costs_nothing_passes_an_empty_budget() -> None:
    house = House(parent=Limits(tokens=0))
    house.tree.reserve(PARENT, Amount(0, 1), NOON)


def test_a_call_in_flight_settles_although_its_agent_is_gone() -> None:
    house = House(quota=Limits(tokens=100, largest_share_percent=50))
    reservation = house.tree.reserve(CHILD, Amount(40, 1), NOON)
    house.tree.drop("child", NOON)
    house.tree.drop("parent", NOON)
    house.tree.settle(reservation, Amount(30, 1), NOON)
    standing = house.tree.standing("quota", NOON)
    assert (standing.used.tokens, standing.held.tokens) == (30, 0)


# What is said.


def test_a_refusal_says_whose_what_when_and_what_next() -> None:
    house = House(parent=Limits(tokens=100, per_seconds=HOUR))
    house.use(PARENT, 80)
    with pytest.raises(errors.BudgetExceeded) as caught:
        house.tree.reserve(PARENT, Amount(50, 1), NOON + 60)
    assert str(caught.value) == (
        "the budget of agent/parent has 20 of 100 tokens left, this call may use 50; the window ends at"
        " 2026-01-01T13:00:00Z; agentk budget add agent/parent --tokens 30"
    )
    assert caught.value.retry_after_seconds == 3540
    assert (caught.value.kind, caught.value.name) == ("agents", "parent")


def test_a_refusal_of_what_no_window_holds_does_not_speak_of_the_next() -> None:
    house = House(parent=Limits(tokens=100, per_seconds=HOUR))
    with pytest.raises(errors.BudgetExceeded, match="may use 150; no window has room for it; ") as caught:
        house.tree.reserve(PARENT, Amount(150, 1), NOON)
    assert caught.value.retry_after_seconds is None


def test_a_refusal_in_another_namespace_names_it() -> None:
    tree = b.Budgets()
    tree.put("a", Owner("agent", "x", "team"), Limits(cost_micro_usd=10_000), NOON)
    with pytest.raises(errors.BudgetExceeded) as caught:
        tree.reserve(("a",), Amount(1, 1, 260_000), NOON)
    assert caught.value.hint == "agentk budget add agent/x --cost-usd 0.25 -n team"
    assert "0.01 of 0.01 US dollars left, this call may use 0.26" in caught.value.message


def test_what_calls_in_flight_hold_is_said_and_exceeds_nothing() -> None:
    house = House(parent=Limits(tokens=100))
    house.tree.reserve(PARENT, Amount(60, 1), NOON)
    with pytest.raises(errors.BudgetExceeded, match="calls in flight hold 60 tokens"):
        house.tree.reserve(PARENT, Amount(60, 1), NOON)
    assert house.told == []


def test_a_request_above_its_cap_is_refused_whatever_is_left() -> None:
    house = House(parent=Limits(tokens=1000, tokens_per_request=50))
    with pytest.raises(errors.BudgetExceeded, match="allows 50 tokens a request, this one may use 51"):
        house.tree.reserve(CHILD, Amount(51, 1), NOON)
    assert house.tree.left(CHILD, NOON).tokens == 50
    assert house.told == []


# Shares.


def test_no_agent_uses_more_than_its_share_with_all_it_spawned() -> None:
    house = House(quota=Limits(tokens=1000, largest_share_percent=30))
    house.use(PARENT, 200)
    house.use(CHILD, 90)
    assert house.tree.left(CHILD, NOON).tokens == 10
    with pytest.raises(
        errors.BudgetExceeded, match=r"share of agent/parent in quota/team \(30 %\) has 10 of 300"
    ):
        house.tree.reserve(CHILD, Amount(11, 1), NOON)
    house.use(OTHER, 300)


def test_a_share_passes_through_further_quotas() -> None:
    house = House(quota=Limits(tokens=100, largest_share_percent=50))
    house.tree.put("second", Owner("quota", "second"), Limits(), NOON)
    house.use(("quota", "second", "parent"), 50)
    with pytest.raises(errors.BudgetExceeded, match="share of agent/parent"):
        house.tree.reserve(("quota", "second", "parent"), Amount(1, 1), NOON)
    house.use(("quota", "second", "other"), 50)


# Windows.


def test_a_window_turns_over_at_the_full_hour() -> None:
    house = House(parent=Limits(tokens=100, per_seconds=HOUR))
    house.use(PARENT, 100, NOON + 3599)
    assert house.tree.left(PARENT, NOON + 3599.9).tokens == 0
    assert house.tree.left(PARENT, NOON + 3600).tokens == 100
    assert house.used("quota", NOON + 3600) == 100, "the quota has no window"


def test_what_is_held_over_the_end_of_a_window_bounds_both() -> None:
    house = House(parent=Limits(tokens=100, per_seconds=HOUR))
    reservation = house.tree.reserve(PARENT, Amount(80, 1), NOON + 3599)
    assert house.tree.left(PARENT, NOON + 3601).tokens == 20
    house.tree.settle(reservation, Amount(50, 1), NOON + 3601)
    assert house.tree.left(PARENT, NOON + 3601).tokens == 50


def test_a_correction_takes_nothing_from_a_later_window() -> None:
    house = House(parent=Limits(tokens=100, per_seconds=HOUR))
    reservation = house.tree.reserve(PARENT, Amount(80, 1), NOON)
    house.tree.settle(reservation, Amount(80, 1), NOON)
    house.use(PARENT, 10, NOON + 3600)
    house.tree.settle(reservation, Amount(20, 1), NOON + 3600)
    assert house.used("parent", NOON + 3600) == 10


@pytest.mark.parametrize("back", [1.0, HOUR, 50 * HOUR])
def test_a_clock_set_back_forgets_nothing_and_locks_for_no_longer_than_two_windows(back: float) -> None:
    house = House(parent=Limits(tokens=100, per_seconds=HOUR))
    house.use(PARENT, 100, NOON)
    assert house.tree.left(PARENT, NOON - back).tokens == 0
    assert house.tree.left(PARENT, NOON - back + 2 * HOUR).tokens == 100


def test_a_share_counts_within_its_window_also_over_its_end() -> None:
    house = House(quota=Limits(tokens=100, largest_share_percent=50, per_seconds=HOUR))
    reservation = house.tree.reserve(PARENT, Amount(40, 1), NOON)
    house.tree.settle(reservation, Amount(40, 1), NOON + HOUR)
    assert house.tree.left(PARENT, NOON + HOUR).tokens == 10


# Standing.


def test_who_is_refused_is_told_and_told_again_when_the_window_ends() -> None:
    house = House(parent=Limits(tokens=100, per_seconds=HOUR))
    house.use(PARENT, 100)
    assert house.told == [], "what used exactly its budget may still end well"
    with pytest.raises(errors.BudgetExceeded):
        house.tree.reserve(CHILD, Amount(1, 1), NOON)
    standing = house.tree.standing("child", NOON)
    assert (standing.exceeded, standing.because, standing.resets_at) == (True, "agent/parent", NOON + HOUR)
    assert house.tree.look(NOON + 60) == HOUR - 60
    assert house.tree.look(NOON + HOUR) is None
    assert house.told == [("child", True, "tokens"), ("child", False, "")]


def test_adding_thaws_and_lasts_for_the_window() -> None:
    house = House(parent=Limits(tokens=100, per_seconds=HOUR))
    house.use(PARENT, 100)
    with pytest.raises(errors.BudgetExceeded):
        house.tree.reserve(PARENT, Amount(30, 1), NOON)
    house.tree.add("parent", Amount(20), NOON)
    assert house.told == [("parent", True, "tokens")]
    house.tree.add("parent", Amount(10), NOON)
    assert house.told[1:] == [("parent", False, "")]
    house.use(PARENT, 30)
    assert house.tree.left(PARENT, NOON + HOUR).tokens == 100


def test_a_changed_limit_thaws_and_keeps_what_was_used() -> None:
    house = House(parent=Limits(tokens=100))
    house.use(PARENT, 100)
    with pytest.raises(errors.BudgetExceeded):
        house.tree.reserve(PARENT, Amount(1, 1), NOON)
    house.tree.put("parent", Owner("agent", "parent"), Limits(tokens=150, per_seconds=HOUR), NOON)
    assert house.told[-1] == ("parent", False, "")
    assert house.tree.left(PARENT, NOON).tokens == 50


def test_a_quota_is_not_exceeded_by_what_one_agent_may_not_have() -> None:
    house = House(quota=Limits(tokens=100))
    with pytest.raises(errors.BudgetExceeded):
        house.tree.reserve(PARENT, Amount(5000, 1), NOON)
    assert house.told == []
    house.use(PARENT, 95)
    with pytest.raises(errors.BudgetExceeded):
        house.tree.reserve(OTHER, Amount(10, 1), NOON)
    assert house.told == [("other", True, "tokens")]
    house.tree.drop("quota", NOON)
    assert house.told[-1] == ("other", False, "")


def test_adding_to_what_has_no_limit_is_refused() -> None:
    with pytest.raises(errors.Invalid, match="agent/parent has no limit of calls"):
        House(parent=Limits(tokens=5)).tree.add("parent", Amount(10, 10), NOON)


# Wall time.


def test_wall_time_counts_while_something_runs_and_not_twice() -> None:
    house = House(parent=Limits(wall_seconds=100))
    house.tree.run(PARENT, NOON)
    house.tree.run(CHILD, NOON + 10)
    house.tree.run(CHILD, NOON + 10)
    house.tree.halt("parent", NOON + 30)
    house.tree.halt("child", NOON + 40)
    house.tree.halt("child", NOON + 50)
    assert house.tree.standing("parent", NOON + 60).wall_seconds == 40
    assert house.tree.standing("child", NOON + 60).wall_seconds == 30


def test_used_up_wall_time_is_told_by_time_alone() -> None:
    house = House(parent=Limits(wall_seconds=100))
    house.tree.run(PARENT, NOON)
    assert house.tree.look(NOON + 1) == 99
    house.tree.look(NOON + 100)
    assert house.told == [("parent", True, "wallTime")]
    with pytest.raises(errors.BudgetExceeded, match="agent/parent has used up its 1m40s of wall time"):
        house.tree.reserve(PARENT, Amount(0, 1), NOON + 100)
    house.tree.add("parent", Amount(), NOON + 100, wall_seconds=60)
    assert house.told[-1] == ("parent", False, "")


def test_wall_time_begins_anew_with_its_window() -> None:
    house = House(parent=Limits(wall_seconds=1800, per_seconds=HOUR))
    house.tree.run(PARENT, NOON + 1800)
    assert house.tree.standing("parent", NOON + HOUR + 600).wall_seconds == 600


# Restarts.


def test_a_restart_restores_what_counts_and_begins_no_window() -> None:
    windowed = Limits(tokens=100, per_seconds=HOUR)
    house = House(now=NOON + 1800, quota=Limits(tokens=1000, largest_share_percent=30), parent=windowed)
    rows = [
        b.Spent(PARENT, Amount(70, 1), NOON - 1),
        b.Spent(CHILD, Amount(90, 1), NOON + 60, wall_seconds=5),
        b.Spent(("quota", "long gone"), Amount(9, 1), NOON),
    ]
    gifts = [b.Granted("parent", Amount(50), NOON - 1), b.Granted("parent", Amount(3), NOON + 1)]
    house.tree.load(rows, NOON + 1800, gifts)
    assert house.used("quota", NOON + 1800) == 169
    assert house.tree.left(PARENT, NOON + 1800).tokens == 13
    assert house.tree.left(PARENT, NOON + HOUR).tokens == 100
    assert house.tree.left(("quota",), NOON + HOUR).tokens == 831
    assert house.tree.standing("quota", NOON + HOUR).wall_seconds == 5


def test_a_restart_restores_shares() -> None:
    house = House(quota=Limits(tokens=1000, largest_share_percent=30))
    house.tree.load([b.Spent(CHILD, Amount(160, 1), NOON)], NOON)
    assert house.tree.left(PARENT, NOON).tokens == 140
    assert house.tree.left(OTHER, NOON).tokens == 300


def test_a_budget_counts_from_when_it_was_made() -> None:
    house = House()
    house.tree.put("late", Owner("quota", "late"), Limits(tokens=10), NOON, since=NOON)
    house.tree.load([b.Spent(("late", "parent"), Amount(7, 1), NOON - 5)], NOON)
    assert (house.used("late"), house.used("parent")) == (0, 7)


def test_a_restart_tells_what_is_exceeded() -> None:
    house = House(parent=Limits(tokens=10))
    house.tree.load([b.Spent(PARENT, Amount(11, 1), NOON)], NOON)
    assert house.told == [("parent", True, "tokens")]
