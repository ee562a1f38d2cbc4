"""DELETE of one object and of a collection."""

import asyncio
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from agentk.api import errors, kinds, objects
from agentk.control import garbage
from agentk.daemon import answers, bodies, calls, watching, writing

_POLICIES = ("Orphan", "Background", "Foreground")
# Background needs none: what belonged to the object is found when it is gone.
_FINALIZERS = {"Orphan": garbage.ORPHAN, "Foreground": garbage.FOREGROUND}
_AT_ONCE = 200  # deletions queued together share commits

Object = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """DeleteOptions, from the body or the query."""

    dry_run: bool
    policy: str
    grace_seconds: int | None  # None: the object's own
    uid: str | None
    resource_version: str | None


async def delete(call: calls.Call) -> Response:
    """A `Status` when it is gone; the object when it waits for finalizers."""
    options = await _options(call)
    deleted = await _delete(call, call.target.namespace, call.target.name, options)
    if objects.is_deleting(deleted) and objects.has_finalizers(deleted):
        return answers.one(call, deleted)
    return answers.success(call.target.kind, deleted)


async def collection(call: calls.Call) -> Response:
    """Every object that the selectors choose; answers with what they were."""
    options = await _options(call)
    if options.uid or options.resource_version:
        raise errors.BadRequest("preconditions are of one object, not of a collection")
    page = await call.store.list(
        call.target.kind,
        call.target.namespace or None,
        labels=call.query.get("labelSelector", ""),
        fields=watching.fields(call),
        heads=True,
    )
    deleted: list[Object] = []
    for at in range(0, len(page.items), _AT_ONCE):
        batch = page.items[at : at + _AT_ONCE]
        deleted += [obj for obj in await asyncio.gather(*(_gone(call, obj, options) for obj in batch)) if obj]
    return answers.many(call, deleted, {"resourceVersion": page.resource_version})


async def _gone(call: calls.Call, obj: Object, options: Options) -> Object | None:
    """None when somebody else deleted it first, or another one took its name."""
    metadata = obj["metadata"]
    chosen = Options(options.dry_run, options.policy, options.grace_seconds, metadata["uid"], None)
    try:
        return await _delete(call, metadata.get("namespace", ""), metadata["name"], chosen)
    except (errors.NotFound, errors.Conflict):
        return None


async def _delete(call: calls.Call, namespace: str, name: str, options: Options) -> Object:
    kind = call.target.kind
    if kind is kinds.NAMESPACE and name == "default":
        raise errors.Forbidden(
            'the namespace "default" cannot be deleted',
            hint="delete what is in it: agentk delete agents --all",
            kind=kind.plural,
            name=name,
        )
    waits = _FINALIZERS.get(options.policy)
    if waits is None:
        return await call.store.delete(
            kind,
            namespace or None,
            name,
            uid=options.uid,
            resource_version=options.resource_version,
            grace_seconds=options.grace_seconds,
            dry_run=options.dry_run,
        )
    return await call.store.modify(
        kind,
        namespace or None,
        name,
        lambda obj: _marked(call, obj, options, waits),
        dry_run=options.dry_run,
    )


def _marked(call: calls.Call, obj: Object | None, options: Options, finalizer: str) -> Object:
    """The object as it waits for what is done with its dependents. Runs in the writer's thread."""
    found = writing.existing(call, obj)
    metadata = found["metadata"]
    if options.uid not in (None, metadata["uid"]) or options.resource_version not in (
        None,
        metadata["resourceVersion"],
    ):
        raise errors.Conflict(
            f'{call.target.kind.plural} "{metadata["name"]}" is not what the preconditions say',
            hint="get it again and repeat the deletion",
            kind=call.target.kind.plural,
            name=metadata["name"],
        )
    if objects.is_deleting(found):
        return found
    return objects.mark_deleted(objects.with_finalizer(found, finalizer), calls.now(), options.grace_seconds)


async def _options(call: calls.Call) -> Options:
    body = await bodies.optional(call.request)
    if body.get("kind") not in (None, "DeleteOptions"):
        raise errors.BadRequest(
            f'a body of kind "{str(body["kind"])[:100]}"', hint="send DeleteOptions, or nothing"
        )
    policy = body.get("propagationPolicy") or call.query.get("propagationPolicy") or "Background"
    if body.get("orphanDependents") is True:
        policy = "Orphan"
    if policy not in _POLICIES:
        raise errors.BadRequest(
            f'propagationPolicy: "{str(policy)[:50]}" is not supported', hint=f"use {', '.join(_POLICIES)}"
        )
    grace = body.get("gracePeriodSeconds")
    if grace is None:
        grace = calls.whole(call, "gracePeriodSeconds", 2**31)
    if grace is not None and (
        isinstance(grace, bool) or not isinstance(grace, int) or not 0 <= grace <= 2**31
    ):
        raise errors.BadRequest("gracePeriodSeconds must be a whole number of seconds from 0 on")
    named = body.get("dryRun")
    if named not in (None, [], ["All"]):
        raise errors.BadRequest("dryRun: only All is supported", field="dryRun")
    wanted = body.get("preconditions") or {}
    if not isinstance(wanted, dict):
        raise errors.BadRequest("preconditions must be an object", field="preconditions")
    return Options(
        dry_run=bool(named) or calls.dry_run(call),
        policy=policy,
        grace_seconds=grace,
        uid=_text(wanted, "uid"),
        resource_version=_text(wanted, "resourceVersion"),
    )


def _text(wanted: Object, key: str) -> str | None:
    value = wanted.get(key)
    if value is not None and not isinstance(value, str):
        raise errors.BadRequest(f"preconditions.{key} must be text")
    return value or None
