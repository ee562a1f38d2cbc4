"""Files of a box as a tar stream, read by a sealed child with the box's own rights. See `entered`.

The guest may change everything while it is read. What is below the path that was asked for is reached from
directories that are open, a name at a time and never through a link, so nothing else gets into the stream; what
became something else meanwhile is named and left out.
"""

import errno
import os
import stat
from typing import Any

from agentk.runtime import kernel
from agentk.runtime.launcher import attributes, tars

BELOW = kernel.RESOLVE_BENEATH | kernel.RESOLVE_NO_SYMLINKS | kernel.RESOLVE_NO_MAGICLINKS
_READ_BYTES = 256 * 1024
_NAMED = 20
_NAME_LETTERS = 200
_KERNELS = (0x9FA0, 0x62656572)  # /proc and /sys: what is in there is not the box's
# A file that is nearly all holes is small on its disk and fills another.
_HOLES_BYTES, _HOLES_RATIO = 64 << 20, 8
_LINKS_BYTES = 8 << 20  # of names that are remembered


class Refused:
    """What was left out, and why; the first of it by name."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.count = 0

    def add(self, name: str, why: str) -> None:
        self.count += 1
        if len(self.names) < _NAMED:
            # Names are bytes: what is no text is written out, for people and JSON are told of it.
            told = name[:_NAME_LETTERS].encode("utf-8", "backslashreplace").decode()
            self.names.append(f"{told}: {why}")


class Packer:
    """One stream."""

    def __init__(self, out: int, *, whole: bool = False) -> None:
        """`whole`: to be brought back as it was, with names of the same file as such, and with attributes; and never
        shorter than a record, so that it does not end while its reader waits with a pipe that is smaller."""
        self._out, self._whole = out, whole
        self._links: dict[
            tuple[int, ...], str
        ] = {}  # a file of several names → the one that it has in the stream
        self._links_bytes = self._written = 0
        self._refused = Refused()
        self._files = self._bytes = self._entries = 0

    def pack(self, path: str, resolve: int, name: str) -> dict[str, Any]:
        """All of `path`, which is called `name` in the stream. Raises OSError when it is not there."""
        try:
            fd = kernel.openat2(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, resolve)
        except OSError as error:
            raise OSError(error.errno, f"{path}: {os.strerror(error.errno or 0)}") from None
        seen = os.fstat(fd)
        if is_kernels(fd):
            raise OSError(errno.EPERM, f"{path}: what is in there is the kernel's")
        if stat.S_ISDIR(seen.st_mode):
            self._folder(fd, name, seen, 0)
        elif stat.S_ISREG(seen.st_mode):
            self._file(fd, name, seen)
        else:
            raise OSError(errno.EINVAL, f"{path} is neither a file nor a directory")
        self._write(tars.END)
        if self._whole:
            self._write(bytes(-self._written % tars.RECORD))
        return {
            "files": self._files,
            "bytes": self._bytes,
            "refused": self._refused.names,
            "refused_count": self._refused.count,
        }

    def _folder(self, fd: int, name: str, seen: os.stat_result, depth: int) -> None:
        if depth > tars.DEPTH_MAX:
            self._refused.add(name, f"deeper than {tars.DEPTH_MAX} directories")
            return
        own = self._attributes(fd, name)
        moment = int(seen.st_mtime)
        self._header(tars.Member(f"{name}/", tars.FOLDER, 0, seen.st_mode, moment, attributes=own))
        with os.scandir(fd) as entries:
            for entry in entries:
                self._entries += 1
                if self._entries > tars.ENTRIES_MAX:
                    raise tars.Bad(f"there are more than {tars.ENTRIES_MAX} files")
                inner = f"{name}/{entry.name}"
                try:
                    self._entry(fd, entry.name, inner, seen.st_dev, depth)
                except BrokenPipeError:
                    raise
                except tars.Bad:
                    raise
                except OSError as error:
                    self._refused.add(inner, os.strerror(error.errno or 0))

    def _entry(self, folder: int, name: str, inner: str, device: int, depth: int) -> None:
        seen = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if len(inner) > tars.NAME_MAX_BYTES:
            self._refused.add(inner, "its name is too long")
        elif stat.S_ISLNK(seen.st_mode):
            target = os.readlink(name, dir_fd=folder)
            self._header(tars.Member(inner, tars.SYMLINK, 0, 0o777, int(seen.st_mtime), target))
        elif not stat.S_ISDIR(seen.st_mode) and not stat.S_ISREG(seen.st_mode):
            self._refused.add(inner, "it is neither a file, a directory nor a link")
        else:
            fd = kernel.openat2(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, BELOW, folder)
            try:
                self._opened(fd, inner, device, depth)
            finally:
                os.close(fd)

    def _opened(self, fd: int, inner: str, device: int, depth: int) -> None:
        seen = os.fstat(fd)
        if seen.st_dev != device and is_kernels(fd):
            self._refused.add(inner, "what is in there is the kernel's")
        elif stat.S_ISDIR(seen.st_mode):
            self._folder(fd, inner, seen, depth + 1)
        elif stat.S_ISREG(seen.st_mode):
            if not self._linked(inner, seen):
                self._file(fd, inner, seen)
        else:
            self._refused.add(inner, "it became something else meanwhile")

    def _linked(self, name: str, seen: os.stat_result) -> bool:
        """Whether it is in the stream by another name already; then this one is told as a link to it."""
        first = self._links.get(_identity(seen)) if self._whole and seen.st_nlink > 1 else None
        if first is not None:
            self._header(tars.Member(name, tars.LINK, 0, seen.st_mode, int(seen.st_mtime), first))
            self._files += 1
        return first is not None

    def _attributes(self, fd: int, name: str) -> tuple[tuple[str, bytes], ...]:
        if not self._whole:
            return ()
        found = attributes.Found(fd)
        for why in found.left:
            self._refused.add(name, why)
        return found.own

    def _file(self, fd: int, name: str, seen: os.stat_result) -> None:
        size = seen.st_size
        if size > _HOLES_BYTES and seen.st_blocks * 512 < size // _HOLES_RATIO:
            self._refused.add(name, f"it is nearly all holes, of {size} bytes")
            return
        if self._bytes + size > tars.BYTES_MAX:
            self._refused.add(name, f"with it there would be more than {tars.BYTES_MAX} bytes")
            return
        own = self._attributes(fd, name)
        self._header(tars.Member(name, tars.FILE, size, seen.st_mode, int(seen.st_mtime), attributes=own))
        if self._whole and seen.st_nlink > 1:
            self._links_bytes += len(name)
            if self._links_bytes > _LINKS_BYTES:
                self._refused.add(name, "there are too many links: its other names become files of their own")
            else:
                self._links[_identity(seen)] = name
        self._files += 1
        self._bytes += size
        left = size
        while left:
            data = os.read(fd, min(left, _READ_BYTES))
            if not data:
                self._refused.add(name, "it became shorter meanwhile")
                self._zeros(left)
                break
            self._write(data)
            left -= len(data)
        self._write(tars.filling(size))

    def _zeros(self, size: int) -> None:
        while size:
            part = min(size, _READ_BYTES)
            self._write(bytes(part))
            size -= part

    def _header(self, member: tars.Member) -> None:
        self._write(tars.header(member))

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._out, rest) :]


def _identity(seen: os.stat_result) -> tuple[int, ...]:
    """The number of a file that went meanwhile may be another's by now: then the rest is not the same."""
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns


def is_kernels(fd: int) -> bool:
    """Whether it is of /proc or /sys."""
    return kernel.file_system(fd) in _KERNELS
