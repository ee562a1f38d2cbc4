"""Pools: keeps boxes waiting, hands them out to agents, and tells how that goes.

A box that waits belongs to no agent: it has a uid of its own, and a host uid from the same ledger as agents. An agent
that gets it gets the host uid too. A box is used once: whatever comes of a hand-out, it never waits again.

Boxes that wait use nothing, so they are no part of what a Quota, maxAgents or the machine's CPU and memory count: an
agent is, from its start on. They do hold descriptors, so agents and they together are never more boxes than the open
files of this machine allow; agents come first, and boxes that wait are ended to make room for them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentk.api import errors, kinds, objects, pools
from agentk.control import (
    crash,
    pool_boxes,
    pool_filling,
    pool_standing,
    pooling,
    posting,
    queueing,
    restart,
    seeing,
)
from agentk.control.clock import Clock
from agentk.control.pool_boxes import HOST_UID, POOL, START, START_TOLD, Kept, Key, Pool
from agentk.runtime import box as boxes
from agentk.store import feeding
from agentk.store import store as stores

_log = logging.getLogger(__name__)

FINALIZER = "agentk.dev/pool"
# Pools, and what their templates refer to.
_WATCHED = (kinds.POOL, kinds.RUNTIME, kinds.POLICY, kinds.CONFIGMAP)
_TOLD_SECONDS = 0.5  # between two writes of numbers that go up and down
_BLIND_SECONDS = 5.0  # a runtime that did not answer wakes us when it comes back, or not

Object = dict[str, Any]


@dataclass(frozen=True)
class Claimed:
    """An agent's start in a box that waited."""

    seen: boxes.Seen
    host_uid: int


class Pools:
    """Built by the steward; `run` is its whole life."""

    def __init__(
        self,
        store: stores.Store,
        clock: Clock,
        eyes: seeing.Eyes,
        post: posting.Post,
        room: Callable[[], int],
        host_uid: seeing.HostUid,
        release_host_uid: Callable[[str], Awaitable[None]],
    ) -> None:
        """`room()`: how many boxes more than those of agents this machine takes."""
        self._store, self._clock, self._eyes, self._room = store, clock, eyes, room
        self._release_host_uid = release_host_uid
        self._short = False  # too little room for all boxes that are wanted
        self._filling = pool_filling.Filling(store, clock, eyes, post, host_uid, release_host_uid)
        self._pools: dict[Key, Pool] = {}
        self._since: dict[str, str] = {}
        self._queue = queueing.Queue(self._look, clock, workers=4, failed=self._failed, name="pools")
        self._feed = feeding.Feed(store, clock.sleep, _WATCHED, self._hear)

    async def begin(self) -> None:
        """Before any agent is started: no host uid that one has got may still be that of a box that waits."""
        self._since = await self._feed.prime()
        await self._adopt()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind in _WATCHED:
                watching = self._feed.run(kind, self._since[kind.plural])
                group.create_task(watching, name=f"pools: {kind.plural}")
            for number, runtime in enumerate(self._eyes.runtimes()):
                group.create_task(self._hear_boxes(runtime), name=f"pools: boxes {number}")
            group.create_task(self._queue.run(), name="pools")

    async def idle(self) -> None:
        await self._queue.idle()

    # hearing

    def _hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        metadata = obj["metadata"]
        key = (str(metadata.get("namespace") or ""), str(metadata["name"]))
        if kind is kinds.POOL:
            if not gone:
                self._know(key, obj)
            self._queue.add(key)
            return
        for other in self._pools:
            if not key[0] or other[0] == key[0]:
                self._queue.add(other)

    def _know(self, key: Key, obj: Object) -> Pool:
        known = self._pools.get(key)
        if known is None or known.uid != obj["metadata"]["uid"]:
            told = (obj.get("status") or {}).get("handOut")
            history = pooling.History(asked_at=self._clock.now().boottime)
            made = Pool(key, str(obj["metadata"]["uid"]), history, pool_standing.HandOuts.from_dict(told))
            if known is not None:  # of the same name: its boxes are to be ended first
                made.left = (*known.left, *known.waiting)
            known = self._pools[key] = made
        known.wish = pooling.wish(obj["spec"])
        return known

    async def _hear_boxes(self, runtime: boxes.Runtime) -> None:
        failures = 0
        while True:
            try:
                stream = aiter(runtime.changes())
                first = asyncio.ensure_future(anext(stream))
                try:
                    await asyncio.sleep(0)  # it listens from here on
                    for key, known in self._pools.items():
                        known.doubted = True
                        self._queue.add(key)
                    self.hear_box(await first)
                finally:
                    first.cancel()
                failures = 0
                async for uid in stream:
                    self.hear_box(uid)
            except (errors.AgentkError, OSError, StopAsyncIteration) as error:
                _log.info("boxes of pools are not heard of: %s", error)
            failures += 1
            await self._clock.sleep(restart.delay(failures, 0.1, 5.0))

    def hear_box(self, uid: str) -> None:
        """A box changed by itself; or packages for the Pool of that uid are there."""
        for key, known in self._pools.items():
            if uid in known.waiting or uid in known.claimed:
                known.doubted = True
                self._queue.add(key)
            elif uid == known.uid:
                self._queue.add(key)

    def room_changed(self) -> None:
        """Agents came or went: some of the boxes may have to go, or more may wait."""
        if not self._pools:
            return
        short = self._room() < sum(known.wish.most for known in self._pools.values())
        if short or self._short:
            for key in self._pools:
                self._queue.add_after(key, _TOLD_SECONDS)
        self._short = short

    # looking

    async def _adopt(self) -> None:
        """Boxes whose Pool is gone, and those whose host uid an agent has got, cannot be handed out any more."""
        try:
            listed = await self._eyes.boxes.fresh()
        except errors.AgentkError as error:
            _log.warning("boxes of pools are not known yet: %s", error)
            return
        uids, held = {known.uid for known in self._pools.values()}, await self._eyes.held()
        for uid in held:
            if pool_boxes.is_waiting(uid) and uid not in listed:  # it was never made
                await self._release_host_uid(uid)
        for uid, seen in listed.items():
            told = seen[0].annotations
            usable = told.get(POOL) in uids and told.get(HOST_UID) == str(held.get(uid, -1))
            if pool_boxes.is_waiting(uid) and not usable:
                await self._filling.release(seen[0].namespace, uid)

    async def _look(self, key: Key) -> float | None:
        obj = await self._store.find(kinds.POOL, *key)
        if obj is None:
            known = self._pools.pop(key, None)
            if known is not None:
                await self._filling.end(known, [*known.left, *known.waiting])
            return None
        known = self._know(key, obj)
        await self._filling.end(known, known.left)
        known.left = ()
        if not objects.is_deleting(obj) and FINALIZER not in (obj["metadata"].get("finalizers") or ()):
            await self._store.amend(kinds.POOL, obj, lambda found: objects.with_finalizer(found, FINALIZER))
        if not await self._list(known):
            return _BLIND_SECONDS
        if objects.is_deleting(obj):
            known.model = None
            await self._filling.end(known, list(known.waiting))
            await self._store.amend(
                kinds.POOL, obj, lambda found: objects.without_finalizer(found, FINALIZER)
            )
            return None
        packages = await self._filling.model(known, obj)
        others = sum(len(one.waiting) for one in self._pools.values() if one is not known)
        again = await self._filling.fill(known, obj, max(0, self._room() - others))
        left = await self._tell(known, obj, packages)
        waits = [again, left, _BLIND_SECONDS if known.doubted else None]
        return min([one for one in waits if one is not None], default=None)

    async def _list(self, known: Pool) -> bool:
        """Its boxes as they are. False when the runtime does not answer."""
        if known.doubted:
            known.doubted = False
            try:
                known.adopt(await self._eyes.boxes.fresh())
            except errors.AgentkError as error:
                known.doubted = True
                _log.info("boxes of pool %s/%s are not known: %s", *known.key, error)
        return not known.doubted

    async def _tell(self, known: Pool, obj: Object, packages: Mapping[str, Any]) -> float | None:
        """Write the status when it is another. Seconds until it may be written again, when that was too often."""
        now, old = self._clock.now(), obj.get("status") or {}
        told = pool_standing.status(obj, known.standing(packages), now.wall)
        if told == old:
            return None
        left = known.told_at + _TOLD_SECONDS - now.boottime
        if left > 0 and told["conditions"] == old.get("conditions"):
            return left
        known.told_at = now.boottime
        await self._store.set_status(kinds.POOL, *known.key, known.uid, told)
        return None

    def _failed(self, key: Key, error: Exception, failures: int) -> None:
        _log.error("looking at pool %s/%s failed (%d in a row)", *key, failures, exc_info=error)

    # handing out

    async def claim(self, agent: Object, made: boxes.Box) -> Claimed | boxes.Box:
        """Start an agent in a box that waits. Where none can be had: the box to start cold, which says why.

        `made` is the agent's box without a host uid. Raises what keeps it from starting in any box.
        """
        began = self._clock.now().boottime
        name = pools.name(agent["spec"])
        known = self._pools.get((made.namespace, name))
        if known is None:
            return _told(made, "Cold", f'Pool "{name}" does not exist')
        picked = known.pick(made)
        known.history = pooling.asked(known.history, known.wish, not picked.missed, began)
        why, claimed = picked.why, None
        if picked.kept is not None:
            why, claimed = await self._hand_out(known, picked.kept, agent, made)
        self._queue.add(known.key)
        if claimed is None:
            known.hand_outs.cold += 1
            return _told(made, "Cold", f'Pool "{name}": {why}')
        known.hand_outs.note((self._clock.now().boottime - began) * 1000)
        known.claimed.add(made.uid)
        return claimed

    async def _hand_out(
        self, known: Pool, kept: Kept, agent: Object, made: boxes.Box
    ) -> tuple[str, Claimed | None]:
        """The agent in this box, or why not; the box is then no more, or waits as before."""
        if kept.host_uid >= 0 and await self._eyes.take_over(agent, kept.uid) is None:
            if kept.uid in await self._eyes.held():
                known.give_back(kept)
                return "its files belong to the host uid of an earlier start", None
            await self._filling.release(made.namespace, kept.uid)
            return "the box that waited had no host uid any more", None
        made = replace(
            _told(made, "Warm", f'a box of Pool "{known.key[1]}" that waited'), host_uid=kept.host_uid
        )
        made = replace(made, annotations={**made.annotations, POOL: known.uid})
        crash.crashpoint("claim.before")
        try:
            seen = await self._eyes.runtime(made.runtime).claim(kept.box_id, made)
        except errors.AgentkError as error:
            # The host uid is the agent's by now: nothing else may run as it.
            for runtime in self._eyes.runtimes():
                await runtime.release(made.namespace, kept.uid)
            return f"it could not be handed out: {error.message}", None
        crash.crashpoint("claim.after")
        return "", Claimed(seen, kept.host_uid)


def _told(made: boxes.Box, how: str, why: str) -> boxes.Box:
    return replace(made, annotations={**made.annotations, START: how, START_TOLD: why})
