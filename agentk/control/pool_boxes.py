"""The boxes of one Pool: what a new one is made of, those that wait, and those that were handed out.

Plain bookkeeping. Nothing here talks to a runtime. A box leaves `waiting` in the same turn of the loop in which it is
picked, and what was picked is never taken for waiting again however old a listing is: no two agents get the same box.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentk.control import pool_standing, pooling
from agentk.control.plans import Problem
from agentk.control.pooling import History, Waiting
from agentk.runtime import box as boxes

UID_PREFIX = "pool-"  # of boxes that wait; no agent's uid begins so
POOL, SHAPE, HOST_UID = "pool", "shape", "hostUID"  # annotations of a box, which come back with every listing
START, START_TOLD = "start", "startMessage"  # of an agent's box: how it came into it

Key = tuple[str, str]  # namespace and name


def is_waiting(uid: str) -> bool:
    """Whether this is no agent's uid but that of a box that waits for one."""
    return uid.startswith(UID_PREFIX)


@dataclass(frozen=True)
class Kept:
    """One box that waits."""

    uid: str
    host_uid: int
    shape: str
    made_at: float  # CLOCK_BOOTTIME seconds
    state: pooling.State

    @property
    def box_id(self) -> str:
        return f"{self.uid}-1"


@dataclass(frozen=True)
class Picked:
    kept: Kept | None
    why: str = ""  # there is none
    missed: bool = False  # a box like this could have waited, and did not


@dataclass
class Pool:
    """All that is known of one Pool between two looks."""

    key: Key
    uid: str
    history: History
    hand_outs: pool_standing.HandOuts
    wish: pooling.Wish = pooling.NOTHING
    wanted: int = 0
    model: boxes.Box | None = None  # what a new box is like; None while none can be made
    problem: Problem | None = None
    waiting: dict[str, Kept] = field(default_factory=dict)  # by uid
    used: set[str] = field(default_factory=set)  # uids of boxes picked or ended that a listing may still show
    claimed: set[str] = field(default_factory=set)  # uids of agents
    left: Sequence[str] = ()  # uids of boxes of an earlier Pool of this name
    doubted: bool = True  # its boxes are to be listed anew
    told_at: float = float("-inf")

    def new_uid(self) -> str:
        """Of one more box."""
        return f"{UID_PREFIX}{self.uid[:8]}-{secrets.token_hex(6)}"

    def shape(self) -> str:
        return pooling.shape(self.model) if self.model else ""

    def count(self, state: pooling.State) -> int:
        return sum(one.state == state for one in self.waiting.values())

    def seen(self, now: float) -> Sequence[Waiting]:
        return [
            Waiting(one.uid, one.shape, one.state, max(0.0, now - one.made_at))
            for one in self.waiting.values()
        ]

    def adopt(self, listed: Mapping[str, Sequence[boxes.Seen]]) -> None:
        """What is there: boxes we know, those an earlier daemon made, and those handed out."""
        mine = [one for found in listed.values() for one in found if one.annotations.get(POOL) == self.uid]
        there = {one.uid: one for one in mine if is_waiting(one.uid)}
        self.used &= there.keys()
        waiting = {uid: one for uid, one in there.items() if uid not in self.used}
        for uid, kept in list(self.waiting.items()):
            state = _state(waiting[uid]) if uid in waiting else "gone"
            self.waiting[uid] = replace(kept, state=state)
        for uid in waiting.keys() - self.waiting.keys():
            self.waiting[uid] = _adopted(waiting[uid])
        agents = (one for one in mine if not is_waiting(one.uid))
        self.claimed = {one.uid for one in agents if one.phase in ("Starting", "Running")}

    def standing(self, packages: Mapping[str, Any]) -> pool_standing.Standing:
        """What its status tells."""
        return pool_standing.Standing(
            wanted=self.wanted,
            ready=self.count("ready"),
            creating=self.count("creating"),
            claimed=len(self.claimed),
            least=self.wish.least,
            hand_outs=self.hand_outs,
            problem=self.problem,
            packages=packages,
        )

    def take(self, uid: str) -> Kept | None:
        """It no longer waits: it is handed out, or ended."""
        self.used.add(uid)
        return self.waiting.pop(uid, None)

    def give_back(self, kept: Kept) -> None:
        """It was picked in vain, and nothing was done to it."""
        self.used.discard(kept.uid)
        self.waiting[kept.uid] = kept

    def pick(self, wanted: boxes.Box) -> Picked:
        """The box for an agent, the one that waits longest; it no longer waits then."""
        shape = pooling.shape(wanted)
        fits = [one for one in self.waiting.values() if one.shape == shape and one.state == "ready"]
        if fits:
            return Picked(self.take(min(fits, key=lambda one: (one.made_at, one.uid)).uid))
        if self.model is not None and (unlike := pooling.unlike(self.model, wanted)):
            return Picked(None, f"{unlike}: not as the Pool's template has it now")
        if self.problem is not None:
            return Picked(None, f"the Pool has none: {self.problem.message}")
        return Picked(None, f"none was ready; {self.count('creating')} are being made", missed=True)


def _state(seen: boxes.Seen) -> pooling.State:
    return "ready" if seen.phase == "Running" else "creating" if seen.phase == "Starting" else "gone"


def _adopted(seen: boxes.Seen) -> Kept:
    host_uid = seen.annotations.get(HOST_UID, "")
    number = int(host_uid) if host_uid.isdecimal() else -1
    return Kept(seen.uid, number, seen.annotations.get(SHAPE, ""), seen.started_boottime, _state(seen))
