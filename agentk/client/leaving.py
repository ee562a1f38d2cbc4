"""A file or a tree of ours as a tar stream for a box, made while it is read: nothing is held but one piece."""

import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agentk.api import errors

_CHUNK_BYTES = 256 * 1024
_BLOCK = 512
_END = bytes(2 * _BLOCK)


@dataclass
class Leaving:
    """`name` is what the box is told that the file or the top of the tree is called. A `client.wire.Readable`."""

    path: Path
    name: str
    progress: Callable[[int], None]
    left_out: list[tuple[str, str]] = field(default_factory=list)  # a name and why
    files: int = 0
    sent_bytes: int = 0

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise errors.NotFound(f"{self.path}: no such file or directory")
        self._pieces = self._stream()
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        while not self._rest:
            self._rest = next(self._pieces, b"")
            if not self._rest:
                return b""
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def _stream(self) -> Iterator[bytes]:
        top = self.path.resolve() if self.path.is_symlink() else self.path  # a link that was named is meant
        yield from self._entry(top, self.name)
        yield _END

    def _entry(self, path: Path, name: str) -> Iterator[bytes]:
        seen = path.lstat()
        if stat.S_ISDIR(seen.st_mode):
            yield _header(name + "/", seen, tarfile.DIRTYPE)
            for below in sorted(os.listdir(path)):
                yield from self._entry(path / below, f"{name}/{below}")
        elif stat.S_ISLNK(seen.st_mode):
            yield _header(name, seen, tarfile.SYMTYPE, target=os.readlink(path))
            self.files += 1
        elif stat.S_ISREG(seen.st_mode):
            yield from self._file(path, name)
        else:
            self.left_out.append((str(path), "it is neither a file, a directory nor a link"))

    def _file(self, path: Path, name: str) -> Iterator[bytes]:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            seen = os.fstat(file.fileno())
            yield _header(name, seen, tarfile.REGTYPE, size=seen.st_size)
            left = seen.st_size
            while left:
                piece = file.read(min(left, _CHUNK_BYTES))
                if not piece:
                    raise errors.Conflict(f"{path} became shorter while it was copied")
                left -= len(piece)
                self.sent_bytes += len(piece)
                self.progress(self.sent_bytes)
                yield piece
            yield bytes(-seen.st_size % _BLOCK)
            self.files += 1


def size_of(path: Path) -> int:
    """What there is to copy, about: files may change meanwhile."""
    if not path.is_dir():
        return path.stat().st_size if path.exists() else 0
    found = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                seen = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue
            found += seen.st_size if stat.S_ISREG(seen.st_mode) else 0
    return found


def _header(name: str, seen: os.stat_result, type_: bytes, *, size: int = 0, target: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = type_, size, target
    info.mode, info.mtime = stat.S_IMODE(seen.st_mode) & 0o777, int(seen.st_mtime)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
