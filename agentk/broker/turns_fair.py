"""Whose turn it is among the callers of one priority: fair queueing by tokens, without time and without waiting.

Each caller (a flow) has a tag: the tokens it was given, over its weight. Who has the smallest goes next, so in any
stretch in which two callers both wait their tokens over weight differ by no more than one turn of each for every
slot. A caller that comes anew starts at the virtual time: what everybody who competes has been given on average,
which moves with the tokens really used. So nobody saves up claims by staying silent, and nobody is punished for
having used what nobody else wanted.

Every step looks at all callers that compete (0.4 ms a turn with 1,000 of them); no heap survives the corrections.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

# A turn counts as this many tokens at least: calls that fail for nothing must not go first for ever.
LEAST_TOKENS = 64


@dataclass(eq=False, slots=True)
class Flow(Generic[T]):
    key: str
    weight: float
    finish: float  # its tag
    open: bool = True  # may be served now: it has not all the calls in flight that it may have
    waiting: deque[tuple[int, T]] = field(default_factory=deque)  # with the order of arrival
    running: int = 0

    @property
    def ready(self) -> bool:
        return self.open and bool(self.waiting)


@dataclass(eq=False, slots=True)
class Share(Generic[T]):
    """What one turn took of its flow; corrected when the truth is known."""

    flow: Flow[T]
    weight: float
    charged: int  # in the flow's tag
    advanced: int = 0  # in the virtual time


class Fair(Generic[T]):
    def __init__(self) -> None:
        self.virtual = 0.0
        self._flows: dict[str, Flow[T]] = {}
        self._arrivals = 0

    def __bool__(self) -> bool:
        """Whether somebody waits who may be served."""
        return any(flow.ready for flow in self._flows.values())

    @property
    def idle(self) -> bool:
        return not any(flow.waiting or flow.running for flow in self._flows.values())

    def push(self, key: str, weight: float, item: T, *, opened: bool) -> None:
        if not (weight > 0 and math.isfinite(weight)):
            raise ValueError(f"a weight is a number above 0: {weight}")
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = Flow(key, weight, self.virtual)
        was_ready = flow.ready
        flow.weight, flow.open = weight, opened
        self._arrivals += 1
        flow.waiting.append((self._arrivals, item))
        self._claim(flow, was_ready)

    def allow(self, key: str, opened: bool) -> None:
        """Whether this caller may be served; while it may not, it gathers no claims."""
        if (flow := self._flows.get(key)) is not None:
            was_ready = flow.ready
            flow.open = opened
            self._claim(flow, was_ready)

    def next(self) -> T:
        """Whose turn it is; there must be somebody."""
        ready = (flow for flow in self._flows.values() if flow.ready)
        return min(ready, key=lambda flow: (flow.finish, flow.waiting[0][0])).waiting[0][1]

    def take(self, key: str, cost_tokens: int) -> Share[T]:
        """The longest waiting call of a caller gets its turn, at what it is expected to cost."""
        flow = self._flows[key]
        flow.waiting.popleft()
        cost = max(LEAST_TOKENS, cost_tokens)
        flow.finish += cost / flow.weight
        flow.running += 1
        return Share(flow, flow.weight, cost)

    def correct(self, share: Share[T], tokens: int) -> None:
        """The truth of a turn. Safe to repeat: the last told is what counts."""
        cost = max(LEAST_TOKENS, tokens)
        share.flow.finish += (cost - share.charged) / share.weight
        share.charged = cost
        if cost > share.advanced:
            self._advance(cost - share.advanced)
            share.advanced = cost

    def end(self, share: Share[T]) -> None:
        """The turn is over. Once for each `take`; a turn never corrected counts as expected."""
        if not share.advanced:
            self._advance(share.charged)
            share.advanced = share.charged
        share.flow.running -= 1
        self._prune()

    def remove(self, key: str, item: T) -> None:
        """Who waited no longer wants. Not waiting is success."""
        if (flow := self._flows.get(key)) is not None:
            flow.waiting = deque(entry for entry in flow.waiting if entry[1] is not item)
            self._prune()

    def waiting(self) -> Iterator[T]:
        for flow in self._flows.values():
            for _, item in flow.waiting:
                yield item

    def newest(self, key: str) -> T | None:
        flow = self._flows.get(key)
        return flow.waiting[-1][1] if flow and flow.waiting else None

    def _claim(self, flow: Flow[T], was_ready: bool) -> None:
        if flow.ready and not was_ready:
            flow.finish = max(flow.finish, self.virtual)

    def _advance(self, tokens: float) -> None:
        """Share `tokens` among those who compete: they wait, or were given more than the virtual time says. The
        latter leave when it has caught up with them, so what they were given ahead is never forgotten."""
        while tokens > 0:
            weight, leaves = 0.0, math.inf
            for flow in self._flows.values():
                if flow.ready:
                    weight += flow.weight
                elif flow.finish > self.virtual:
                    weight += flow.weight
                    leaves = min(leaves, flow.finish)
            if not weight:
                return
            until = (leaves - self.virtual) * weight
            if tokens < until:
                self.virtual += tokens / weight
                return
            self.virtual = leaves
            tokens -= until

    def _prune(self) -> None:
        gone = [
            flow.key
            for flow in self._flows.values()
            if not flow.waiting and not flow.running and flow.finish <= self.virtual
        ]
        for key in gone:
            del self._flows[key]
