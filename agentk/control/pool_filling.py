"""Makes the boxes of a Pool that are missing and ends those that are too many.

What a new box is like is what an agent that says nothing itself would get, less what is bound at hand-out.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentk.api import errors, kinds, pools, schemas, shaping
from agentk.control import box, crash, isolation, plans, pooling, posting, references, seeing
from agentk.control.clock import Clock
from agentk.control.pool_boxes import HOST_UID, POOL, SHAPE, Kept, Pool
from agentk.runtime import box as boxes
from agentk.store import store as stores

_log = logging.getLogger(__name__)

# Of the variables of an agent those that lead its interpreter to its packages, and those that an image sets and that
# are read before a program begins: the others are bound at hand-out.
_VARIABLES = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "NODE_PATH")
_EARLY = ("PYTHON", "LD_", "LC_", "MALLOC_", "OPENSSL_")

Object = dict[str, Any]


class Filling:
    def __init__(
        self,
        store: stores.Store,
        clock: Clock,
        eyes: seeing.Eyes,
        post: posting.Post,
        host_uid: seeing.HostUid,
        release_host_uid: Callable[[str], Awaitable[None]],
    ) -> None:
        self._store, self._clock, self._eyes, self._post = store, clock, eyes, post
        self._host_uid, self._release_host_uid = host_uid, release_host_uid

    async def model(self, known: Pool, obj: Object) -> Mapping[str, Any]:
        """Note what a new box is like now, or why none can be made. Answers with what its packages became."""
        agent = await self._like_an_agent(obj)
        sight = await self._eyes.whole(agent)
        seen, before = sight.observed, known.shape()
        blockers = (*seen.references[:1], seen.source, seen.environment, seen.image, seen.runtime)
        problem = next((one for one in blockers if one is not None), None) or _unjailed(sight)
        known.model = None
        if problem is None:
            attempt = box.Attempt(1, "", "", source_path=sight.source_path, given=sight.given)
            modules = tuple((obj["spec"].get("template") or {}).get("modules") or ())
            known.model = _waiting(box.build(agent, sight.found, attempt), modules)
        if known.model is not None and known.shape() != before:
            known.history = pooling.made(known.history)  # what failed was another box
        if problem is not None and problem != known.problem and not problem.usual:
            self._post.send(obj, plans.Event("Warning", problem.reason, problem.message))
        if problem is not None or known.history.failures == 0:
            known.problem = problem
        return seen.packages or {}

    async def _like_an_agent(self, obj: Object) -> Object:
        """An Agent that says nothing itself, as the template, its Runtime and the schema fill it."""
        spec: Object = {"command": ["python3"], **pools.given({}, obj["spec"])}
        runtime = await self._store.find(kinds.RUNTIME, None, references.runtime_name(spec))
        shaping.under(spec, ((runtime or {}).get("spec") or {}).get("defaults") or {})
        shaping.filled(spec, schemas.child(schemas.of(kinds.AGENT), "spec") or {})
        metadata = {key: obj["metadata"][key] for key in ("name", "namespace", "uid")}
        return {"apiVersion": kinds.AGENT.api_version, "kind": "Agent", "metadata": metadata, "spec": spec}

    async def fill(self, known: Pool, obj: Object, room: int) -> float | None:
        """Seconds until to look again; None when only a change is worth it."""
        now = self._clock.now().boottime
        plan, known.history = pooling.decide(
            known.wish, known.shape(), known.seen(now), known.history, room, now
        )
        known.wanted = plan.wanted
        await self.end(known, plan.end)
        if plan.create and known.model is not None:
            model = known.model
            await asyncio.gather(*(self._create(known, model, obj) for _ in range(plan.create)))
            return max(0.0, known.history.retry_at - self._clock.now().boottime)
        return plan.again

    async def _create(self, known: Pool, model: boxes.Box, obj: Object) -> None:
        namespace, uid = known.key[0], known.new_uid()
        shape = known.shape()
        try:
            host_uid = await self._host_uid(namespace, uid)
            notes = {"name": known.key[1], POOL: known.uid, SHAPE: shape, HOST_UID: str(host_uid)}
            made = replace(model, id=f"{uid}-1", uid=uid, host_uid=host_uid, annotations=notes)
            crash.crashpoint("wait.before")
            seen = await self._eyes.runtime(model.runtime).start(made)
            crash.crashpoint("wait.after")
        except errors.AgentkError as error:
            await self.release(namespace, uid)
            told = f"{error.message}; {error.hint}" if error.hint else str(error.message)
            known.history = pooling.failed(known.history, self._clock.now().boottime)
            if known.problem is None or known.problem.message != told:
                self._post.send(obj, plans.Event("Warning", seeing.UNAVAILABLE, told))
            known.problem = plans.Problem(seeing.UNAVAILABLE, told)
            return
        known.history, known.problem = pooling.made(known.history), None
        state: pooling.State = "ready" if seen.phase == "Running" else "creating"
        known.waiting[uid] = Kept(uid, host_uid, shape, self._clock.now().boottime, state)

    async def end(self, known: Pool, uids: Sequence[str]) -> None:
        """They no longer wait from the first moment on; one that could not be removed is seen by a later look."""
        for uid in uids:
            known.take(uid)
        for uid in uids:
            if not await self.release(known.key[0], uid):
                known.used.discard(uid)
                known.doubted = True

    async def release(self, namespace: str, uid: str) -> bool:
        """Everything of one box that waited. Repeatable."""
        try:
            for runtime in self._eyes.runtimes():
                await runtime.release(namespace, uid)
        except errors.AgentkError as error:
            _log.warning("box %s that waited could not be removed: %s", uid, error)
            return False
        await self._release_host_uid(uid)
        return True


def _unjailed(sight: seeing.Sight) -> plans.Problem | None:
    kind = ((sight.found.runtime or {}).get("spec") or {}).get("type")
    if kind in isolation.ISOLATED:
        return None
    told = f"only a Runtime of type {' or '.join(isolation.ISOLATED)} has boxes that wait, not {kind}"
    return plans.Problem("Unsupported", told)


def _waiting(made: boxes.Box, modules: Sequence[str]) -> boxes.Box:
    """An agent's box without what is the agent's own."""
    return replace(
        made,
        argv=(),
        waits=True,
        modules=tuple(modules),
        env={
            name: value for name, value in made.env.items() if name in _VARIABLES or name.startswith(_EARLY)
        },
        mounts=tuple(mount for mount in made.mounts if mount.kind not in boxes.BROUGHT_MOUNTS),
    )
