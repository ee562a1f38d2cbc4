"""What guests kept is let go of when nobody is left whose it is: an agent's with the Agent object, an attempt's with
the next attempt, a family's with the last of the family; and what has run out of time.

It looks at what is there, not at what happened: agents that went while nobody listened are found by the next look.
Must only be woken after every Agent was heard of: whoever is not known has nothing to keep.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from agentk.api import errors, kinds
from agentk.broker.calling import places
from agentk.broker.guarding import tokens
from agentk.broker.guests import Guests
from agentk.broker.tooling import counting
from agentk.store import guest_rooms as rooms
from agentk.store import writer
from agentk.store.journal import Journal

_log = logging.getLogger(__name__)


class Leftovers:
    def __init__(
        self,
        journal: Journal,
        guests: Guests,
        now: Callable[[], float] = time.time,
        every_seconds: float = 300.0,
    ) -> None:
        self._journal, self._guests, self._now, self._every = journal, guests, now, every_seconds
        self._woken = asyncio.Event()
        self._ended: dict[str, int] = {}  # uid → the newest attempt that is known to have ended

    def hear(self, kind: kinds.Kind, obj: Mapping[str, Any], gone: bool) -> None:
        """After `Guests.hear`: somebody may have left something."""
        if kind is not kinds.AGENT:
            return
        uid = str(obj["metadata"]["uid"])
        ended = 0 if gone else _ended(obj)
        if gone or ended > self._ended.get(uid, 0):
            self._woken.set()
        if gone:
            self._ended.pop(uid, None)
        else:
            self._ended[uid] = ended

    async def run(self) -> None:
        """Until cancelled: at once, when woken, and now and then."""
        while True:
            self._woken.clear()
            try:
                await self.sweep()
            except errors.AgentkError as error:
                _log.warning("what gone agents kept could not be erased: %s", error)
            try:
                async with asyncio.timeout(self._every):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def sweep(self) -> int:
        """Erase what is nobody's; how many scopes that were."""
        there = await self._journal.read_apart(rooms.scopes)
        kept = self._kept()  # after what is there was read: who came since is in it
        gone = 0
        for scope in there:
            nobodys = self._is_nobodys(scope, kept)
            gone += nobodys
            step = partial(_erase if nobodys else _expire, scope, self._now())
            while await self._journal.write(step):
                continue
        return gone

    def _kept(self) -> set[str]:
        kept = set()
        for uid in self._guests.uids():
            kept.add(places.mailbox(uid))
            kept.add(f"agent/{uid}")
            kept.add(counting.scope(uid))
            kept.add(tokens.scope(uid))
            kept.add(places.family(uid, self._guests.parents(uid)))
        return kept

    def _is_nobodys(self, scope: str, kept: set[str]) -> bool:
        kind, _, rest = scope.partition("/")
        if kind != "attempt":
            return scope not in kept
        uid, _, number = rest.rpartition("/")
        agent = self._guests.of(uid)
        if agent is None:
            return True
        return int(number) < int((agent.get("status") or {}).get("attempt") or 0) or int(number) <= _ended(
            agent
        )


def _ended(agent: Mapping[str, Any]) -> int:
    """The newest attempt that ended."""
    return int(((agent.get("status") or {}).get("lastTermination") or {}).get("attempt") or 0)


def _erase(scope: str, now: float, tx: writer.Tx) -> bool:
    return rooms.erase(tx.conn, scope)


def _expire(scope: str, now: float, tx: writer.Tx) -> bool:
    return rooms.expire(tx.conn, scope, now)
