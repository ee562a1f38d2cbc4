"""A runtime whose boxes are entries of a dict and end when a test says so.

The promises are the protocol's: every verb is repeatable, what is removed is gone, what changes by itself is told.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from agentk.api import errors
from agentk.runtime import box
from tests.control import virtual

LIVE = ("Starting", "Running")
Object = dict[str, Any]


class Runtime:
    def __init__(self, clock: virtual.Clock) -> None:
        self.clock = clock
        self.boxes: dict[str, box.Seen] = {}
        self.made: list[box.Box] = []
        self.most = 0  # running at once, ever
        self.refuse: errors.AgentkError | None = None
        self.unfit: errors.AgentkError | None = None  # of what is to be claimed
        self.away: errors.AgentkError | None = None
        self.stuck: asyncio.Event | None = None  # starts of agents named "stuck" wait for it
        self.deaf = False  # boxes do not end on SIGTERM
        self.answer = box.ExecResult(box.Exit(0, None, "wait", ""), b"", b"")
        self.released: list[str] = []
        self._bells: list[asyncio.Queue[str]] = []

    async def probe(self, kind: str = "nsjail") -> box.Probe:
        return box.Probe(True, "", (box.Finding("memory", True, "a dict"),))

    async def start(self, made: box.Box) -> box.Seen:
        if made.annotations["name"] == "stuck" and self.stuck is not None:
            await self.stuck.wait()
        if self.refuse is not None:
            raise self.refuse
        if made.id not in self.boxes:
            now = self.clock.now()
            self.made.append(made)
            self.boxes[made.id] = box.Seen(
                id=made.id,
                uid=made.uid,
                namespace=made.namespace,
                attempt=made.attempt,
                leaf=made.leaf,
                phase="Running",
                process=box.Process(len(self.made), 1, now.boot_id),
                started_at=now.wall,
                started_boottime=now.boottime,
                annotations=made.annotations,
            )
            self.most = max(self.most, len(self.live()))
            assert len({one.uid for one in self.live()}) == len(self.live()), "an agent runs twice"
        return self.boxes[made.id]

    async def claim(self, waiting_id: str, made: box.Box) -> box.Seen:
        if made.id in self.boxes:
            return self.boxes[made.id]
        waited = self.boxes.get(waiting_id)
        if self.unfit is not None:
            raise self.unfit
        if waited is None or waited.phase != "Running":
            raise errors.NotFound(f"no box {waiting_id} waits")
        asked = next(one for one in self.made if one.id == waiting_id)
        assert asked.waits and asked.host_uid == made.host_uid and not made.waits
        del self.boxes[waiting_id]
        return await self.start(made)

    async def signal(self, box_id: str, signal: int, intent: box.Intent | None = None) -> None:
        if not self.deaf:
            self.end(box_id, 128 + signal, intent=intent)

    async def kill(self, box_id: str, intent: box.Intent) -> None:
        self.end(box_id, 137, intent=intent)

    async def list(self) -> Sequence[box.Seen]:
        if self.away is not None:
            raise self.away
        return list(self.boxes.values())

    async def counters(self, box_id: str) -> box.Counters:
        return box.Counters(cpu_usec=1)

    async def remove(self, box_id: str) -> None:
        if box_id in self.boxes and self.boxes[box_id].phase in LIVE:
            raise AssertionError("a running box was removed")
        self.boxes.pop(box_id, None)

    async def release(self, namespace: str, uid: str) -> None:
        self.released.append(uid)
        for box_id in [one.id for one in self.boxes.values() if one.uid == uid]:
            del self.boxes[box_id]

    async def exec(self, box_id: str, argv: Sequence[str], timeout_seconds: float) -> box.ExecResult:
        return self.answer

    async def freeze(self, box_id: str) -> None:
        self.boxes[box_id] = replace(self.boxes[box_id], frozen=True)

    async def thaw(self, box_id: str) -> None:
        self.boxes[box_id] = replace(self.boxes[box_id], frozen=False)

    async def changes(self) -> AsyncIterator[str]:
        bell: asyncio.Queue[str] = asyncio.Queue()
        self._bells.append(bell)
        while True:
            yield await bell.get()

    # what a test does

    def live(self) -> Sequence[box.Seen]:
        return [one for one in self.boxes.values() if one.phase in LIVE]

    def end(self, box_id: str, code: int, **fields: Any) -> None:
        one = self.boxes.get(box_id)
        if one is not None and one.phase in LIVE:
            end = box.Exit(code, None, "wait", self.clock.now().wall)
            self.boxes[box_id] = replace(one, phase="Exited", exit=replace(end, **fields))
            for bell in self._bells:
                bell.put_nowait(one.uid)

    def end_all(self, code: int) -> None:
        for one in self.live():
            self.end(one.id, code)
