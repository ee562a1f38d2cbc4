"""Automatic Checkpoints: when the next one of an agent is due, and which of them go.

One is made when none is under way, so that slow ones never pile up, and time counts from the end of the one before.
Here is only the object: taking it is the same as of those that people make. Which there are is asked anew each time,
and each has the next number, so who dies in between makes the same one again.
"""

import contextlib
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentk.api import admit, errors, kinds, objects, ownership, quantities
from agentk.broker.stepping import Steps
from agentk.control import crash, plans, posting, queueing
from agentk.control.clock import Clock, parse_stamp
from agentk.store import store as stores

AGENT, AUTOMATIC = "agentk.dev/agent", "agentk.dev/automatic"  # labels
MANAGER = "agentk-steward"
_AGAIN_SECONDS = 60.0  # at least, after one that failed
_LEAST_SECONDS = 1.0  # between two, however fast its steps are
_NAME_MAX = 220  # of an agent, in the name of its Checkpoints
_LABEL_MAX = 63
_TAKEN = 20  # names that may be others' already

_log = logging.getLogger(__name__)

Object = Mapping[str, Any]
Key = tuple[str, str]


@dataclass(frozen=True)
class Wanted:
    """spec.checkpoint of an agent."""

    steps: int | None
    every_seconds: float | None
    keep: int


def wanted(agent: Object) -> Wanted | None:
    spec = agent["spec"].get("checkpoint")
    if not spec:
        return None
    every = None
    with contextlib.suppress(errors.Invalid):
        every = quantities.parse_duration(str(spec["every"])) if "every" in spec else None
    return Wanted(spec.get("steps"), every, int(spec.get("keep", 3)))


@dataclass(frozen=True)
class Plan:
    make: int | None  # the number of one that is due
    forget: tuple[Object, ...]
    again: float | None  # seconds until time makes one due


def plan(wish: Wanted, agent: Object, own: Sequence[Object], steps: int, now: datetime) -> Plan:
    """Pure. `own`: its automatic ones, `steps`: since the newest Ready one."""
    ordered = sorted(own, key=number)
    ready = [one for one in ordered if _phase(one) == "Ready"]
    failed = [one for one in ordered if _phase(one) == "Failed"]
    # Why the last one failed stays to be read, until one is taken again.
    forget = [*ready[: -wish.keep], *(one for one in failed if one is not ordered[-1])]
    if len(ready) + len(failed) < len(ordered) or not takes(agent):
        return Plan(None, tuple(forget), None)
    began = _moment((agent.get("status") or {}).get("startedAt"), now)
    last = ordered[-1] if ordered else None
    ended = _moment((last.get("status") or {}).get("takenAt"), now) if last else None
    elapsed = min((now - moment).total_seconds() for moment in (began, ended) if moment) if began else 0.0
    waits = []
    if wish.every_seconds is not None:
        waits.append(wish.every_seconds - elapsed)
    if wish.steps is not None and steps >= wish.steps:
        waits.append(0.0 if last is None or ended is None else _LEAST_SECONDS - (now - ended).total_seconds())
    if not waits:
        return Plan(None, tuple(forget), None)
    left = min(waits)
    if last is not None and _phase(last) == "Failed" and ended is not None:
        left = max(left, _AGAIN_SECONDS - (now - ended).total_seconds())
    if left > 0:
        return Plan(None, tuple(forget), left)
    return Plan(number(last) + 1 if last else 1, tuple(forget), None)


def takes(agent: Object) -> bool:
    """Whether there is anything new to be taken of it now."""
    return (agent.get("status") or {}).get("phase") == "Running" and not objects.is_deleting(dict(agent))


def number(checkpoint: Object) -> int:
    digits = str(checkpoint["metadata"]["name"]).rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0


def made(agent: Object, count: int) -> dict[str, Any]:
    """The Checkpoint of this number."""
    metadata = agent["metadata"]
    name = str(metadata["name"])
    short = (
        name if len(name) <= _NAME_MAX else f"{name[:200]}{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    )
    labels = {AUTOMATIC: "true"} | ({AGENT: name} if len(name) <= _LABEL_MAX else {})
    return {
        "apiVersion": kinds.CHECKPOINT.api_version,
        "kind": kinds.CHECKPOINT.kind,
        "metadata": {
            "name": f"{short}-auto-{count}",
            "namespace": metadata["namespace"],
            "labels": labels,
            "ownerReferences": [owner(agent)],
        },
        "spec": {"agentRef": {"name": name}},
    }


def owner(agent: Object) -> dict[str, Any]:
    metadata = agent["metadata"]
    told = {"apiVersion": kinds.AGENT.api_version, "kind": kinds.AGENT.kind}
    return told | {"name": metadata["name"], "uid": metadata["uid"]}


def is_automatic(checkpoint: Object) -> bool:
    return (checkpoint["metadata"].get("labels") or {}).get(AUTOMATIC) == "true"


def _phase(checkpoint: Object) -> str:
    return str((checkpoint.get("status") or {}).get("phase", ""))


def _moment(text: Any, now: datetime) -> datetime | None:
    """Never later than now: somebody may have set the clock."""
    try:
        return min(now, parse_stamp(str(text))) if text else None
    except ValueError:
        return None


class Duty:
    def __init__(self, store: stores.Store, clock: Clock, post: posting.Post, steps: Steps) -> None:
        self._store, self._clock, self._post, self._steps = store, clock, post, steps
        self._queue = queueing.Queue(self._look, clock, workers=2, failed=self._failed, name="saving")
        self._uids: dict[str, Key] = {}  # of agents that have any taken
        steps.listen(self._stepped)

    def hear_agent(self, agent: Object, gone: bool) -> None:
        uid = str(agent["metadata"]["uid"])
        if gone or not agent["spec"].get("checkpoint"):
            if (key := self._uids.pop(uid, None)) is not None:
                self._queue.forget(key)
                self._steps.forget(uid)
            return
        self._uids[uid] = key = _key(agent)
        self._queue.add(key)

    def hear(self, checkpoint: Object) -> None:
        """One that has become another, or is gone."""
        for reference in checkpoint["metadata"].get("ownerReferences") or ():
            if (key := self._uids.get(str(reference.get("uid")))) is not None:
                self._queue.add(key)

    def _stepped(self, uid: str) -> None:
        if uid in self._uids:
            self._queue.add(self._uids[uid])

    async def run(self) -> None:
        await self._queue.run()

    async def _look(self, key: Key) -> float | None:
        agent = await self._store.find(kinds.AGENT, *key)
        wish = wanted(agent) if agent is not None else None
        if agent is None or wish is None:
            return None
        uid = str(agent["metadata"]["uid"])
        own = [
            one
            for one in await self._store.dependents(uid)
            if one["kind"] == kinds.CHECKPOINT.kind and is_automatic(one)
        ]
        steps = await self._counted(agent, wish, own) if takes(agent) else 0
        planned = plan(wish, agent, own, steps, parse_stamp(self._clock.now().wall))
        for one in planned.forget:
            await self._forget(one)
        if planned.make is not None:
            await self._make(agent, planned.make)
        return planned.again

    async def _counted(self, agent: Object, wish: Wanted, own: Sequence[Object]) -> int:
        """Steps since the newest one; and whoever takes the missing ones wakes us."""
        if wish.steps is None:
            return 0
        uid = str(agent["metadata"]["uid"])
        records = [int((one.get("status") or {}).get("journal", {}).get("record", 0)) for one in own]
        self._steps.expect(uid, wish.steps)  # before it is counted: none may be missed in between
        found = await self._steps.since(uid, max(records, default=0), program="program" in agent["spec"])
        if found < wish.steps:
            self._steps.count_off(uid, found)
        else:
            self._steps.forget(uid)
        return found

    async def _make(self, agent: Object, count: int) -> None:
        for taken in range(_TAKEN):
            obj = made(agent, count + taken)
            try:
                admitted = ownership.own_update(None, admit.admit(obj), MANAGER, stores.now_text())
            except errors.Invalid as error:
                self._post.send(agent, plans.Event("Warning", "CheckpointFailed", error.message))
                return
            crash.crashpoint("make-checkpoint.before")
            try:
                await self._store.create(admitted, in_live_namespace=True)
            except errors.AlreadyExists:
                continue  # somebody else's: ours would have been seen
            except (errors.NotFound, errors.Forbidden):
                return  # the namespace is on its way out
            crash.crashpoint("make-checkpoint.after")
            return
        told = f"{_TAKEN} names from {obj['metadata']['name']} on are taken"
        self._post.send(agent, plans.Event("Warning", "CheckpointFailed", told))

    async def _forget(self, checkpoint: Object) -> None:
        metadata = checkpoint["metadata"]
        crash.crashpoint("forget-checkpoint.before")
        with contextlib.suppress(errors.NotFound, errors.Conflict):
            await self._store.delete(
                kinds.CHECKPOINT, metadata["namespace"], metadata["name"], uid=metadata["uid"]
            )
        crash.crashpoint("forget-checkpoint.after")

    def _failed(self, key: Key, error: Exception, failures: int) -> None:
        _log.error("saving agent %s/%s failed (%d in a row)", *key, failures, exc_info=error)


def _key(obj: Object) -> Key:
    return str(obj["metadata"]["namespace"]), str(obj["metadata"]["name"])
