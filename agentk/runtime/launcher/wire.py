"""What daemon and launcher say to each other: JSON objects, one a line, with descriptors beside them (SCM_RIGHTS).

Pure framing and translation: no socket is read here, so tests feed bytes. An old launcher serves a new daemon and
the other way round: unknown verbs get an error, unknown fields are ignored, missing ones have defaults.

    → {"version": 1, "verb": "hello", "id": 0}
    → {"id": 1, "verb": "start", "box": {…}}              ← {"id": 1, "ok": {"seen": {…}}}
    → {"id": 2, "verb": "kill", "box_id": "…", …}         ← {"id": 2, "error": {a Kubernetes Status}}
                                                          ← {"note": "changed", "uid": "…"}

A message that carries descriptors says how many in "fds"; they travel with its first byte.
"""

import array
import base64
import dataclasses
import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from agentk.api import errors
from agentk.runtime import box as words

# 1: exec knows only argv and a timeout, and no `exec_cancel`. 2: nothing enters a box that runs, or waits.
VERSION = 4
STDIN_MAX_BYTES = 8 * 1024 * 1024  # of an exec: with its argv and environment it fits a line
OUTPUT_MAX_BYTES = 4 * 1024 * 1024  # of each stream in the answer of an exec: both fit a line
LINE_MAX_BYTES = 16 * 1024 * 1024  # a box with all its Secret and ConfigMap files
FDS_A_MESSAGE = 253  # SCM_MAX_FD
_READ_BYTES = 64 * 1024  # a larger buffer is mapped and unmapped again for each message
_FD_SPACE = socket.CMSG_SPACE(FDS_A_MESSAGE * 4)

Message = dict[str, Any]
_UCRED = struct.Struct("iII")
_T = TypeVar("_T")


class Inbox:
    """Bytes and descriptors in, messages with their descriptors out."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._fds: list[int] = []

    def feed(self, data: bytes, fds: Sequence[int] = ()) -> list[tuple[Message, list[int]]]:
        """The messages completed by `data`. Raises BadRequest for what is not one; then close the connection."""
        self._bytes += data
        self._fds += fds
        if b"\n" not in data and len(self._bytes) <= LINE_MAX_BYTES and len(self._fds) <= FDS_A_MESSAGE:
            return []  # a long message comes in many parts: look at each part once
        *lines, rest = self._bytes.split(b"\n")
        if max((len(line) for line in [*lines, rest]), default=0) > LINE_MAX_BYTES:
            raise errors.TooLarge(f"a message is over {LINE_MAX_BYTES} bytes")
        self._bytes = bytearray(rest)
        messages, taken = [], 0
        for line in filter(None, lines):
            message, count = _message(line, len(self._fds) - taken)
            messages.append((message, self._fds[taken : taken + count]))
            taken += count
        if len(self._fds) - taken > FDS_A_MESSAGE:
            raise errors.TooLarge(f"{len(self._fds) - taken} descriptors came that no message promised")
        del self._fds[:taken]  # only now: until here `close` knows them all
        return messages

    def close(self) -> None:
        """Close descriptors that no message took."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []


def _message(line: bytes | bytearray, arrived: int) -> tuple[Message, int]:
    """A message and how many of the descriptors that arrived are its own."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise errors.BadRequest(f"not a message: {error}") from None
    if not isinstance(message, dict):
        raise errors.BadRequest("a message is a JSON object")
    count = message.get("fds", 0)
    if not isinstance(count, int) or not 0 <= count <= arrived:
        raise errors.BadRequest(f"{count} descriptors promised, {arrived} arrived")
    return message, count


class Outbox:
    """Messages waiting for a socket that may be full."""

    def __init__(self) -> None:
        self._parts: list[tuple[memoryview, list[int]]] = []
        self.waiting_bytes = 0

    def put(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Queue; `fds` are duplicated, so the caller keeps its own. Raises TooLarge for what nobody would take."""
        if fds:
            message = {**message, "fds": len(fds)}
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        if len(data) > LINE_MAX_BYTES:
            raise errors.TooLarge(f"a message is over {LINE_MAX_BYTES} bytes")
        self._parts.append((memoryview(data), [os.dup(fd) for fd in fds]))
        self.waiting_bytes += len(data)

    def flush(self, connection: socket.socket) -> bool:
        """Send what fits. True when all is sent. Raises OSError when the other side is gone."""
        while self._parts:
            data, fds = self._parts[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = connection.sendmsg([data], rights)
            except BlockingIOError:
                return False
            self.waiting_bytes -= sent
            for fd in fds:
                os.close(fd)
            if sent == len(data):
                self._parts.pop(0)
            else:
                self._parts[0] = (data[sent:], [])
        return True

    def close(self) -> None:
        """Give up what waits."""
        for _, fds in self._parts:
            for fd in fds:
                os.close(fd)
        self._parts = []


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """One recvmsg: bytes (b"" at the end) and the descriptors beside them, close-on-exec."""
    data, ancillary, _, _ = connection.recvmsg(_READ_BYTES, _FD_SPACE, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds)


def peer(connection: socket.socket) -> tuple[int, int, int]:
    """pid, uid and gid of who is at the other end of a unix socket."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return pid, uid, gid


def plain(value: Any) -> Any:
    """A dataclass of `runtime.box` as JSON-ready data. Shares its mappings, which nobody changes."""
    if dataclasses.is_dataclass(value):
        return {name: plain(held) for name, held in vars(value).items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def box_from(told: Mapping[str, Any]) -> words.Box:
    """A Box from a message. Raises BadRequest naming the field."""
    known = _known(words.Box, told)
    known["limits"] = _build(words.Limits, told.get("limits", {}))
    known["log"] = _build(words.LogLimits, told.get("log", {}))
    known["mounts"] = tuple(_build(words.Mount, mount) for mount in _list(told, "mounts"))
    known["argv"] = tuple(_list(told, "argv"))
    known["modules"] = tuple(_list(told, "modules"))
    return _construct(words.Box, known)


def seen_from(told: Mapping[str, Any]) -> words.Seen:
    """A Seen from a message or a record."""
    known = _known(words.Seen, told)
    known["process"] = process_from(told.get("process"))
    known["exit"] = exit_from(told["exit"]) if told.get("exit") else None
    known["unenforced"] = tuple(_list(told, "unenforced"))
    return _construct(words.Seen, known)


def image_from(told: Any) -> words.Image:
    """An Image from a message."""
    return _build(words.Image, told)


def process_from(told: Any) -> words.Process | None:
    """A Process, None from None."""
    return _build(words.Process, told) if told else None


def counters_from(told: Any) -> words.Counters:
    """Counters from a message or a record."""
    return _build(words.Counters, told or {})


def intent_from(told: Any) -> words.Intent | None:
    """An Intent, None from None."""
    return _build(words.Intent, told) if told else None


def exit_from(told: Any) -> words.Exit:
    """An Exit from a message or a record."""
    known = _known(words.Exit, told)
    known["counters"] = counters_from(told.get("counters"))
    known["intent"] = intent_from(told.get("intent"))
    return _construct(words.Exit, known)


def exec_result(result: words.ExecResult) -> Message:
    """An ExecResult as JSON-ready data, output in base64."""
    told = plain(result)
    told["stdout"] = base64.b64encode(result.stdout).decode()
    told["stderr"] = base64.b64encode(result.stderr).decode()
    return dict(told)


def exec_result_from(told: Mapping[str, Any]) -> words.ExecResult:
    """The inverse of `exec_result`."""
    return words.ExecResult(
        exit=exit_from(told["exit"]),
        stdout=base64.b64decode(told.get("stdout", "")),
        stderr=base64.b64decode(told.get("stderr", "")),
        timed_out=bool(told.get("timed_out")),
        stdout_truncated=bool(told.get("stdout_truncated", told.get("truncated"))),  # version 1 told no more
        stderr_truncated=bool(told.get("stderr_truncated", told.get("truncated"))),
        cancelled=bool(told.get("cancelled")),
        unenforced=tuple(_list(told, "unenforced")),
    )


def _known(cls: type[Any], told: Any) -> dict[str, Any]:
    if not isinstance(told, Mapping):
        raise errors.BadRequest(f"{cls.__name__} must be an object")
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: value for name, value in told.items() if name in names}


def _build(cls: type[_T], told: Any) -> _T:
    return _construct(cls, _known(cls, told))


def _construct(cls: type[_T], known: dict[str, Any]) -> _T:
    try:
        return cls(**known)
    except TypeError as error:
        raise errors.BadRequest(f"{cls.__name__}: {error}") from None


def _list(told: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = told.get(name, [])
    if not isinstance(value, list | tuple):
        raise errors.BadRequest(f"{name} must be a list")
    return value
