"""Reading a tar stream that somebody hostile may have made, entry by entry: nothing of it is believed, and nothing
that it says makes us hold much. Says what is there; whether to make it is the caller's.

The standard library's reader takes whole headers into memory, however long they say they are. This one knows what
tar programs write (POSIX with pax headers, GNU's long names) and refuses what it does not.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from agentk.api import errors

BLOCK = 512
_CHUNK_BYTES = 64 * 1024
_HEADER_MAX_BYTES = 64 * 1024  # of a pax header or a long name
_SIZE_MAX = 1 << 60
_KINDS: dict[bytes, "Kind"] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hard",
    b"2": "link",
    b"5": "directory",
    b"3": "other",
    b"4": "other",
    b"6": "other",
}
Kind = Literal["file", "directory", "link", "hard", "other"]


@dataclass(frozen=True)
class Entry:
    name: str  # as it is written: it may lead anywhere
    kind: Kind
    mode: int  # permission bits alone
    size: int  # of the data that follows
    target: str  # of a link
    modified: float


class Reader:
    """`read(n)` answers at most n bytes, b"" at the end."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._left = 0  # of the entry's data, with what fills its last block
        self._data_left = 0

    def entries(self) -> Iterator[Entry]:
        """Each with its data still to be read by `data`, or passed over. Raises BadRequest for what is no tar."""
        told: dict[str, str] = {}
        while True:
            self._skip()
            block = self._exactly(BLOCK, may_end=True)
            if not block or not any(block):
                return
            entry, type_ = _header(block)
            if type_ in (b"x", b"g", b"L", b"K"):
                text = self._text(entry.size)
                if type_ == b"x":
                    told |= _pax(text)
                elif type_ != b"g":
                    told["path" if type_ == b"L" else "linkpath"] = _decoded(text.rstrip(b"\0"))
                continue
            entry, told = _with(entry, told), {}
            self._data_left = entry.size
            self._left = _padded(entry.size)
            yield entry

    def refused(self) -> list[tuple[str, str]]:
        """What the sender says, after the end of the archive, that it left out, and why."""
        rest = b""
        while len(rest) < _HEADER_MAX_BYTES and (piece := self._read(_CHUNK_BYTES)):
            rest = (rest + piece).lstrip(b"\0")
        try:
            told = json.loads(rest or b"{}")["refused"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return []
        named = (
            [str(one).partition(": ") for one in told if isinstance(one, str)]
            if isinstance(told, list)
            else []
        )
        return [(name, why) for name, _, why in named]

    def data(self) -> Iterator[bytes]:
        """Of the entry that came last."""
        while self._data_left:
            piece = self._some(min(self._data_left, _CHUNK_BYTES))
            self._data_left -= len(piece)
            self._left -= len(piece)
            yield piece

    def _skip(self) -> None:
        while self._left:
            self._left -= len(self._some(min(self._left, _CHUNK_BYTES)))
        self._data_left = 0

    def _text(self, size: int) -> bytes:
        if size > _HEADER_MAX_BYTES:
            raise _bad("a header is too long")
        return self._exactly(_padded(size))[:size]

    def _exactly(self, size: int, *, may_end: bool = False) -> bytes:
        found = b""
        while len(found) < size:
            piece = self._read(size - len(found))
            if not piece:
                if may_end and not found:
                    return b""
                raise _bad("it is cut short")
            found += piece
        return found

    def _some(self, size: int) -> bytes:
        piece = self._read(size)
        if not piece:
            raise _bad("it is cut short")
        return piece


def _header(block: bytes) -> tuple[Entry, bytes]:
    sum_ = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    if _number(block[148:156]) != sum_:
        raise _bad("a header is damaged")
    type_ = block[156:157]
    prefix = _field(block[345:500]) if block[257:263] == b"ustar\0" else ""
    name = _field(block[:100])
    size = _number(block[124:136])
    if type_ not in _KINDS and type_ not in (b"x", b"g", b"L", b"K"):
        raise _bad("it holds something that is not known")
    kind = _KINDS.get(type_, "other")
    if not 0 <= size < _SIZE_MAX:
        raise _bad("a size is absurd")
    if kind != "file" and type_ in _KINDS:
        size = 0 if kind in ("hard", "link", "directory") else size
    return Entry(
        name=f"{prefix}/{name}" if prefix else name,
        kind="directory" if kind == "file" and name.endswith("/") else kind,
        mode=_number(block[100:108]) & 0o777,
        size=size,
        target=_field(block[157:257]),
        modified=float(_number(block[136:148])),
    ), type_


def _with(entry: Entry, told: dict[str, str]) -> Entry:
    """What a header before it says better."""
    if any(key.startswith("GNU.sparse.") for key in told):
        raise _bad("it holds a file with holes")
    size, modified = entry.size, entry.modified
    try:
        if "size" in told and entry.kind == "file":
            size = int(told["size"])
        modified = float(told.get("mtime", modified))
    except ValueError:
        raise _bad("a header holds no number where there must be one") from None
    if not 0 <= size < _SIZE_MAX:
        raise _bad("a size is absurd")
    return Entry(
        told.get("path", entry.name),
        entry.kind,
        entry.mode,
        size,
        told.get("linkpath", entry.target),
        modified,
    )


def _pax(text: bytes) -> dict[str, str]:
    told = {}
    while text:
        length, space, _ = text.partition(b" ")
        if not space or not length.isdigit() or not len(length) < int(length[:9]) <= len(text):
            raise _bad("a header is damaged")
        record, text = text[: int(length)], text[int(length) :]
        key, _, value = record[len(length) + 1 :].rstrip(b"\n").partition(b"=")
        told[_decoded(key)] = _decoded(value)
    return told


def _number(field: bytes) -> int:
    if field[:1] in (b"\x80", b"\xff"):  # GNU's, for what has no room
        return int.from_bytes(field[1:], "big", signed=field[:1] == b"\xff")
    digits = field.strip(b" \0")
    if any(digit not in b"01234567" for digit in digits):
        raise _bad("a header holds no number where there must be one")
    return int(digits or b"0", 8)


def _field(text: bytes) -> str:
    return _decoded(text.partition(b"\0")[0])


def _decoded(name: bytes) -> str:
    return os.fsdecode(name)


def _padded(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK


def _bad(why: str) -> errors.BadRequest:
    return errors.BadRequest(f"what the box sent is no tar stream that can be trusted: {why}")
