"""agentk's own events of agents that were spawned, for those above them: agent.spawned, changed, paused, resumed and
exited; and what else is told of one.

Told of what changes while we look: what happened while no daemon ran is in the objects, and is not told again. An event
that cannot be written is lost, and said so; the objects stay the truth.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from agentk.api import errors, kinds
from agentk.broker.calling import events
from agentk.broker.calling.waiting import Waiting
from agentk.broker.guests import Guests
from agentk.store import guest_events as stored
from agentk.store import writer
from agentk.store.journal import Journal

_WAITING_MAX = 1000  # noted, and not written yet
_TOLD = ("attempt", "reason", "exitCode", "signal")

_log = logging.getLogger(__name__)

Object = Mapping[str, Any]


class Happenings:
    def __init__(
        self, journal: Journal, guests: Guests, waiting: Waiting, now: Callable[[], float] = time.time
    ) -> None:
        self._journal, self._guests, self._waiting, self._now = journal, guests, waiting, now
        self._ended: dict[str, int] = {}  # uid → the newest attempt that is known to have ended
        self._standing: set[str] = set()  # uids of those that stand still
        self._phases: dict[str, str] = {}  # by uid
        self._new: list[stored.Happened] = []
        self._woken = asyncio.Event()
        self._telling = False

    def hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        """After `Guests.hear`."""
        if kind is not kinds.AGENT:
            return
        uid = str(obj["metadata"]["uid"])
        if gone:
            self._ended.pop(uid, None)
            self._standing.discard(uid)
            self._phases.pop(uid, None)
            return
        self._hear_standing(uid, obj)
        self._hear_phase(uid, obj)
        end = (obj.get("status") or {}).get("lastTermination") or {}
        before, ended = self._ended.get(uid), int(end.get("attempt") or 0)
        self._ended[uid] = ended
        if not self._telling or not self._guests.parents(uid):
            return
        if before is None:
            self._tell(obj, "agent.spawned", {"uid": uid})
        elif ended > before:
            told = {key: end[key] for key in _TOLD if key in end}
            self._tell(obj, "agent.exited", {"uid": uid, **told, "phase": obj["status"].get("phase")})

    def _hear_standing(self, uid: str, obj: Object) -> None:
        phase = (obj.get("status") or {}).get("phase")
        if (phase == "Suspended") == (uid in self._standing):
            return
        self._standing ^= {uid}
        if self._telling and self._guests.parents(uid) and phase in ("Suspended", "Starting", "Running"):
            self._tell(obj, "agent.paused" if phase == "Suspended" else "agent.resumed", {"uid": uid})

    def _hear_phase(self, uid: str, obj: Object) -> None:
        phase = str((obj.get("status") or {}).get("phase") or "Pending")
        before, self._phases[uid] = self._phases.get(uid, phase), phase
        if phase != before and self._telling and self._guests.parents(uid):
            self._tell(obj, "agent.changed", {"uid": uid, "phase": phase, "before": before})

    def note(self, uid: str, type: str, data: dict[str, Any]) -> None:
        """Something else that happened to an agent. Lost when more comes than is written."""
        obj = self._guests.of(uid)
        if obj is not None and self._telling and len(self._new) < _WAITING_MAX:
            self._tell(obj, type, data)

    async def run(self) -> None:
        """Until cancelled. Begin once all there is was heard of: that is no news."""
        self._telling = True
        while True:
            await self._woken.wait()
            self._woken.clear()
            news, self._new = self._new, []
            try:
                await self._journal.write(partial(_write, news))
            except errors.AgentkError as error:
                _log.warning("%d events of agents were lost: %s", len(news), error)
            for event in news:
                self._waiting.toll((event.uid, *event.above))

    def _tell(self, obj: Object, type: str, data: dict[str, Any]) -> None:
        self._new.append(events.of_agent(self._guests, obj, type, data, self._now()))
        self._woken.set()


def _write(news: list[stored.Happened], tx: writer.Tx) -> None:
    for event in news:
        events.write(tx, event)
