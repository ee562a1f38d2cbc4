"""The native wire, without I/O: JSON-RPC 2.0, one JSON object a line. Both ends are made of this file.

Asking      {"jsonrpc":"2.0","id":1,"method":"noop","params":{},"key":"…","trace":"…"}
Answering   {"jsonrpc":"2.0","id":1,"result":{}}  or  {"jsonrpc":"2.0","id":1,"error":{"code":…,"message":…,"data":{}}}
Streaming   {"jsonrpc":"2.0","method":"stream","params":{"id":1,"seq":0,"data":{}}}  any number, before the answer
Taking back {"jsonrpc":"2.0","method":"cancel","params":{"id":1}}  the call is answered all the same, as Cancelled

Runs in jails: Python 3.9, standard library only. What is read comes from a stranger: every length is bounded before
anything is built from it, and nothing but `Refused` is ever raised for it.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, NamedTuple, Optional, Set, Union

LINE_BYTES = 8 * 1024 * 1024  # one image in base64 fits; the newline counts
DEPTH = 100  # tool schemas nest a dozen deep
VALUES = 100_000  # of one request: parsed in some 10 ms, so that nobody else waits long for it
ID_CHARS = 200
KEY_CHARS = 200

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

# `reason` of the Status in an error's `data` → its number. What is not here is INTERNAL_ERROR.
CODES: Dict[str, int] = {
    "MethodNotAllowed": METHOD_NOT_FOUND,
    "Invalid": INVALID_PARAMS,
    "BadRequest": INVALID_PARAMS,
    "PolicyDenied": -32001,
    "ApprovalRequired": -32002,
    "BudgetExceeded": -32003,
    "OutcomeUnknown": -32004,
    "UpstreamError": -32005,
    "Cancelled": -32006,
    "ApprovalDenied": -32007,
    "ToolDrift": -32008,
    "NotFound": -32010,
    "AlreadyExists": -32011,
    "Conflict": -32012,
    "Forbidden": -32013,
    "RequestEntityTooLarge": -32014,
    "TooManyRequests": -32015,
    "ServiceUnavailable": -32016,
    "Timeout": -32017,
    "Expired": -32018,
    "RuntimeRefused": -32019,
}

UNSAYABLE = (ValueError, TypeError, RecursionError)  # what `encode` raises for what JSON cannot say

Id = Union[int, str]


class Request(NamedTuple):
    """A call: `key` makes repeating it safe, `trace` is a W3C traceparent."""

    id: Id
    method: str
    params: Dict[str, Any]
    key: str = ""
    trace: str = ""


class Cancel(NamedTuple):
    id: Id


class Response(NamedTuple):
    id: Id
    result: Any


class Failure(NamedTuple):
    """An error as answer. `id` is None when the other end could not tell what it answers."""

    id: Optional[Id]
    code: int
    message: str
    data: Any = None


class Stream(NamedTuple):
    id: Id
    seq: int
    data: Any


class Refused(Exception):
    """A line that is no message. `fatal`: what follows it cannot be trusted to be lines of ours either."""

    def __init__(self, code: int, message: str, id: Optional[Id] = None, fatal: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = id
        self.fatal = fatal


class Lines:
    """Bytes as they come → whole lines, asked for one at a time so that the caller can stop between them."""

    def __init__(self, limit: int = LINE_BYTES) -> None:
        self._fresh = b""  # what came last, as it came: mostly one whole line, which is then not copied
        self._at = 0
        self._held = bytearray()  # beginning of a line that came in pieces
        self._limit = limit

    def __len__(self) -> int:
        return len(self._held) + len(self._fresh) - self._at

    def __bool__(self) -> bool:
        return self._at < len(self._fresh) or bool(self._held)

    def feed(self, data: bytes) -> None:
        if self._at < len(self._fresh):
            data = self._fresh[self._at :] + data
        self._fresh = data
        self._at = 0

    def take(self) -> Optional[bytes]:
        """The next line that is not blank, without its newline; None when there is no whole one."""
        while self._at < len(self._fresh):
            end = self._fresh.find(b"\n", self._at)
            stop = end if end >= 0 else len(self._fresh)
            if len(self._held) + stop - self._at >= self._limit:
                self._fresh, self._at = b"", 0
                self._held.clear()
                raise Refused(PARSE_ERROR, f"a line is longer than {self._limit} bytes", fatal=True)
            line = self._fresh[self._at : stop]
            self._at = stop + 1
            if end < 0:
                self._held += line
                self._fresh, self._at = b"", 0
                return None
            if self._held:
                line = bytes(self._held) + line
                self._held.clear()
            if line and not line.isspace():
                return line
        return None


def read_request(line: bytes) -> Union[Request, Cancel]:
    """What a client said. Strict: an unknown member is a mistake somebody wants to hear of."""
    told = decode(line, VALUES)
    if type(told) is not dict:
        if type(told) is list:
            raise Refused(INVALID_REQUEST, "batches are not spoken here: send one object a line")
        raise Refused(INVALID_REQUEST, "a message must be an object")
    given = told.get("id")
    id = given if is_id(given) else None
    method = told.get("method")
    params = told.get("params")
    key = told.get("key", "")
    trace = told.get("trace", "")
    if told.get("jsonrpc") != "2.0":
        raise Refused(INVALID_REQUEST, 'jsonrpc must be "2.0"', id)
    if type(method) is not str or not method:
        raise Refused(INVALID_REQUEST, "method must be a name", id)
    if params is None and "params" not in told:
        params = {}
    if type(params) is not dict:
        raise Refused(INVALID_PARAMS, "params must be an object: parameters go by name", id)
    if not _MEMBERS.issuperset(told):
        extra = sorted(told.keys() - _MEMBERS)[0][:ID_CHARS]
        raise Refused(INVALID_REQUEST, f"unknown member {extra!r}: parameters go into params", id)
    if id is None:
        if method == "cancel" and "id" not in told:
            return _cancel(params)
        raise Refused(INVALID_REQUEST, f"a call needs an id: a whole number or up to {ID_CHARS} characters")
    if type(key) is not str or len(key) > KEY_CHARS:
        raise Refused(INVALID_REQUEST, f"key must be a text of up to {KEY_CHARS} characters", id)
    if trace and not (type(trace) is str and _TRACE.fullmatch(trace)):
        raise Refused(INVALID_REQUEST, "trace must be a W3C traceparent", id)
    return Request(id, method, params, key, trace or "")


def _cancel(params: Dict[str, Any]) -> Cancel:
    if params.keys() != {"id"} or not is_id(params["id"]):
        raise Refused(INVALID_PARAMS, "cancel takes the id of the call, and nothing else")
    return Cancel(params["id"])


def read_answer(line: bytes) -> Union[Response, Failure, Stream, None]:
    """What a server said; None for what a newer one says and this side does not know."""
    told = decode(line)
    if not isinstance(told, dict):
        raise Refused(PARSE_ERROR, "the gate sent a line that is no object", fatal=True)
    id: Any = told.get("id")
    if "result" in told and is_id(id):
        return Response(id, told["result"])
    error = told.get("error")
    if isinstance(error, dict):
        code = error.get("code")
        return Failure(
            id if is_id(id) else None,
            code if isinstance(code, int) else INTERNAL_ERROR,
            str(error.get("message", "")),
            error.get("data"),
        )
    params = told.get("params")
    if told.get("method") == "stream" and isinstance(params, dict) and is_id(params.get("id")):
        seq = params.get("seq")
        return Stream(params["id"], seq if isinstance(seq, int) else 0, params.get("data"))
    return None


def request(id: Id, method: str, params: Dict[str, Any], key: str = "", trace: str = "") -> bytes:
    told: Dict[str, Any] = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
    if key:
        told["key"] = key
    if trace:
        told["trace"] = trace
    return encode(told)


def cancel(id: Id) -> bytes:
    return encode({"jsonrpc": "2.0", "method": "cancel", "params": {"id": id}})


def response(id: Id, result: Any) -> bytes:
    return encode({"jsonrpc": "2.0", "id": id, "result": result})


def failure(id: Optional[Id], code: int, message: str, data: Any = None) -> bytes:
    error = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return encode({"jsonrpc": "2.0", "id": id, "error": error})


def stream(id: Id, seq: int, data: Any) -> bytes:
    return encode({"jsonrpc": "2.0", "method": "stream", "params": {"id": id, "seq": seq, "data": data}})


def encode(message: Any) -> bytes:
    """One line. ValueError, TypeError or RecursionError for what JSON cannot say: NaN, half of a surrogate pair,
    objects of yours, lists within themselves."""
    return (_encode(message) + "\n").encode()


def decode(line: bytes, values: Optional[int] = None) -> Any:
    """The JSON of one line, as RFC 8259 has it: no NaN, no infinity, no key twice, all of it Unicode.

    `values` bounds how many there may be, so that 8 MiB of commas do not become gigabytes of objects.
    """
    try:
        if len(line) <= _SHORT_BYTES:
            told = _quickly(line)
            if told is not None:
                return told
        else:
            bound(line, values)
        text = line.decode("utf-8").strip(" \t\r\n")
        told, end = _DECODER.raw_decode(text)
        if end != len(text):
            raise ValueError(f"something follows the object at character {end}")
        if _SURROGATE.search(line):
            _encode(told).encode()  # a half of a pair could be read, but never written again
    except UnicodeError:
        raise Refused(PARSE_ERROR, "not UTF-8, or half of a surrogate pair", fatal=True) from None
    except (ValueError, RecursionError) as error:
        raise Refused(PARSE_ERROR, f"not JSON: {str(error)[:200]}", fatal=True) from None
    return told


def _quickly(line: bytes) -> Any:
    """Most calls are one short object around another, and then no hook is needed to see that all is well.

    A colon belongs to a key or is within a text. So as many colons as keys that were kept: none came twice. Without
    a backslash there is no half of a surrogate pair. None: look closer.
    """
    if b"\\" in line or not line.isascii():
        return None
    try:
        told, end = _PLAIN.raw_decode(line.decode("ascii"))
    except ValueError:
        return None
    if type(told) is not dict or end != len(line):
        return None
    keys = len(told)
    for name in ("params", "result"):
        below = told.get(name)
        if type(below) is dict:
            keys += len(below)
    return told if keys == line.count(b":") else None


def is_id(value: Any) -> bool:
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return isinstance(value, str) and len(value) <= ID_CHARS


def bound(line: bytes, values: Optional[int]) -> None:
    """Raises ValueError for too deep or too many, counted before anything is built. Cheap for all but huge lines."""
    opens = line.count(b"{") + line.count(b"[")
    most = len(line) if values is None else values
    if opens <= DEPTH and line.count(b",") + opens <= most:
        return
    # Commas and brackets within texts were counted too: now without the texts, all of it at the speed of C.
    if values is not None and line.count(b'"') > 4 * values:
        raise ValueError(f"more than {values} values")
    bare = b"".join(line.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    opens = bare.count(b"{") + bare.count(b"[")
    if bare.count(b",") + opens > most:
        raise ValueError(f"more than {values} values")
    brackets = bare.translate(None, _NOT_BRACKETS)
    for _ in range(DEPTH):  # each turn takes the innermost level away
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    if brackets:
        raise ValueError(f"nested more than {DEPTH} deep, or a bracket that is never closed")


def _object(pairs: list[tuple[str, Any]]) -> Dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = _twice([name for name, _ in pairs])
        raise ValueError(f"key {twice[:ID_CHARS]!r} twice in one object")
    return made


def _twice(names: list[str]) -> str:
    """The first that comes again."""
    seen: Set[str] = set()
    for name in names:
        if name in seen:
            break
        seen.add(name)
    return name


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _number(text: str) -> float:
    made = float(text)
    if made in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is too large a number")
    return made


def _encoder() -> Callable[[Any], str]:
    """JSONEncoder.encode builds its C encoder anew for every text, which takes longer than a small text itself."""
    slow = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return slow.encode
    write = make(None, slow.default, json.encoder.encode_basestring, None, ":", ",", False, False, False)

    def encode(told: Any) -> str:
        return "".join(write(told, 0))

    return encode


_SHORT_BYTES = 2 * DEPTH  # cannot nest deeper than DEPTH, or is cut off
_PLAIN = json.JSONDecoder(parse_constant=_constant, parse_float=_number)
_MEMBERS = frozenset(("jsonrpc", "id", "method", "params", "key", "trace"))
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_number)
_encode = _encoder()
