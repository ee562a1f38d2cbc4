"""What the daemon and a process apart say to each other: JSON objects, each behind its length, over a socketpair.

Both ends import this file, so it knows neither of them. A frame is four bytes of length, big-endian, and that many
bytes of UTF-8 JSON. What a process says first is {"t": "ready"}, or {"t": "failed", "message": …}.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, BinaryIO

BYTES_MAX = 64 * 1024 * 1024

READY: Mapping[str, Any] = {"t": "ready"}
_LENGTH_BYTES = 4

Message = Mapping[str, Any]


class TooLarge(ValueError):
    """A frame is larger than the limit."""


def pack(message: Message) -> bytes:
    """One frame, as it is and not escaped: the daemon reads it on its loop, and escapes take four times as long."""
    text = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return _bounded(len(text), BYTES_MAX).to_bytes(_LENGTH_BYTES, "big") + text


def failed(error: Exception) -> bytes:
    """The frame that says why a process cannot begin."""
    return pack({"t": "failed", "message": f"{type(error).__name__}: {error}"})


async def read(reader: asyncio.StreamReader, most: int = BYTES_MAX) -> dict[str, Any] | None:
    """The next message; None when the other end is gone, also in the middle of one. ValueError for anything else."""
    try:
        size = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
        data = await reader.readexactly(_bounded(size, most))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return _parsed(data)


def read_waiting(file: BinaryIO) -> dict[str, Any] | None:
    """The same, for a process that does one thing at a time."""
    head = file.read(_LENGTH_BYTES)
    size = _bounded(int.from_bytes(head, "big"), BYTES_MAX)
    data = file.read(size)
    return _parsed(data) if len(head) == _LENGTH_BYTES and len(data) == size else None


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        message = json.loads(data)
    except RecursionError:
        raise ValueError("a message that is too deep") from None
    if not isinstance(message, dict):
        raise ValueError("a message that is no object")
    return message


def _bounded(size: int, most: int) -> int:
    if size > most:
        raise TooLarge(f"{size} bytes, the most is {most}")
    return size
