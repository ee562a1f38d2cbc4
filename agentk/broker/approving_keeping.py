"""Approvals are kept up to date: whether they are waited for, those whose time is over, and those nobody needs.

It looks at what is there, not at what happened: what ended while no daemon ran is found by the first look.
"""

import asyncio
import contextlib
import logging

from agentk.api import errors, kinds
from agentk.broker.approving import Approvals
from agentk.broker.approving_index import Place
from agentk.broker.approving_words import Answer, Clock, Known
from agentk.broker.guests import Guests
from agentk.store import store as stores

_LOOK_SECONDS = 60.0
_PAUSE_SECONDS = (
    0.2  # between two rounds of telling: a guest that hangs up and comes again costs no more writes
)
_KEPT_MAX = 50  # answered ones of an agent, besides those that are remembered
_AGAIN_SECONDS = 5.0  # after what went wrong

_log = logging.getLogger(__name__)


class Keeping:
    def __init__(self, approvals: Approvals, store: stores.Store, guests: Guests, clock: Clock) -> None:
        self._approvals, self._store, self._guests, self._clock = approvals, store, guests, clock

    async def run(self) -> None:
        """Until cancelled. Begin once all there is was heard of."""
        approvals = self._approvals
        for one in approvals.index.all():  # who waited for them ended with the daemon before this one
            if one.phase == "Pending":
                approvals.noted.setdefault((one.namespace, one.name), False)
        while True:
            approvals.changed.clear()
            wait = _LOOK_SECONDS
            try:
                await self._note()
                wait = await self.look()
            except errors.AgentkError as error:
                _log.warning("approvals could not be looked after: %s", error)
                wait = _AGAIN_SECONDS
            await asyncio.sleep(_PAUSE_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(wait, _PAUSE_SECONDS)):
                    await approvals.changed.wait()

    async def _note(self) -> None:
        """Whether somebody waits, in the objects."""
        noted = self._approvals.noted
        while noted:
            place, waits = noted.popitem()
            try:
                await self._approvals.answers.note(*place, waits)
            except errors.AgentkError:
                noted.setdefault(
                    place, waits
                )  # a disk that is full, say: again, unless it is otherwise by now
                raise

    async def look(self) -> float:
        """End what has ended; seconds until it has to be looked at again."""
        wait, index = _LOOK_SECONDS, self._approvals.index
        kept: dict[str, list[Known]] = {}
        for one in index.all():
            place = (one.namespace, one.name)
            if place in index.claimed or not one.uid:
                continue
            if one.open:
                why = self._over(one)
                if why:
                    await self._end(place, why)
                else:
                    wait = min(wait, index.left(one))
            elif not one.remembered:
                kept.setdefault(one.agent, []).append(one)
        for ones in kept.values():
            await self._forget(ones)
        return wait

    def _over(self, one: Known) -> str:
        """Why nobody is to answer it, or to use it, any more; "" while somebody may."""
        agent = self._guests.of(one.agent)
        if agent is None:
            return "its agent is gone"
        status = agent.get("status") or {}
        if status.get("phase") in kinds.FINAL_PHASES:
            return "its agent has ended"
        first = (status.get("run") or {}).get("firstAttempt")
        began = one.run.rpartition("-")[2]
        if isinstance(first, int) and began.isdigit() and int(began) < first:
            return "its agent was started anew"
        if self._approvals.index.left(one) <= 0:
            unused = "approved, and no call came for it in time"
            return unused if one.phase == "Approved" else "nobody answered until the deadline"
        return ""

    async def _end(self, place: Place, why: str) -> None:
        with contextlib.suppress(errors.Conflict, errors.NotFound):
            await self._approvals.answers.give(*place, Answer("Expired", reason=why))

    async def _forget(self, ones: list[Known]) -> None:
        """Of one agent: those that were kept long enough, and the oldest of too many."""
        now = self._clock.now()
        newest = sorted(ones, key=lambda one: one.at, reverse=True)
        for at, one in enumerate(newest):
            if at >= _KEPT_MAX or now - one.at > one.retention_seconds:
                with contextlib.suppress(errors.NotFound, errors.Conflict):
                    await self._store.delete(kinds.APPROVAL, one.namespace, one.name, uid=one.uid)
