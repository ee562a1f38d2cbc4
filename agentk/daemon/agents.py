"""The parts of an Agent beyond Kubernetes' own: signals, restarts and counters. Its log is in `following`.

Nothing here acts on a box. What a person asks for is written on the object, and control notices.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from agentk.api import errors, kinds, objects
from agentk.control import acting, digests, exits, policies
from agentk.daemon import answers, audits, bodies, calls, desk, sockets
from agentk.store import journal_words as entries
from agentk.store.journal_reading import AMOUNTS

_GRACE_MAX = 86400

Object = dict[str, Any]


async def signal(call: calls.Call) -> Response:
    """Ask for a signal, and after the grace for SIGKILL to the whole tree. Answers with the object."""
    body = await bodies.optional(call.request)
    bodies.only(body, ("signal", "gracePeriodSeconds"))
    number = _signal_number(body.get("signal", "SIGTERM"))
    grace = body.get("gracePeriodSeconds")
    if grace is not None and (
        isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace <= _GRACE_MAX
    ):
        raise errors.BadRequest(f"gracePeriodSeconds must be a number from 0 to {_GRACE_MAX}")

    def change(obj: Object | None) -> Object:
        found = _there(call, obj)
        status = found.get("status") or {}
        if status.get("phase") in kinds.FINAL_PHASES:
            raise errors.Conflict(
                f'agent "{call.target.name}" has already ended: {status["phase"]}',
                hint=f"start it again with: agentk restart agent {call.target.name}",
                kind="agents",
                name=call.target.name,
            )
        asked = {"attempt": status.get("attempt"), "signal": number, "grace": grace, "at": calls.now_exact()}
        return _annotated(found, policies.KILL, json.dumps(asked))

    return await _changed(call, change)


async def restart(call: calls.Call) -> Response:
    """Ask for a new box, also of an agent that has ended. Answers with the object."""
    await bodies.optional(call.request)
    return await _changed(
        call, lambda obj: _annotated(_there(call, obj), digests.RESTARTED_AT, calls.now_exact())
    )


async def restore(call: calls.Call) -> Response:
    """{checkpoint: NAME} of the same namespace: ask for a new box that begins with it. Answers with the object."""
    body = await bodies.optional(call.request)
    bodies.only(body, ("checkpoint",))
    name = str(body.get("checkpoint") or "")
    checkpoint = await call.store.get(kinds.CHECKPOINT, call.target.namespace, name)
    if (checkpoint.get("status") or {}).get("phase") != "Ready":
        raise errors.Conflict(
            f'checkpoint "{name}" is not Ready', hint=f"agentk describe checkpoint {name}", name=name
        )
    at = calls.now_exact()

    def change(obj: Object | None) -> Object:
        asked = _annotated(_there(call, obj), acting.RESTORED_FROM, f"{name}@{at}")
        return _annotated(asked, digests.RESTARTED_AT, at)

    answer = await _changed(call, change)
    if call.services.desk is not None and not calls.dry_run(call):
        await _note_restore(call, call.services.desk, name)
    return answer


async def _note_restore(call: calls.Call, room: desk.Desk, name: str) -> None:
    """On record who asked; when it is done is on record too."""
    target = call.target
    uid = str((await call.store.get(target.kind, target.namespace, target.name))["metadata"]["uid"])
    peer = call.request.scope.get("state", {}).get("peer")
    by = f"uid {peer.uid}" if isinstance(peer, sockets.Peer) else "somebody"
    asked = json.dumps({"name": name, "by": by}).encode()
    place = target.namespace, target.name, uid, 1, f"{uid}-people"
    intent = entries.Intent(*place, "checkpoint.ask", asked, meta={"dialect": "control"})
    await room.journal.record(intent, entries.Outcome("ok", b"{}"))


async def kept(call: calls.Call) -> Response:
    """The Agent of a Checkpoint, as it was and as a person would apply it."""
    if call.services.kept is None:
        raise errors.Unavailable("this daemon keeps no checkpoints")
    obj = await call.store.get(kinds.CHECKPOINT, call.target.namespace, call.target.name)
    return answers.plain(await asyncio.to_thread(call.services.kept, str(obj["metadata"]["uid"])))


async def counters(call: calls.Call) -> Response:
    """What the kernel counted, read now, and what the gate did: tokens, calls and cost, ever."""
    obj = await call.store.get(kinds.AGENT, call.target.namespace, call.target.name)
    box_id = (obj.get("status") or {}).get("boxID")
    if not box_id:
        raise errors.NotFound(
            f'agent "{call.target.name}" has no box yet', kind="agents", name=call.target.name
        )
    counted = exits.counters(await call.services.counters(box_id))
    told: Object = {"boxID": box_id, "counters": counted}
    if call.services.desk is not None:
        spent = await desk.spent(call.services.desk, str(obj["metadata"]["uid"]))
        told["spent"] = audits.amounts(dict(zip(AMOUNTS, spent.amounts, strict=True)))
    return answers.plain(told)


async def _changed(call: calls.Call, change: Callable[[Object | None], Object]) -> Response:
    target = call.target
    dry_run = calls.dry_run(call)
    made = await call.store.modify(target.kind, target.namespace, target.name, change, dry_run=dry_run)
    return answers.one(call, made)


def _there(call: calls.Call, obj: Object | None) -> Object:
    """The agent, which must exist and not be on its way out."""
    name = call.target.name
    if obj is None:
        raise errors.NotFound(f'agents.agentk.dev "{name}" not found', kind="agents", name=name)
    if objects.is_deleting(obj):
        raise errors.Conflict(f'agent "{name}" is being deleted', kind="agents", name=name)
    return obj


def _annotated(obj: Object, key: str, value: str) -> Object:
    metadata = obj["metadata"]
    annotations = {**(metadata.get("annotations") or {}), key: value}
    return {**obj, "metadata": {**metadata, "annotations": annotations}}


def _signal_number(given: Any) -> int:
    """Raises BadRequest with the usual names."""
    try:
        if isinstance(given, bool) or not isinstance(given, str | int):
            raise ValueError
        return policies.signal_number(given)
    except ValueError:
        raise errors.BadRequest(
            f'signal: "{str(given)[:50]}" is no signal',
            hint="use a name such as TERM, INT or KILL, or a number",
        ) from None
