"""Reading the CRI-format logs of one attempt: `TIME STREAM F|P TEXT` lines, in files that rotate while we read.

Blocking and bounded: each step reads at most one chunk. `N.log` is written, `N.log.1` came before it, and so on.
The newest file is recognised by its inode, so a rotation between two steps loses and repeats nothing.
"""

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

CHUNK_BYTES = 256 * 1024
_JOIN_BYTES = 256 * 1024  # a longer line is handed on in pieces, so that no guest's line fills our memory
_TRIES = 10  # to catch a folder between two rotations, which are minutes apart at the usual limits
_MOMENT_SECONDS = 0.001
_NAME = re.compile(r"([1-9][0-9]{0,9})\.log(?:\.([1-9][0-9]{0,5}))?")


def files(folder: Path, attempt: int) -> list[Path]:
    """The log files of one attempt, oldest first; none when there are none yet."""
    found = [(number, path) for path, of, number in _named(folder) if of == attempt]
    return [path for _, path in sorted(found, reverse=True)]


def newest_attempt(folder: Path) -> int:
    """The highest attempt that has a log, 0 when none has."""
    return max((attempt for _, attempt, _ in _named(folder)), default=0)


@dataclass(frozen=True)
class Wanted:
    """How log text is to look."""

    timestamps: bool = False
    since: datetime | None = None
    stream: str = ""  # "stdout", "stderr" or "" for both


@dataclass
class Joiner:
    """CRI lines in, what the guest wrote out: partial lines joined, each stream apart."""

    wanted: Wanted
    _pending: dict[bytes, bytearray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        since = self.wanted.since
        # Compared as text: RFC 3339 in UTC sorts as it reads.
        self._since = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").encode() if since else b""
        self._stream = self.wanted.stream.encode()

    def feed(self, lines: bytes) -> bytes:
        """Whole CRI lines in. Lines that are none (a torn write) are left out."""
        out = bytearray()
        for line in lines.split(b"\n"):
            parts = line.split(b" ", 3)
            if len(parts) < 3 or parts[2][:1] not in (b"F", b"P"):
                continue
            stamp, stream, tag = parts[:3]
            if (self._stream and stream != self._stream) or (
                self._since and stamp.rstrip(b"Z") < self._since
            ):
                continue
            pending = self._pending.setdefault(stream, bytearray())
            if self.wanted.timestamps and not pending:
                pending += stamp + b" "
            pending += parts[3] if len(parts) > 3 else b""
            if tag[:1] == b"F":
                out += pending
                out += b"\n"
                pending.clear()
            elif len(pending) > _JOIN_BYTES:
                out += pending
                pending.clear()
        return bytes(out)

    def rest(self) -> bytes:
        """The text of lines that never ended."""
        out = b"".join(self._pending.values())
        self._pending.clear()
        return out


class Reader:
    """Whole CRI lines of one attempt, in order, across rotations. Use `close`."""

    def __init__(self, listed: Callable[[], Sequence[Path]]) -> None:
        self._listed = listed
        self._fd = -1
        self._torn = b""  # the beginning of a line whose end is not written yet

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def seek_since(self, since: datetime) -> None:
        """Skip files whose last line was written before `since`."""
        self._seek(lambda: self._to_time(since.timestamp()))

    def seek_tail(self, lines: int) -> None:
        """Go to where the last `lines` lines of what is there begin."""
        self._seek(lambda: self._to_tail(lines))

    def read(self) -> bytes:
        """Up to CHUNK_BYTES of whole lines; b"" when there is nothing more for now."""
        failures = 0
        while failures < _TRIES:
            data = os.read(self._fd, CHUNK_BYTES) if self._fd >= 0 else b""
            if not data:
                following = self._following()
                if following is None:
                    return b""
                # Nobody writes to ours any more, but somebody may have between our read and the rotation.
                data = os.read(self._fd, CHUNK_BYTES) if self._fd >= 0 else b""
                if not data:
                    if self._open(following):
                        self._torn = b""
                    else:
                        failures += 1
                        time.sleep(_MOMENT_SECONDS)
                    continue
            whole, end, torn = (self._torn + data).rpartition(b"\n")
            self._torn = torn if len(torn) <= _JOIN_BYTES else b""
            if end:
                return whole + end
        return b""

    def _seek(self, move: Callable[[], bool]) -> None:
        for _ in range(_TRIES):
            if move():
                return
            self.close()  # rotated under us: from the start again

    def _to_time(self, since: float) -> bool:
        for file in self._files():
            if not self._open(file):
                return False
            if os.fstat(self._fd).st_mtime >= since:
                return True
            os.lseek(self._fd, 0, os.SEEK_END)
        return True

    def _to_tail(self, lines: int) -> bool:
        for file in reversed(self._files()):
            if not self._open(file):
                return False
            offset, lines = _tail(self._fd, lines)
            os.lseek(self._fd, offset, os.SEEK_SET)
            if lines == 0:
                break
        return True

    def _following(self) -> "_File | None":
        """The file after the open one; the oldest when none is open or ours is no longer kept."""
        if self._fd < 0:
            return next(iter(self._files()), None)
        ours = os.fstat(self._fd)
        if not ours.st_nlink:
            return next(iter(self._files()), None)
        paths = self._listed()
        if paths and _identity(paths[-1]) == (ours.st_dev, ours.st_ino):
            return None  # what is being written: the usual case, without reading the folder twice
        found = self._files()
        at = next(
            (n for n, file in enumerate(found) if file.identity == (ours.st_dev, ours.st_ino)), len(found)
        )
        return found[at + 1] if at + 1 < len(found) else None

    def _files(self) -> "list[_File]":
        """The files as they were at one moment: names move while they are looked at."""
        before: list[_File] = []
        for _ in range(_TRIES):
            paths = self._listed()
            found = [_File(path, seen) for path in paths if (seen := _identity(path))]
            if found == before and len(found) == len(paths):
                break
            before = found
        return before

    def _open(self, file: "_File") -> bool:
        """Whether it still was under its name, and ours to read: a new one is given to us a moment after."""
        try:
            fd = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError):
            return False
        seen = os.fstat(fd)
        if (seen.st_dev, seen.st_ino) != file.identity:
            os.close(fd)
            return False
        self.close()
        self._fd = fd
        return True


@dataclass(frozen=True)
class _File:
    path: Path
    identity: tuple[int, int]  # device and inode: what a rotation does not change


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        seen = path.lstat()
    except FileNotFoundError:
        return None
    return seen.st_dev, seen.st_ino


def _tail(fd: int, lines: int) -> tuple[int, int]:
    """Where the last `lines` whole lines of a file begin, and how many are still missing."""
    end = os.lseek(fd, 0, os.SEEK_END)
    rest = b""  # the lines known so far that follow `end`
    while end > 0:
        start = max(0, end - CHUNK_BYTES)
        block = os.pread(fd, end - start, start) + rest
        first = 0 if start == 0 else block.find(b"\n") + 1
        at = len(block)
        while at > first:
            begin = block.rfind(b"\n", first, at - 1) + 1 or first
            parts = block[begin : min(at, begin + 128)].split(b" ", 3)
            if len(parts) > 2 and parts[2][:1] == b"F":
                if lines == 0:
                    return start + at, 0
                lines -= 1
            at = begin
        if start == 0:
            break
        rest, end = block[: max(first, 0)], start
        if len(rest) > _JOIN_BYTES:
            return start, 0  # no line is that long: not a log of ours
    return 0, lines


def _named(folder: Path) -> list[tuple[Path, int, int]]:
    """(path, attempt, rotations since it was written; 0 is being written)."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    matched = [(name, _NAME.fullmatch(name)) for name in names]
    return [(folder / name, int(m[1]), int(m[2] or 0)) for name, m in matched if m]
