"""Messages, names, state and events of the AgentOS dialect, as calls of the gate.

Whoever is not of the guest's namespace does not exist here. A message is acknowledged when it is told, so one that a
program took and never read comes again to its next connection.
"""

from datetime import datetime
from typing import Any

from agentk.api import errors
from agentk.broker.dialects import frames
from agentk.broker.dialects.agentos_ids import NAME_CHARS
from agentk.broker.dialects.agentos_session import Message, Session
from agentk.broker.dialects.agentos_words import EVENTS, Asked, Json, event_name, size_bytes

_MESSAGES_MAX = 100
_INBOX_MAX = 200  # taken, and not told: of one connection
_ENVELOPE = "agentos.envelope"
_TOLD_BYTES = frames.PAYLOAD_BYTES - 64 * 1024  # of what fills one reply; one item more never does not fit
_LEASE_SECONDS = 60  # what is taken and not told comes again after so long
_SCOPES = {"session": "attempt", "agent": "agent", "global": "family"}
_KEYS_MAX = 5000
_TYPES_MAX = 50
_MARK = "agentos.subscribed"


# messages


async def send(session: Session, asked: Asked) -> Json:
    if "message" not in asked.fields:
        raise errors.BadRequest("message required")
    address = _target(session, asked)
    await _deliver(session, address, asked.get("message"))
    return {"success": True, "delivered_to": session.kernel.ids.of(address)}


def _target(session: Session, asked: Asked) -> str:
    """The address that is meant. Raises NotFound."""
    number, name = asked.get("to"), asked.get("to_name")
    if number is None and name is None:
        raise errors.BadRequest("to or to_name required")
    if isinstance(number, str) and name is None:
        number, name = None, number
    if name is not None:
        if not isinstance(name, str):
            raise errors.BadRequest("to_name must be text")
        address = session.address_of(name)
    else:
        if isinstance(number, bool) or not isinstance(number, int):
            raise errors.BadRequest("to must be an id")
        address = session.kernel.ids.uid(number)
    if (
        not address
        or session.at(address) is None
        or ("/" in address and address not in session.kernel.hosted)
    ):
        raise errors.NotFound(f"target agent not found: {str(name if name is not None else number)[:200]}")
    return address


async def _deliver(session: Session, address: str, message: Any) -> None:
    """To the mailbox of the address' agent; between programs of the host with both addresses around it."""
    agent = session.at(address)
    if agent is None:
        raise errors.NotFound("target agent not found")
    own, body = session.address, message
    if "/" in address or "/" in own:
        body = {_ENVELOPE: {"to": address, "from": own, "message": message}}
    to = f"{agent['metadata']['namespace']}/{agent['metadata']['name']}"
    await session.call("message.send", {"to": to, "body": body})


async def receive(session: Session, asked: Asked) -> Json:
    most = asked.whole("max", 10, 1, _MESSAGES_MAX)
    if len(session.inbox) < most:
        # A host program may have to take those of others to find its own.
        more = most - len(session.inbox) if session.host is None else _MESSAGES_MAX
        taken = await session.call("message.recv", {"max": more, "leaseSeconds": _LEASE_SECONDS})
        nobodys = [one["id"] for one in taken["messages"] if not _sorted(session, one)]
        if nobodys:
            await session.call("message.ack", {"ids": nobodys})
    told: list[Message] = []
    size = 0
    while session.inbox and len(told) < most:
        size += size_bytes(session.inbox[0].shown) + 64
        if told and size > _TOLD_BYTES:
            break
        told.append(session.inbox.popleft())
    if told:
        await session.call("message.ack", {"ids": [one.id for one in told]})
    now = datetime.now().timestamp()
    messages = [one.shown | {"age_ms": max(0, int((now - one.sent) * 1000))} for one in told]
    return {"success": True, "messages": messages, "count": len(messages)}


def _sorted(session: Session, told: Any) -> bool:
    """Into the inbox of whom it is for. False when that was a program of the host that is gone."""
    body, sender = told["body"], session.kernel.guests.named(*str(told["from"]).split("/", 1))
    origin = str(sender["metadata"]["uid"]) if sender is not None else ""
    whose = session
    if isinstance(body, dict) and set(body) == {_ENVELOPE} and isinstance(body[_ENVELOPE], dict):
        around = body[_ENVELOPE]
        body = around.get("message")
        # Who the agent is, the gate says; which of its own programs, the agent may.
        hosted, said, to = session.kernel.hosted, str(around.get("from", "")), str(around.get("to", ""))
        if said in hosted and said.partition("/")[0] == origin:
            origin = said
        if session.host is not None and to.startswith(f"{session.guest.uid}/"):
            if to not in hosted:
                return False
            whose = hosted[to]
    if any(one.id == told["id"] for one in whose.inbox) or len(whose.inbox) >= _INBOX_MAX:
        return True  # taken before, and not told yet; or it comes again when there is room
    number = session.kernel.ids.of(origin) if origin else 0
    name = str(told["from"]).partition("/")[2] if sender is None else session.name(sender)
    shown = {
        "from": number,
        "from_id": number,
        "from_name": session.kernel.names.of(origin) or name,
        "message": body,
    }
    whose.inbox.append(Message(told["id"], shown, _seconds(told["sentAt"])))
    return True


async def broadcast(session: Session, asked: Asked) -> Json:
    """To those that registered a name, each judged as a message of its own."""
    if "message" not in asked.fields:
        raise errors.BadRequest("message required")
    own, with_self = session.address, asked.flag("include_self")
    delivered = 0
    for address in session.kernel.names.registered(session.guest.namespace):
        if address == own and not with_self:
            continue
        try:
            await _deliver(session, address, asked.get("message"))
        except (
            errors.Denied,
            errors.ApprovalRequired,
            errors.ApprovalDenied,
            errors.NotFound,
            errors.TooManyRequests,
        ):
            continue  # not for us, gone, or full
        delivered += 1
    return {"success": True, "delivered_count": delivered}


async def register(session: Session, asked: Asked) -> Json:
    await session.permitted()
    name, guest = asked.text("name"), session.guest
    if len(name) > NAME_CHARS:
        raise errors.BadRequest(f"name must have at most {NAME_CHARS} letters")
    holder = session.kernel.guests.named(guest.namespace, name)
    taken = holder is not None and holder["metadata"]["uid"] != guest.uid
    if taken or not session.kernel.names.register(guest.namespace, name, session.address):
        raise errors.AlreadyExists("name already registered")
    return {"success": True, "agent_id": session.agent_id, "name": name}


# state


def _scope(asked: Asked) -> str:
    scope = asked.text("scope", default="")
    if scope and scope not in _SCOPES:
        raise errors.BadRequest(f"scope must be one of {', '.join(_SCOPES)}")
    return scope


async def store(session: Session, asked: Asked) -> Json:
    key = asked.text("key")
    if "value" not in asked.fields:
        raise errors.BadRequest("value required")
    params: Json = {
        "key": key,
        "value": asked.fields["value"],
        "scope": _SCOPES[_scope(asked) or "global"],
    }
    ttl = asked.number("ttl", 0, 0, 315_360_000)
    await session.call("state.put", params | ({"ttlSeconds": ttl} if ttl else {}))
    return {"success": True, "key": key}


async def fetch(session: Session, asked: Asked) -> Json:
    """The nearest one: of this process, of this agent, of its family."""
    key, scope = asked.text("key"), _scope(asked)
    for name in [scope] if scope else _SCOPES:
        told = await session.call("state.get", {"key": key, "scope": _SCOPES[name]})
        if told["exists"]:
            return {"success": True, "exists": True, "value": told.get("value"), "scope": name, "key": key}
    return {"success": True, "exists": False, "value": None, "key": key}


async def delete(session: Session, asked: Asked) -> Json:
    key, scope = asked.text("key"), _scope(asked)
    deleted = False
    for name in [scope] if scope else _SCOPES:
        told = await session.call("state.delete", {"key": key, "scope": _SCOPES[name]})
        deleted = deleted or told["deleted"]
    return {"success": True, "deleted": deleted, "key": key}


async def keys(session: Session, asked: Asked) -> Json:
    prefix, scope = asked.text("prefix", default=""), _scope(asked)
    found: dict[str, None] = {}
    size, more = 0, False
    for name in [scope] if scope else _SCOPES:
        after = ""
        while not more:
            params = {"prefix": prefix, "scope": _SCOPES[name], "limit": 1000, "continue": after}
            page = await session.call("state.list", params)
            for item in page["items"]:
                size += size_bytes(item["key"]) + 1
                more = more or len(found) >= _KEYS_MAX or size > _TOLD_BYTES
                if not more:
                    found[item["key"]] = None
            after = page.get("continue", "")
            if not after:
                break
    reply: Json = {"success": True, "keys": list(found), "count": len(found)}
    return reply | ({"truncated": True} if more else {})


# events


def _types(asked: Asked) -> list[str]:
    types = asked.texts("event_types", "events", "event", "event_type")
    if not types:
        raise errors.BadRequest("event_types required")
    return ["*" if one in ("ALL", "*") else one for one in types]


async def subscribe(session: Session, asked: Asked) -> Json:
    """From here on. What was before is told by the number of an event of our own."""
    types = _types(asked)
    if len(session.since.keys() | set(types)) > _TYPES_MAX:
        raise errors.BadRequest(f"at most {_TYPES_MAX} types of events")
    mark = (await session.call("event.emit", {"type": _MARK}))["id"]
    if not session.since:
        session.heard = mark
    for one in types:
        session.since.setdefault(one, mark)
    return {"success": True, "subscribed": types}


async def unsubscribe(session: Session, asked: Asked) -> Json:
    await session.permitted()
    types = _types(asked)
    for one in types:
        session.since.pop(one, None)
    return {"success": True, "unsubscribed": types, "subscribed": list(session.since)}


async def poll(session: Session, asked: Asked) -> Json:
    most = asked.whole("max", 10, 1, 1000)
    if not session.since:
        await session.permitted()
        return {"success": True, "events": [], "count": 0}
    told: list[Json] = []
    size, full = 0, False

    async def heard(event: Any) -> None:
        nonlocal size, full
        shown = _event(session, event)
        size += size_bytes(shown)
        full = full or size > _TOLD_BYTES
        if not full:
            session.heard = event["id"]
            if _is_new(session, event):
                told.append(shown)

    types = [EVENTS.get(one, one) for one in session.since]
    params = {"types": types, "after": session.heard, "max": most, "waitSeconds": 0}
    try:
        await session.call("event.subscribe", params, heard)
    except errors.Expired:
        # It slept longer than events are kept. What there is now comes with the next call.
        session.heard = (await session.call("event.emit", {"type": _MARK}))["id"]
    return {"success": True, "events": told, "count": len(told)}


def _is_new(session: Session, event: Any) -> bool:
    name = event_name(event["type"])
    begun = [session.since[one] for one in (name, event["type"], "*") if one in session.since]
    return bool(begun) and event["id"] > min(begun) and event["type"] != _MARK


def _event(session: Session, event: Any) -> Json:
    namespace, _, name = str(event["source"]).partition("/")
    source = session.kernel.guests.named(namespace, name)
    at = _seconds(event["time"])
    return {
        "type": event_name(event["type"]),
        "data": event.get("data"),
        "source_agent_id": session.id(source) if source is not None else 0,
        "timestamp": int(at * 1000),
        "age_ms": max(0, int((datetime.now().timestamp() - at) * 1000)),
    }


async def emit(session: Session, asked: Asked) -> Json:
    kind = asked.text("event_type", "event", "type", default="CUSTOM")
    params: Json = {"type": kind}
    if asked.get("data") is not None:
        params["data"] = asked.get("data")
    await session.call("event.emit", params)
    return {"success": True, "event": kind}


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
