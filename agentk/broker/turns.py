"""Turns on one route: who may call its models now, fairly by tokens, and who waits.

    async with turns.turn(agent_uid, weight, priority, expected_tokens) as turn:
        …
        turn.charge(tokens_really_used)

Callers of a higher priority go first; callers of one priority share by tokens over weight (turns_fair). Nobody
starves: a priority that has had somebody waiting and no turn for `aging_seconds` goes before the others, the one
that waits longest first. So with K priorities it gets one of the first K turns that come free after that time.
The route's rpm and tpm hold the whole route: the one whose turn it is waits for the refill and nobody passes, since
small calls would otherwise keep a large one out for ever.

A free slot never waits while somebody may have it. Every wake-up has a cause: a call came, ended or was cancelled,
the settings changed, or a bucket was refilled (the one timer). Nothing here awaits but the waiting itself.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

from agentk.api import errors
from agentk.broker.turns_fair import Fair, Share
from agentk.broker.turns_rates import Bucket, bucket_of

_LONGEST_RETRY_SECONDS = 300
_FIRST_GUESS_SECONDS = 1.0  # how long a turn takes, before one has ended
_SMOOTHING = 0.2  # of the newest turn in the average of how long turns take


@dataclass(frozen=True)
class Settings:
    """Of one route."""

    max_concurrent: int = 8  # turns at once
    rpm: int | None = None  # turns a minute; None: no limit
    tpm: int | None = None  # tokens a minute; None: no limit
    in_flight_each: int = 8  # turns at once of one caller
    max_waiting: int = 1000  # callers in line; above it the longest line of one caller gives way
    max_waiting_each: int = 100  # calls in line of one caller
    aging_seconds: float = 30.0  # a priority that waits longer goes before higher ones, once

    def __post_init__(self) -> None:
        if self.max_concurrent < 1 or self.in_flight_each < 1:
            raise ValueError("with no turn at all everybody would wait for ever")


class Clock(Protocol):
    """An event loop is one."""

    def time(self) -> float: ...
    def call_later(self, delay: float, callback: Callable[[], Any], /) -> asyncio.TimerHandle: ...


@dataclass(eq=False, slots=True)
class _Lane:
    """Callers of one priority."""

    priority: int
    since: float  # when it last had a turn, or began to have somebody who may be served
    fair: Fair["Turn"] = field(default_factory=Fair)


class Turns:
    """Belongs to one event loop. Keys are uids of agents."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock | None = None,
        still: Callable[[str], bool] = lambda owner: False,
    ) -> None:
        """`still`: whether the agent that makes a call is frozen. Its calls then rest beside the line, until `wake`."""
        self._still = still
        self._resting: dict[str, list[Turn]] = {}  # by owner
        self._clock: Clock = clock or asyncio.get_running_loop()
        self._settings = settings
        self._lanes: dict[int, _Lane] = {}  # by priority
        self._waiting: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._calls: Bucket | None = None
        self._tokens: Bucket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._turn_seconds = _FIRST_GUESS_SECONDS
        self._set_rates()

    def turn(
        self, key: str, weight: float = 1.0, priority: int = 0, cost_tokens: int = 0, owner: str = ""
    ) -> "Turn":
        """Enter it with `async with`, once. Entering raises errors.TooManyRequests when the line is too long.

        `owner`: the agent that makes the call, where `key` stands for more than one."""
        return Turn(self, key, weight, priority, cost_tokens, owner or key)

    def rest(self, owner: str) -> None:
        """It is frozen: its calls in line make way. Those that have their turn go on. Safe to repeat."""
        for lane in list(self._lanes.values()):
            for turn in [one for one in lane.fair.waiting() if one.owner == owner]:
                self._leave(turn)
                self._lay_by(turn)
        self._dispatch()

    def wake(self, owner: str) -> None:
        """It goes on: its calls are in line again, as though they came now. Safe to repeat."""
        for turn in self._resting.pop(owner, ()):
            turn.resting = False
            try:
                self._arrive(turn)
            except errors.TooManyRequests as error:
                turn.refused(error)

    def change(self, settings: Settings) -> None:
        """Other settings of the route. Who runs goes on running."""
        self._settings = settings
        self._set_rates()
        for key in set(self._waiting):
            self._allow(key)
        self._dispatch()

    def waiting(self) -> Mapping[str, int]:
        """Calls in line, by key."""
        return dict(self._waiting)

    def running(self) -> Mapping[str, int]:
        """Calls that have their turn, by key."""
        return dict(self._running)

    # A turn's life: only Turn calls these.

    def _lay_by(self, turn: "Turn") -> None:
        turn.resting = True
        self._resting.setdefault(turn.owner, []).append(turn)

    def _arrive(self, turn: "Turn") -> None:
        if self._still(turn.owner):
            self._lay_by(turn)
            return
        now = self._clock.time()
        lane = self._lanes.setdefault(turn.priority, _Lane(turn.priority, now))
        idle = not lane.fair
        lane.fair.push(turn.key, turn.weight, turn, opened=self._may_run(turn.key))
        if idle:
            lane.since = now
        turn.in_line = True
        self._waiting[turn.key] += 1
        self._dispatch()
        if turn.in_line:
            self._shorten(turn)

    def _leave(self, turn: "Turn") -> None:
        """Out of the line. Not in line is success."""
        if turn.in_line:
            turn.in_line = False
            self._lanes[turn.priority].fair.remove(turn.key, turn)
            _one_less(self._waiting, turn.key)
            self._sweep(turn.priority)

    def _give_up(self, turn: "Turn") -> None:
        """Cancelled while it waited. The next in line may need less of a bucket than this one did."""
        if turn.resting:
            turn.resting = False
            self._resting[turn.owner].remove(turn)
            if not self._resting[turn.owner]:
                del self._resting[turn.owner]
        self._leave(turn)
        self._dispatch()

    def _charge(self, turn: "Turn", share: Share["Turn"], tokens: int, taken: int) -> None:
        turn.fair.correct(share, tokens)
        if self._tokens is not None:
            self._tokens.take(tokens - taken, self._clock.time())
        if self._timer is not None:  # what was given back may be what somebody waits for
            self._dispatch()

    def _end(self, turn: "Turn", share: Share["Turn"]) -> None:
        turn.fair.end(share)
        _one_less(self._running, turn.key)
        self._turn_seconds += _SMOOTHING * (self._clock.time() - turn.began - self._turn_seconds)
        self._allow(turn.key)
        self._sweep(turn.priority)
        self._dispatch()

    # Inside.

    def _dispatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock.time()
        while self._running.total() < self._settings.max_concurrent and (lane := self._next_lane(now)):
            turn = lane.fair.next()
            if turn.abandoned:  # cancelled a moment ago; its own task has not run since
                self._leave(turn)
                continue
            if seconds := self._rate_seconds(turn.cost_tokens, now):
                self._timer = self._clock.call_later(seconds, self._dispatch)
                return
            self._grant(lane, turn, now)

    def _next_lane(self, now: float) -> _Lane | None:
        ready = [lane for lane in self._lanes.values() if lane.fair]
        overdue = [lane for lane in ready if now - lane.since >= self._settings.aging_seconds]
        if overdue:
            return min(overdue, key=lambda lane: lane.since)
        return max(ready, key=lambda lane: lane.priority, default=None)

    def _grant(self, lane: _Lane, turn: "Turn", now: float) -> None:
        share = lane.fair.take(turn.key, turn.cost_tokens)
        lane.since = now
        turn.in_line = False
        _one_less(self._waiting, turn.key)
        self._running[turn.key] += 1
        self._allow(turn.key)
        if self._calls is not None:
            self._calls.take(1, now)
        if self._tokens is not None:
            self._tokens.take(turn.cost_tokens, now)
        turn.granted(lane.fair, share, now)

    def _may_run(self, key: str) -> bool:
        return self._running[key] < self._settings.in_flight_each

    def _allow(self, key: str) -> None:
        opened = self._may_run(key)
        for lane in self._lanes.values():
            idle = not lane.fair
            lane.fair.allow(key, opened)
            if idle and lane.fair:
                lane.since = self._clock.time()

    def _sweep(self, priority: int) -> None:
        """Nobody of a priority is left: nobody is ahead of anybody any more."""
        if priority in self._lanes and self._lanes[priority].fair.idle:
            del self._lanes[priority]

    def _shorten(self, turn: "Turn") -> None:
        """The line is too long: the newest call of whoever has most in line gives way, else this one."""
        settings, longest = self._settings, turn.key
        if self._waiting[turn.key] <= settings.max_waiting_each:
            if self._waiting.total() <= settings.max_waiting:
                return
            longest = max(self._waiting, key=lambda key: self._waiting[key])
        error = errors.TooManyRequests(
            f"the line for this route is full: {self._waiting.total() - 1} calls wait",
            hint="ask again later, or with fewer calls at once",
            retry_after_seconds=self._retry_seconds(),
        )
        if self._waiting[longest] <= self._waiting[turn.key]:
            self._leave(turn)
            raise error
        lanes = sorted(self._lanes.values(), key=lambda lane: lane.priority)
        newest = next(found for lane in lanes if (found := lane.fair.newest(longest)))
        self._leave(newest)
        newest.refused(error)
        self._dispatch()

    def _retry_seconds(self) -> int:
        """About how long the line takes to be served, from how long turns took of late."""
        in_line = self._waiting.total()
        seconds = in_line * self._turn_seconds / self._settings.max_concurrent
        if self._settings.rpm is not None:
            seconds = max(seconds, in_line * 60 / self._settings.rpm)
        return max(1, min(_LONGEST_RETRY_SECONDS, math.ceil(seconds)))

    def _rate_seconds(self, cost_tokens: int, now: float) -> float:
        calls = self._calls.wait_seconds(1, now) if self._calls else 0.0
        return max(calls, self._tokens.wait_seconds(cost_tokens, now) if self._tokens else 0.0)

    def _set_rates(self) -> None:
        now = self._clock.time()
        self._calls = bucket_of(self._calls, self._settings.rpm, now)
        self._tokens = bucket_of(self._tokens, self._settings.tpm, now)


class Turn:
    """One caller's place in line, then its slot. Made by `Turns.turn`."""

    def __init__(
        self, turns: Turns, key: str, weight: float, priority: int, cost_tokens: int, owner: str
    ) -> None:
        self.key, self.weight, self.priority, self.owner = key, weight, priority, owner
        self.cost_tokens = max(0, cost_tokens)
        self.in_line = False
        self.resting = False  # beside the line: its owner is frozen
        self.began = 0.0  # by the clock of the route
        self.fair: Fair[Turn] = Fair()
        self._turns = turns
        self._told: int | None = None  # tokens by `charge`
        self._share: Share[Turn] | None = None
        self._entered = self._over = False
        self._woken: asyncio.Future[None] | None = None
        self._refusal: errors.TooManyRequests | None = None

    async def __aenter__(self) -> "Turn":
        if self._entered:
            raise RuntimeError("a turn is taken once")
        self._entered = True
        self._turns._arrive(self)
        if self.in_line or self.resting:
            self._woken = asyncio.get_running_loop().create_future()
            try:
                await self._woken
            except asyncio.CancelledError:
                self._turns._give_up(self)
                if self._share is not None:  # granted in the very moment of the cancellation, and never used
                    self.charge(0)
                    self.free()
                raise
        if self._refusal is not None:
            raise self._refusal
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.free()

    def charge(self, tokens: int) -> None:
        """What the call really used. Safe to repeat: the last told is what counts. A turn that ends without it
        counts as expected, so that nobody gains by hanging up."""
        if self._share is None:
            raise RuntimeError("this turn has not come yet")
        tokens = max(0, tokens)
        taken = self.cost_tokens if self._told is None else self._told
        self._told = tokens
        self._turns._charge(self, self._share, tokens, taken)

    def free(self) -> None:
        """Give the slot back now, as leaving `async with` does. Safe to repeat, and without a slot."""
        if self._share is not None and not self._over:
            self._over = True
            self._turns._end(self, self._share)

    @property
    def abandoned(self) -> bool:
        return self._woken is not None and self._woken.cancelled()

    def granted(self, fair: Fair["Turn"], share: Share["Turn"], now: float) -> None:
        self.fair, self._share, self.began = fair, share, now
        self._wake()

    def refused(self, error: errors.TooManyRequests) -> None:
        self._refusal = error
        self._wake()

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


def _one_less(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
