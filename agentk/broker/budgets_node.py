"""One node of the tree of budgets: what it allows, what is used and held in its window, and by which child.

Windows are aligned to the Unix epoch (`per: 1h` turns over at every full hour, UTC), so that a restart of the
daemon never begins a fresh one. A clock set back must not either: it never forgets what was used.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from agentk.broker import budgets_limits
from agentk.broker.budgets_limits import Limits, Resource
from agentk.broker.words import Amount

Counted = Literal["tokens", "calls", "cost_micro_usd"]

NOTHING = Amount()
# In this order a refusal names what is short.
RESOURCES: tuple[Counted, ...] = ("tokens", "calls", "cost_micro_usd")


@dataclass(frozen=True)
class Owner:
    """Whose budget it is."""

    kind: Literal["quota", "agent"]
    name: str
    namespace: str = "default"

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


class Wall(NamedTuple):
    """Wall time that a node used in a window."""

    key: str
    window: int
    seconds: float
    runs: bool  # the agent itself, now


@dataclass(slots=True)
class Tally:
    used: Amount = NOTHING
    held: Amount = NOTHING  # reserved by calls in flight


@dataclass(frozen=True)
class Shortage:
    """Why a call does not fit: `limit` of `resource`, of the node or of one child's share of it."""

    resource: Resource
    asked: float
    used: float
    held: float
    limit: float
    of_share: bool = False
    of_request: bool = False  # the cap of a single request

    @property
    def left(self) -> float:
        return max(0, self.limit - self.used - self.held)

    @property
    def lasting(self) -> bool:
        """No call in flight can end it by using less than it holds, and the guest cannot by asking for a
        possible amount: it takes a new window or a person."""
        if self.resource == "wall_seconds":
            return True
        if self.of_request or self.used + self.asked <= self.limit:
            return False
        return self.asked <= self.limit or self.used >= self.limit


@dataclass(eq=False, slots=True)
class Node:
    key: str
    owner: Owner
    limits: Limits
    window: int = 0  # number of the window since 1970; 0 without windows
    total: Tally = field(default_factory=Tally)
    shares: dict[str, Tally] = field(default_factory=dict)  # by key of the child
    granted: Amount = NOTHING  # by `agentk budget add`
    granted_wall: float = 0.0
    wall_used: float = 0.0  # until `running_since`
    running: int = 0  # boxes of this node and below it
    running_since: float = 0.0

    def roll(self, now: float) -> None:
        """Come to the window that `now` lies in. Safe to repeat. What is held stays held."""
        per = self.limits.per_seconds
        if per is None:
            return
        window = int(now // per)
        if (
            window < self.window - 1
        ):  # a clock set far back: do not lock until it has caught up, forget nothing
            self.window = window
        if window <= self.window:
            return
        self.window = window
        self.total.used, self.granted = NOTHING, NOTHING
        self.wall_used, self.granted_wall = 0.0, 0.0
        self.running_since = max(self.running_since, window * per)
        for key, tally in list(self.shares.items()):
            tally.used = NOTHING
            if tally.held == NOTHING:
                del self.shares[key]

    def change(self, limits: Limits, now: float) -> None:
        """Other limits; what is used in the present window stays used, also when the window's length changes."""
        self.roll(now)
        before, self.limits = self.limits.per_seconds, limits
        if limits.per_seconds != before or not self.window:
            self.window = int(now // limits.per_seconds) if limits.per_seconds else 0

    def resets_at(self) -> float | None:
        per = self.limits.per_seconds
        return None if per is None else (self.window + 1) * per

    def wall(self, now: float) -> float:
        return self.wall_used + (max(0.0, now - self.running_since) if self.running else 0.0)

    def start(self, since: float) -> None:
        """`since` may be past; what is before the present window does not count in it."""
        if not self.running:
            per = self.limits.per_seconds
            self.running_since = since if per is None else max(since, self.window * per)
        self.running += 1

    def stop(self, at: float) -> None:
        at = max(at, self.running_since)
        self.wall_used = self.wall(at)
        self.running_since = at
        self.running -= 1

    def limit(self, resource: Resource) -> float | None:
        """With what was added by hand."""
        limit = self.limits.of(resource)
        if limit is None:
            return None
        return limit + (self.granted_wall if resource == "wall_seconds" else getattr(self.granted, resource))

    def share_limit(self, resource: Resource) -> int | None:
        limit, percent = self.limit(resource), self.limits.largest_share_percent
        return None if limit is None or percent is None else budgets_limits.share(int(limit), percent)

    def left(self, resource: Counted, child: str | None) -> int | None:
        """What one more call may use of it; None: no limit."""
        found = [self.limits.tokens_per_request] if resource == "tokens" else []
        limits = [self.limit(resource), None if child is None else self.share_limit(resource)]
        tallies = [self.total, self.shares.get(child or "", Tally())]
        for limit, tally in zip(limits, tallies, strict=True):
            if limit is not None:
                taken = getattr(tally.used, resource) + getattr(tally.held, resource)
                found.append(max(0, int(limit) - taken))
        return min((number for number in found if number is not None), default=None)

    def tallies(self, child: str | None) -> list[Tally]:
        """Where a call of `child` (None: of this node itself) counts."""
        return [self.total] if child is None else [self.total, self.shares.setdefault(child, Tally())]

    def forget(self, child: str) -> None:
        """The child is gone for good; what its calls in flight hold must still find its share."""
        if child in self.shares and self.shares[child].held == NOTHING:
            del self.shares[child]

    def short(self, child: str | None, bound: Amount, now: float) -> Shortage | None:
        """What keeps such a call from fitting; None when it fits."""
        cap = self.limits.tokens_per_request
        if cap is not None and bound.tokens > cap:
            return Shortage("tokens", bound.tokens, 0, 0, cap, of_request=True)
        wall = self.limit("wall_seconds")
        if wall is not None and self.wall(now) >= wall:
            return Shortage("wall_seconds", 0, self.wall(now), 0, wall)
        for resource in RESOURCES:
            if lacking := self._short(self.total, resource, bound, self.limit(resource)):
                return lacking
        if child is None or self.limits.largest_share_percent is None:
            return None
        tally = self.shares.get(child) or Tally()
        for resource in RESOURCES:
            if lacking := self._short(tally, resource, bound, self.share_limit(resource), of_share=True):
                return lacking
        return None

    @staticmethod
    def _short(
        tally: Tally, resource: Resource, bound: Amount, limit: float | None, of_share: bool = False
    ) -> Shortage | None:
        asked: int = getattr(bound, resource)
        if limit is None or not asked:  # what costs nothing always fits
            return None
        used: int = getattr(tally.used, resource)
        held: int = getattr(tally.held, resource)
        if used + held + asked <= limit:
            return None
        return Shortage(resource, asked, used, held, limit, of_share)

    def overrun(self, now: float) -> Resource | None:
        """What more was used of than allowed, whoever asked: a settled truth above its bound, or time."""
        wall = self.limit("wall_seconds")
        if wall is not None and self.wall(now) >= wall:
            return "wall_seconds"
        for resource in RESOURCES:
            limit = self.limit(resource)
            if limit is not None and getattr(self.total.used, resource) > limit:
                return resource
        return None

    def next_moment(self, now: float) -> float | None:
        """When time alone changes something: the window ends, or the wall time of what runs is used up."""
        wall = self.limit("wall_seconds")
        if wall is None or not self.running:
            return None
        left = wall - self.wall(now)
        return now + left if left > 0 else None
