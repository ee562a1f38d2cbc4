"""The tar format, as far as files go in and out of boxes: blocks in, members out, and the other way round.

Written here because it runs in a sealed child, where nothing can be imported any more, on bytes that may be made to
hurt: every length is bounded before it is believed, nothing is kept but one member, and what this does not know is
named and left out. ustar, with pax and GNU names.
"""

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

BLOCK = 512
RECORD = 20 * BLOCK  # as tars fill up their ends
ENTRIES_MAX = 250_000
BYTES_MAX = 16 << 30  # of all files together
NAME_MAX_BYTES = 4096
DEPTH_MAX = 100
MODE = 0o777  # no bit that makes somebody else of who runs it
FILE, LINK, SYMLINK, FOLDER = b"0", b"1", b"2", b"5"
_FILES = (FILE, b"\0", b"7")
_EXTENDED, _EXTENDED_ALL, _LONG_NAME, _LONG_TARGET = b"x", b"g", b"L", b"K"
_EXTENDED_MAX_BYTES = 64 * 1024
_SHORT = 100
_SIZE_MAX = 8**11 - 1  # in octal digits
_SUM = slice(148, 156)
_ATTRIBUTE = "SCHILY.xattr."  # as other tars call an extended attribute


@dataclass(frozen=True)
class Member:
    name: str
    kind: bytes
    size: int = 0
    mode: int = 0o644
    mtime: int = 0
    target: str = ""
    odd: str = ""  # why it cannot be taken, whatever else it is
    attributes: tuple[tuple[str, bytes], ...] = ()


class Bad(OSError):
    """What comes is no tar stream, or more than may come."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EINVAL, why)


class Reader:
    """Members of a stream. `read` answers exactly so many bytes, or fewer at the end."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._entries = 0
        self._left = 0  # of the member's content, with what fills its last block

    def next(self) -> Member | None:
        """The next member, after the content of the one before was taken. None at the end."""
        said: dict[str, str] = {}
        while True:
            block = self._read(BLOCK)
            if not block.strip(b"\0"):
                return None
            kind, size = _checked(block)
            self._entries += 1
            if self._entries > ENTRIES_MAX:
                raise Bad(f"there are more than {ENTRIES_MAX} entries")
            if kind not in (_EXTENDED, _EXTENDED_ALL, _LONG_NAME, _LONG_TARGET):
                return _member(block, kind, size, said)
            if size > _EXTENDED_MAX_BYTES:
                raise Bad("a name in it is too long")
            content = self._read(padded(size))
            if len(content) < padded(size):
                raise Bad("it ends in the middle")
            if kind == _EXTENDED:
                said |= _records(content[:size])
            elif kind != _EXTENDED_ALL:
                said["path" if kind == _LONG_NAME else "linkpath"] = _text(content[:size])


def header(member: Member) -> bytes:
    """What goes before a member's content."""
    name, target = (
        member.name.encode("utf-8", "surrogateescape"),
        member.target.encode("utf-8", "surrogateescape"),
    )
    records = [(key, value) for key, value in ((b"path", name), (b"linkpath", target)) if len(value) > _SHORT]
    if member.size > _SIZE_MAX:
        records.append((b"size", b"%d" % member.size))
    plain = _block(
        name[:_SHORT], member.kind, min(member.size, _SIZE_MAX), member.mode, member.mtime, target[:_SHORT]
    )
    if any(not _is_utf8(value) for _, value in records):
        records.insert(0, (b"hdrcharset", b"BINARY"))
    records += [(os.fsencode(_ATTRIBUTE + key), value) for key, value in member.attributes]
    if not records:
        return plain
    content = b"".join(_record(key, value) for key, value in records)
    return _block(b"pax", _EXTENDED, len(content), 0o644, 0, b"") + content + filling(len(content)) + plain


END = bytes(2 * BLOCK)


def padded(size: int) -> int:
    """With what fills the last block."""
    return -(-size // BLOCK) * BLOCK


def filling(size: int) -> bytes:
    """What fills the last block."""
    return bytes(padded(size) - size)


def _block(name: bytes, kind: bytes, size: int, mode: int, mtime: int, target: bytes) -> bytes:
    mtime = max(0, min(mtime, _SIZE_MAX))
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode & MODE, 0, 0, size, mtime)
    block = bytearray(name.ljust(_SHORT, b"\0") + numbers + b" " * 8 + kind + target.ljust(_SHORT, b"\0"))
    block += b"ustar\00000"
    block += bytes(BLOCK - len(block))
    block[_SUM] = b"%06o\0 " % sum(block)
    return bytes(block)


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def _checked(block: bytes) -> tuple[bytes, int]:
    """What kind of member comes, and its size."""
    if len(block) < BLOCK:
        raise Bad("it ends in the middle")
    if _number(block[_SUM]) != sum(block) - sum(block[_SUM]) + 8 * ord(" "):
        raise Bad("it is no tar stream")
    return block[156:157], _number(block[124:136])


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU's way for what is too large for digits
        if field[0] == 0xFF:
            raise Bad("a number in it is below 0")
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise Bad("it is no tar stream")
    return int(digits, 8)


def _moment(field: bytes) -> int:
    """Before 1970 and after all that a file system knows there is nothing."""
    return 0 if field[0] == 0xFF else min(_number(field), _SIZE_MAX)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _records(content: bytes) -> dict[str, str]:
    """Of a pax header what matters here."""
    found = {}
    while content:
        digits, space, _ = content.partition(b" ")
        if not space or not digits.isdigit() or len(digits) > 6 or not 0 < int(digits) <= len(content):
            raise Bad("a header in it is broken")
        key, equals, value = content[len(digits) + 1 : int(digits) - 1].partition(b"=")
        if not equals:
            raise Bad("a header in it is broken")
        name = key.decode("utf-8", "surrogateescape")
        if name in ("path", "linkpath", "size") or name.startswith(("GNU.sparse.", _ATTRIBUTE)):
            found[name] = value.decode("utf-8", "surrogateescape")
        content = content[int(digits) :]
    return found


def _member(block: bytes, kind: bytes, size: int, said: Mapping[str, str]) -> Member:
    name, target = _text(block[:100]), _text(block[157:257])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = f"{prefix}/{name}"
    name, target = said.get("path", name), said.get("linkpath", target)
    if "size" in said:
        if not said["size"].isdecimal() or len(said["size"]) > 20:
            raise Bad("a size in it is no number")
        size = int(said["size"])
    odd = ""
    if kind in _FILES:
        kind = FOLDER if name.endswith("/") and not size else FILE
    elif kind not in (LINK, SYMLINK, FOLDER):
        odd = "it is neither a file, a directory nor a link"
    if any(key.startswith("GNU.sparse.") for key in said):
        odd = "it is sparse"
    mode, moment = _number(block[100:108]) & MODE, _moment(block[136:148])
    attributes = tuple(
        (key.removeprefix(_ATTRIBUTE), os.fsencode(value))
        for key, value in said.items()
        if key.startswith(_ATTRIBUTE)
    )
    return Member(name, kind, size, mode, moment, target, odd, attributes)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
