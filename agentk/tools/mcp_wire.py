"""What the daemon and its MCP worker say to each other: one JSON object a line, over a socketpair.

Both ends import this file, so it knows neither the SDK nor the daemon. `t` says what a message is:

    daemon → worker   open {id, url?, seconds} · close {id}
                      call {id, session, name, arguments, seconds, progress} · cancel {id}
                      answer {id, status, headers} · body {id, text} · over {id, why?}
    worker → daemon   ready · failed {message}
                      opened {id, offers, refused, server, version} · changed {id, offers, refused}
                      closed {id, why, kind}
                      progress {id, done, total, text} · result {id, content, structured, error} · wrong {id, kind, why}
                      fetch {id, session, method, headers, body} · more {id, bytes} · stop {id}

The pipes of a server travel on a second socket, a packet each: the session's id, and two descriptors (what it says,
what it hears). `fetch` asks the daemon for one HTTP exchange with the session's own server: the worker names neither
host nor secret, and has no way to the network. Bytes of HTTP are texts of latin-1. `more` gives leave to send so many
further bytes of an answer.
"""

import asyncio
import json
import socket
from collections.abc import Mapping
from typing import Any

LINE_BYTES_MAX = 64 * 1024 * 1024
WINDOW_BYTES = 256 * 1024  # of one HTTP answer, sent ahead of who reads it
CALL_BYTES_MAX = 8 * 1024 * 1024  # of one message of a server, or to it


def pack(message: Mapping[str, Any]) -> bytes:
    """As it is, not escaped: the daemon reads it on its loop, and escapes take four times as long."""
    text = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass") + b"\n"


async def read(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message; None when the other end is gone, also in the middle of one. ValueError for anything else."""
    try:
        line = await reader.readuntil(b"\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    except asyncio.LimitOverrunError:
        raise ValueError("a message without an end") from None
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("a message that is no object")
    return message


def give(hand: socket.socket, session: int, says: int, hears: int) -> None:
    """Hand a server's two pipes over. They stay the caller's to close."""
    socket.send_fds(hand, [str(session).encode()], [says, hears])


def take(hand: socket.socket) -> tuple[int, int, int] | None:
    """(session, says, hears); None when the other end is gone."""
    data, fds, _, _ = socket.recv_fds(hand, 32, 2)
    return (int(data), fds[0], fds[1]) if data and len(fds) == 2 else None
