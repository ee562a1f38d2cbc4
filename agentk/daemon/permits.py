"""`auth can-i`: what the gate would say to an agent's call, and every rule's reason. Nothing is called."""

from dataclasses import asdict
from typing import Any

from starlette.responses import Response

from agentk.api import errors, kinds
from agentk.broker import permitting
from agentk.daemon import answers, bodies, calls, desk

_FIELDS = ("method", "params")


async def can_i(call: calls.Call) -> Response:
    """{method, params: {key: text or JSON}} → the decision. The agent need not run."""
    room, body = desk.of(call), await bodies.optional(call.request)
    obj = await desk.agent(call)
    bodies.only(body, _FIELDS)
    name, params = body.get("method"), body.get("params") or {}
    if not isinstance(name, str) or not isinstance(params, dict):
        raise errors.BadRequest("say which method, and its params as an object", field="method")
    method = room.methods.get(name)
    if method is None:
        hint = kinds.did_you_mean(name, sorted(room.methods), "methods")
        raise errors.NotFound(f'no method "{name[:100]}"', hint=hint)
    guest = desk.guest(room, obj)
    answer = permitting.ask(method, room.rules(guest), guest, params)
    return answers.plain(
        {
            "kind": "Permission",
            "agent": f"{guest.namespace}/{guest.name}",
            "method": name,
            "allowed": answer.verdict.effect == "Allow",
            "effect": answer.verdict.effect,
            "rule": answer.verdict.rule,
            "reason": answer.verdict.reason,
            "policy": guest.policy_name,
            "facts": _facts(answer.facts),
            "rules": [asdict(one) for one in answer.told],
        }
    )


def _facts(facts: Any) -> dict[str, Any]:
    """What rules were asked about; what the call does not have is left out."""
    told = {
        key: sorted(value) if isinstance(value, frozenset) else value
        for key, value in vars(facts).items()
        if key != "granted"  # no fact of the call: it is in the reason
    }
    return {key: list(value) if isinstance(value, tuple) else value for key, value in told.items() if value}
