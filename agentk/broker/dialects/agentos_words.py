"""The words of the AgentOS dialect: opcodes, how a request's fields are read, how replies and errors are written.

Lenient in what it knows (both spellings, numbers as text are not), strict in types: nothing is guessed.
"""

import json
import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from agentk.api import errors
from agentk.broker.dialects import frames

Json = dict[str, Any]
Reply = Json | list[Any] | bytes


class Op(IntEnum):
    NOOP = 0x00
    THINK = 0x01
    EXEC = 0x02
    READ = 0x03
    WRITE = 0x04
    SPAWN = 0x10
    KILL = 0x11
    LIST = 0x12
    PAUSE = 0x14
    RESUME = 0x15
    SEND = 0x20
    RECV = 0x21
    BROADCAST = 0x22
    REGISTER = 0x23
    STORE = 0x30
    FETCH = 0x31
    DELETE = 0x32
    KEYS = 0x33
    GET_PERMS = 0x40
    SET_PERMS = 0x41
    HTTP = 0x50
    SUBSCRIBE = 0x60
    UNSUBSCRIBE = 0x61
    POLL_EVENTS = 0x62
    EMIT = 0x63
    RECORD_START = 0x70
    RECORD_STOP = 0x71
    RECORD_STATUS = 0x72
    REPLAY_START = 0x73
    REPLAY_STATUS = 0x74
    GET_AUDIT_LOG = 0x76
    SET_AUDIT_CONFIG = 0x77
    ASYNC_POLL = 0x80
    METRICS_SYSTEM = 0xC0
    METRICS_AGENT = 0xC1
    METRICS_ALL_AGENTS = 0xC2
    METRICS_CGROUP = 0xC3
    LLM_REPORT = 0xF0
    HELLO = 0xFE
    EXIT = 0xFF


# What agentk calls its own events, by what AgentOS calls them.
EVENTS = {
    "AGENT_SPAWNED": "agent.spawned",
    "AGENT_EXITED": "agent.exited",
    "AGENT_PAUSED": "agent.paused",
    "AGENT_RESUMED": "agent.resumed",
    "AGENT_RESTARTING": "agent.restarting",
    "AGENT_ESCALATED": "agent.escalated",
    "STATE_CHANGED": "agent.changed",
    "MESSAGE_RECEIVED": "message.received",
    "SYSCALL_BLOCKED": "call.denied",
    "RESOURCE_WARNING": "resource.warning",
}
_EVENT_NAMES = {ours: theirs for theirs, ours in EVENTS.items()}

# What a client reads without looking whether it is there, so an error has it too.
_EMPTY: dict[int, Json] = {
    Op.THINK: {"content": "", "tokens": 0},
    Op.EXEC: {"stdout": "", "stderr": "", "exit_code": -1},
    Op.READ: {"content": "", "size": 0},
    Op.WRITE: {"bytes_written": 0},
    Op.KILL: {"killed": False},
    Op.PAUSE: {"paused": False},
    Op.RESUME: {"resumed": False},
    Op.RECV: {"messages": [], "count": 0},
    Op.BROADCAST: {"delivered_count": 0},
    Op.FETCH: {"exists": False, "value": None},
    Op.DELETE: {"deleted": False},
    Op.KEYS: {"keys": [], "count": 0},
    Op.HTTP: {"body": "", "status_code": 0},
    Op.POLL_EVENTS: {"events": [], "count": 0},
    Op.GET_AUDIT_LOG: {"entries": [], "count": 0},
    Op.ASYNC_POLL: {"results": [], "count": 0},
    Op.METRICS_ALL_AGENTS: {"agents": [], "count": 0},
}


def name_of(opcode: int) -> str:
    try:
        return Op(opcode).name
    except ValueError:
        return f"0x{opcode:02X}"


def event_name(ours: str) -> str:
    """What an AgentOS program calls this event."""
    return _EVENT_NAMES.get(ours, ours)


def refusal(opcode: int, error: errors.AgentkError) -> Json:
    """An error in the shape of the reply that was expected."""
    message = str(error.to_status()["message"])
    if opcode == Op.THINK and isinstance(error, errors.NotFound):
        message = f"LLM not configured: {message}"
    return {"success": False, **_EMPTY.get(opcode, {}), "error": message, "code": error.code}


def encoded(reply: Reply) -> bytes:
    """The payload of a reply. What is too long for a frame has its longest text cut, and says so."""
    if isinstance(reply, bytes):
        return reply
    data = _dumped(reply)
    while len(data) > frames.PAYLOAD_BYTES:
        texts = (
            [key for key, value in reply.items() if isinstance(value, str)] if isinstance(reply, dict) else []
        )
        longest = max(texts, key=lambda key: len(reply[key]), default="")  # type: ignore[call-overload]
        if not longest or len(reply[longest]) < 1000:  # type: ignore[call-overload]
            told = f"the answer has {len(data)} bytes: a frame holds {frames.PAYLOAD_BYTES}"
            return _dumped({"success": False, "error": told, "code": errors.TooLarge.code})
        assert isinstance(reply, dict)
        reply = {**reply, longest: reply[longest][: len(reply[longest]) // 2], "truncated": True}
        data = _dumped(reply)
    return data


def _dumped(reply: Any) -> bytes:
    try:
        return json.dumps(reply, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(reply, allow_nan=False, separators=(",", ":")).encode()


def size_bytes(value: Any) -> int:
    return len(_dumped(value))


class Asked:
    """The fields of one request. Every getter raises BadRequest for what is of another type."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = fields

    @classmethod
    def read(cls, payload: bytes) -> "Asked":
        """An object, or nothing at all."""
        if not payload.strip():
            return cls({})
        try:
            found = json.loads(payload, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise errors.BadRequest("the payload is no JSON") from None
        if not isinstance(found, dict):
            raise errors.BadRequest("the payload is no JSON object")
        return cls(found)

    def get(self, *names: str) -> Any:
        """The first that is given: clients spell some in two ways."""
        return next((self.fields[name] for name in names if self.fields.get(name) is not None), None)

    def text(self, *names: str, default: str | None = None) -> str:
        """Without a default it is needed."""
        value = self.get(*names)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or (default is None and not value):
            raise errors.BadRequest(
                f"{names[0]} required" if value in (None, "") else f"{names[0]} must be text"
            )
        return value

    def number(self, name: str, default: float, least: float, most: float) -> float:
        """Within its bounds: what is beyond is taken for the bound."""
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise errors.BadRequest(f"{name} must be a number")
        if isinstance(value, float) and not math.isfinite(value):
            raise errors.BadRequest(f"{name} must be a number")
        return min(max(value, least), most)  # compares whole numbers that no float holds

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        return int(self.number(name, default, least, most))

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise errors.BadRequest(f"{name} must be true or false")
        return value

    def texts(self, *names: str) -> list[str]:
        """A list of texts, or one text alone."""
        value = self.get(*names)
        if isinstance(value, str):
            return [value]
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise errors.BadRequest(f"{names[0]} must be a list of texts")
        return value

    def part(self, name: str) -> "Asked":
        value = self.get(name)
        if value is None:
            return Asked({})
        if not isinstance(value, dict):
            raise errors.BadRequest(f"{name} must be an object")
        return Asked(value)


def _no_number(word: str) -> Any:
    raise ValueError(word)
