"""A tar stream put into a box, by a sealed child with the box's own rights. See `entered`.

The stream may be made to hurt, and the guest may change everything while it is written. No name leads out of the
directory that was asked for: not by dots, not by being absolute, not through a link, whoever made it and whenever.
What is refused is named, and the rest goes on; a stream that is broken or too much ends it.
"""

import errno
import os
import stat
from collections.abc import Sequence
from typing import Any

from agentk.runtime import kernel
from agentk.runtime.launcher import attributes, packing, tars

_READ_BYTES = 256 * 1024
_NAME_MAX = 255
_LATE_MAX = 10_000
_ZEROS = bytes(4096)
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENOMEM)
_AGAIN = 100  # when the guest moves directories so fast that the kernel cannot say where we are


class Unpacker:
    """One stream."""

    def __init__(self, source: int, whole: bool = False) -> None:
        """`whole`: as it was packed; links may lead anywhere, as they did there, and none is followed here."""
        self._source, self._whole = source, whole
        self._buffer = bytearray()
        self._refused = packing.Refused()
        self._files = self._bytes = 0
        self._late: list[
            tuple[Sequence[str], int]
        ] = []  # modes of directories that we could not write in then
        self._root = -1

    def unpack(self, path: str, resolve: int) -> dict[str, Any]:
        """Everything, below `path`, which is made when it is missing. Raises OSError."""
        self._root = _target(path, resolve)
        if packing.is_kernels(self._root):
            raise OSError(errno.EPERM, f"{path}: what is in there is the kernel's")
        members = tars.Reader(self._read)
        while (member := members.next()) is not None:
            self._bytes += member.size
            if self._bytes > tars.BYTES_MAX:
                raise tars.Bad(f"{member.name[:200]}: with it there are more than {tars.BYTES_MAX} bytes")
            left = member.size
            if why := member.odd or self._unfit(member):
                self._refused.add(member.name, why)
            else:
                left = self._put(member)
            self._skip(left + tars.padded(member.size) - member.size)
        for parts, mode in reversed(self._late):
            self._set_mode(parts, mode)
        while os.read(
            self._source, _READ_BYTES
        ):  # what fills the last record; its writer must not meet a closed pipe
            pass
        return {
            "files": self._files,
            "bytes": self._bytes,
            "refused": self._refused.names,
            "refused_count": self._refused.count,
        }

    def _unfit(self, member: tars.Member) -> str:
        """Why it cannot be, by its names alone."""
        if "\0" in member.name + member.target:
            return "its name is none"
        if member.name.startswith("/"):
            return "its name is absolute"
        parts = _parts(member.name)
        if ".." in parts:
            return "its name leads upwards"
        if (
            len(member.name.encode("utf-8", "surrogateescape")) > tars.NAME_MAX_BYTES
            or len(parts) > tars.DEPTH_MAX
        ):
            return "its name is too long"
        if any(len(part.encode("utf-8", "surrogateescape")) > _NAME_MAX for part in parts):
            return "its name is too long"
        if member.kind == tars.SYMLINK:
            return "" if self._whole or _stays(member.target, len(parts) - 1) else "the link leads elsewhere"
        if member.kind == tars.LINK and (member.target.startswith("/") or ".." in _parts(member.target)):
            return "the link leads elsewhere"
        if member.kind == tars.LINK and _parts(member.target) == parts:
            return "the link leads to itself"
        return "" if parts or member.kind == tars.FOLDER else "it has no name"

    def _put(self, member: tars.Member) -> int:
        """How much of its content is still to be read."""
        parts = _parts(member.name)
        left = member.size
        try:
            if member.kind == tars.FOLDER:
                self._put_folder(parts, member)
                return left
            folder = self._folder(parts[:-1])
            try:
                if member.kind == tars.FILE:
                    fd = _new(folder, parts[-1])
                    try:
                        for left in self._copied(fd, member.size):  # noqa: B007 (what is left when it fails, too)
                            pass
                        if self._whole:
                            attributes.give(fd, member.attributes)
                        os.fchmod(fd, member.mode & tars.MODE)
                        os.utime(fd, (member.mtime, member.mtime))
                    finally:
                        os.close(fd)
                elif member.kind == tars.SYMLINK:
                    _clear(folder, parts[-1])
                    os.symlink(member.target, parts[-1], dir_fd=folder)
                else:
                    self._link(_parts(member.target), folder, parts[-1])
                self._files += 1
            finally:
                os.close(folder)
        except OSError as error:
            if error.errno in _FULL or isinstance(error, tars.Bad):
                raise OSError(error.errno, f"{member.name[:200]}: {error.strerror}") from None
            self._refused.add(member.name, _why(error))
        return left

    def _copied(self, fd: int, size: int) -> Any:
        """Yields how much is left, after every part."""
        left = size
        yield left
        while left:
            data = self._read(min(left, _READ_BYTES))
            if not data:
                raise tars.Bad("it ends in the middle")
            left -= len(data)
            yield left
            _write(fd, data)
        os.ftruncate(fd, size)  # it may end in a hole

    def _put_folder(self, parts: Sequence[str], member: tars.Member) -> None:
        mode = member.mode
        if parts:
            os.close(self._folder(parts))
        if self._whole and member.attributes:
            fd = _below(self._root, "/".join(parts) or ".", os.O_RDONLY | os.O_DIRECTORY)
            try:
                attributes.give(fd, member.attributes)
            finally:
                os.close(fd)
        if not parts:
            return  # the directory itself stays as it is
        if mode & 0o700 == 0o700:
            self._set_mode(parts, mode)
        elif len(self._late) < _LATE_MAX:
            self._late.append((parts, mode))

    def _set_mode(self, parts: Sequence[str], mode: int) -> None:
        try:
            fd = _below(self._root, "/".join(parts), os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            self._refused.add("/".join(parts), _why(error))
            return
        os.fchmod(fd, mode & tars.MODE)
        os.close(fd)

    def _folder(self, parts: Sequence[str]) -> int:
        return _made(self._root, parts)

    def _link(self, target: Sequence[str], folder: int, name: str) -> None:
        if not target:
            raise OSError(errno.EINVAL, "the link leads nowhere")
        source = _below(self._root, "/".join(target[:-1]) or ".", _FOLDER)
        try:
            if not stat.S_ISREG(os.stat(target[-1], dir_fd=source, follow_symlinks=False).st_mode):
                raise OSError(errno.EINVAL, "the link leads to no file")
            _clear(folder, name)
            os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(source)

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = os.read(self._source, _READ_BYTES)
            if not data:
                break
            self._buffer += data
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    def _skip(self, size: int) -> None:
        while size:
            data = self._read(min(size, _READ_BYTES))
            if not data:
                raise tars.Bad("it ends in the middle")
            size -= len(data)


def _target(path: str, resolve: int) -> int:
    """The directory that all of it goes below."""
    try:
        try:
            return kernel.openat2(path, _FOLDER, resolve)
        except FileNotFoundError:
            if resolve & kernel.RESOLVE_BENEATH:
                return _made(os.open(".", _FOLDER), _parts(path))
            os.makedirs(path, 0o755, exist_ok=True)
            return kernel.openat2(path, _FOLDER, resolve)
    except OSError as error:
        raise OSError(error.errno, f"{path}: {os.strerror(error.errno or 0)}") from None


def _made(root: int, parts: Sequence[str]) -> int:
    """A descriptor of a directory below, made where it is missing."""
    try:
        return _below(root, "/".join(parts) or ".", _FOLDER)
    except FileNotFoundError:
        pass
    fd = os.dup(root)
    for part in parts:
        try:
            try:
                os.mkdir(part, 0o755, dir_fd=fd)
            except FileExistsError:
                pass
            following = _below(fd, part, _FOLDER)
        finally:
            os.close(fd)
        fd = following
    return fd


def _below(folder: int, path: str, flags: int) -> int:
    for again in range(_AGAIN):
        try:
            return kernel.openat2(path, flags, packing.BELOW, folder)
        except BlockingIOError:
            if again == _AGAIN - 1:
                raise
    raise OSError(errno.EAGAIN, "its directory is being moved")


def _new(folder: int, name: str) -> int:
    _clear(folder, name)
    return os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
    )


def _write(fd: int, data: bytes) -> None:
    """Blocks of zeros are left out: what was a hole where it was packed has no more room here than it had there."""
    if _ZEROS not in data and data.strip(b"\0"):
        _fill(fd, memoryview(data))
        return
    whole = memoryview(data)
    for at in range(0, len(data), len(_ZEROS)):
        block = whole[at : at + len(_ZEROS)]
        if block == _ZEROS[: len(block)]:
            os.lseek(fd, len(block), os.SEEK_CUR)
        else:
            _fill(fd, block)


def _fill(fd: int, rest: memoryview) -> None:
    while rest:
        rest = rest[os.write(fd, rest) :]


def _clear(folder: int, name: str) -> None:
    """What was there by that name goes, unless it is a directory."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _stays(target: str, depth: int) -> bool:
    """Whether a link so deep in the tree leads nowhere above it."""
    if not target or target.startswith("/") or len(target) > tars.NAME_MAX_BYTES:
        return False
    for part in target.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            return False
    return True


def _why(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.EXDEV, errno.ENOTDIR):
        return "its directory is a link or no directory"
    if error.errno == errno.EISDIR:
        return "a directory is in its place"
    return error.strerror or str(error)
