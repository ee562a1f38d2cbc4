"""From what a caller sent to what may be stored: right kind and place, every field checked, defaults put in."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from agentk.api import admit, crosschecks, errors, kinds, pools, problems, schemas, shaping
from agentk.broker import admitting
from agentk.daemon.calls import Call, Write
from agentk.daemon.paths import Target

Object = dict[str, Any]

_THREAD_BYTES = 8 * 1024  # checking an object takes about a millisecond for each of these
_WARNINGS_MAX = 20


def placed(target: Target, sent: Object) -> Object:
    """The object with the apiVersion, kind, namespace and name of the path. Raises BadRequest where they differ."""
    metadata = sent.get("metadata")
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        raise errors.BadRequest("metadata must be an object", field="metadata")
    wanted = [("apiVersion", sent, target.kind.api_version), ("kind", sent, target.kind.kind)]
    if target.namespace:
        wanted.append(("namespace", metadata, target.namespace))
    if target.name:
        wanted.append(("name", metadata, target.name))
    for key, held, value in wanted:
        if held.get(key) not in (None, "", value):
            raise errors.BadRequest(
                f'the {key} of the object, "{str(held[key])[:100]}", is not that of the request, "{value}"',
                hint="send both the same",
                field=key if held is sent else f"metadata.{key}",
            )
    placed_metadata = metadata | {key: value for key, held, value in wanted if held is metadata}
    return sent | {
        "apiVersion": target.kind.api_version,
        "kind": target.kind.kind,
        "metadata": placed_metadata,
    }


async def admitted(call: Call, obj: Object, how: Write, size_bytes: int) -> Object:
    """The object with its defaults. Raises Invalid with every problem. Large ones are checked off the loop."""
    defaults = await _defaults(call, obj)
    strict = how.validation == "Strict"

    def check() -> Object:
        made = admit.admit(obj, strict=strict, defaults=defaults)
        admitting.check(call.target.kind, made)
        return made

    return await asyncio.to_thread(check) if size_bytes > _THREAD_BYTES else check()


def shaped(sent: Mapping[str, Any]) -> Object:
    """What a caller sent and nothing else: no unknown fields, no defaults. Only of what has been admitted."""
    kind = admit.kind_of(sent)
    made = shaping.shaped(sent, schemas.of(kind), [])
    return crosschecks.folded(made) if kind is kinds.SECRET else made


def warnings(sent: Mapping[str, Any], how: Write) -> list[str]:
    """What `fieldValidation=Warn` tells of unknown fields."""
    if how.validation != "Warn":
        return []
    found = admit.unknown_fields(sent)
    more = [f"{len(found) - _WARNINGS_MAX} more unknown fields"] if len(found) > _WARNINGS_MAX else []
    return found[:_WARNINGS_MAX] + more


def size(obj: Any) -> int:
    """Bytes of an object as JSON, roughly."""
    return len(json.dumps(obj))


async def _defaults(call: Call, obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the Pool and the Runtime that an Agent names put below its spec. Raises Invalid when a new agent names a
    Pool that is not there: what it takes from it, it takes now."""
    spec = obj.get("spec")
    if call.target.kind is not kinds.AGENT or not isinstance(spec, Mapping):
        return None
    below: Object = {}
    if name := pools.name(spec):
        pool = await call.store.find(kinds.POOL, call.target.namespace, name)
        if pool is not None:
            below = pools.given(spec, pool["spec"])
        elif not await _is_there(call, obj):
            told = f'there is no Pool "{name[:100]}" in namespace "{call.target.namespace}"'
            hint = "apply the Pool first: the agent takes from its template what it does not say itself"
            path = ("spec", "poolRef", "name")
            about = str((obj.get("metadata") or {}).get("name") or "")
            found = [problems.Problem(path, told, hint, reason="FieldValueNotFound")]
            problems.raise_all(found, kinds.AGENT.kind, about, None)
    ref = {**below, **spec}.get("runtimeRef")
    runtime_name = ref.get("name") if isinstance(ref, Mapping) else None
    if not isinstance(runtime_name, str) or not runtime_name:
        runtime_name = "nsjail"
    runtime = await call.store.find(kinds.RUNTIME, None, runtime_name)
    shaping.under(below, ((runtime or {}).get("spec") or {}).get("defaults") or {})
    return below


async def _is_there(call: Call, obj: Mapping[str, Any]) -> bool:
    name = call.target.name or str((obj.get("metadata") or {}).get("name") or "")
    return bool(name) and await call.store.find(call.target.kind, call.target.namespace, name) is not None
