"""Do what was decided. Every act is repeatable: after a crash the same decision is made and done again."""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentk.api import errors, kinds, objects
from agentk.api import pools as pool_words
from agentk.broker import egress
from agentk.control import box, crash, decide, plans, pools, probing, seeing, standing
from agentk.control.run import Run
from agentk.runtime import box as boxes
from agentk.store import store as stores

# The field of a refusal's causes that name a limit this host cannot hold.
LIMITS = "limits"

_STEPS: Mapping[type, str] = {
    plans.Start: "start",
    plans.Signal: "signal",
    plans.Kill: "kill",
    plans.Remove: "remove",
    plans.Release: "release",
    plans.Freeze: "freeze",
    plans.Thaw: "thaw",
    plans.AddFinalizer: "add-finalizer",
    plans.RemoveFinalizer: "remove-finalizer",
    plans.DeleteObject: "delete-object",
}

_log = logging.getLogger(__name__)

Object = dict[str, Any]
Certificates = Callable[[str], str]
ReleaseHostUid = Callable[[str], Awaitable[None]]
Doors = Callable[[str], str]
# An agent and its box without a host uid → its start in a box of its Pool, or the box to start cold.
RESTORED_FROM = "agentk.dev/restoredFrom"  # NAME@TIME: the Checkpoint that its next start begins with, once
Claim = Callable[[Object, boxes.Box], Awaitable[pools.Claimed | boxes.Box]]
Restore = Callable[
    [Object, "Beginning"], Awaitable[str]
]  # the Checkpoint that this attempt begins with, or ""
Announce = Callable[[str, str], None]  # box id, run id: its first call may be here before it is seen


@dataclass(frozen=True)
class Beginning:
    """An attempt that may begin with a Checkpoint."""

    attempt: int
    host_uid: int
    size_bytes: int | None  # of its workspace
    newest: bool  # also when none was asked for: the newest from before its last process ended


class Hands:
    def __init__(
        self,
        store: stores.Store,
        runtimes: Mapping[str, boxes.Runtime],
        eyes: seeing.Eyes,
        probers: probing.Probers,
        release_host_uid: ReleaseHostUid,
        announce: Announce,
        certificates: Certificates,
        claim: Claim,
        doors: Doors | None = None,
        restore: Restore | None = None,
    ) -> None:
        """`certificates`: what is believed in a box whose requests are read along, by its id. `doors`: by its uid,
        where an agent without a jail finds its gate. `restore`: before a box is made."""
        self._restore = restore
        self._announce, self._certificates, self._doors, self._claim = announce, certificates, doors, claim
        self._store, self._eyes, self._probers = store, eyes, probers
        self._runtimes = list({id(one): one for one in runtimes.values()}.values())
        self._release_host_uid = release_host_uid

    async def act(
        self, agent: Object, actions: Iterable[plans.Action], sight: seeing.Sight, run: Mapping[str, Any]
    ) -> bool:
        """In order. True when `sight` was brought up to date and is to be decided on once more.

        `run`: the status.run that was decided with the actions.
        """
        changed = False
        for action in actions:
            if isinstance(action, plans.RunProbe):
                self._probe(agent, action.kind, action.box, sight)
                continue
            crash.crashpoint(f"{_STEPS[type(action)]}.before")
            try:
                changed |= await self._act(agent, action, sight, Run.from_dict(run))
            finally:
                self._eyes.boxes.doubt(agent["metadata"]["uid"])
            crash.crashpoint(f"{_STEPS[type(action)]}.after")
        return changed

    async def _act(self, agent: Object, action: plans.Action, sight: seeing.Sight, run: Run) -> bool:
        match action:
            case plans.Start():
                await self._start(agent, action, sight, run)
                return True
            case plans.Freeze(box_id) | plans.Thaw(box_id):
                return await self._freeze(box_id, isinstance(action, plans.Freeze), sight)
            case plans.Signal() | plans.Kill() | plans.Remove():
                with contextlib.suppress(errors.NotFound):  # ended and gone meanwhile
                    await self._to_box(action)
            case plans.Release(uid):
                await self.release(agent["metadata"]["namespace"], uid)
            case plans.AddFinalizer() | plans.RemoveFinalizer() | plans.DeleteObject():
                await self._to_object(agent, action)
        return False

    async def release(self, namespace: str, uid: str) -> None:
        """Forget an agent everywhere but in the store: boxes, files, host uid."""
        self._probers.keep(uid, ())
        for runtime in self._runtimes:
            await runtime.release(namespace, uid)
        await self._release_host_uid(uid)  # only now that no file of it is left
        self._eyes.forget(uid)

    async def _start(self, agent: Object, start: plans.Start, sight: seeing.Sight, run: Run) -> None:
        uid = agent["metadata"]["uid"]
        try:
            attempt = box.Attempt(
                number=start.attempt,
                token=start.token,
                run_id=f"{uid}-{run.first_attempt}",
                host_uid=-1,  # known once it is known in which box it starts
                source_path=sight.source_path,
                certificates=self._believed(agent, f"{uid}-{start.attempt}", sight),
                given=sight.given,
                **self._door(uid, sight),
            )
            made = box.build(agent, sight.found, attempt)
            runtime = self._eyes.runtime_of(sight.found)
            self._announce(made.id, attempt.run_id)
            seen, host_uid = await self._begin(agent, start, made, runtime)
        except errors.AgentkError as error:
            # Also when it only seems so: a box that was made after all is seen at the next look.
            unenforced = [cause.message for cause in error.causes if cause.field == LIMITS]
            told = f"{error.message}; {error.hint}" if error.hint else str(error.message)
            refusal = plans.Refusal(start.attempt, told, unenforced)
            sight.observed = replace(sight.observed, refusal=refusal)
            return
        self._eyes.boxes.where[seen.id] = runtime
        there = [*(sight.observed.boxes or ()), seen]
        sight.observed = replace(sight.observed, boxes=there, host_uid=host_uid)

    async def _begin(
        self, agent: Object, start: plans.Start, made: boxes.Box, runtime: boxes.Runtime
    ) -> tuple[boxes.Seen, int]:
        """In a box of its Pool where one waits for it, else in one of its own; and as which host uid."""
        asked = RESTORED_FROM in (agent["metadata"].get("annotations") or {})
        if self._restore is not None and (asked or start.brings_back):
            # In a box of its own: one that waits has a uid of its own choice, and the files have this one.
            host_uid = await self._eyes.host_uid(agent)
            size = made.limits.storage_bytes if made.runtime != "process" else None
            told = await self._restore(agent, Beginning(start.attempt, host_uid, size, start.brings_back))
            notes = {**made.annotations, standing.RESTORED: told} if told else made.annotations
            return await runtime.start(replace(made, host_uid=host_uid, annotations=notes)), host_uid
        begun = await self._claim(agent, made) if pool_words.name(agent["spec"]) else made
        if isinstance(begun, pools.Claimed):
            return begun.seen, begun.host_uid
        host_uid = await self._eyes.host_uid(agent)
        return await runtime.start(replace(begun, host_uid=host_uid)), host_uid

    def _believed(self, agent: Object, box_id: str, sight: seeing.Sight) -> str:
        read_along = egress.read_along(agent["spec"]) and _is_jailed(sight)  # else it asks the host's network
        return self._certificates(box_id) if read_along else ""

    def _door(self, uid: str, sight: seeing.Sight) -> dict[str, str]:
        return {"door": self._doors(uid)} if self._doors and not _is_jailed(sight) else {}

    async def _freeze(self, box_id: str, frozen: bool, sight: seeing.Sight) -> bool:
        """False when it could not be done: the box has ended, or this host cannot."""
        runtime = self._eyes.boxes.where.get(box_id)
        if runtime is None:
            return False
        try:
            await (runtime.freeze(box_id) if frozen else runtime.thaw(box_id))
        except errors.AgentkError as error:
            _log.warning("box %s could not be %s: %s", box_id, "frozen" if frozen else "thawed", error)
            return False
        there = [
            replace(one, frozen=frozen) if one.id == box_id else one for one in sight.observed.boxes or ()
        ]
        sight.observed = replace(sight.observed, boxes=there)
        return True

    async def _to_box(self, action: plans.Signal | plans.Kill | plans.Remove) -> None:
        runtime = self._eyes.boxes.where.get(action.box)
        if runtime is None:
            return  # gone meanwhile
        match action:
            case plans.Signal(box_id, signal, intent):
                await runtime.signal(box_id, signal, intent)
            case plans.Kill(box_id, intent):
                await runtime.kill(box_id, intent)
            case plans.Remove(box_id):
                await runtime.remove(box_id)
                self._eyes.boxes.forget(box_id)

    def _probe(self, agent: Object, kind: plans.ProbeKind, box_id: str, sight: seeing.Sight) -> None:
        runtime = self._eyes.boxes.where.get(box_id)
        seen = next((one for one in sight.observed.boxes or () if one.id == box_id), None)
        if runtime is not None and seen is not None:
            self._probers.run(runtime, kind, agent["spec"][f"{kind}Probe"], seen)

    async def _to_object(
        self, agent: Object, action: plans.AddFinalizer | plans.RemoveFinalizer | plans.DeleteObject
    ) -> None:
        store, metadata = self._store, agent["metadata"]
        match action:
            case plans.DeleteObject():
                with contextlib.suppress(errors.NotFound):
                    uid = metadata["uid"]
                    await store.delete(kinds.AGENT, metadata["namespace"], metadata["name"], uid=uid)
            case plans.RemoveFinalizer():
                await store.amend(
                    kinds.AGENT, agent, lambda found: objects.without_finalizer(found, decide.FINALIZER)
                )
            case plans.AddFinalizer():
                if await store.amend(kinds.AGENT, agent, _begun) is None:
                    raise errors.NotFound("it is gone")  # nothing may be started for it


def _begun(agent: Object) -> Object:
    if objects.is_deleting(agent):
        raise errors.Conflict("it is being deleted")  # too late to begin; the next look ends it
    return objects.with_finalizer(agent, decide.FINALIZER)


def _is_jailed(sight: seeing.Sight) -> bool:
    return ((sight.found.runtime or {}).get("spec") or {}).get("type") != "process"
