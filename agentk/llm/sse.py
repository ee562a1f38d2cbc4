"""Server-sent events, cut anywhere. Without I/O: bytes in, whole events out, each with the very bytes it came in.

A chunk of the network may end inside a line, a line end or a character; nothing is lost or joined by that. An event
larger than the limit is an error, not memory.
"""

import re
from typing import NamedTuple

EVENT_BYTES_MAX = 16 * 1024 * 1024  # twice the largest frame of the gate: a whole answer may be one event

# A blank line. A lone CR ends a line only when no LF follows; at the end of a buffer that is not yet known.
_BLANK = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """`raw` is what came, the blank line included; `data` its data lines joined."""

    raw: bytes
    name: bytes
    data: bytes


class TooLarge(Exception):
    """One event is larger than the limit."""


class Parser:
    """`feed` what comes, `end` what is left. The events' `raw` bytes joined are always exactly what was fed."""

    def __init__(self, most: int = EVENT_BYTES_MAX) -> None:
        self._kept = b""
        self._searched = 0
        self._most = most

    def feed(self, chunk: bytes) -> list[Event]:
        kept = self._kept + chunk if self._kept else chunk
        events, start, search = [], 0, self._searched
        while found := _BLANK.search(kept, search):
            end = found.end()
            if end == len(kept) and kept[end - 1 : end] == b"\r":
                break  # its LF may be in the next chunk
            events.append(read(kept[start:end]))
            start = search = end
        self._kept = kept[start:]
        # A blank line is at most four bytes, and its first three may be here already.
        self._searched = max(0, len(self._kept) - 3)
        if len(self._kept) > self._most:
            raise TooLarge(f"a server-sent event of more than {self._most} bytes")
        return events

    def end(self) -> list[Event]:
        """What no blank line closed: a browser drops it, we pass it on and let the reader judge."""
        kept, self._kept, self._searched = self._kept, b"", 0
        return [read(kept)] if kept else []


def read(raw: bytes) -> Event:
    """One event from its bytes. Comments and unknown fields are skipped."""
    if raw.startswith(b"data: ") and raw.endswith(b"\n\n") and raw.count(b"\n") == 2 and b"\r" not in raw:
        return Event(raw, b"", raw[6:-2])  # what nearly every provider sends
    name, data = b"", []
    for line in _LINE_END.split(raw.removeprefix(_BOM)):
        key, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if key == b"data":
            data.append(value)
        elif key == b"event":
            name = value
    return Event(raw, name, b"\n".join(data))


def write(data: bytes, name: bytes = b"") -> bytes:
    """One event on the wire; `data` has no line end (JSON never has)."""
    return (b"event: " + name + b"\n" if name else b"") + b"data: " + data + b"\n\n"
