"""Schedules: makes Tasks when it is time, ends those that others take the place of, and forgets old ones."""

import asyncio
import contextlib
import logging
from typing import Any

from agentk.api import admit, errors, kinds, objects, ownership, taskspecs
from agentk.broker import admitting
from agentk.control import crash, plans, posting, queueing, scheduling
from agentk.control.clock import Clock
from agentk.control.tasks import MANAGER
from agentk.store import feeding
from agentk.store import store as stores

_WATCHED = (kinds.SCHEDULE, kinds.TASK)
_log = logging.getLogger(__name__)

Object = dict[str, Any]
Key = tuple[str, str]


class Duty:
    """Built by the steward; `run` is its whole life."""

    def __init__(self, store: stores.Store, clock: Clock, post: posting.Post) -> None:
        self._store, self._clock, self._post = store, clock, post
        self._queue = queueing.Queue(self._look, clock, workers=2, failed=self._failed, name="schedules")
        self._feed = feeding.Feed(store, clock.sleep, _WATCHED, self._hear)
        self._there: set[Key] = set()

    async def run(self) -> None:
        """Until cancelled."""
        since = await self._feed.prime()
        async with asyncio.TaskGroup() as group:
            for kind in _WATCHED:
                watching = self._feed.run(kind, since[kind.plural])
                group.create_task(watching, name=f"schedules: {kind.plural}")
            group.create_task(self._queue.run(), name="schedules")
            group.create_task(self._hear_clock(), name="schedules: clock")

    async def idle(self) -> None:
        await self._queue.idle()

    def _hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        metadata = obj["metadata"]
        if kind is kinds.SCHEDULE:
            key = (str(metadata["namespace"]), str(metadata["name"]))
            (self._there.discard if gone else self._there.add)(key)
            self._queue.add(key)
            return
        for reference in metadata.get("ownerReferences") or ():
            if reference.get("kind") == kinds.SCHEDULE.kind:
                self._queue.add((str(metadata["namespace"]), str(reference.get("name"))))

    async def _hear_clock(self) -> None:
        """Somebody set it: what is due is another thing now."""
        while True:
            await self._clock.set()
            for key in self._there:
                self._queue.add(key)

    async def _look(self, key: Key) -> float | None:
        schedule = await self._store.find(kinds.SCHEDULE, *key)
        if schedule is None or objects.is_deleting(schedule):
            self._queue.forget(key)
            return None
        uid = str(schedule["metadata"]["uid"])
        owned = await self._store.dependents(uid)
        tasks = [one for one in owned if one["kind"] == kinds.TASK.kind]
        decision = scheduling.decide_schedule(schedule, tasks, self._clock.now())
        status = decision.status
        for action in decision.actions:
            await self._act(schedule, action, status)
        for event in decision.events:
            self._post.send(schedule, event)
        if status != schedule.get("status"):
            crash.crashpoint("schedule-status.before")
            await self._store.set_status(kinds.SCHEDULE, *key, uid, status)
            crash.crashpoint("schedule-status.after")
        return decision.again

    async def _act(self, schedule: Object, action: scheduling.Action, status: dict[str, Any]) -> None:
        match action:
            case scheduling.Make(at):
                made = await self._make(schedule, scheduling.made(schedule, at))
                if made is not None:
                    told = {"name": made["metadata"]["name"], "uid": made["metadata"]["uid"]}
                    if told not in status["active"]:
                        status["active"].append(told)
            case scheduling.Cancel(task):
                crash.crashpoint("replace-task.before")
                await self._store.amend(kinds.TASK, task, taskspecs.cancelled)
                crash.crashpoint("replace-task.after")
            case scheduling.Forget(task):
                crash.crashpoint("forget-task.before")
                metadata = task["metadata"]
                with contextlib.suppress(errors.NotFound, errors.Conflict):
                    await self._store.delete(
                        kinds.TASK, metadata["namespace"], metadata["name"], uid=metadata["uid"]
                    )
                crash.crashpoint("forget-task.after")

    async def _make(self, schedule: Object, obj: Object) -> Object | None:
        """The Task, or None when it cannot be made. Repeatable: of one name there is one."""
        try:
            made = await asyncio.to_thread(_admitted, obj)
        except errors.Invalid as error:
            told = f"{error.field}: {error.message}" if error.field else error.message
            self._post.send(schedule, plans.Event("Warning", "FailedCreate", told))
            return None
        crash.crashpoint("make-task.before")
        try:
            made = await self._store.create(made, in_live_namespace=True)
        except errors.AlreadyExists:
            return None
        crash.crashpoint("make-task.after")
        told = f'made Task "{made["metadata"]["name"]}"'
        self._post.send(schedule, plans.Event("Normal", "SuccessfulCreate", told))
        return made

    def _failed(self, key: Key, error: Exception, failures: int) -> None:
        _log.error("looking at schedule %s/%s failed (%d in a row)", *key, failures, exc_info=error)


def _admitted(obj: Object) -> Object:
    made = admit.admit(obj)
    admitting.check(kinds.TASK, made)
    return ownership.own_update(None, made, MANAGER, stores.now_text())
