"""What nobody owns any more goes: dependents of deleted owners, contents of deleted namespaces, unused sources.

* background: an object goes when every owner it names is gone; one with an owner left loses only the dead references.
* foreground (finalizer `foregroundDeletion`): an owner waits until its dependents are gone.
* orphan (finalizer `orphan`): an owner goes and its dependents stay, without the reference.
* a Namespace (finalizer `kubernetes`) waits until nothing is left in it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from agentk.api import errors, kinds, objects
from agentk.control import queueing, restart
from agentk.control.clock import Clock
from agentk.store import store as stores

_log = logging.getLogger(__name__)

FOREGROUND, ORPHAN, NAMESPACE = "foregroundDeletion", "orphan", "kubernetes"
_SWEEP_SECONDS = 600.0
_AGAIN_SECONDS = 5.0  # contents that wait for finalizers wake us too; this is for what was made meanwhile
_NAMESPACED = [kind for kind in kinds.KINDS if kind.namespaced]

Object = dict[str, Any]
Collect = Callable[[], Awaitable[None]]


class Key(NamedTuple):
    plural: str  # "" with `owner`: dependents of that uid; "" without: the sweep
    namespace: str = ""
    name: str = ""
    owner: str = ""


_SWEEP = Key("")


class Duty:
    def __init__(self, store: stores.Store, clock: Clock, collect: Collect | None = None) -> None:
        self._store, self._clock, self._collect = store, clock, collect
        self._queue = queueing.Queue(self._look, clock, workers=4, failed=self._failed, name="garbage")
        self._ending: set[str] = set()  # namespaces that are being emptied

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queue.run(), name="garbage queue")
            group.create_task(self._watch(), name="garbage watch")

    async def idle(self) -> None:
        await self._queue.idle()

    async def _watch(self) -> None:
        since, failures = "", 0
        self._queue.add_after(_SWEEP, _SWEEP_SECONDS)
        while True:
            try:
                async for change in self._store.watch(None, None, since, heads=True):
                    since, failures = change.resource_version, 0
                    if change.kind is not None and change.kind is not kinds.EVENT:
                        self._hear(change.kind, change.obj, change.type == "DELETED")
                return
            except errors.Expired:
                since = (
                    ""  # tells of everything there is; owners gone meanwhile are found by their dependents
                )
            except (errors.AgentkError, OSError) as error:
                failures += 1
                _log.warning("watching for garbage failed: %s", error)
                await self._clock.sleep(restart.delay(failures, 0.2, 10.0))

    def _hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        metadata = obj["metadata"]
        namespace = str(metadata.get("namespace") or "")
        if gone:
            self._queue.add(Key("", owner=str(metadata["uid"])))
            for ref in metadata.get("ownerReferences") or ():  # a foreground owner may be waiting for it
                owner = _kind_of(ref)
                if owner is not None:
                    where = namespace if owner.namespaced else ""
                    self._queue.add(Key(owner.plural, where, str(ref.get("name", ""))))
            if namespace in self._ending:
                self._queue.add(Key(kinds.NAMESPACE.plural, "", namespace))
        if kind is kinds.NAMESPACE:
            self._queue.add(Key(kind.plural, "", str(metadata["name"])))
        elif not gone and (metadata.get("ownerReferences") or _waits_for_us(metadata)):
            self._queue.add(Key(kind.plural, namespace, str(metadata["name"])))

    async def _look(self, key: Key) -> float | None:
        if key == _SWEEP:
            return await self._sweep()
        if key.owner:
            for dependent in await self._store.dependents(key.owner):
                kind, metadata = kinds.find(dependent["apiVersion"], dependent["kind"]), dependent["metadata"]
                self._queue.add(Key(kind.plural, metadata.get("namespace") or "", metadata["name"]))
            return None
        kind = kinds.resource(key.plural)
        obj = await self._store.find(kind, key.namespace or None, key.name)
        if kind is kinds.NAMESPACE:
            return await self._namespace(key.name, obj)
        if obj is None:
            return None
        if objects.is_deleting(obj):
            return await self._ending_owner(kind, obj)
        await self._dependent(kind, obj)
        return None

    # owners

    async def _dependent(self, kind: kinds.Kind, obj: Object) -> None:
        references = obj["metadata"].get("ownerReferences") or []
        dead = [ref["uid"] for ref in references if not await self._lives(obj, ref)]
        if not dead:
            return
        if len(dead) == len(references):
            await self._delete(kind, obj)
        else:
            await self._store.amend(kind, obj, lambda found: _without_owners(found, dead))

    async def _lives(self, obj: Object, ref: Object) -> bool:
        """Whether an owner exists; one of a kind we do not know is left to those who do."""
        kind = _kind_of(ref)
        if kind is None:
            return True
        namespace = obj["metadata"].get("namespace") if kind.namespaced else None
        if kind.namespaced and not namespace:
            return False  # what has no namespace cannot be owned by something in one
        owner = await self._store.find(kind, namespace, str(ref.get("name", "")))
        return owner is not None and owner["metadata"]["uid"] == ref.get("uid")

    async def _ending_owner(self, kind: kinds.Kind, obj: Object) -> float | None:
        finalizers, uid = obj["metadata"].get("finalizers") or (), str(obj["metadata"]["uid"])
        if ORPHAN in finalizers:
            for dependent in await self._store.dependents(uid):
                of = kinds.find(dependent["apiVersion"], dependent["kind"])
                await self._store.amend(of, dependent, lambda found: _without_owners(found, [uid]))
            await self._store.amend(kind, obj, lambda found: objects.without_finalizer(found, ORPHAN))
        elif FOREGROUND in finalizers:
            left = await self._store.dependents(uid)
            for dependent in left:
                if not objects.is_deleting(dependent):
                    await self._delete(kinds.find(dependent["apiVersion"], dependent["kind"]), dependent)
            if not await self._store.dependents(uid):
                await self._store.amend(kind, obj, lambda found: objects.without_finalizer(found, FOREGROUND))
        return None

    # namespaces

    async def _namespace(self, name: str, obj: Object | None) -> float | None:
        if obj is not None and not objects.is_deleting(obj):
            self._ending.discard(name)
            await self._store.amend(
                kinds.NAMESPACE, obj, lambda found: objects.with_finalizer(found, NAMESPACE)
            )
            await self._phase(obj, "Active")
            return None
        self._ending.add(name)
        if obj is not None:
            await self._phase(obj, "Terminating")
        if await self._empty(name):
            return _AGAIN_SECONDS
        self._ending.discard(name)
        if obj is not None:
            await self._store.amend(kinds.NAMESPACE, obj, _emptied)
        return None

    async def _empty(self, namespace: str) -> int:
        """Delete what is in it; how much is left. Events go last, for they tell of the others' ends."""
        left = 0
        for kind in [kind for kind in _NAMESPACED if kind is not kinds.EVENT]:
            for obj in (await self._store.list(kind, namespace, heads=True)).items:
                if not objects.is_deleting(obj):
                    obj = await self._delete(kind, obj) or obj
                left += objects.has_finalizers(obj)
        if not left:
            for event in (await self._store.list(kinds.EVENT, namespace)).items:
                await self._delete(kinds.EVENT, event)
        return left

    async def _phase(self, obj: Object, phase: str) -> None:
        if (obj.get("status") or {}).get("phase") != phase:
            status = {**(obj.get("status") or {}), "phase": phase}
            metadata = obj["metadata"]
            await self._store.set_status(kinds.NAMESPACE, None, metadata["name"], metadata["uid"], status)

    # sweeping

    async def _sweep(self) -> float:
        await self._store.sweep()
        if self._collect is not None:
            await self._collect()
        return _SWEEP_SECONDS

    # writing

    async def _delete(self, kind: kinds.Kind, obj: Object) -> Object | None:
        """The object as it waits now; None when it was gone already."""
        metadata = obj["metadata"]
        try:
            return await self._store.delete(
                kind, metadata.get("namespace"), metadata["name"], uid=metadata["uid"]
            )
        except (errors.NotFound, errors.Conflict):
            return None

    @staticmethod
    def _failed(key: Key, error: Exception, failures: int) -> None:
        _log.error("collecting garbage at %s failed (%d in a row)", key, failures, exc_info=error)


def _kind_of(ref: Object) -> kinds.Kind | None:
    try:
        return kinds.find(str(ref.get("apiVersion")), str(ref.get("kind")))
    except errors.AgentkError:
        return None


def _waits_for_us(metadata: Object) -> bool:
    finalizers = metadata.get("finalizers") or ()
    return bool(metadata.get("deletionTimestamp")) and (FOREGROUND in finalizers or ORPHAN in finalizers)


def _without_owners(obj: Object, uids: list[str]) -> Object:
    left = [ref for ref in obj["metadata"].get("ownerReferences") or [] if ref.get("uid") not in uids]
    metadata = {key: value for key, value in obj["metadata"].items() if key != "ownerReferences"}
    if left:
        metadata["ownerReferences"] = left
    return {**obj, "metadata": metadata}


def _emptied(obj: Object) -> Object:
    """Without Kubernetes' two places for the finalizer of a namespace."""
    made = objects.without_finalizer(obj, NAMESPACE)
    spec = made.get("spec") or {}
    if NAMESPACE in (spec.get("finalizers") or ()):
        made = {**made, "spec": {**spec, "finalizers": [f for f in spec["finalizers"] if f != NAMESPACE]}}
    return made
