"""All boxes there are, read when asked for and shared by all that ask meanwhile.

An answer is never older than the question: who asks while a listing runs gets the next one.
"""

import asyncio
from collections.abc import Mapping, Sequence

from agentk.runtime import box as boxes

Listed = Mapping[str, Sequence[boxes.Seen]]  # by uid of the agent


class Boxes:
    def __init__(self, runtimes: Sequence[boxes.Runtime]) -> None:
        self._runtimes = list({id(one): one for one in runtimes}.values())
        self._running: asyncio.Task[Listed] | None = None
        self._next: asyncio.Task[Listed] | None = None
        self.where: dict[str, boxes.Runtime] = {}  # box id → who holds it

    async def fresh(self) -> Listed:
        """Raises what the runtimes raise: when one does not answer, nothing is known."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running), name="list boxes")
        return await asyncio.shield(self._next)

    async def _after(self, before: asyncio.Task[Listed] | None) -> Listed:
        if before is not None:
            await asyncio.wait([before])
        # Those who ask from here on need a later one.
        self._running, self._next = self._next, None
        by_uid: dict[str, list[boxes.Seen]] = {}
        where: dict[str, boxes.Runtime] = {}
        for runtime in self._runtimes:
            for seen in await runtime.list():
                by_uid.setdefault(seen.uid, []).append(seen)
                where[seen.id] = runtime
        self.where = where
        return by_uid
