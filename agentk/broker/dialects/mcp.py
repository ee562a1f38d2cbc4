"""The Model Context Protocol as a guest's client speaks it at /mcp: HTTP requests in, JSON-RPC messages out. Pure.

Why not the SDK's server: it would run in the daemon for every guest (0.7 s to import, 60 MB, Starlette, a task group
a request; a call with its client takes 2.8 ms of CPU there and 0.3 ms here), or in a process between guest and gate,
which would have to say whose call it is. And a guest is hostile: here every bound is the gate's own.

What is offered is tools, word of it when they change, and Skills to read (`mcp_resources`). No session is kept: a call
stands for itself, in both eras of the protocol (`initialize` up to 2025-11-25, the envelope in `_meta` since
2026-07-28). `Mcp-Session-Id` is given out once so that two clients of one jail, who number their calls alike, cannot
take back each other's.
"""

import base64
import binascii
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agentk.api import errors
from agentk.broker.dialects import mcp_resources
from agentk.broker.dialects.http_reading import Request
from agentk.sdk import wire

NAME: Literal["mcp"] = "mcp"
PATH = "/mcp"
GREETED = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")  # agreed on by `initialize`
ENVELOPED = ("2026-07-28",)  # told with each request
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
HEADER_MISMATCH, UNSUPPORTED_VERSION = -32020, -32022
NAME_CHARS = 300

_EVENTS, _JSON = "text/event-stream", "application/json"
_META = "io.modelcontextprotocol/"
_SESSION = re.compile(r"[\x21-\x7e]{1,128}")
_PACKED = re.compile(r"=\?base64\?([A-Za-z0-9+/=]*)\?=")

Id = int | str


@dataclass(frozen=True)
class Asked:
    """One message of a client, read and not yet judged."""

    kind: Literal[
        "initialize", "discover", "ping", "list", "call", "cancel", "heard", "listen",
        "resources", "templates", "resource",
    ]  # fmt: skip
    id: Id | None = None
    name: str = ""  # of the tool, or the address of a resource
    arguments: Mapping[str, Any] = field(default_factory=dict)
    cursor: str = ""
    version: str = ""  # wanted by `initialize`
    enveloped: bool = False
    progress: Id | None = None  # the token that its progress is told under
    events: bool = False  # the client reads a stream of events
    session: str = ""
    taken_back: Id | None = None
    wants_changes: bool = False  # of `listen`: to hear that the tools changed


class Refused(Exception):
    """A request that is answered at once: an HTTP status, and a JSON-RPC error."""

    def __init__(self, status: int, code: int, message: str, id: Id | None = None, data: Any = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.id, self.data = status, code, message, id, data

    @property
    def body(self) -> bytes:
        return failure(self.id, self.code, self.message, self.data)


def takes(request: Request) -> bool:
    return request.path.rstrip("/") == PATH and not request.authority


def read(request: Request) -> Asked:
    """What a POST asks for. Raises Refused."""
    events = _accepts(request.headers)
    version = request.headers.get("mcp-protocol-version", "")
    told = _message(request)
    id = told.get("id")
    session = request.headers.get("mcp-session-id", "")
    if session and not _SESSION.fullmatch(session):
        raise Refused(400, INVALID_REQUEST, "Mcp-Session-Id is 1 to 128 visible characters")
    if "method" not in told:
        if "result" in told or "error" in told:
            return Asked("heard")  # nobody here asked it anything
        raise Refused(400, INVALID_REQUEST, "a message has a method, a result or an error")
    method, params = told["method"], told.get("params", {})
    if "id" in told and not wire.is_id(id):
        raise Refused(400, INVALID_REQUEST, "id is a text or a whole number")
    if not isinstance(method, str) or not isinstance(params, dict):
        raise Refused(400, INVALID_REQUEST, "method is a text and params an object", id)
    if "id" not in told:
        return _notified(method, params, session)
    meta = params.get("_meta") if isinstance(params.get("_meta"), dict) else {}
    assert isinstance(meta, dict)
    enveloped = _agreed(request.headers, version, method, params, meta, id)
    asked = _asked(method, params, id, enveloped)
    token = meta.get("progressToken")
    return Asked(
        **{**asked, "progress": token if wire.is_id(token) else None},
        enveloped=enveloped,
        events=events,
        session=session,
    )


def listens(request: Request) -> bool:
    """Whether a GET asks for what is said unasked, as clients up to 2025-11-25 do."""
    version = request.headers.get("mcp-protocol-version", "")
    wanted = {one.partition(";")[0].strip().lower() for one in request.headers.get("accept", "").split(",")}
    return _EVENTS in wanted and (not version or version in GREETED)


def _accepts(headers: Mapping[str, str]) -> bool:
    """Whether the client reads events. One that reads no JSON is refused."""
    wanted = {one.partition(";")[0].strip().lower() for one in headers.get("accept", "*/*").split(",")}
    if not wanted & {_JSON, "application/*", "*/*"}:
        raise Refused(406, INVALID_REQUEST, f"Accept must name {_JSON} and {_EVENTS}")
    return bool(wanted & {_EVENTS, "text/*", "*/*"})


def _message(request: Request) -> dict[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _JSON:
        raise Refused(415, INVALID_REQUEST, f"Content-Type must be {_JSON}")
    try:
        told = wire.decode(request.body, wire.VALUES)
    except wire.Refused as refused:
        raise Refused(400, PARSE_ERROR, refused.message) from None
    if isinstance(told, list):
        raise Refused(400, INVALID_REQUEST, "batches are not spoken here: send one message a request")
    if not isinstance(told, dict) or told.get("jsonrpc") != "2.0":
        raise Refused(400, INVALID_REQUEST, 'a message is an object with "jsonrpc": "2.0"')
    return told


def _notified(method: str, params: Mapping[str, Any], session: str) -> Asked:
    given = params.get("requestId")
    if method == "notifications/cancelled" and wire.is_id(given):
        return Asked("cancel", session=session, taken_back=given)
    return Asked("heard")


def _agreed(
    headers: Mapping[str, str],
    version: str,
    method: str,
    params: Mapping[str, Any],
    meta: Mapping[str, Any],
    id: Any,
) -> bool:
    """Whether the request carries its own envelope; headers that say something else than the body are refused."""
    inner = meta.get(_META + "protocolVersion")
    if version in GREETED or (not version and inner is None):
        return False
    if version not in ENVELOPED:
        known = {"supported": [*GREETED, *ENVELOPED], "requested": str(version or inner)[:64]}
        raise Refused(400, UNSUPPORTED_VERSION, "this version of the protocol is not spoken here", id, known)
    if inner != version:
        raise Refused(400, HEADER_MISMATCH, "MCP-Protocol-Version and _meta name different versions", id)
    if headers.get("mcp-method") != method:
        raise Refused(400, HEADER_MISMATCH, "Mcp-Method is not the message's method", id)
    if method == "resources/read" and _unpacked(headers.get("mcp-name", "")) != params.get("uri"):
        raise Refused(400, HEADER_MISMATCH, "Mcp-Name is not the resource's address", id)
    if method == "tools/call" and _unpacked(headers.get("mcp-name", "")) != params.get("name"):
        raise Refused(400, HEADER_MISMATCH, "Mcp-Name is not the tool's name", id)
    return True


def _unpacked(value: str) -> str | None:
    packed = _PACKED.fullmatch(value)
    if packed is None:
        return value
    try:
        return base64.b64decode(packed[1], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def _asked(method: str, params: Mapping[str, Any], id: Any, enveloped: bool) -> dict[str, Any]:
    if method == "initialize" and not enveloped:
        return {"kind": "initialize", "id": id, "version": str(params.get("protocolVersion", ""))[:64]}
    if method == "server/discover" and enveloped:
        return {"kind": "discover", "id": id}
    if method == "ping" and not enveloped:
        return {"kind": "ping", "id": id}
    if method == "subscriptions/listen" and enveloped:
        wanted = params.get("notifications")
        if not isinstance(wanted, dict):
            raise Refused(400, INVALID_PARAMS, "notifications is an object", id)
        return {"kind": "listen", "id": id, "wants_changes": wanted.get("toolsListChanged") is True}
    if method in _LISTS:
        cursor = params.get("cursor", "")
        if not isinstance(cursor, str):
            raise Refused(400 if enveloped else 200, INVALID_PARAMS, "cursor is a text", id)
        return {"kind": _LISTS[method], "id": id, "cursor": cursor}
    if method == "resources/read":
        uri = params.get("uri")
        wanted = mcp_resources.named(uri)
        if wanted is None:
            told = "there are resources skill://NAME and skill://NAME/FILE"
            raise Refused(400 if enveloped else 200, INVALID_PARAMS, told, id)
        return {"kind": "resource", "id": id, "name": uri, "arguments": wanted}
    if method == "tools/call":
        name, arguments = params.get("name"), params.get("arguments", {})
        if not isinstance(name, str) or len(name) > NAME_CHARS or not isinstance(arguments or {}, dict):
            told = "a call has the name of a tool, and an object of arguments"
            raise Refused(400 if enveloped else 200, INVALID_PARAMS, told, id)
        return {"kind": "call", "id": id, "name": name, "arguments": arguments or {}}
    raise Refused(404 if enveloped else 200, METHOD_NOT_FOUND, f"{method[:100]!r} is not offered here", id)


# answering


def initialized(asked: Asked, version: str) -> dict[str, Any]:
    return {
        "protocolVersion": asked.version if asked.version in GREETED else GREETED[-1],
        "capabilities": _CAN,
        "serverInfo": _self(version),
    }


def discovered(version: str) -> dict[str, Any]:
    return {
        "supportedVersions": [*GREETED, *ENVELOPED],
        "capabilities": _CAN,
        "_meta": {_META + "serverInfo": _self(version)},
        **_PRIVATE,
    }


def listed(asked: Asked, tools: list[Mapping[str, Any]], cursor: str) -> dict[str, Any]:
    told: dict[str, Any] = {"tools": [_shown(one) for one in tools]}
    if cursor:
        told["nextCursor"] = cursor
    return complete(asked, told)


def complete(asked: Asked, result: Mapping[str, Any]) -> dict[str, Any]:
    """With what the newest protocol wants of every answer that is nobody else's."""
    return {**result, **(_PRIVATE if asked.enveloped else {})}


def called(asked: Asked, result: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"content": result["content"], "isError": bool(result.get("isError"))}
    structured = result.get("structured")
    if isinstance(structured, dict) or (structured is not None and asked.enveloped):
        told["structuredContent"] = structured
    return told | ({"resultType": "complete"} if asked.enveloped else {})


def failed(asked: Asked, error: errors.AgentkError) -> dict[str, Any]:
    """A call that was refused or went wrong, told so that the model that asked for it can read why."""
    status = error.to_status()
    text = f"{status.get('reason', error.code)}: {error}"
    content = [{"type": "text", "text": text}]
    return called(asked, {"content": content, "isError": True}) | {"_meta": {"agentk.dev/status": status}}


def success(id: Id | None, result: Mapping[str, Any]) -> bytes:
    return _packed({"jsonrpc": "2.0", "id": id, "result": result})


def failure(id: Id | None, code: int, message: str, data: Any = None) -> bytes:
    error = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return _packed({"jsonrpc": "2.0", "id": id, "error": error})


def progressed(token: Id, number: int, item: Any) -> bytes:
    """What a call says before its end, as progress: a notification that counts up."""
    told = item if isinstance(item, Mapping) else {}
    done, total, text = told.get("progress"), told.get("total"), told.get("message", told.get("text"))
    params: dict[str, Any] = {"progressToken": token, "progress": done if _number(done) else number}
    if _number(total):
        params["total"] = total
    if isinstance(text, str):
        params["message"] = text
    return _packed({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})


def acknowledged(asked: Asked) -> bytes:
    """The first word of a `listen`: what will be heard on it."""
    honoured = {"toolsListChanged": True} if asked.wants_changes else {}
    params = {"notifications": honoured, "_meta": _of_listening(asked)}
    method = "notifications/subscriptions/acknowledged"
    return _packed({"jsonrpc": "2.0", "method": method, "params": params})


def changed(asked: Asked | None) -> bytes:
    """Word that the tools are others by now, for a `listen`, or for a GET."""
    told: dict[str, Any] = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    return _packed(told if asked is None else {**told, "params": {"_meta": _of_listening(asked)}})


def _of_listening(asked: Asked) -> dict[str, Any]:
    return {_META + "subscriptionId": asked.id}


def event(message: bytes) -> bytes:
    return b"event: message\ndata: " + message + b"\n\n"


def new_session() -> str:
    return secrets.token_hex(16)


def _shown(one: Mapping[str, Any]) -> dict[str, Any]:
    """As the protocol has it: an input schema is an object's."""
    told = {"name": one["name"], "description": one.get("description", "")}
    told["inputSchema"] = {"type": "object", **(one.get("inputSchema") or {})}
    output = one.get("outputSchema")
    if isinstance(output, Mapping) and output.get("type") == "object":
        told["outputSchema"] = output
    if one.get("annotations"):
        told["annotations"] = one["annotations"]
    return told


def _self(version: str) -> dict[str, str]:
    return {"name": "agentk", "title": "Tools of this agent", "version": version or "0"}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _packed(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode("ascii")


_CAN: dict[str, Any] = {"tools": {"listChanged": True}, "resources": {}}
_LISTS = {"tools/list": "list", "resources/list": "resources", "resources/templates/list": "templates"}
_PRIVATE: dict[str, Any] = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
