"""The tree of budgets: an upper bound is reserved before a call, the truth is settled after it.

Quota of a namespace → agent → the agents it spawned: what one uses counts for every node above it, along the path
of keys the caller gives, outermost first. Nothing here awaits, so on one event loop each verb is atomic: calls in
parallel never reserve more than is left. Nothing is kept on disk: after a restart `load` is given what the journal
knows. What a call used above its bound is counted all the same, never hidden.

`now` is Unix seconds that do not jump: the wall clock at the daemon's start plus CLOCK_BOOTTIME since.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agentk.api import errors
from agentk.broker.budgets_limits import WORDS, Limits
from agentk.broker.budgets_node import NOTHING, RESOURCES, Node, Owner, Shortage, Wall
from agentk.broker.budgets_refusals import refusal
from agentk.broker.words import Amount

Path = Sequence[str]  # keys of nodes, outermost first; the last one is who asks


@dataclass(frozen=True)
class Standing:
    """How one budget stands, for the steward and for status."""

    owner: Owner
    exceeded: bool
    which: str  # tokens, calls, costUsd, wallTime; "" when not exceeded
    because: str  # whose limit it is: agent/x itself, or a node above it
    resets_at: float | None  # when the window that is exceeded, or this node's own, ends
    used: Amount
    held: Amount
    wall_seconds: float
    limits: Limits
    granted: Amount
    granted_wall_seconds: float


class Left(NamedTuple):
    """What one more call may use. None: no limit."""

    tokens: int | None
    calls: int | None
    cost_micro_usd: int | None


@dataclass(frozen=True)
class Spent:
    """What the journal knows was used at a moment. A call of unknown outcome counts with what it had reserved."""

    path: tuple[str, ...]
    used: Amount
    at: float
    wall_seconds: float = 0.0


@dataclass(frozen=True)
class Granted:
    """What `agentk budget add` gave at a moment."""

    key: str
    amount: Amount
    at: float
    wall_seconds: float = 0.0


@dataclass(eq=False, slots=True)
class _Line:
    """What one reservation counts at one node. By reference: the node may be dropped meanwhile."""

    node: Node
    child: str | None  # whose share of it
    window: int = 0  # in which `counted` was counted
    counted: Amount = NOTHING

    def hold(self, more: Amount) -> None:
        for tally in self.node.tallies(self.child):
            tally.held = tally.held.plus(more)

    def count(self, more: Amount) -> None:
        """A correction downwards takes nothing from a window that it was not counted in."""
        if self.window != self.node.window:
            self.window, self.counted = self.node.window, NOTHING
        more = Amount(*(max(new, -old) for new, old in zip(more, self.counted, strict=True)))
        self.counted = self.counted.plus(more)
        for tally in self.node.tallies(self.child):
            tally.used = tally.used.plus(more)


@dataclass(eq=False, slots=True)
class Reservation:
    """Hand it back to `settle`; nothing else may change it."""

    path: tuple[str, ...]
    bound: Amount
    held: bool = True
    counted: Amount = NOTHING
    lines: list[_Line] = field(default_factory=list)


@dataclass(frozen=True)
class _Refused:
    """An agent was refused, and stays exceeded for as long as the same call would be."""

    blocker: str
    child: str | None
    bound: Amount


def _unheard(key: str, standing: Standing) -> None:
    """Nobody listens."""


def _unmoved() -> None:
    """Nobody listens."""


class Budgets:
    """`changed(key, standing)` is called when a node becomes exceeded or is no longer; `moved` when something was used
    and `drain` had nothing to tell. They must not raise."""

    def __init__(
        self,
        changed: Callable[[str, Standing], None] = _unheard,
        moved: Callable[[], None] = _unmoved,
    ) -> None:
        self._changed, self._moved = changed, moved
        self._used: set[str] = set()  # keys of what was used of since `drain`
        self._nodes: dict[str, Node] = {}
        self._since: dict[str, float] = {}
        self._refused: dict[str, _Refused] = {}  # by key of who asked
        self._exceeded: set[str] = set()
        self._running: dict[str, list[Node]] = {}  # by key of what runs: itself and all above it

    def put(self, key: str, owner: Owner, limits: Limits, now: float, *, since: float = 0.0) -> None:
        """Declare a node, or give it other limits: what it used stays used. `load` skips what is older than
        `since`, so that a budget counts the same after a restart as before."""
        node = self._nodes.get(key)
        if node is None:
            self._nodes[key] = node = Node(key, owner, limits)
            self._since[key] = since
        node.owner = owner
        node.change(limits, now)
        self._tell(self._touched([node]), now)

    def drop(self, key: str, now: float) -> None:
        """Its object is gone. Calls in flight may still be settled. Already gone is success."""
        self.halt(key, now)
        if self._nodes.pop(key, None) is None:
            return
        del self._since[key]
        self._used.discard(key)
        self._refused.pop(key, None)
        self._exceeded.discard(key)
        for node in self._nodes.values():
            node.forget(key)
        orphans = [asker for asker, refused in self._refused.items() if refused.blocker == key]
        self._tell(orphans, now)

    def add(self, key: str, amount: Amount, now: float, *, wall_seconds: float = 0.0) -> None:
        """`agentk budget add`: allow that much more, in the present window or for good. Raises errors.Invalid
        when the node has no such limit: nothing would become of it."""
        node = self._known(key)
        for resource in RESOURCES:
            if getattr(amount, resource) and node.limits.of(resource) is None:
                raise errors.Invalid(f"{node.owner} has no limit of {WORDS[resource].noun}")
        if wall_seconds and node.limits.wall_seconds is None:
            raise errors.Invalid(f"{node.owner} has no limit of wall time")
        node.roll(now)
        node.granted = node.granted.plus(amount)
        node.granted_wall += wall_seconds
        self._tell(self._touched([node]), now)

    def load(self, spent: Iterable[Spent], now: float, granted: Iterable[Granted] = ()) -> None:
        """Restore, once and before the first call, what was used and given before a restart."""
        for row in spent:
            for at, node, child in self._walk([key for key in row.path if key in self._nodes], now):
                if row.at < self._since[at] or not _in_window(node, row.at):
                    continue
                node.wall_used += row.wall_seconds
                for tally in node.tallies(child):
                    tally.used = tally.used.plus(row.used)
        for gift in granted:
            if (given := self._nodes.get(gift.key)) is not None:
                given.roll(now)
                if gift.at >= self._since[gift.key] and _in_window(given, gift.at):
                    given.granted = given.granted.plus(gift.amount)
                    given.granted_wall += gift.wall_seconds
        self._tell(list(self._nodes), now)

    def reserve(self, path: Path, bound: Amount, now: float) -> Reservation:
        """Hold `bound` at every node of the path, or at none: raises errors.BudgetExceeded. A node that is not
        declared is errors.Unavailable: what nobody bounds must not slip through before its bound is known."""
        if min(bound) < 0:
            raise ValueError(f"a bound is never negative: {bound}")
        walk = self._walk(path, now)
        for _, node, child in reversed(walk):  # the agent's own budget is the most telling one
            if lacking := node.short(child, bound, now):
                raise self._refuse(path[-1], node, child, bound, lacking, now)
        reservation = Reservation(tuple(path), bound)
        for _, node, child in walk:
            reservation.lines.append(line := _Line(node, child))
            line.hold(bound)
        return reservation

    def settle(self, reservation: Reservation, used: Amount, now: float) -> None:
        """Count what was used in place of what was held. Safe to repeat: the last told is what counts. It counts
        in the window in which it is told; until then what is held bounds every window it lies in."""
        used = Amount(*(max(0, number) for number in used))
        more = used.minus(reservation.counted)
        reservation.counted = used
        for line in reservation.lines:
            line.node.roll(now)
            line.count(more)
            if more != NOTHING:
                self._note_used(line.node.key)
        self._let_go(reservation, now)

    def drain(self) -> set[str]:
        """What was used of since this was asked for last."""
        used, self._used = self._used, set()
        return used

    def left(self, path: Path, now: float) -> Left:
        """What one more call on this path may use at most: for max_tokens."""
        tokens, calls, cost = (
            _least(node.left(resource, child) for _, node, child in self._walk(path, now))
            for resource in RESOURCES
        )
        return Left(tokens, calls, cost)

    def refused(self, key: str) -> Amount | None:
        """The bound of the call that an agent was refused for good, while it still would be."""
        refused = self._refused.get(key)
        return refused.bound if refused else None

    def recall(self, path: Path, bound: Amount, now: float) -> None:
        """After a restart: such a call was refused before it. Nothing, when it would not be now."""
        for _, node, child in reversed(self._walk(path, now)):
            lacking = node.short(child, bound, now)
            if lacking and lacking.lasting:
                self._refused[path[-1]] = _Refused(node.key, child, bound)
                self._tell([path[-1]], now)
                return

    # Time.

    def run(self, path: Path, now: float, since: float | None = None) -> None:
        """The box of the path's last node runs: its wall time counts from `since`, or now. Safe to repeat."""
        if path[-1] not in self._running:
            nodes = [node for _, node, _ in self._walk(path, now)]
            for node in nodes:
                node.start(now if since is None else min(since, now))
            self._running[path[-1]] = nodes

    def halt(self, key: str, now: float, at: float | None = None) -> None:
        """It ended, or is frozen, now or `at` some time before. Safe to repeat."""
        nodes = self._running.pop(key, [])
        for node in nodes:
            node.roll(now)
            node.stop(now if at is None else min(at, now))
        self._tell(self._touched(nodes), now)

    def walls(self, now: float) -> list[Wall]:
        """Of every node whose wall time is bounded, and of what runs on it."""
        told = [
            node
            for node in self._nodes.values()
            if any(map(_timed, [node, *self._running.get(node.key, ())]))
        ]
        for node in told:
            node.roll(now)
        return [Wall(node.key, node.window, node.wall(now), node.key in self._running) for node in told]

    def load_walls(self, walls: Iterable[Wall], now: float) -> None:
        """Restore, once and before anything runs. What was used in a window that is over is not."""
        for wall in walls:
            node = self._nodes.get(wall.key)
            if node is not None:
                node.roll(now)
                if node.limits.per_seconds is None or wall.window == node.window:
                    node.wall_used = wall.seconds
        self._tell(list(self._nodes), now)

    def look(self, now: float) -> float | None:
        """Tell what time alone changed; returns seconds until it may change something again, None for never."""
        self._tell(list(self._nodes), now)
        moments = [node.next_moment(now) for nodes in self._running.values() for node in nodes]
        moments += [self.standing(key, now).resets_at for key in self._exceeded]
        return min((moment - now for moment in moments if moment is not None), default=None)

    def standing(self, key: str, now: float) -> Standing:
        node = self._known(key)
        node.roll(now)
        blocker, which = self._blocked(node, now)
        ends = (blocker or node).resets_at()
        return Standing(
            owner=node.owner,
            exceeded=blocker is not None,
            which=which,
            because=str(blocker.owner) if blocker else "",
            resets_at=ends,
            used=node.total.used,
            held=node.total.held,
            wall_seconds=node.wall(now),
            limits=node.limits,
            granted=node.granted,
            granted_wall_seconds=node.granted_wall,
        )

    def _note_used(self, key: str) -> None:
        first = not self._used
        self._used.add(key)
        if first:
            self._moved()

    def _known(self, key: str) -> Node:
        node = self._nodes.get(key)
        if node is None:
            raise errors.Unavailable(f"the budget {key} is not known yet", hint="try again in a moment")
        return node

    def _walk(self, path: Path, now: float) -> list[tuple[str, Node, str | None]]:
        """Each key with its node, come to its window, and whose share of it a call uses: the first agent below."""
        nodes = [self._known(key) for key in path]
        walk: list[tuple[str, Node, str | None]] = []
        for at, node in enumerate(nodes):
            node.roll(now)
            child = next((below.key for below in nodes[at + 1 :] if below.owner.kind == "agent"), None)
            walk.append((node.key, node, child))
        return walk

    def _refuse(
        self, asker: str, node: Node, child: str | None, bound: Amount, lacking: Shortage, now: float
    ) -> errors.BudgetExceeded:
        if lacking.lasting:
            self._refused[asker] = _Refused(node.key, child, bound)
            self._tell([asker], now)
        whose = self._nodes[child].owner if lacking.of_share and child else node.owner
        return refusal(node, whose, lacking, now)

    def _blocked(self, node: Node, now: float) -> tuple[Node | None, str]:
        if resource := node.overrun(now):
            return node, WORDS[resource].field
        refused = self._refused.get(node.key)
        blocker = self._nodes.get(refused.blocker) if refused else None
        if refused and blocker:
            blocker.roll(now)
            lacking = blocker.short(refused.child, refused.bound, now)
            if lacking and lacking.lasting:
                return blocker, WORDS[lacking.resource].field
        self._refused.pop(node.key, None)
        return None, ""

    def _touched(self, nodes: Sequence[Node]) -> list[str]:
        """These, and who was refused because of them."""
        keys = [node.key for node in nodes]
        return keys + [asker for asker, refused in self._refused.items() if refused.blocker in keys]

    def _tell(self, keys: Iterable[str], now: float) -> None:
        for key in keys:
            if key not in self._nodes:
                continue
            standing = self.standing(key, now)
            if standing.exceeded != (key in self._exceeded):
                (self._exceeded.add if standing.exceeded else self._exceeded.discard)(key)
                self._changed(key, standing)

    def _let_go(self, reservation: Reservation, now: float) -> None:
        for line in reservation.lines:
            if reservation.held:
                line.hold(NOTHING.minus(reservation.bound))
            if line.child is not None and line.child not in self._nodes:
                line.node.forget(line.child)
        reservation.held = False
        self._tell(self._touched([line.node for line in reservation.lines]), now)


def _timed(node: Node) -> bool:
    return node.limits.wall_seconds is not None


def _in_window(node: Node, at: float) -> bool:
    per = node.limits.per_seconds
    return per is None or int(at // per) >= node.window


def _least(numbers: Iterable[int | None]) -> int | None:
    return min((number for number in numbers if number is not None), default=None)
