"""How agents share the room there is: who may start or go on, and who makes room for whom. Pure.

Of those that want room the highest priority goes first, then the oldest (with time slices: who ran least).
One that has no room keeps those behind it from taking what it lacks, or a stream of small ones would starve it; one
that could never fit holds nobody back. A Quota is never crossed and nobody makes room in one: a frozen agent counts
there as one that runs.

On the machine, agents of lower priority make room for one that has none: frozen, which frees their CPU and their place
among those that run, or ended, when it lacks memory or they ask for that. Never one of the same priority or a higher
one, never more than are needed, never one that has only just begun or been let go on. Those of the same priority take
turns when there are time slices, always frozen. What is on its way out already is waited for.
"""

import functools
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from agentk.api import quantities
from agentk.control.claims import THERE, Amount, Claim, Hard, Key, State
from agentk.control.deciding import NODE_FULL, PREEMPTED, PREEMPTING, QUOTA_EXCEEDED, TIME_SLICED
from agentk.control.plans import Preempted, Problem

# An agent that begins to run, or goes on, is left alone for so long: freezing and thawing must not become the work.
LEAST_RUN_SECONDS = 1.0
# For more than these nobody makes room in one go; those behind them wait until they have theirs.
_SERVED_AT_ONCE = 8


class Space(NamedTuple):
    """Of this machine. Freezing an agent frees its `running` and `cpu_millis`; `boxes` and memory it keeps."""

    boxes: float = 0
    running: float = 0
    cpu_millis: float = 0
    memory_bytes: float = 0

    def plus(self, other: "Space") -> "Space":
        return Space(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def minus(self, other: "Space") -> "Space":
        return Space(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))

    def takes(self, want: "Space") -> bool:
        """Whether nothing lacks: the usual question, and the cheap one."""
        return (
            (not want.running or want.running <= self.running)
            and (not want.boxes or want.boxes <= self.boxes)
            and (not want.cpu_millis or want.cpu_millis <= self.cpu_millis)
            and (not want.memory_bytes or want.memory_bytes <= self.memory_bytes)
        )

    def lacks(self, want: "Space") -> "Space":
        """What is wanted and not here. Of what is not wanted nothing lacks, however little there is."""
        return Space(
            want.boxes - self.boxes if want.boxes and want.boxes > self.boxes else 0,
            want.running - self.running if want.running and want.running > self.running else 0,
            want.cpu_millis - self.cpu_millis if want.cpu_millis and want.cpu_millis > self.cpu_millis else 0,
            want.memory_bytes - self.memory_bytes
            if want.memory_bytes and want.memory_bytes > self.memory_bytes
            else 0,
        )


_NOTHING = Space()
How = Literal["Freeze", "End"]


_BEHIND = {
    state: Problem(NODE_FULL, f"it waits for room to {verb} behind one that has priority")
    for state, verb in (("waits", "start"), ("yields", "go on"))
}


@dataclass(frozen=True)
class Node:
    """What this machine gives to all agents together. None: no bound."""

    boxes: int  # frozen ones included
    running: int
    cpu_millis: int | None = None
    memory_bytes: int | None = None
    slice_seconds: float = 0.0  # turns of equal priorities; 0: none, who runs goes on running

    @property
    def space(self) -> Space:
        cpu = float("inf") if self.cpu_millis is None else self.cpu_millis
        memory = float("inf") if self.memory_bytes is None else self.memory_bytes
        return Space(self.boxes, self.running, cpu, memory)

    def tell(self, lacking: Space) -> str:
        """The first bound that is in the way, in words."""
        if lacking.running or lacking.boxes:
            return f"at most {self.running if lacking.running else self.boxes} agents at once"
        if lacking.cpu_millis:
            return f"at most {quantities.format_cpu(self.cpu_millis or 0)} CPU of agents"
        return f"at most {quantities.format_quantity(self.memory_bytes or 0)} of memory of agents"


@dataclass
class Reckoning:
    refused: dict[Key, Problem] = field(
        default_factory=dict
    )  # of those that wait or yield; the others may go on
    victims: dict[Key, Preempted] = field(default_factory=dict)
    again: float | None = None  # boottime at which the answer may be another by itself


def reckon(
    claims: Iterable[Claim], quotas: Mapping[str, Sequence[Hard]], node: Node, now: float
) -> Reckoning:
    """See the module's text."""
    table = _Table(list(claims), node, now)
    totals: dict[str, Amount] = {}
    for one in table.claims:
        if one.state in THERE and quotas.get(one.key[0]):
            totals[one.key[0]] = totals.get(one.key[0], Amount()).plus(one.amount)
    heads: dict[str, Key] = {}  # the first of each namespace that had no room in its Quota
    for one in table.line():
        rules, total = quotas.get(one.key[0]), Amount()
        if rules:
            total = totals.get(one.key[0], total)
            if one.state == "waits":
                total = total.plus(one.amount)
                problem = _quota_problem(one, rules, total, heads)
                if problem is not None:
                    table.answer.refused[one.key] = problem
                    continue
        if table.admits(one) and rules:
            totals[one.key[0]] = total
    return table.answer


def _quota_problem(one: Claim, rules: Sequence[Hard], total: Amount, heads: dict[str, Key]) -> Problem | None:
    never, now = _over(rules, one.amount), _over(rules, total)
    if never:
        return Problem(QUOTA_EXCEEDED, f"it can never start: {never}")
    if one.key[0] in heads:
        told = f"it waits for room behind {heads[one.key[0]][1]}, which has priority"
        return Problem(QUOTA_EXCEEDED, told)
    if now:
        heads[one.key[0]] = one.key
        return Problem(QUOTA_EXCEEDED, f"no room: {now}")
    return None


def _over(rules: Sequence[Hard], amount: Amount) -> str:
    for rule in rules:
        over = rule.over(amount)
        if over:
            return f'Quota "{rule.name}" allows {over} in this namespace'
    return ""


class _Table:
    """The machine while one reckoning goes on."""

    def __init__(self, claims: list[Claim], node: Node, now: float) -> None:
        self.claims, self._node, self._now = claims, node, now
        self.answer = Reckoning()
        self._whole = node.space
        self._free = self._whole.minus(_all(claims))
        # When those have gone that are to go, less what was promised.
        self._coming = self._free.plus(_all(one for one in claims if one.leaving))
        self._held_back = _NOTHING  # what somebody ahead lacks and nobody can make room for
        self._served = 0  # for whom others make room

    @functools.cached_property
    def _there(self) -> list[Claim]:
        """Who is least worth keeping first: the lowest priority, then who began last."""
        there = (one for one in self.claims if one.state in ("holds", "yields") and not one.leaving)
        made = sorted(there, key=lambda one: (-one.priority, one.since, one.created, one.key))
        made.reverse()
        return made

    def line(self) -> list[Claim]:
        """Those that want room, in the order in which they get it."""
        wanting = (one for one in self.claims if one.state in ("waits", "yields") and not one.leaving)
        if self._node.slice_seconds:
            return sorted(wanting, key=lambda one: (-one.priority, one.ran, one.since, one.created, one.key))
        return sorted(wanting, key=lambda one: (-one.priority, one.created, one.key))

    def admits(self, one: Claim) -> bool:
        """Gives it its room, or says in the answer why not, and who makes room for it."""
        want = _wanted(one)
        verb = "start" if one.state == "waits" else "go on"
        if one.key in self.answer.victims:  # it is to end for one of higher priority
            self.answer.refused[one.key] = Problem(NODE_FULL, "it is to make room")
            return False
        if not self._whole.takes(want):
            told = f"it can never {verb}: this machine takes {self._node.tell(self._whole.lacks(want))}"
            self.answer.refused[one.key] = Problem(NODE_FULL, told)
            return False
        if self._held_back.running or any(map(operator.mul, want, self._held_back)):
            self.answer.refused[one.key] = _BEHIND[one.state]
            return False
        if self._free.takes(want) and self._coming.takes(want):
            self._free, self._coming = self._free.minus(want), self._coming.minus(want)
            return True
        now, later = self._free.lacks(want), self._coming.lacks(want)
        lacking = later if any(later) else now
        told = f"no room to {verb}: this machine takes {self._node.tell(lacking)}"
        self.answer.refused[one.key] = self._make_room(one, want, Problem(NODE_FULL, told))
        return False

    def _make_room(self, one: Claim, want: Space, full: Problem) -> Problem:
        victims = self._victims(one, want) if self._served < _SERVED_AT_ONCE else None
        if victims is None:
            self._wait_for(one)
            self._held_back = self._held_back.plus(self._coming.lacks(want))
            return full
        for victim, how in victims:
            why = PREEMPTED if victim.priority < one.priority else TIME_SLICED
            self.answer.victims[victim.key] = Preempted(how, why, one.key, one.priority)
            self._coming = self._coming.plus(_freed(victim, how))
        self._coming = self._coming.minus(want)
        if not victims:
            return Problem(full.reason, f"{full.message}; some of them are ending")
        self._served += 1
        if victims[0][0].priority == one.priority:
            return full
        return Problem(PREEMPTING, f"{full.message}; others make room for it", usual=True)

    def _victims(self, one: Claim, want: Space) -> list[tuple[Claim, How]] | None:
        """As few as need be; none when what is on its way out is enough. None: no room can be made now."""
        lacking = self._coming.lacks(want)
        hard = Space(boxes=lacking.boxes, memory_bytes=lacking.memory_bytes)
        ended = _fewest(self._lower(one, ("holds", "yields")), hard, "End")
        if ended is None:
            return None
        lacking = lacking.minus(_all(ended))
        soft = Space(running=max(0, lacking.running), cpu_millis=max(0, lacking.cpu_millis))
        running = (other for other in self._lower(one, ("holds",)) if other not in ended)
        frozen = _fewest(itertools.chain(running, self._equals(one)), soft, "Freeze")
        if frozen is None:
            return None
        return [(victim, "End") for victim in ended] + [
            (victim, "End" if victim.ends else "Freeze") for victim in frozen
        ]

    def _lower(self, one: Claim, states: tuple[State, ...]) -> Iterator[Claim]:
        """Least worth first."""
        for other in self._there:
            if other.priority >= one.priority or not one.preempts:
                return
            fits = other.state in states and other.key not in self.answer.victims
            if fits and (other.state != "holds" or self._may_go(other)):
                yield other

    def _equals(self, one: Claim) -> Iterator[Claim]:
        """Whose time slice is over, who has run longest first."""
        if self._node.slice_seconds:
            for other in reversed(self._there):
                same = other.priority == one.priority and other.state == "holds" and not other.ends
                if same and other.key not in self.answer.victims and self._may_go(other, equal=True):
                    yield other

    def _may_go(self, other: Claim, *, equal: bool = False) -> bool:
        return self._now >= other.since + self._least(equal)

    def _least(self, equal: bool) -> float:
        return max(LEAST_RUN_SECONDS, self._node.slice_seconds) if equal else LEAST_RUN_SECONDS

    def _wait_for(self, one: Claim) -> None:
        """Look again when the next of those that could make room has run long enough."""
        for other in self._there:
            if other.priority > one.priority:
                return
            if other.state != "holds":
                continue
            equal = other.priority == one.priority and bool(self._node.slice_seconds) and not other.ends
            if equal or (one.preempts and other.priority < one.priority):
                due = other.since + self._least(equal)
                if due > self._now:
                    self.answer.again = due if self.answer.again is None else min(self.answer.again, due)


def _wanted(one: Claim) -> Space:
    """What it wants besides what it has."""
    cpu = one.amount.cpu_millis
    return Space(0, 1, cpu, 0) if one.state == "yields" else Space(1, 1, cpu, one.amount.memory_bytes)


def _taken(one: Claim) -> Space:
    if one.state == "holds":
        return Space(1, 1, one.amount.cpu_millis, one.amount.memory_bytes)
    return Space(1, 0, 0, one.amount.memory_bytes) if one.state in THERE else _NOTHING


def _freed(one: Claim, how: How) -> Space:
    """What comes free when it is frozen, or ends."""
    if how == "End" or one.ends:
        return _taken(one)
    return Space(0, 1, one.amount.cpu_millis, 0)


def _all(claims: Iterable[Claim]) -> Space:
    boxes = running = cpu_millis = memory_bytes = 0
    for one in claims:
        if one.state in THERE:
            boxes += 1
            memory_bytes += one.amount.memory_bytes
            if one.state == "holds":
                running += 1
                cpu_millis += one.amount.cpu_millis
    return Space(boxes, running, cpu_millis, memory_bytes)


def _fewest(candidates: Iterable[Claim], need: Space, how: How) -> list[Claim] | None:
    """The first of them that together meet the need, but those without whom it is met too: the last are let off
    first. None when all of them do not meet it."""
    taken: list[Claim] = []
    total = _NOTHING
    if any(need):
        for one in candidates:
            taken.append(one)
            total = total.plus(_freed(one, how))
            if not any(total.lacks(need)):
                break
        else:
            return None
    for one in reversed(tuple(taken)):
        without = total.minus(_freed(one, how))
        if not any(without.lacks(need)):
            taken.remove(one)
            total = without
    return taken
