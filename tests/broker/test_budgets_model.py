"""The tree of budgets against plain sums, through any order of calls, corrections, releases and windows."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agentk.api import errors
from agentk.broker import budgets as b
from agentk.broker.budgets_limits import Limits
from agentk.broker.budgets_node import Owner
from agentk.broker.words import Amount

HOUR = 3600.0
NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z
PATHS = [("quota",), ("quota", "parent"), ("quota", "parent", "child"), ("quota", "other")]
AMOUNTS = st.builds(Amount, st.integers(0, 60), st.integers(0, 2), st.integers(0, 60))


class Machine(RuleBasedStateMachine):
    """The tree against plain sums over a list of calls, through windows, corrections and releases."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.limits = {
            "quota": Limits(tokens=200, cost_micro_usd=300, largest_share_percent=60, per_seconds=HOUR),
            "parent": Limits(tokens=100, calls=12),
            "child": Limits(tokens=80, tokens_per_request=50, per_seconds=60),
            "other": Limits(cost_micro_usd=150, per_seconds=600),
        }
        self.tree = b.Budgets()
        for key, its in self.limits.items():
            self.tree.put(key, Owner("quota" if key == "quota" else "agent", key), its, NOON)
        self.calls: list[dict[str, Any]] = []

    @rule(path=st.sampled_from(PATHS), bound=AMOUNTS)
    def reserve(self, path: tuple[str, ...], bound: Amount) -> None:
        fits = self._fits(path, bound)
        try:
            reservation = self.tree.reserve(path, bound, self.now)
        except errors.BudgetExceeded:
            assert not fits
        else:
            assert fits
            self.calls.append(
                {"path": path, "held": bound, "reservation": reservation, "told": Amount(), "log": []}
            )

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), used=AMOUNTS)
    def settle(self, data: st.DataObject, used: Amount) -> None:
        call = data.draw(st.sampled_from(self.calls))
        self.tree.settle(call["reservation"], used, self.now)
        call["log"].append((self.now, used.minus(call["told"])))
        call["told"], call["held"] = used, Amount()

    @rule(seconds=st.sampled_from([0.5, 59.0, 600.0, 3600.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.tree.look(self.now)

    @rule()
    def settle_all(self) -> None:
        for call in self.calls:
            self.settle_one(call)
        for key in self.limits:
            assert self.tree.standing(key, self.now).held == Amount()

    def settle_one(self, call: dict[str, Any]) -> None:
        if call["held"] != Amount():
            self.tree.settle(call["reservation"], call["held"], self.now)
            call["log"].append((self.now, call["held"].minus(call["told"])))
            call["told"], call["held"] = call["held"], Amount()

    @invariant()
    def counts_as_the_model_does(self) -> None:
        for key in self.limits:
            standing = self.tree.standing(key, self.now)
            assert (standing.used, standing.held) == (self._used(key), self._held(key)), key

    @invariant()
    def what_is_left_fits_and_one_more_does_not(self) -> None:
        for path in PATHS:
            left = self.tree.left(path, self.now).tokens
            assert left is not None and (left == 0 or self._fits(path, Amount(left)))
            assert not self._fits(path, Amount(left + 1))

    def _used(self, key: str, child: str | None = None) -> Amount:
        total = Amount()
        for call in self.calls:
            if key in call["path"] and (child is None or child in call["path"]):
                total = total.plus(self._counted(call["log"], self.limits[key].per_seconds))
        return total

    def _counted(self, log: list[tuple[float, Amount]], per: float | None) -> Amount:
        """What of one call lies in the present window; never less than nothing after any of its corrections."""
        total = Amount()
        for at, more in log:
            if per is None or at // per == self.now // per:
                total = Amount(*(max(0, number) for number in total.plus(more)))
        return total

    def _held(self, key: str, child: str | None = None) -> Amount:
        total = Amount()
        for call in self.calls:
            if key in call["path"] and (child is None or child in call["path"]):
                total = total.plus(call["held"])
        return total

    def _fits(self, path: tuple[str, ...], bound: Amount) -> bool:
        for at, key in enumerate(path):
            node, child = self.limits[key], (*path, None)[at + 1]
            if node.tokens_per_request is not None and bound.tokens > node.tokens_per_request:
                return False
            for resource in ("tokens", "calls", "cost_micro_usd"):
                limit = getattr(node, resource)
                if limit is None or not getattr(bound, resource):
                    continue
                taken = self._used(key).plus(self._held(key)).plus(bound)
                if getattr(taken, resource) > limit:
                    return False
                if child and node.largest_share_percent:
                    taken = self._used(key, child).plus(self._held(key, child)).plus(bound)
                    if getattr(taken, resource) > limit * node.largest_share_percent // 100:
                        return False
        return True


TestAgainstAModel = Machine.TestCase
TestAgainstAModel.settings = settings(max_examples=80, stateful_step_count=40)
