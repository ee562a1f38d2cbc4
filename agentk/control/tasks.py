"""Tasks: makes the agent of each, tells how it ended, and lets it go.

A step that must not be lost is an object: the agent, made once by a name that follows from the Task, and held by a
finalizer until the Task's status tells how it ended. An agent that is held for a Task that is no more is let go.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from agentk.api import admit, errors, kinds, objects, ownership, pools, shaping, taskspecs
from agentk.broker import admitting
from agentk.broker.lives import Lives
from agentk.control import crash, plans, policies, posting, queueing, tasking
from agentk.control.clock import Clock
from agentk.store import feeding
from agentk.store import store as stores

MANAGER = "agentk-steward"
_WATCHED = (kinds.TASK, kinds.AGENT)
_WORKERS = 8
_THREAD_BYTES = 8 * 1024  # of a spec: more is checked in a thread
_log = logging.getLogger(__name__)

Object = dict[str, Any]
Key = tuple[str, str]


class Duty:
    """Built by the steward; `run` is its whole life."""

    def __init__(self, store: stores.Store, clock: Clock, post: posting.Post, lives: Lives) -> None:
        self._store, self._clock, self._post, self._lives = store, clock, post, lives
        self._queue = queueing.Queue(self._look, clock, workers=_WORKERS, failed=self._failed, name="tasks")
        self._feed = feeding.Feed(store, clock.sleep, _WATCHED, self._hear)
        self._waiting: dict[Key, set[Key]] = {}  # by an Agent that is not there: Tasks that name it
        self._held: dict[Key, set[str]] = {}  # by Task: agents that are held for it

    async def run(self) -> None:
        """Until cancelled."""
        since = await self._feed.prime()
        async with asyncio.TaskGroup() as group:
            for kind in _WATCHED:
                watching = self._feed.run(kind, since[kind.plural])
                group.create_task(watching, name=f"tasks: {kind.plural}")
            group.create_task(self._queue.run(), name="tasks")

    async def idle(self) -> None:
        await self._queue.idle()

    # hearing

    def _hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        metadata = obj["metadata"]
        key = (str(metadata["namespace"]), str(metadata["name"]))
        if kind is kinds.TASK:
            self._queue.add(key)
            return
        for waiting in self._waiting.pop(key, ()) if not gone else ():
            self._queue.add(waiting)
        if gone:  # a tombstone does not tell whose it was
            for task, held in list(self._held.items()):
                if task[0] == key[0] and key[1] in held:
                    self._forget(task, key[1])
                    self._queue.add(task)
            return
        name = tasking.owner(obj)[0]
        if name:
            if tasking.is_held(obj):
                self._held.setdefault((key[0], name), set()).add(key[1])
            self._queue.add((key[0], name))

    def _forget(self, task: Key, agent: str) -> None:
        held = self._held.get(task, set())
        held.discard(agent)
        if not held:
            self._held.pop(task, None)

    # looking

    async def _look(self, key: Key) -> float | None:
        task = await self._store.find(kinds.TASK, *key)
        await self._let_go_of_others(key, task)
        if task is None:
            for agent in list(self._waiting):
                self._waits_no_more(agent, key)
            self._queue.forget(key)
            return None
        seen = await self._see(task)
        decision = tasking.decide_task(task, seen, self._clock.now())
        for action in decision.actions:
            if refused := await self._act(task, seen, action):
                decision = tasking.decide_task(task, refused, self._clock.now())
                break
        for event in decision.events:
            self._post.send(task, event)
        if decision.status != task.get("status"):
            crash.crashpoint("task-status.before")
            uid = str(task["metadata"]["uid"])
            if await self._store.set_status(kinds.TASK, *key, uid, decision.status) is None:
                return None
            crash.crashpoint("task-status.after")
        for action in decision.afterwards:
            await self._act(task, seen, action)
        return decision.again

    async def _see(self, task: Object) -> tasking.Seen:
        metadata = task["metadata"]
        namespace, uid = str(metadata["namespace"]), str(metadata["uid"])
        agent = await self._store.find(kinds.AGENT, namespace, tasking.agent_name(task))
        if agent is not None and tasking.owner(agent)[1] != uid:
            told = f'an agent named "{agent["metadata"]["name"]}" is there, which is not this Task\'s'
            return tasking.Seen(refused=plans.Problem("NameTaken", told))
        if agent is None:
            return tasking.Seen(missing=(await self._base(task))[1])
        attempt = int((agent.get("status") or {}).get("attempt", 0))
        agent_uid = str(agent["metadata"]["uid"])
        return tasking.Seen(agent, self._lives.said(agent_uid, attempt), self._lives.usage(agent_uid))

    async def _base(self, task: Object) -> tuple[Mapping[str, Any], plans.Problem | None]:
        """The spec that its agent is made of, or why there is none."""
        spec, namespace = task["spec"], str(task["metadata"]["namespace"])
        if "template" in spec:
            return spec["template"]["spec"], None
        name = str(spec["agentRef"]["name"])
        key = (namespace, str(task["metadata"]["name"]))
        self._waiting.setdefault((namespace, name), set()).add(key)
        agent = await self._store.find(kinds.AGENT, namespace, name)
        if agent is None or objects.is_deleting(agent):
            return {}, plans.Problem("AgentNotFound", f'Agent "{name}" does not exist')
        self._waits_no_more((namespace, name), key)
        return agent["spec"], None

    def _waits_no_more(self, agent: Key, task: Key) -> None:
        waiting = self._waiting.get(agent, set())
        waiting.discard(task)
        if not waiting:
            self._waiting.pop(agent, None)

    # acting

    async def _act(self, task: Object, seen: tasking.Seen, action: tasking.Action) -> tasking.Seen | None:
        """What is seen instead, when it will never work."""
        match action:
            case tasking.Make():
                try:
                    await self._make(task)
                except errors.Invalid as error:
                    told = f"{error.field}: {error.message}" if error.field else error.message
                    return tasking.Seen(refused=plans.Problem("Invalid", told))
            case tasking.Suspend(suspend):
                await self._change(seen, "hold", lambda found: _with_spec(found, suspend=suspend))
            case tasking.Kill(text):
                await self._change(seen, "cancel", lambda found: _annotated(found, policies.KILL, text))
            case tasking.LetGo():
                await self._let_go(seen.agent)
            case tasking.Delete():
                await self._delete(task)
        return None

    async def _make(self, task: Object) -> None:
        """Repeatable: of one name there is one."""
        base, problem = await self._base(task)
        if problem is not None:
            return  # gone since it was seen: its coming back is heard
        made = tasking.made(task, taskspecs.agent_spec(task["spec"], base), taskspecs.TASK)
        made = await self._admitted(made)
        crash.crashpoint("make-agent.before")
        with contextlib.suppress(
            errors.AlreadyExists
        ):  # it is looked at again, since something was heard of it
            await self._store.create(made, in_live_namespace=True)
        crash.crashpoint("make-agent.after")

    async def _admitted(self, obj: Object) -> Object:
        """With what its Pool and its Runtime put below its spec, as of an Agent that a person applies."""
        spec, below = obj["spec"], {}
        if name := pools.name(spec):
            pool = await self._store.find(kinds.POOL, obj["metadata"]["namespace"], name)
            if pool is None:
                raise errors.Invalid(f'there is no Pool "{name}"', field="spec.poolRef.name")
            below = pools.given(spec, pool["spec"])
        ref = {**below, **spec}.get("runtimeRef") or {}
        runtime = await self._store.find(kinds.RUNTIME, None, str(ref.get("name") or "nsjail"))
        shaping.under(below, ((runtime or {}).get("spec") or {}).get("defaults") or {})

        def admitted() -> Object:
            made = admit.admit(obj, defaults=below)
            admitting.check(kinds.AGENT, made)
            return ownership.own_update(None, made, MANAGER, stores.now_text())

        large = len(json.dumps(spec)) > _THREAD_BYTES
        return await asyncio.to_thread(admitted) if large else admitted()

    async def _change(self, seen: tasking.Seen, step: str, change: Callable[[Object], Object]) -> None:
        if seen.agent is None:
            return
        crash.crashpoint(f"{step}-agent.before")
        await self._store.amend(kinds.AGENT, seen.agent, change)
        crash.crashpoint(f"{step}-agent.after")

    async def _let_go(self, agent: Mapping[str, Any] | None) -> None:
        if agent is None:
            return
        crash.crashpoint("let-go.before")
        await self._store.amend(
            kinds.AGENT, agent, lambda found: objects.without_finalizer(found, tasking.FINALIZER)
        )
        crash.crashpoint("let-go.after")
        namespace = str(agent["metadata"]["namespace"])
        self._forget((namespace, tasking.owner(agent)[0]), str(agent["metadata"]["name"]))

    async def _let_go_of_others(self, key: Key, task: Object | None) -> None:
        """Agents that are held for a Task of this name that is no more."""
        uid = str(task["metadata"]["uid"]) if task else ""
        for name in list(self._held.get(key, ())):
            agent = await self._store.find(kinds.AGENT, key[0], name)
            if agent is None or not tasking.is_held(agent):
                self._forget(key, name)
            elif tasking.owner(agent)[1] != uid:
                await self._let_go(agent)

    async def _delete(self, task: Object) -> None:
        metadata = task["metadata"]
        self._post.send(task, plans.Event("Normal", "Expired", "ttlSecondsAfterFinished is over"))
        crash.crashpoint("delete-task.before")
        with contextlib.suppress(errors.NotFound, errors.Conflict):
            await self._store.delete(kinds.TASK, metadata["namespace"], metadata["name"], uid=metadata["uid"])
        crash.crashpoint("delete-task.after")

    def _failed(self, key: Key, error: Exception, failures: int) -> None:
        _log.error("looking at task %s/%s failed (%d in a row)", *key, failures, exc_info=error)


def _with_spec(agent: Object, **fields: Any) -> Object:
    return objects.replace(kinds.AGENT, agent, {**agent, "spec": {**agent["spec"], **fields}})


def _annotated(agent: Object, key: str, value: str) -> Object:
    metadata = agent["metadata"]
    annotations = {**(metadata.get("annotations") or {}), key: value}
    made = {**agent, "metadata": {**metadata, "annotations": annotations}}
    return objects.replace(kinds.AGENT, agent, made)
