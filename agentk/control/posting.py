"""Events on their way to the store: written one after another, apart from the work that they tell of."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from agentk.api import errors
from agentk.control import plans
from agentk.control.clock import Clock
from agentk.store import store as stores

_log = logging.getLogger(__name__)
_COMPONENT = "agentk-steward"
# Queued together they share a commit.
_AT_ONCE = 64
# Beyond this the oldest are worth less than the memory they take.
_MOST = 10_000


class Post:
    def __init__(self, store: stores.Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._letters: asyncio.Queue[tuple[Mapping[str, Any], plans.Event, str]] = asyncio.Queue()

    def send(self, involved: Mapping[str, Any], event: plans.Event) -> None:
        """`involved`: the object, or a reference to it."""
        if self._letters.qsize() >= _MOST:
            self._letters.get_nowait()
            self._letters.task_done()
        self._letters.put_nowait((involved, event, self._clock.now().wall))

    async def written(self) -> None:
        """Returns when all that was sent is stored."""
        await self._letters.join()

    async def run(self) -> None:
        while True:
            letters = [await self._letters.get()]
            while len(letters) < _AT_ONCE and not self._letters.empty():
                letters.append(self._letters.get_nowait())
            try:
                await asyncio.gather(*(self._write(*letter) for letter in letters))
            finally:
                for _ in letters:
                    self._letters.task_done()

    async def _write(self, involved: Mapping[str, Any], event: plans.Event, at: str) -> None:
        try:
            await self._store.record_event(involved, event.type, event.reason, event.message, at, _COMPONENT)
        except errors.AgentkError as error:
            _log.warning("event %s could not be stored: %s", event.reason, error)
