"""GET of one object and of a collection."""

from starlette.responses import Response

from agentk.api import errors
from agentk.daemon import answers, calls, watching

_MATCHES = ("", "Exact", "NotOlderThan")


async def get(call: calls.Call) -> Response:
    """One object; `status` reads the same, as in Kubernetes."""
    if calls.flag(call, "watch"):
        return await watching.watch(call)
    target = call.target
    return answers.one(call, await call.store.get(target.kind, target.namespace or None, target.name))


async def listing(call: calls.Call) -> Response:
    """A page of a collection, or with `watch=true` its events."""
    if calls.flag(call, "watch"):
        return await watching.watch(call)
    _check_version(call)
    want = answers.wanted(call.request)
    page = await call.store.list(
        call.target.kind,
        call.target.namespace or None,
        labels=call.query.get("labelSelector", ""),
        fields=watching.fields(call),
        limit=calls.whole(call, "limit") or 0,
        cont=call.query.get("continue", ""),
        heads=want.shape != "object" and want.include != "Object",
    )
    metadata: dict[str, object] = {"resourceVersion": page.resource_version}
    if page.cont:
        metadata["continue"] = page.cont
        if page.remaining is not None:
            metadata["remainingItemCount"] = page.remaining
    return answers.many(call, page.items, metadata)


def _check_version(call: calls.Call) -> None:
    """A list is always of now: refuse what asks for another time."""
    match = call.query.get("resourceVersionMatch", "")
    asked = call.query.get("resourceVersion", "")
    if match not in _MATCHES:
        raise errors.BadRequest(
            f'resourceVersionMatch: "{match[:50]}" is not supported', hint="use Exact or NotOlderThan"
        )
    if match and (not asked or call.query.get("continue")):
        raise errors.BadRequest("resourceVersionMatch needs resourceVersion, and no continue")
    if not asked or asked == "0":
        return
    if not (asked.isascii() and asked.isdigit() and len(asked) < 19):
        raise errors.BadRequest(f'"{asked[:40]}" is no resourceVersion')
    newest = call.store.resource_version()
    if match == "Exact" and int(asked) != int(newest):
        raise errors.Expired(f"resourceVersion {asked} is no longer kept", hint="list without it")
    if int(asked) > int(newest):
        raise errors.Timeout(f"too large resource version: {asked}, current: {newest}", retry_after_seconds=1)
