"""How a Pool stands: its status and conditions, and how long hand-outs took. Pure.

The histogram is kept in the status, so it goes on counting after the daemon was started anew. Percentiles are read from
it as Prometheus does: within a bucket they are taken to lie evenly.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentk.control import conditions
from agentk.control.conditions import Condition, truth
from agentk.control.plans import Problem

# Milliseconds. Where warm starts lie they are close together.
BOUNDS = (1, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 75, 100, 150, 250, 500, 1000, 2500, math.inf)


@dataclass
class HandOuts:
    """Of one Pool, since it was made."""

    counts: list[int] = field(default_factory=lambda: [0] * len(BOUNDS))  # each bucket's own
    sum_ms: float = 0.0
    cold: int = 0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def note(self, ms: float) -> None:
        self.counts[next(at for at, bound in enumerate(BOUNDS) if ms <= bound)] += 1
        self.sum_ms += ms

    def quantile(self, share: float) -> float:
        """Milliseconds within which that share of the hand-outs was done; 0 before the first."""
        rank, below = share * self.count, 0
        for at, count in enumerate(self.counts):
            if count and below + count >= rank:
                low = BOUNDS[at - 1] if at else 0.0
                high = BOUNDS[at] if BOUNDS[at] < math.inf else low
                return round(low + (high - low) * (rank - below) / count, 2)
            below += count
        return 0.0

    def cumulative(self) -> list[tuple[str, int]]:
        """As Prometheus has them: milliseconds at most, and how many."""
        total, told = 0, []
        for bound, count in zip(BOUNDS, self.counts, strict=True):
            total += count
            told.append(("+Inf" if bound == math.inf else f"{bound:g}", total))
        return told

    def to_dict(self) -> dict[str, Any]:
        if not self.count:
            return {"count": 0, "cold": self.cold}
        return {
            "count": self.count,
            "cold": self.cold,
            "p50Ms": self.quantile(0.5),
            "p95Ms": self.quantile(0.95),
            "sumMs": round(self.sum_ms, 2),
            "buckets": [{"leMs": bound, "count": count} for bound, count in self.cumulative()],
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any] | None) -> "HandOuts":
        """What a status tells. Buckets of other bounds are those of an older agentk: counting begins anew."""
        stored = stored or {}
        made, below = cls(cold=int(stored.get("cold", 0))), 0
        told = [(one.get("leMs"), one.get("count", 0)) for one in stored.get("buckets") or ()]
        if [bound for bound, _ in told] != [bound for bound, _ in made.cumulative()]:
            return made
        for at, (_, count) in enumerate(told):
            made.counts[at], below = int(count) - below, int(count)
        made.sum_ms = float(stored.get("sumMs", 0.0))
        return made


@dataclass(frozen=True)
class Standing:
    """What is known of a Pool at one moment."""

    wanted: int
    ready: int
    creating: int
    claimed: int
    least: int
    hand_outs: HandOuts
    problem: Problem | None = None  # why no box can be made
    packages: Mapping[str, Any] = field(default_factory=dict)


def status(pool: Mapping[str, Any], now: Standing, wall: str) -> dict[str, Any]:
    """The status to be written. An unchanged Pool has an unchanged one."""
    old = pool.get("status") or {}
    generation = int(pool["metadata"].get("generation", 0))
    told = {
        "observedGeneration": generation,
        "wanted": now.wanted,
        "ready": now.ready,
        "creating": now.creating,
        "claimed": now.claimed,
        "handOut": now.hand_outs.to_dict(),
        "conditions": conditions.merge(old.get("conditions") or [], _conditions(now), generation, wall),
    }
    environment = now.packages or old.get("environment")
    return told | ({"environment": dict(environment)} if environment else {})


def _conditions(now: Standing) -> Sequence[Condition]:
    ready = now.ready >= min(now.least, now.wanted) and (now.problem is None or now.ready > 0)
    counted = f"{now.ready} of {now.wanted} boxes wait"
    if now.problem is not None:
        why, told = now.problem.reason, now.problem.message
    elif now.wanted < now.least:
        why, told = "NoRoom", f"{counted}: agents have the machine's room"
    else:
        why, told = ("Filling" if now.ready < now.wanted else "Filled"), counted
    stalled = now.problem is not None and not now.problem.usual
    moving = not stalled and (now.problem is not None or now.ready < now.wanted or now.creating > 0)
    return (
        Condition("Ready", truth(ready), "Filled" if ready else why, counted if ready else told),
        Condition("Reconciling", truth(moving), why, told if moving else ""),
        Condition("Stalled", truth(stalled), why, told if stalled else ""),
    )
