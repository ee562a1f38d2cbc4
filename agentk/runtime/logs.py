"""Logs as Kubernetes' container runtimes write them (CRI), and reading them back.

    2026-01-02T03:04:05.123456789Z stdout F a whole line
    2026-01-02T03:04:06.000000001Z stdout P a piece; its line goes on in the next record of the same stream

What arrives is written at once, as a piece when its line is not complete, so nothing waits in a process that may
die. A file that is full becomes NAME.1, which becomes NAME.2, and so on.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CONTENT_MAX_BYTES = 16 * 1024  # of one record, as CRI has it
_BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Line:
    """One line of one stream; `whole` is False for a last line without its end."""

    time: str  # RFC 3339, UTC, nanoseconds; of the line's first piece
    stream: str  # stdout, stderr, or log: what it said through its gate
    text: bytes
    whole: bool = True


# writing, pure


def stamp(time_ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"


def records(stream: str, data: bytes, when: str) -> bytes:
    """Records for `data` (at most CONTENT_MAX_BYTES, so that no line in it is longer)."""
    head = f"{when} {stream} ".encode()
    whole, end, rest = data.rpartition(b"\n")
    full = head + b"F "
    # replace() runs at memory speed: a flood of empty lines must not cost more than a flood of long ones
    lines = full + whole.replace(b"\n", b"\n" + full) + b"\n" if end else b""
    return lines + head + b"P " + rest + b"\n" if rest else lines


# where


def rotated(path: Path) -> list[Path]:
    """The files of one log that exist, oldest first."""
    older = []
    number = 1
    while (old := path.with_name(f"{path.name}.{number}")).exists():
        older.append(old)
        number += 1
    return [*reversed(older), *([path] if path.exists() else [])]


def rotate(path: Path, max_files: int) -> None:
    """Make room for a new file at `path`, keeping at most `max_files` in all."""
    number = max(1, max_files - 1)
    oldest = path.with_name(f"{path.name}.{number}")
    if max_files <= 1:
        path.unlink(missing_ok=True)
        return
    oldest.unlink(missing_ok=True)
    for age in range(number - 1, 0, -1):
        younger = path.with_name(f"{path.name}.{age}")
        if younger.exists():
            younger.rename(path.with_name(f"{path.name}.{age + 1}"))
    if path.exists():
        path.rename(path.with_name(f"{path.name}.1"))


# reading


class Joiner:
    """Records in, lines out: puts the pieces of each stream's lines together."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[str, list[bytes]]] = {}

    def feed(self, data: bytes) -> Iterator[Line]:
        """Lines completed by these whole records; what is not a record is skipped."""
        for record in data.split(b"\n"):
            parts = record.split(b" ", 3)
            if len(parts) != 4 or parts[2] not in (b"F", b"P"):
                continue
            stream = parts[1].decode("ascii", "replace")
            begun = self._begun.get(stream)
            when, pieces = begun or (parts[0].decode("ascii", "replace"), [])
            pieces.append(parts[3])
            if parts[2] == b"P":
                self._begun[stream] = (when, pieces)
                continue
            self._begun.pop(stream, None)
            yield Line(when, stream, b"".join(pieces))

    def rest(self) -> Iterator[Line]:
        """Lines that never ended, when nothing more can come."""
        for stream, (when, pieces) in self._begun.items():
            yield Line(when, stream, b"".join(pieces), whole=False)
        self._begun.clear()


def read(path: Path, *, tail: int | None = None, since: str = "") -> Iterator[Line]:
    """Lines of one log and its rotated files, oldest first. `tail`: only the last so many; `since`: a stamp."""
    joiner = Joiner()
    start = _tail_start(path, tail) if tail is not None else None
    lines = _lines(path, joiner, start)
    if since:
        lines = (line for line in lines if line.time >= since)
    if tail is None:
        yield from lines
        return
    yield from list(lines)[-tail:] if tail else []


def _lines(path: Path, joiner: Joiner, start: tuple[Path, int] | None) -> Iterator[Line]:
    for file in rotated(path):
        if start and file.name != start[0].name and _age(file) > _age(start[0]):
            continue
        offset = start[1] if start and file == start[0] else 0
        for block in _whole_records(file, offset):
            yield from joiner.feed(block)
    yield from joiner.rest()


def _age(file: Path) -> int:
    suffix = file.suffix.removeprefix(".")
    return int(suffix) if suffix.isdigit() else 0


def _whole_records(file: Path, offset: int) -> Iterator[bytes]:
    try:
        reading = file.open("rb")
    except FileNotFoundError:  # rotated away meanwhile
        return
    with reading:
        reading.seek(offset)
        kept = b""
        while block := reading.read(_BLOCK_BYTES):
            whole, end, rest = block.rpartition(b"\n")
            if end:
                yield kept + whole + end
                kept = rest
            else:
                kept += block


def _tail_start(path: Path, tail: int) -> tuple[Path, int] | None:
    """Where to begin to have at least `tail` whole lines: found from the end, in blocks."""
    found = 0
    files = rotated(path)
    for file in reversed(files):
        size = file.stat().st_size
        position = size
        kept = b""
        while position > 0:
            begin = max(0, position - _BLOCK_BYTES)
            with file.open("rb") as reading:
                reading.seek(begin)
                block = reading.read(position - begin) + kept
            head, _, rest = block.partition(b"\n") if begin else (b"", b"", block)
            found += _ends(rest)
            if found > tail:  # one more, for the first may be the end of a line that began before
                return file, begin + (len(head) + 1 if begin else 0)
            kept, position = head, begin
    return (files[0], 0) if files else None


def _ends(data: bytes) -> int:
    return sum(1 for record in data.split(b"\n") if record.split(b" ", 3)[2:3] == [b"F"])


def texts(lines: Iterable[Line]) -> bytes:
    """Lines as a person reads them."""
    return b"".join(line.text + (b"\n" if line.whole else b"") for line in lines)
