"""The steward: makes the world match the agents.

Key in, "when again" out. One look at one agent is: read the object, see its boxes, decide (pure), act, write the
status once. Many agents at once, one worker an agent, and nothing here waits for one agent on behalf of another.
Wake-ups come from the store (objects), the runtimes (boxes), the probes and the clock; they carry no story.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentk.api import errors, kinds
from agentk.broker.lives import Lives
from agentk.control import (
    acting,
    admission,
    checkpoints,
    claims,
    crash,
    environment_boxes,
    garbage,
    memories,
    opened,
    plans,
    pool_boxes,
    pools,
    posting,
    preparing,
    probing,
    queueing,
    quotas,
    references,
    restart,
    room,
    runtimes,
    seeing,
    sharing,
    work,
)
from agentk.control.clock import Clock
from agentk.runtime import box as boxes
from agentk.store import feeding
from agentk.store import store as stores

_log = logging.getLogger(__name__)
_WATCHED = (
    kinds.AGENT,
    kinds.RUNTIME,
    kinds.POLICY,
    kinds.QUOTA,
    kinds.SECRET,
    kinds.CONFIGMAP,
    kinds.MEMORY,
    kinds.SKILL,
    kinds.CHECKPOINT,
)
# A start, then what it started; a freeze, then that it is frozen. More rounds mean two rules fight.
_ROUNDS = 4

Object = dict[str, Any]
Key = claims.Key


@dataclass(frozen=True)
class Settings:
    node: sharing.Node = field(default_factory=lambda: sharing.Node(1000, 1000))  # what this machine gives
    workers: int = 16  # agents looked at, and started, at once
    look_seconds: float = 120.0  # one look may take so long; then it is given up and tried again
    counters_seconds: float = 15.0  # between two readings of one agent's counters …
    counters_per_second: float = 5.0  # … or longer, so that all agents together stay below this
    source_seconds: float = 30.0  # between two tries to stage a source
    runtimes_seconds: float = 600.0  # between two looks at a Runtime nobody asked about
    backoff: queueing.Backoff = field(default_factory=queueing.Backoff)


class Steward:
    """Built once by the daemon; `run` is its whole life. Nothing it started ends with it."""

    def __init__(
        self,
        store: stores.Store,
        runtimes_by_type: Mapping[str, boxes.Runtime],
        clock: Clock,
        settings: Settings,
        *,
        stage: seeing.Stage,
        host_uid: seeing.HostUid,
        release_host_uid: acting.ReleaseHostUid,
        collect: garbage.Collect | None = None,
        lives: Lives | None = None,
        certificates: acting.Certificates | None = None,
        doors: acting.Doors | None = None,
        preparations: preparing.Preparing | None = None,
        host_uids: seeing.HostUids | None = None,
        ports: opened.Opened | None = None,
        memory: memories.Source | None = None,
        checkpointed: checkpoints.Source | None = None,
    ) -> None:
        """`stage` makes a source's digest a directory; uids are the store's, or -1 without root; `collect` lets go of
        unused sources; `lives`, `certificates`, `doors` are the gate's, if there is one; `preparations` makes
        environments and gets images; `ports` knows which listen; `memory` what is in Memories; `checkpointed` takes
        Checkpoints and brings them back."""
        self._has_gate, self._lives = lives is not None, lives or Lives()
        self._lives.listen(self._wake_budget)
        self._store, self._clock, self._settings = store, clock, settings
        self._runtimes = list({id(one): one for one in runtimes_by_type.values()}.values())
        self._queue = self._agents(clock, settings)
        self._post = post = posting.Post(store, clock)
        self._checkpoints = checkpoints.Duty(store, clock, checkpointed, post, self._lives, self._wake_uid)
        self._ledger = admission.Ledger(settings.node, lambda: clock.now().boottime)
        if preparations is not None:
            preparations.listen(self._wake_uid)
        (ports := ports or opened.Opened()).wake = self._wake_uid
        others = self._lives, preparations, host_uids, ports, self._checkpoints.kept
        eyes = seeing.Eyes(store, runtimes_by_type, clock, stage, host_uid, *others)
        spare = self._ledger.spare
        self._pools = pools.Pools(store, clock, eyes, self._post, spare, host_uid, release_host_uid)
        self._eyes, self._probers = eyes, probing.Probers(clock, self._wake_uid)
        self._hands = acting.Hands(
            store,
            runtimes_by_type,
            eyes,
            self._probers,
            release_host_uid,
            self._lives.announce,
            certificates or (lambda box_id: ""),
            self._pools.claim,
            doors,
            checkpointed.begin if checkpointed else None,
        )
        self._duties = runtimes.Duty(store, runtimes_by_type, clock, settings.runtimes_seconds)
        self._quotas = quotas.Duty(store, clock, self._ledger, self._lives.usage, checkpointed)
        self._memories = memories.Duty(store, clock, memory or memories.Source())
        self._room = room.Room(self._ledger, clock, self._room_changed, self._queue.add, self._tell)
        self._garbage = garbage.Duty(store, clock, collect)
        self._work = work.Work(store, clock, self._post, self._lives)
        self._feed = feeding.Feed(store, clock.sleep, _WATCHED, self._hear)
        self._know_nothing()

    def _know_nothing(self) -> None:
        self._keys: dict[str, Key] = {}  # agent uid → key
        self._uids: dict[Key, set[str]] = {}  # every uid a key has had and that may still have boxes
        self._asked: dict[Key, tuple[object, ...]] = {}  # what of an agent a person may change
        self._refs = references.Index()

    def _agents(self, clock: Clock, settings: Settings) -> queueing.Queue[Key]:
        return queueing.Queue(
            self._look,
            clock,
            workers=settings.workers,
            backoff=settings.backoff,
            failed=self._failed,
            name="agents",
        )

    async def run(self) -> None:
        """Until cancelled. Raises only what means that the daemon must end."""
        if self._has_gate:
            await self._lives.opened()  # or what a budget has frozen would be thawed
        since = await self._feed.prime()
        await self._adopt()
        await self._pools.begin()
        try:
            async with asyncio.TaskGroup() as group:
                for kind in _WATCHED:
                    group.create_task(
                        self._eternal(self._feed.run(kind, since[kind.plural])), name=f"watch {kind.plural}"
                    )
                for number, runtime in enumerate(self._runtimes):
                    group.create_task(self._hear_boxes(runtime), name=f"watch boxes {number}")
                group.create_task(self._queue.run(), name="agents")
                group.create_task(self._post.run(), name="events")
                group.create_task(self._duties.run(), name="runtimes")
                group.create_task(self._quotas.run(), name="quotas")
                group.create_task(self._memories.run(), name="memories")
                group.create_task(self._checkpoints.run(), name="checkpoints")
                group.create_task(self._room.run(), name="room")
                group.create_task(self._garbage.run(), name="garbage")
                group.create_task(self._pools.run(), name="pools")
                group.create_task(self._work.run(), name="work")
        finally:
            await self._probers.stop()

    async def idle(self) -> None:
        """Returns when nothing is to be done now; timers may still be pending."""
        await self._queue.idle()
        await self._garbage.idle()
        await self._pools.idle()
        await self._work.idle()
        await self._post.written()

    def wake(self, namespace: str, name: str) -> None:
        """Look at an agent now."""
        self._queue.add((namespace, name))

    # hearing

    @staticmethod
    async def _eternal(work: Any) -> None:
        await work
        raise RuntimeError("a watch ended: the store was closed under the steward")

    def _hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        metadata = obj["metadata"]
        namespace, name = str(metadata.get("namespace") or ""), str(metadata["name"])
        if kind is kinds.AGENT:
            self._hear_agent((namespace, name), obj, gone)
        elif kind in (kinds.MEMORY, kinds.CHECKPOINT):
            (self._memories if kind is kinds.MEMORY else self._checkpoints).hear(obj, gone)
            self._quotas.changed(namespace)
        elif kind is kinds.QUOTA:
            self._quotas.hear(obj, gone)
            self._room.hear_quota(obj, gone)
        else:
            if kind is kinds.RUNTIME:
                self._duties.hear(obj, gone)
            ref = references.Ref(kind.kind, namespace, name)  # type: ignore[arg-type]
            self._room.unblock(keys := self._refs.of(ref))
            for key in keys:
                self._queue.add(key)

    def _hear_agent(self, key: Key, obj: Object, gone: bool) -> None:
        metadata = obj["metadata"]
        uid = str(metadata["uid"])
        self._checkpoints.hear_agent(obj, gone)
        if gone:
            self._keys.pop(uid, None)
            if self._asked.pop(key, None) is not None:
                self._refs.keep(key, frozenset())
            self._queue.add(key)
            return
        self._keys[uid] = key
        self._uids.setdefault(key, set()).add(uid)
        asked = (
            uid,
            metadata.get("generation"),
            metadata.get("annotations"),
            metadata.get("deletionTimestamp"),
        )
        if self._asked.get(key) == asked:
            return  # our own status, or somebody's labels
        self._asked[key] = asked
        self._refs.keep(key, references.names(obj))
        self._room.hear(key, obj)
        self._queue.add(key)

    async def _hear_boxes(self, runtime: boxes.Runtime) -> None:
        failures = 0
        while True:
            try:
                stream = aiter(runtime.changes())
                first = asyncio.ensure_future(anext(stream))
                try:
                    await asyncio.sleep(0)  # it listens from here on: what happened before is seen by looking
                    self._eyes.boxes.listen(runtime, heard=True)
                    for key in self._asked:
                        self._queue.add(key)
                    self._wake_uid(await first)
                finally:
                    first.cancel()
                failures = 0
                async for uid in stream:
                    self._wake_uid(uid)
            except (errors.AgentkError, OSError, StopAsyncIteration) as error:
                _log.warning("boxes are not heard of: %s", error)
            self._eyes.boxes.listen(runtime, heard=False)
            failures += 1
            await self._clock.sleep(restart.delay(failures, 0.1, 5.0))

    def _wake_uid(self, uid: str) -> None:
        self._eyes.boxes.doubt(uid)
        key = self._keys.get(uid)
        if key is not None:
            self._queue.add(key)
        else:
            self._pools.hear_box(uid)  # packages for one may be there; boxes it hears of by itself

    def _room_changed(self, namespace: str) -> None:
        self._quotas.changed(namespace)
        self._pools.room_changed()

    def _wake_budget(self, uid: str) -> None:
        """Of an Agent or a Quota: what is left for it is another, or it said how it ends."""
        key = self._keys.get(uid)
        if key is not None:
            self._queue.add(key)
        else:
            self._quotas.used(uid)

    # looking

    async def _adopt(self) -> None:
        """What runs is taken over; boxes of agents that are gone are released."""
        try:
            listed = await self._eyes.boxes.fresh()
        except errors.AgentkError as error:
            _log.warning("boxes are not known yet: %s", error)
            return
        for uid, seen in listed.items():
            key = self._keys.get(uid)
            if key is None:
                if seen[0].leaf == environment_boxes.LEAF or pool_boxes.is_waiting(uid):
                    continue  # no agent's: it makes what many will share, or waits for one
                await self._release_orphan(seen[0].namespace, uid)
                continue
            for one in seen:
                if one.leaf == "box" and one.phase == "Running":
                    involved = {"apiVersion": kinds.AGENT.api_version, "kind": "Agent"}
                    involved |= {"namespace": key[0], "name": key[1], "uid": uid}
                    told = f"attempt {one.attempt} was running already"
                    self._post.send(involved, plans.Event("Normal", "Adopted", told))

    async def _release_orphan(self, namespace: str, uid: str) -> None:
        crash.crashpoint("adopt.before")
        try:
            await self._hands.release(namespace, uid)
        except errors.AgentkError as error:
            _log.warning("boxes of agent %s, which is gone, could not be released: %s", uid, error)
        crash.crashpoint("adopt.after")

    async def _look(self, key: Key) -> float | None:
        agent = await self._store.find(kinds.AGENT, *key)
        async with asyncio.timeout(self._settings.look_seconds):
            if agent is None:
                await self._gone(key, keep="")
                return None
            if len(self._uids.get(key, ())) > 1:
                await self._gone(key, keep=agent["metadata"]["uid"])
            return await self._look_at(key, agent)

    async def _gone(self, key: Key, keep: str) -> None:
        """Objects of this name that are no more, except the one that now has it."""
        for uid in [one for one in self._uids.get(key, ()) if one != keep]:
            await self._hands.release(key[0], uid)
            self._keys.pop(uid, None)
            self._uids[key].discard(uid)
        if not keep:
            self._uids.pop(key, None)
            self._room.forget(key)
            self._queue.forget(key)

    async def _look_at(self, key: Key, agent: Object) -> float | None:
        uid, stored = agent["metadata"]["uid"], agent
        sight = await self._eyes.see(agent, self._probers.health(uid), self._counters_seconds())
        for _ in range(_ROUNDS):
            decision = self._room.decide(key, agent, sight, self._clock.now())
            agent = {**agent, "status": decision.status}
            for event in decision.events:
                self._post.send(stored, event)
            self._probers.keep(uid, [one.kind for one in decision.actions if isinstance(one, plans.RunProbe)])
            changed = await self._hands.act(agent, decision.actions, sight, decision.status["run"])
            if plans.Release(uid) in decision.actions:
                self._uids.get(key, set()).discard(uid)
            if not changed:
                break
        if sight.observed.boxes is not None:
            self._eyes.tell(uid, sight.observed.boxes)
        written: Object | None = stored
        if decision.status != stored.get("status"):
            crash.crashpoint("status.before")
            written = await self._store.set_status(kinds.AGENT, *key, uid, decision.status)
            crash.crashpoint("status.after")
        if written is not None:
            await self._hands.act(agent, decision.afterwards, sight, decision.status["run"])
        return self._again(decision, sight)

    def _again(self, decision: plans.Decision, sight: seeing.Sight) -> float | None:
        again = decision.again
        waits = []
        if seeing.comes_by_itself(sight.observed):
            waits.append(self._settings.source_seconds)
        if decision.status.get("phase") == "Running":
            waits.append(self._counters_seconds())
        return min([*waits, *([] if again is None else [again])], default=None)

    def _counters_seconds(self) -> float:
        running = self._ledger.holding()
        return max(self._settings.counters_seconds, running / self._settings.counters_per_second)

    def _failed(self, key: Key, error: Exception, failures: int) -> None:
        _log.error("looking at agent %s/%s failed (%d in a row)", *key, failures, exc_info=error)
        self._tell(key, plans.Event("Warning", "ReconcileFailed", str(error) or type(error).__name__))

    def _tell(self, key: Key, event: plans.Event) -> None:
        if key in self._asked:
            involved = {"apiVersion": kinds.AGENT.api_version, "kind": "Agent", "namespace": key[0]}
            involved |= {"name": key[1], "uid": str(self._asked[key][0])}
            self._post.send(involved, event)
