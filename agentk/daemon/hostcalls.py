"""Programs of the owner on the host call the gate like guests: one guest for each namespace, called @host.

Who calls is the owner of the daemon, as the control socket knows. What it may is what the Policy it names says; its
calls count for the namespace's Quotas and are in the journal. No agent can have this name.
"""

import asyncio
from typing import Any

from starlette.requests import Request

from agentk.api import errors, kinds
from agentk.broker.budgets_limits import Limits
from agentk.broker.budgets_node import Owner
from agentk.broker.calling.routing import DEFAULT_ROUTE
from agentk.broker.guests import DEFAULT_POLICY
from agentk.broker.words import Call, Guest
from agentk.daemon import bodies, desk
from agentk.store.store import Store

NAME = "@host"

_FIELDS = ("route", "policy", "params")


async def think(room: desk.Desk, store: Store, namespace: str, body: dict[str, Any], request: Request) -> Any:
    """{route, policy, params of think} → its answer, whole. Taken back when the caller hangs up."""
    bodies.only(body, _FIELDS)
    params, route = body.get("params") or {}, body.get("route") or DEFAULT_ROUTE
    policy = body.get("policy") or DEFAULT_POLICY
    if not isinstance(params, dict) or not isinstance(route, str) or not isinstance(policy, str):
        raise errors.BadRequest("params must be an object, route and policy must be names")
    if params.get("stream"):
        raise errors.BadRequest("the answer comes whole", field="params.stream")
    await store.get(kinds.NAMESPACE, None, namespace)
    guest = await _guest(room, store, namespace, route, policy)
    calling = asyncio.ensure_future(room.call(Call(guest, "think", params), _unheard))
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({calling, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (calling, gone):
            task.cancel()
        await asyncio.wait({calling, gone})
    if calling.cancelled():
        raise errors.Cancelled("the caller hung up")
    return calling.result()


async def _guest(room: desk.Desk, store: Store, namespace: str, route: str, policy: str) -> Guest:
    """Raises NotFound when there is no such Policy."""
    spec = (await store.get(kinds.POLICY, None, policy)).get("spec") or {}
    uid = f"host/{namespace}"
    room.budgets.put(uid, Owner("agent", NAME, namespace), Limits(), room.now())
    return Guest(uid, namespace, NAME, 1, uid, "", {"modelRef": {"name": route}}, policy, spec)


async def _unheard(data: Any) -> None:
    """Nobody asked for pieces."""


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
