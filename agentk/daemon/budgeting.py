"""Budgets for people: how each node of the tree stands, and more for one that has run out."""

import json
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from agentk.api import errors, kinds, quantities
from agentk.broker import budgets_limits
from agentk.broker.budgets import Standing
from agentk.broker.budgets_node import RESOURCES
from agentk.broker.words import Amount
from agentk.daemon import answers, audits, bodies, calls, desk
from agentk.store.journal import Intent, Outcome
from agentk.store.store import Store

Object = dict[str, Any]

_MOST = 2**53
_GIFTS = ("tokens", "calls", "costUsd", "wallTime")


async def show(call: calls.Call) -> Response:
    """An agent's budget below those that bound it too, and those of what it spawned below it; or a quota's own."""
    room = desk.of(call)
    obj = await call.store.get(call.target.kind, call.target.namespace, call.target.name)
    uid = str(obj["metadata"]["uid"])
    if call.target.kind is kinds.QUOTA:
        return answers.plain(_tree(room, [uid], []))
    above = room.path(desk.guest(room, obj))[:-1]
    return answers.plain(_tree(room, above, _below(room, [uid], room.guests.family(uid))))


async def add(call: calls.Call) -> Response:
    """More for an agent or a quota, durable before it counts. Answers with how it stands then."""
    room = desk.of(call)
    obj = await call.store.get(call.target.kind, call.target.namespace, call.target.name)
    uid, body = str(obj["metadata"]["uid"]), await bodies.optional(call.request)
    amount, wall_seconds = _gift(body)
    await room.add(uid, amount, wall_seconds)
    said = json.dumps(body, sort_keys=True).encode()
    if call.target.kind is kinds.AGENT:
        guest = desk.guest(room, obj)
        intent = Intent(guest.namespace, guest.name, uid, guest.attempt, guest.run_id, "budget.add", said)
    else:
        intent = Intent(call.target.namespace, "", uid, 0, uid, "budget.add", said)
    await room.journal.record(intent, Outcome("ok", b""))
    return answers.plain(_node(room, uid) or {})


async def of_namespace(room: desk.Desk, store: Store, namespace: str) -> Object:
    """The quotas of a namespace, with every agent of it below."""
    await store.get(kinds.NAMESPACE, None, namespace)
    quotas = sorted(
        (await store.list(kinds.QUOTA, namespace)).items, key=lambda obj: str(obj["metadata"]["name"])
    )
    agents = room.guests.of_namespace(namespace)
    there = {obj["metadata"]["uid"] for obj in agents}
    tops = [str(obj["metadata"]["uid"]) for obj in agents if room.guests.parent(obj) not in there]
    return _tree(room, [str(obj["metadata"]["uid"]) for obj in quotas], _below(room, tops, agents))


def _tree(room: desk.Desk, above: Sequence[str], below: list[Object]) -> Object:
    for key in reversed(above):
        if told := _node(room, key):
            below = [told | {"children": below}]
    return {"kind": "BudgetTree", "items": below}


def _below(room: desk.Desk, uids: Sequence[str], agents: Sequence[Any]) -> list[Object]:
    """The nodes of agents, each with those of what it spawned. Owners that go in a circle are seen once."""
    spawned: dict[str, list[str]] = {}
    for obj in agents:
        spawned.setdefault(room.guests.parent(obj), []).append(str(obj["metadata"]["uid"]))
    seen: set[str] = set()

    def node(uid: str) -> list[Object]:
        if uid in seen:
            return []
        seen.add(uid)
        below = [one for child in spawned.get(uid, ()) for one in node(child)]
        told = _node(room, uid)
        return [told | {"children": below}] if told else below

    return [one for uid in uids for one in node(uid)]


def _node(room: desk.Desk, key: str) -> Object | None:
    """How a node stands; None when there is none."""
    try:
        standing = room.budgets.standing(key, room.now())
    except errors.Unavailable:
        return None
    limits, owner = standing.limits, standing.owner
    return {
        "kind": owner.kind,
        "name": owner.name,
        "namespace": owner.namespace,
        "limits": _told([limits.of(name) for name in RESOURCES], limits.wall_seconds),
        "per": None if limits.per_seconds is None else quantities.format_duration(limits.per_seconds),
        "tokensPerRequest": limits.tokens_per_request,
        "largestShare": limits.largest_share_percent,
        "granted": _told(
            [number or None for number in standing.granted], standing.granted_wall_seconds or None
        ),
        "used": _told(standing.used, standing.wall_seconds or None),
        "reserved": _told(standing.held),
        "left": _left(standing),
        "windowEnds": None if standing.resets_at is None else audits.moment(standing.resets_at),
        "exceeded": standing.which if standing.exceeded else "",
        "because": standing.because,
        "children": [],
    }


def _left(standing: Standing) -> Object:
    """What one more call could use of this node alone."""
    found: list[float | None] = []
    for name in RESOURCES:
        bound = standing.limits.of(name)
        given, used, held = (getattr(one, name) for one in (standing.granted, standing.used, standing.held))
        found.append(None if bound is None else max(0, bound + given - used - held))
    wall = standing.limits.wall_seconds
    if wall is not None:
        wall = max(0.0, wall + standing.granted_wall_seconds - standing.wall_seconds)
    return _told(found, wall)


def _told(amounts: Sequence[float | None], wall: float | None = None) -> Object:
    """Tokens, calls and cost as people write them; what is None is left out."""
    tokens, called, cost = amounts
    told: Object = {"tokens": tokens, "calls": called}
    told["costUsd"] = None if cost is None else budgets_limits.format_usd(int(cost))
    told["wallTime"] = None if wall is None else quantities.format_duration(wall)
    return {key: value for key, value in told.items() if value is not None}


def _gift(body: Object) -> tuple[Amount, float]:
    """What is to be added. Raises BadRequest and Invalid."""
    bodies.only(body, _GIFTS)
    cost = budgets_limits.parse_usd(body["costUsd"]) if "costUsd" in body else 0
    wall = quantities.parse_duration(body["wallTime"]) if "wallTime" in body else 0.0
    amount = Amount(_whole(body, "tokens"), _whole(body, "calls"), cost)
    if not any(amount) and not wall:
        raise errors.BadRequest("nothing is to be added", hint=f"give one of {', '.join(_GIFTS)}")
    return amount, wall


def _whole(body: Object, key: str) -> int:
    value = body.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise errors.BadRequest(f"{key} must be a whole number from 0 on", field=key)
    return value
