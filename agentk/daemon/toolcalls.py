"""Tools for people: what one offers now, and a call of it, as an agent or as themselves.

As an agent the call passes the gate as that agent's own would. As themselves they have no jail, so the tool runs in a
box of its own; who called what is in the journal either way.
"""

import asyncio
import json
import secrets
from typing import Any

from starlette.responses import Response

from agentk.api import errors, inputs, kinds, quantities
from agentk.broker.calling import tooling
from agentk.broker.tooling import kinds as words
from agentk.broker.tooling import shelf
from agentk.broker.words import Call
from agentk.daemon import answers, bodies, calls, desk, sockets
from agentk.daemon.toolhouse import Toolhouse
from agentk.store import journal_words as entries
from agentk.tools import results
from agentk.tools.offers import Offered, Outcome

_FIELDS = ("tool", "arguments", "as", "timeoutSeconds")
_METHOD = "people.tool.call"
_RUNNING = "Running"


async def offers(call: calls.Call) -> Response:
    """What it offers, with schemas; what keeps a schema from being used beside it. `refresh` asks the tool itself."""
    house = _house(call)
    tool = await _tool(call)
    told = await house.offers_now(tool, anew=calls.flag(call, "refresh"))
    items = await asyncio.to_thread(lambda: [_shown(tool, one, told) for one in told])
    return answers.plain({"kind": "ToolOffers", "items": items})


async def invoke(call: calls.Call) -> Response:
    """{tool, arguments, as, timeoutSeconds} → what the tool answers."""
    body = await bodies.optional(call.request)
    bodies.only(body, _FIELDS)
    given, inner = body.get("arguments") or {}, body.get("tool") or ""
    if not isinstance(given, dict) or not isinstance(inner, str):
        raise errors.BadRequest("arguments are an object, tool is a name", field="arguments")
    seconds = body.get("timeoutSeconds")
    if seconds is not None and not (isinstance(seconds, int | float) and 0 < seconds <= 86400):
        raise errors.BadRequest("expected seconds, up to a day", field="timeoutSeconds")
    tool = await _tool(call)
    if who := body.get("as"):
        return answers.plain(await _as_agent(call, str(who), tool, inner, given, seconds))
    return answers.plain(await _as_person(call, tool, inner, given, seconds))


async def _as_agent(
    call: calls.Call, who: str, tool: words.Object, inner: str, given: dict[str, Any], seconds: Any
) -> Any:
    room = desk.of(call)
    agent = await call.store.get(kinds.AGENT, call.target.namespace, who)
    status = agent.get("status") or {}
    if status.get("phase") != _RUNNING or not status.get("boxID"):
        raise errors.Conflict(
            f'agent "{who}" is not running: {status.get("phase", "Pending")}',
            hint=f"agentk describe agent {who}  # says why",
        )
    name = f"{words.name(tool)}{shelf.BETWEEN}{inner}" if inner else words.name(tool)
    params = {"name": name, "arguments": given, **({"timeoutSeconds": seconds} if seconds else {})}
    asked = Call(room.guests.find(str(status["boxID"])), "tool.call", params, dialect="control")
    return await room.call(asked, _nobody)


async def _as_person(
    call: calls.Call, tool: words.Object, inner: str, given: dict[str, Any], seconds: Any
) -> dict[str, Any]:
    house, journal = _house(call), desk.of(call).journal
    told = await house.offers_now(tool)
    offered = _one(tool, told, inner)
    await asyncio.to_thread(inputs.check, offered.input_schema, given, "arguments")
    uid, effect = words.uid(tool), f"person-{secrets.token_hex(16)}"
    asked = {"by": _who(call), "tool": offered.name, "arguments": given}
    intent = entries.Intent(
        namespace=words.namespace(tool),
        agent=words.name(tool),
        uid=uid,
        attempt=1,
        run=f"{uid}-1",
        method=_METHOD,
        body=json.dumps(asked).encode("utf-8", "backslashreplace"),
        meta={"dialect": "control"},
    )
    record = await journal.intend(intent)
    status: entries.Status = "cancelled"
    answer: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    try:
        own = quantities.parse_duration(str(tool["spec"].get("timeout", "60s")))
        calling = words.Calling(offered, given, None, effect, effect, min(own, seconds) if seconds else own)
        outcome: Outcome = await tooling.called(house.shelf.kind(tool), tool, calling)
        answer, status = results.answer(outcome), "ok"
        meta = {"failed": 1} if outcome.is_error else {}
        return answer
    except errors.AgentkError as error:
        status = "unknown" if isinstance(error, errors.OutcomeUnknown) else "error"
        answer = error.to_status()
        raise
    finally:
        body = json.dumps(answer, ensure_ascii=False).encode("utf-8", "backslashreplace")
        await journal.settle(record, entries.Outcome(status, body, meta=meta))


def _one(tool: words.Object, told: tuple[Offered, ...], inner: str) -> Offered:
    for one in told:
        if one.name == inner or (not inner and len(told) == 1):
            return one
    known = ", ".join(f"{words.name(tool)}/{one.name}" for one in told)
    raise errors.NotFound(
        f'Tool "{words.name(tool)}" offers {"several" if not inner else "nothing of that name"}',
        hint=f"there are {known[:1000]}" if known else "it offers nothing",
        field="tool",
    )


def _shown(tool: words.Object, one: Offered, told: tuple[Offered, ...]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": one.name,
        "calledAs": shelf.called_as(tool, one, told),
        "description": one.description,
        "inputSchema": dict(one.input_schema),
        "digest": one.digest,
        "problem": inputs.problem(one.input_schema),
    }
    if one.output_schema is not None:
        shown["outputSchema"] = dict(one.output_schema)
    return shown


def _house(call: calls.Call) -> Toolhouse:
    if call.services.tools is None:
        raise errors.Unavailable("this daemon has no tools")
    return call.services.tools


async def _tool(call: calls.Call) -> words.Object:
    """As it was last heard of, once that is what is stored. One for everybody is found from every namespace."""
    heard = _house(call).shelf.find(call.target.namespace, call.target.name)
    namespace = words.namespace(heard) if heard else call.target.namespace
    stored = await call.store.get(kinds.TOOL, namespace, call.target.name)
    if heard is None or heard["metadata"].get("generation") != stored["metadata"].get("generation"):
        return stored
    return heard


def _who(call: calls.Call) -> str:
    peer = call.request.scope.get("state", {}).get("peer")
    return f"uid {peer.uid}" if isinstance(peer, sockets.Peer) else "somebody"


async def _nobody(data: Any) -> None:
    """No stream."""
