"""agent.pause and agent.resume: an agent stands still where it is, and goes on.

Done by writing spec.suspend of a descendant, which the steward notices. Only what an agent paused is an agent's to
resume: one that a person suspended stays so.
"""

import json
from collections.abc import Mapping
from typing import Any

from agentk.api import errors, kinds, objects, ownership
from agentk.broker import policy
from agentk.broker.calling import relatives
from agentk.broker.guests import Guests
from agentk.broker.methods import Context, Done, Method, Params, parser, recording
from agentk.broker.words import Guest
from agentk.store import store as stores

PAUSED_BY = "agentk.dev/pausedBy"  # the uid of the agent that did

Object = dict[str, Any]


def methods(*, store: stores.Store, guests: Guests) -> dict[str, Method]:
    calls = _Calls(store, guests)
    handlers = {"agent.pause": calls.pause, "agent.resume": calls.resume}
    return {
        name: Method(name, recording(name), parser(name), handle, calls.about)
        for name, handle in handlers.items()
    }


class _Calls:
    def __init__(self, store: stores.Store, guests: Guests) -> None:
        self._store, self._guests = store, guests

    def about(self, guest: Guest, params: Params) -> policy.Facts:
        return relatives.facts(self._guests, guest, params["name"])

    async def pause(self, context: Context, params: Params) -> Done:
        """False: it is paused already, or has ended."""
        guest, found = context.call.guest, self._found(context, params)

        def change(live: Object) -> Object:
            if live["spec"].get("suspend") or (live.get("status") or {}).get("phase") in kinds.FINAL_PHASES:
                return live
            return _changed(live, True, guest.uid)

        return Done({"paused": await self._change(found, change)})

    async def resume(self, context: Context, params: Params) -> Done:
        """False: it was not paused."""
        found = self._found(context, params)

        def change(live: Object) -> Object:
            if not live["spec"].get("suspend"):
                return live
            if PAUSED_BY not in (live["metadata"].get("annotations") or {}):
                raise errors.Forbidden("a person suspended it", hint="agentk resume is for them")
            return _changed(live, False, "")

        return Done({"resumed": await self._change(found, change)})

    async def _change(self, found: Mapping[str, Any], change: Any) -> bool:
        metadata = found["metadata"]
        changed = False

        def whole(live: Object | None) -> Object:
            nonlocal changed
            if live is None or live["metadata"]["uid"] != metadata["uid"] or objects.is_deleting(live):
                raise errors.NotFound("the agent is gone")
            made: Object = change(live)
            changed = made is not live
            return ownership.own_update(live, made, relatives.MANAGER, stores.now_text()) if changed else live

        await self._store.modify(kinds.AGENT, metadata["namespace"], metadata["name"], whole)
        return changed

    def _found(self, context: Context, params: Params) -> Mapping[str, Any]:
        guest, name = context.call.guest, params["name"]
        if name == guest.name:
            raise errors.BadRequest("an agent does not pause or resume itself", field="params.name")
        found = relatives.named(self._guests, guest, name)
        if found is None:
            raise errors.NotFound(f"no agent {json.dumps(name)} among those that this one spawned")
        return found


def _changed(live: Object, suspend: bool, by: str) -> Object:
    annotations = dict(live["metadata"].get("annotations") or {})
    annotations.pop(PAUSED_BY, None)
    if by:
        annotations[PAUSED_BY] = by
    metadata = live["metadata"] | {"annotations": annotations}
    return live | {"metadata": metadata, "spec": live["spec"] | {"suspend": suspend}}
