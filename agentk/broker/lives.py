"""What the gate knows of an agent that decides whether it may live on: how its budgets stand, what it said of its end.

The steward asks here before it decides, tells here what runs, and is woken when the answer changes. Wall time counts
while a box runs and is not frozen, also while no daemon is there to see it: it is kept on the disk up to a moment, and
counted on from there.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, quantities
from agentk.broker import budgets_limits, budgets_refusals
from agentk.broker.budgets import Budgets, Standing
from agentk.broker.budgets_limits import WORDS
from agentk.broker.budgets_node import Wall
from agentk.broker.exits import Exit, Exits
from agentk.broker.guests import HELD, Guests
from agentk.broker.stepping import Steps
from agentk.broker.stillness import Stillness
from agentk.broker.words import Amount, Guest
from agentk.store import writer
from agentk.store.journal import Journal

_USED_SECONDS = 2.0  # what was used is told this late, together …
_USED_PER_SECOND = 20.0  # … or later, so that all agents together are told of no more often
_LOOK_SECONDS_MAX = 60.0
_LOOK_SECONDS_MIN = 0.02  # a window's end is met a little late rather than looked at twice
_SAVE_SECONDS = 30.0  # a reboot loses no more wall time than this
_WALL = WORDS["wall_seconds"].field

Object = Mapping[str, Any]
Wake = Callable[[str], None]


@dataclass(frozen=True)
class Overdrawn:
    """A budget of the agent's, or above it, has nothing left for it."""

    message: str
    resets_in: float | None = None  # seconds until its window ends; None: it takes a person
    refused: Sequence[int] = ()  # tokens, calls and millionths of a dollar of the call that did not fit


@dataclass(frozen=True)
class Rooms:
    budgets: Budgets
    guests: Guests
    exits: Exits
    journal: Journal
    path: Callable[[Object], tuple[str, ...]]  # keys of the budgets an Agent counts for, outermost first
    now: Callable[[], float]  # of the budgets


def _nobody(uid: str) -> None:
    """Nobody listens."""


class Lives:
    """`open` once everything was heard and counted; `run` until cancelled. `changed` and `moved` fit `Budgets`."""

    def __init__(self) -> None:
        self.still, self.steps = Stillness(), Steps()
        self._rooms: Rooms | None = None
        self._wake: Wake = _nobody
        self._opened = asyncio.Event()
        self._used, self._timing, self._unsaved = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._rested: dict[str, float] = {}  # by uid: it did not run until then
        self._running: set[str] = set()
        self._ran: set[str] = set()  # ran when that was kept last, and was not seen since
        self._saved_at = 0.0
        self._kept = False  # there are rows on the disk
        self._held: dict[str, set[asyncio.Future[None]]] = {}  # by uid: calls that wait for its budget
        self._awaited: dict[str, tuple[str, ...]] = {}  # by uid: what of it waits for a person

    async def open(self, rooms: Rooms) -> None:
        """Take up what an earlier daemon knew."""
        walls, self._saved_at = rooms.journal.read(_load)
        rooms.budgets.load_walls(walls, rooms.now())
        self._kept = bool(walls)
        self._ran = {wall.key for wall in walls if wall.runs}
        self._rooms = rooms
        for agent in rooms.guests.all():
            refused = ((agent.get("status") or {}).get("run") or {}).get("refused")
            if isinstance(refused, list) and len(refused) == len(Amount()):
                with contextlib.suppress(errors.AgentkError):
                    rooms.budgets.recall(rooms.path(agent), Amount(*refused), rooms.now())
        await rooms.exits.keep({str(agent["metadata"]["uid"]) for agent in rooms.guests.all()})
        self.steps.open(rooms.journal)
        self._opened.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look(), name="budgets: time")
            group.create_task(self._tell_used(), name="budgets: usage")
            group.create_task(self._save(), name="budgets: wall time")

    # what `Budgets` tells

    def changed(self, key: str, standing: Standing) -> None:
        """A node has become exceeded, or is no longer."""
        self._timing.set()
        if not standing.exceeded:
            for waiting in self._held.pop(key, ()):
                if not waiting.done():
                    waiting.set_result(None)
        if self._rooms is not None and standing.owner.kind == "agent":
            for agent in self._rooms.guests.family(key):  # they run on their parent's wall time
                self._wake(str(agent["metadata"]["uid"]))
        else:
            self._wake(key)

    def moved(self) -> None:
        self._used.set()

    # what the steward asks and tells

    async def opened(self) -> None:
        """Returns when the answers are true; before that nobody may be started, frozen or thawed."""
        await self._opened.wait()

    def listen(self, wake: Wake) -> None:
        """Call `wake(uid)`, of an Agent or a Quota, when an answer may have changed. It must not wait."""
        self._wake = wake

    def wake(self, uid: str) -> None:
        """It said how it ends."""
        self._wake(uid)

    def tell_awaited(self, uid: str, told: tuple[str, ...]) -> None:
        """Which calls of an agent wait for a person now, each in a line. Safe to repeat."""
        if told == self._awaited.get(uid, ()):
            return
        self._awaited[uid] = told
        if not told:
            del self._awaited[uid]
        self._wake(uid)

    def awaited(self, uid: str) -> tuple[str, ...]:
        return self._awaited.get(uid, ())

    async def patience(self, guest: Guest, refusal: errors.BudgetExceeded) -> None:
        """Returns when a guest that is frozen until there is more budget may ask again: an error would be the end of
        most programs. Raises the refusal for all others."""
        rooms = self._rooms
        agent = rooms.guests.of(guest.uid) if rooms else None
        if rooms is None or agent is None or HELD in (agent["metadata"].get("annotations") or {}):
            raise refusal  # nothing of it can be frozen
        asked = (agent["spec"].get("budget") or {}).get("onExceeded", "Pause")
        if asked != "Pause" or not rooms.budgets.standing(guest.uid, rooms.now()).exceeded:
            raise refusal
        waiting = asyncio.get_running_loop().create_future()
        self._held.setdefault(guest.uid, set()).add(waiting)
        try:
            await waiting
        finally:
            left = self._held.get(guest.uid, set())
            left.discard(waiting)
            if not left:
                self._held.pop(guest.uid, None)

    def announce(self, box_id: str, run_id: str) -> None:
        """A box is about to start."""
        if self._rooms is not None:
            self._rooms.guests.announce(box_id, run_id)

    def said(self, uid: str, attempt: int) -> Exit | None:
        """How this attempt said that it ends."""
        return self._rooms.exits.of(uid, attempt) if self._rooms else None

    async def answered(self, uid: str, attempt: int) -> int | None:
        """How often the model of this attempt answered."""
        return await self._rooms.exits.answered(uid, attempt) if self._rooms else None

    def overdrawn(self, uid: str) -> Overdrawn | None:
        """Why it may not go on; None when it may."""
        rooms = self._rooms
        agent = rooms.guests.of(uid) if rooms else None
        if rooms is None or agent is None:
            return None
        now = rooms.now()
        with contextlib.suppress(errors.Unavailable):
            standing = rooms.budgets.standing(uid, now)
            if standing.exceeded:
                return _overdrawn(standing, now, rooms.budgets.refused(uid) or ())
        for above in rooms.guests.parents(uid):
            with contextlib.suppress(errors.Unavailable):
                standing = rooms.budgets.standing(above, now)
                if standing.exceeded and standing.which == _WALL:
                    return _overdrawn(standing, now, ())
        return None

    def usage(self, uid: str) -> dict[str, Any] | None:
        """What an Agent, with those it spawned, or a Quota used, as a status tells it; None before there is any."""
        if self._rooms is None:
            return None
        try:
            standing = self._rooms.budgets.standing(uid, self._rooms.now())
        except errors.Unavailable:
            return None
        used, limits = standing.used, standing.limits
        bounded = limits.wall_seconds is not None
        if not any(used) and not bounded and limits.per_seconds is None:
            return None
        told: dict[str, Any] = {
            "tokens": used.tokens,
            "calls": used.calls,
            "costUsd": budgets_limits.format_usd(used.cost_micro_usd),
        }
        if bounded:
            told["wallTime"] = quantities.format_duration(float(int(standing.wall_seconds)))
        own = not standing.exceeded or standing.because == str(standing.owner)
        if own and standing.resets_at is not None:
            told["windowEnds"] = budgets_refusals.stamp(standing.resets_at)
        return told

    def runs(self, uid: str, seconds_ago: float) -> None:
        """A box of it runs, and began so long ago. Safe to repeat."""
        rooms = self._rooms
        agent = rooms.guests.of(uid) if rooms else None
        if rooms is None or agent is None or uid in self._running:
            return
        now = rooms.now()
        since = max(now - seconds_ago, self._rested.get(uid, self._saved_at))
        with contextlib.suppress(errors.Unavailable):
            rooms.budgets.run(rooms.path(agent), now, since)
            self._running.add(uid)
            self._ran.discard(uid)
            self._timed()

    def rests(self, uid: str, seconds_ago: float = 0.0) -> None:
        """None of its boxes runs, since so long ago. Safe to repeat."""
        rooms = self._rooms
        if rooms is None:
            return
        now = rooms.now()
        at = self._rested[uid] = now - seconds_ago
        if uid not in self._running and uid not in self._ran:
            return
        agent = rooms.guests.of(uid)
        if uid in self._ran and agent is not None and at > self._saved_at:
            with contextlib.suppress(errors.Unavailable):  # it ran on while nobody was there to see it end
                rooms.budgets.run(rooms.path(agent), now, self._saved_at)
        rooms.budgets.halt(uid, now, at)
        self._running.discard(uid)
        self._ran.discard(uid)
        self._timed()

    def gone(self, uid: str) -> None:
        """It is no more."""
        self.still.tell(uid, False)
        self._running.discard(uid)
        self._ran.discard(uid)
        self._rested.pop(uid, None)
        self._awaited.pop(uid, None)

    # duties

    def _timed(self) -> None:
        self._timing.set()
        self._unsaved.set()

    async def _look(self) -> None:
        await self.opened()
        assert self._rooms is not None
        while True:
            self._timing.clear()
            wait = self._rooms.budgets.look(self._rooms.now())
            wait = _LOOK_SECONDS_MAX if wait is None else wait
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(wait, _LOOK_SECONDS_MIN), _LOOK_SECONDS_MAX)):
                    await self._timing.wait()

    async def _tell_used(self) -> None:
        await self.opened()
        assert self._rooms is not None
        while True:
            await self._used.wait()
            self._used.clear()
            used = self._rooms.budgets.drain()
            for key in used:
                self._wake(key)
            await asyncio.sleep(max(_USED_SECONDS, len(used) / _USED_PER_SECOND))

    async def _save(self) -> None:
        await self.opened()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SAVE_SECONDS if self._running else None):
                    await self._unsaved.wait()
            self._unsaved.clear()
            await self.save()

    async def save(self) -> None:
        """What was used of wall time is on the disk when it returns."""
        rooms = self._rooms
        if rooms is None:
            return
        at = rooms.now()
        walls = rooms.budgets.walls(at)
        if walls or self._kept:
            self._kept = bool(walls)
            await rooms.journal.write(lambda tx: _keep(tx, walls, at))


def _overdrawn(standing: Standing, now: float, refused: Sequence[int]) -> Overdrawn:
    noun = next(words.noun for words in WORDS.values() if words.field == standing.which)
    told = f"the {noun} of {standing.because} are used up" if noun != "wall time" else ""
    told = told or f"the wall time of {standing.because} is used up"
    if refused:
        told = f"what is left of the {noun} of {standing.because} is not enough for its last call"
    left = None if standing.resets_at is None else max(0.0, standing.resets_at - now)
    if standing.resets_at is not None:
        told += f"; the window ends at {budgets_refusals.stamp(standing.resets_at)}"
    return Overdrawn(told, left, tuple(refused))


def _load(conn: sqlite3.Connection) -> tuple[list[Wall], float]:
    rows = conn.execute("SELECT key, window, seconds, runs, at FROM wall_times").fetchall()
    return [Wall(key, window, seconds, bool(runs)) for key, window, seconds, runs, _ in rows], max(
        (row[-1] for row in rows), default=0.0
    )


def _keep(tx: writer.Tx, walls: Sequence[Wall], at: float) -> None:
    tx.conn.execute("DELETE FROM wall_times")
    tx.conn.executemany("INSERT INTO wall_times VALUES (?, ?, ?, ?, ?)", [(*wall, at) for wall in walls])
