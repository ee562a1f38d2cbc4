"""All boxes there are, read when asked for and shared by all that ask meanwhile.

An answer is never older than the question, with one exception: of an agent that has a running box the last listing is
good enough while every runtime is listened to and neither it nor we have touched the agent since. Without that a
thousand agents that just run would be listed a thousand times. Nothing is ever started from an old answer.
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
        self._last: Listed = {}
        self._doubts: dict[str, int] = {}  # uid → when it was touched, counted in touches
        self._touches = 0
        self._heard: set[int] = set()  # runtimes that tell us of changes
        # Box id → who holds it. A listing only adds: it may be older than a box just started.
        self.where: dict[str, boxes.Runtime] = {}

    async def of(self, uid: str) -> Sequence[boxes.Seen]:
        """The boxes of one agent. Raises what the runtimes raise: when one does not answer, nothing is known."""
        last = self._last.get(uid, ())
        trusted = len(self._heard) == len(self._runtimes) and uid not in self._doubts
        if trusted and any(one.phase == "Running" for one in last):
            return last
        return (await self.fresh()).get(uid, ())

    async def fresh(self) -> Listed:
        """All boxes, listed after this was asked. Raises what the runtimes raise."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running), name="list boxes")
        return await asyncio.shield(self._next)

    def doubt(self, uid: str) -> None:
        """Something happened to this agent's boxes, or is about to."""
        self._touches += 1
        self._doubts[uid] = self._touches

    def forget(self, box_id: str) -> None:
        """It was removed."""
        self.where.pop(box_id, None)

    def listen(self, runtime: boxes.Runtime, *, heard: bool) -> None:
        """Whether changes of this runtime are told from now on. What was before is doubted."""
        self._last = {}
        (self._heard.add if heard else self._heard.discard)(id(runtime))

    async def _after(self, before: asyncio.Task[Listed] | None) -> Listed:
        if before is not None:
            await asyncio.wait([before])
        # Those who ask from here on need a later one.
        self._running, self._next = self._next, None
        touches, heard = self._touches, set(self._heard)
        by_uid: dict[str, list[boxes.Seen]] = {}
        for runtime in self._runtimes:
            for seen in await runtime.list():
                by_uid.setdefault(seen.uid, []).append(seen)
                self.where[seen.id] = runtime
        if heard == self._heard:
            self._last = by_uid
        for uid in [uid for uid, touched in self._doubts.items() if touched <= touches]:
            del self._doubts[uid]
        return by_uid
