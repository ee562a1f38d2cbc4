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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from agentk.api import quantities
from agentk.control.claims import THERE, Amount, Claim, Hard, Key
from agentk.control.deciding import NODE_FULL, PREEMPTED, PREEMPTING, QUOTA_EXCEEDED, TIME_SLICED
from agentk.control.plans import Preempted, Problem

# An agent that begins to run, or goes on, is left alone for so long: freezing and thawing must not become the work.
LEAST_RUN_SECONDS = 1.0


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

    def lacks(self, want: "Space") -> "Space":
        """What is wanted and not here. Of what is not wanted nothing lacks, however little there is."""
        return Space(*(max(0, w - h) if w else 0 for h, w in zip(self, want, strict=True)))


_NOTHING = Space()
How = Literal["Freeze", "End"]


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
        if one.state in THERE:
            totals[one.key[0]] = totals.get(one.key[0], Amount()).plus(one.amount)
    heads: dict[str, Key] = {}  # the first of each namespace that had no room in its Quota
    for one in table.line():
        total = totals.get(one.key[0], Amount())
        if one.state == "waits":
            total = total.plus(one.amount)
            problem = _quota_problem(one, quotas.get(one.key[0], ()), total, heads)
            if problem is not None:
                table.answer.refused[one.key] = problem
                continue
        if table.admits(one):
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
        self._free = node.space
        for one in claims:
            self._free = self._free.minus(_taken(one))
        self._coming = self._free  # when those have gone that are to go, less what was promised
        for one in claims:
            if one.leaving:
                self._coming = self._coming.plus(_taken(one))
        self._held_back = _NOTHING  # what somebody ahead lacks and nobody can make room for
        staying = [one for one in claims if not one.leaving]
        self._running = [one for one in staying if one.state == "holds"]
        self._frozen = [one for one in staying if one.state == "yields"]
        self._lowest = min((one.priority for one in (*self._running, *self._frozen)), default=0)

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
        never = self._node.space.lacks(want)
        if any(never):
            told = f"it can never {verb}: this machine takes {self._node.tell(never)}"
            self.answer.refused[one.key] = Problem(NODE_FULL, told)
            return False
        now, later = self._free.lacks(want), self._coming.lacks(want)
        if any(wanted and held for wanted, held in zip(want, self._held_back, strict=True)):
            told = f"it waits for room to {verb} behind one that has priority"
            self.answer.refused[one.key] = Problem(NODE_FULL, told)
            return False
        if not any(now) and not any(later):
            self._free, self._coming = self._free.minus(want), self._coming.minus(want)
            return True
        lacking = later if any(later) else now
        told = f"no room to {verb}: this machine takes {self._node.tell(lacking)}"
        self.answer.refused[one.key] = self._make_room(one, want, Problem(NODE_FULL, told))
        return False

    def _make_room(self, one: Claim, want: Space, full: Problem) -> Problem:
        victims = self._victims(one, want)
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
        if victims[0][0].priority == one.priority:
            return full
        return Problem(PREEMPTING, f"{full.message}; others make room for it", usual=True)

    def _victims(self, one: Claim, want: Space) -> list[tuple[Claim, How]] | None:
        """As few as need be; none when what is on its way out is enough. None: no room can be made now."""
        lacking = self._coming.lacks(want)
        lower = list(self._lower(one))
        running = [other for other in lower if other.state == "holds" and self._may_go(other)]
        still = [other for other in lower if other.state == "yields"]
        hard = Space(boxes=lacking.boxes, memory_bytes=lacking.memory_bytes)
        ended = _fewest([*running, *still], hard, "End", one.priority)
        if ended is None:
            return None
        for victim in ended:
            lacking = lacking.minus(_freed(victim, "End"))
        soft = Space(running=max(0, lacking.running), cpu_millis=max(0, lacking.cpu_millis))
        others = [other for other in running if other not in ended]
        frozen = _fewest([*others, *self._equals(one)], soft, "Freeze", one.priority)
        if frozen is None:
            return None
        return [(victim, "End") for victim in ended] + [
            (victim, "End" if victim.ends else "Freeze") for victim in frozen
        ]

    def _lower(self, one: Claim) -> Iterator[Claim]:
        if one.preempts and self._lowest < one.priority:
            for other in (*self._running, *self._frozen):
                if other.priority < one.priority and other.key not in self.answer.victims:
                    yield other

    def _equals(self, one: Claim) -> Iterator[Claim]:
        """Whose time slice is over."""
        if self._node.slice_seconds:
            for other in self._running:
                same = other.priority == one.priority and not other.ends
                if same and other.key not in self.answer.victims and self._may_go(other, equal=True):
                    yield other

    def _may_go(self, other: Claim, *, equal: bool = False) -> bool:
        return self._now >= other.since + self._least(equal)

    def _least(self, equal: bool) -> float:
        return max(LEAST_RUN_SECONDS, self._node.slice_seconds) if equal else LEAST_RUN_SECONDS

    def _wait_for(self, one: Claim) -> None:
        """Look again when the next of those that could make room has run long enough."""
        for other in self._running:
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


def _fewest(candidates: Sequence[Claim], need: Space, how: How, equal: int) -> list[Claim] | None:
    """Those of them without whom the need would not be met; None when all together do not meet it.

    Whoever is most worth keeping is let off first: the highest priority; of lower ones who runs longest, of those
    whose turn is over, of the `equal` priority, who runs shortest.
    """
    if not any(need):
        return []
    total = _NOTHING
    for one in candidates:
        total = total.plus(_freed(one, how))
    if any(total.lacks(need)):
        return None

    def worth(one: Claim) -> tuple[int, float, str, Key]:
        return -one.priority, -one.since if one.priority == equal else one.since, one.created, one.key

    taken: list[Claim] = []
    for one in sorted(candidates, key=worth):
        without = total.minus(_freed(one, how))
        if any(without.lacks(need)):
            taken.append(one)
        else:
            total = without
    return taken
