"""POST, PUT and PATCH. An object is read, changed and checked outside the writer's thread, then written if nobody
wrote meanwhile; a change that does not name a version is done again on what the other one left."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from agentk.api import admit, errors, objects, ownership, patches
from agentk.daemon import admission, answers, approvals, bodies, calls

# Others may write in between; each try takes a millisecond or two.
_TRIES = 8
_NAME_TRIES = 3  # of 14 million generated names, one may be taken

_APPLIED = "Agentk-Applied"  # the header that says what an apply did: created, configured or unchanged
_MERGE = "application/merge-patch+json"
_JSON = "application/json-patch+json"
_APPLY = ("application/apply-patch+yaml", "application/apply-patch+json")
_STRATEGIC = "application/strategic-merge-patch+json"

Object = dict[str, Any]
Change = Callable[[Object | None], Awaitable[Object]]


async def create(call: calls.Call) -> Response:
    """POST to a collection."""
    approvals.writable(call)
    how = calls.write(call)
    if call.target.kind.namespaced and not call.target.namespace:
        raise errors.MethodNotAllowed(
            f"{call.target.kind.plural} are made in a namespace",
            hint=f"POST to {call.target.kind.path('NAMESPACE')}",
        )
    sent = admission.placed(call.target, await bodies.one(call.request))
    warnings = admission.warnings(sent, how)
    new = await admission.admitted(call, sent, how, admission.size(sent))
    new = ownership.own_update(None, new, how.manager, calls.now())
    for left in reversed(range(_NAME_TRIES)):
        try:
            made = await call.store.create(new, dry_run=how.dry_run, in_live_namespace=True)
            return answers.one(call, made, 201, warnings)
        except errors.AlreadyExists:
            if new["metadata"].get("name") or not left:
                raise
    raise AssertionError("unreachable")


async def replace(call: calls.Call) -> Response:
    """PUT of an object or of its status. With a resourceVersion, only if it is still that one."""
    approvals.writable(call)
    how = calls.write(call)
    sent = admission.placed(call.target, await bodies.one(call.request))
    warnings = admission.warnings(sent, how)
    size = admission.size(sent)
    status = call.target.part == "status"

    async def change(live: Object | None) -> Object:
        old = existing(call, live)
        wanted = objects.replace(call.target.kind, old, sent, "status") if status else sent
        return await admission.admitted(call, wanted, how, size)

    version = sent["metadata"].get("resourceVersion") or None
    made, _ = await _change_in_turn(call, how, change, version)
    return answers.one(call, made, 200, warnings)


async def patch(call: calls.Call) -> Response:
    """PATCH: merge, JSON, or server-side apply (which makes what does not exist)."""
    approvals.writable(call)
    media = bodies.media_type(call.request)
    how = calls.write(call)
    if media in _APPLY:
        return await _apply(call, how)
    if how.force:
        raise errors.Invalid("force may only be given for apply patches", field="force")
    known = [_MERGE, _JSON, _APPLY[0]]
    strategic = media == _STRATEGIC and not call.target.kind.group
    if media not in known and not strategic:
        raise bodies.unsupported(media, known)
    body = await bodies.read(call.request)
    wanted = await bodies.decode(body)
    if strategic:
        wanted = _without_directives(wanted)
    warned: list[str] = []

    async def change(live: Object | None) -> Object:
        old = existing(call, live)
        patched = patches.json_patch(old, wanted) if media == _JSON else patches.merge_patch(old, wanted)
        patched = admission.placed(call.target, patched)
        version = patched["metadata"].get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            raise _Stale(call)
        if call.target.part == "status":
            patched = objects.replace(call.target.kind, old, patched, "status")
        warned[:] = admission.warnings(patched, how)
        return await admission.admitted(call, patched, how, len(body) + admission.size(old))

    made, _ = await _change_in_turn(call, how, change, None)
    return answers.one(call, made, 200, warned)


async def _apply(call: calls.Call, how: calls.Write) -> Response:
    if not call.query.get("fieldManager"):
        raise errors.BadRequest("server-side apply needs a fieldManager", field="fieldManager")
    if call.target.part:
        raise bodies.unsupported(bodies.media_type(call.request), [_MERGE, _JSON])
    body = await bodies.read(call.request)
    sent = admission.placed(call.target, await bodies.decode_json_or_yaml(body))
    warnings = admission.warnings(sent, how)
    strict = how.validation == "Strict"

    async def change(live: Object | None) -> Object:
        if live is None:
            full = await admission.admitted(call, sent, how, len(body))
            mine = ownership.apply(None, admission.shaped(sent), how.manager, how.force, calls.now())
            owners = mine["metadata"].get("managedFields", [])
            return full | {"metadata": full["metadata"] | {"managedFields": owners}}
        applied = admit.admit(sent, strict=strict, partial=True)
        merged = ownership.apply(live, applied, how.manager, how.force, calls.now())
        # Checking takes most of the time, and what is stored was checked: most applies change nothing.
        return live if merged == live else await admission.admitted(call, merged, how, len(body))

    made, over = await _change_in_turn(call, how, change, None, applied=sent)
    response = answers.one(call, made, 201 if over is None else 200, warnings)
    # Told here: to who compares versions before and after, a status written in between is a change of theirs.
    # (A dry run that would write something answers without a version.)
    same = over is not None and over["metadata"]["resourceVersion"] == made["metadata"].get("resourceVersion")
    response.headers[_APPLIED] = "created" if over is None else "unchanged" if same else "configured"
    return response


class _Stale(errors.Conflict):
    """The caller named a version that is no longer the newest: nothing to try again."""

    def __init__(self, call: calls.Call) -> None:
        target = call.target
        super().__init__(
            f'operation cannot be fulfilled on {target.kind.plural} "{target.name}": the object has been modified',
            hint="get it again and repeat the change",
            kind=target.kind.plural,
            name=target.name,
        )


@dataclass
class _Prepared:
    """What to write over the version it was made from (None: where there was nothing)."""

    live: Object | None
    new: Object
    any_status: bool  # that version, whatever its status is by now
    over: Object | None = None  # what was there when it was written


async def _change_in_turn(
    call: calls.Call, how: calls.Write, change: Change, version: str | None, *, applied: Object | None = None
) -> tuple[Object, Object | None]:
    """Write `change` of what is there; also what was there just before. `applied`: what an apply sent, which names
    its owners itself."""
    async with call.turns.of((call.target.kind.plural, call.target.namespace, call.target.name)):
        return await _change(call, how, change, version, applied)


async def _change(
    call: calls.Call, how: calls.Write, change: Change, version: str | None, applied: Object | None
) -> tuple[Object, Object | None]:
    target = call.target
    namespace = target.namespace or None
    any_status = applied is not None and not applied["metadata"].get("resourceVersion")
    for left in reversed(range(_TRIES)):
        live = await call.store.find(target.kind, namespace, target.name)
        if version and live is not None and live["metadata"]["resourceVersion"] != version:
            raise _Stale(call)
        new = _next(call, how, live, await change(live), owned=applied is not None)
        prepared = _Prepared(live, new, any_status)
        try:
            made = await call.store.modify(
                target.kind,
                namespace,
                target.name,
                lambda now, prepared=prepared: _still(call, prepared, now),  # type: ignore[misc]
                dry_run=how.dry_run,
                in_live_namespace=True,
            )
            return made, prepared.over
        except _Moved as moved:
            if not left:
                raise errors.Conflict(moved.message, hint="try again", retry_after_seconds=1) from None
    raise AssertionError("unreachable")


def _next(call: calls.Call, how: calls.Write, live: Object | None, new: Object, owned: bool) -> Object:
    """The admitted object as the version after `live`."""
    if live is None:
        return new
    part = "status" if call.target.part == "status" else ""
    if not part:
        admit.admit_update(live, new)
    made = objects.replace(call.target.kind, live, new, part)
    return made if owned else ownership.own_update(live, made, how.manager, calls.now(), part)


class _Moved(errors.Conflict):
    """Somebody wrote between our read and our write."""


def _still(call: calls.Call, prepared: _Prepared, now: Object | None) -> Object:
    """Runs in the writer's thread: what was prepared, if it was made from what is there."""
    live, new, prepared.over = prepared.live, prepared.new, now
    if (now and now["metadata"]["resourceVersion"]) == (live and live["metadata"]["resourceVersion"]):
        return new
    if now and live and prepared.any_status and _without_status(now) == _without_status(live):
        mine = {key: value for key, value in new.items() if key != "status"}
        return mine | ({"status": now["status"]} if "status" in now else {})
    raise _Moved(f'{call.target.kind.plural} "{call.target.name}" is being written by others')


def _without_status(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    return {key: value for key, value in obj.items() if key != "status"} | {"metadata": metadata}


def existing(call: calls.Call, live: Object | None) -> Object:
    """The object of the path. Raises NotFound."""
    if live is None:
        kind, name = call.target.kind, call.target.name
        group = f".{kind.group}" if kind.group else ""
        raise errors.NotFound(f'{kind.plural}{group} "{name}" not found', kind=kind.plural, name=name)
    return live


def _without_directives(patch: Any) -> Any:
    """A strategic merge patch of a core kind, whose fields are all maps, is a merge patch with orders of lists."""
    if not isinstance(patch, dict):
        return patch
    for key in patch:
        if key.startswith("$") and not key.startswith("$setElementOrder/"):
            raise errors.BadRequest(
                f'"{key[:50]}" is not supported in a strategic merge patch', hint=f"use {_MERGE}"
            )
    return {key: _without_directives(value) for key, value in patch.items() if not key.startswith("$")}
