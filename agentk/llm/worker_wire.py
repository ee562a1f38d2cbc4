"""What the daemon and its LiteLLM worker say to each other: JSON objects, each behind its length, over a socketpair.

Both ends import this file, so it knows neither LiteLLM nor the daemon. A frame is four bytes of length, big-endian, and
that many bytes of UTF-8 JSON with a `t`:

    daemon → worker   ask {id, route, models, settings, dialect, body, stream} · more {id, n} · stop {id}
    worker → daemon   ready · data {id, text, usage?, cost?} · end {id, cost} · refused {id, message, …}

`text` is one server-sent event, or a piece of a whole answer, whose `usage` and `cost` come with the first piece.

`more` gives a call leave to send so many further characters: a guest that reads slowly holds up its own upstream and
nobody else. After `stop` nothing is said of a call any more.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

FRAME_BYTES_MAX = 64 * 1024 * 1024
PIECE_CHARS = 64 * 1024  # of a whole answer in one frame: no answer keeps the others waiting
WINDOW_CHARS = 256 * 1024  # what a call may send ahead of its reader

_LENGTH_BYTES = 4


class TooLarge(Exception):
    """A frame is larger than the limit."""


def pack(message: Mapping[str, Any]) -> bytes:
    """One frame. A lone surrogate, which UTF-8 cannot say, travels as its JSON escape."""
    text = json.dumps(message, separators=(",", ":"))
    if len(text) > FRAME_BYTES_MAX:
        raise TooLarge(f"{len(text)} bytes, the most is {FRAME_BYTES_MAX}")
    return len(text).to_bytes(_LENGTH_BYTES, "big") + text.encode("ascii")


async def read(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message; None when the other end is gone, also in the middle of a frame."""
    try:
        size = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
        if size > FRAME_BYTES_MAX:
            raise TooLarge(f"{size} bytes, the most is {FRAME_BYTES_MAX}")
        message = json.loads(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    if not isinstance(message, dict):
        raise ValueError("a frame that is no object")
    return message
