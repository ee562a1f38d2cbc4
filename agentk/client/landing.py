"""Making files of what a box sent, below one place and nowhere else.

Every directory on the way is opened by its name and never through a link; a file is a new one, never written through
what was there; links are made only where nothing beyond the place can be reached by them. What is left out is told.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from agentk.api import errors
from agentk.client import tars

_ENTRIES_MAX = 1_000_000
_DEPTH_MAX = 256
_DIRECTORIES_MAX_BYTES = 64 * 1024 * 1024  # of the names of directories whose modes are set last
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Landing:
    """`name` below `folder`, which the person has named, is where the first entry goes, and all else below it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), name
        self._place = folder / name
        self._root: str | None = None  # what the sender calls it
        self._modes: list[tuple[tuple[str, ...], int]] = []
        self._modes_bytes = 0
        self.files = self.bytes = 0
        self.left_out: list[tuple[str, str]] = []  # a name and why

    def close(self) -> None:
        os.close(self._folder)

    def take(self, reader: tars.Reader, progress: Callable[[int], None]) -> None:
        """Everything. Raises BadRequest when the sender cannot be trusted, OSError when it cannot be made here."""
        for number, entry in enumerate(reader.entries()):
            if number >= _ENTRIES_MAX:
                raise errors.BadRequest(f"the box sent more than {_ENTRIES_MAX} files")
            self._one(entry, self._parts(entry.name), reader, progress)
        self.left_out += reader.refused()
        for parts, mode in reversed(self._modes):
            with contextlib.suppress(OSError), self._parent(parts) as parent:
                fd = os.open(parts[-1], _FOLDER, dir_fd=parent)
                try:
                    os.fchmod(fd, mode)
                finally:
                    os.close(fd)

    def _one(
        self, entry: tars.Entry, parts: tuple[str, ...], reader: tars.Reader, progress: Callable[[int], None]
    ) -> None:
        with self._parent(parts) as parent:
            if entry.kind == "directory":
                self._make_folder(parts, entry.mode, parent)
            elif entry.kind == "file":
                self._make_file(parts[-1], entry, parent, reader, progress)
            elif entry.kind == "link":
                self._make_link(parts, entry, parent)
            elif entry.kind == "hard":
                self._make_hard(parts, entry, parent)
            else:
                self._leave_out(entry, "it is neither a file, a directory nor a link")

    def _parts(self, name: str) -> tuple[str, ...]:
        """Where an entry goes: the names from the place on. Raises BadRequest for a name that leads elsewhere."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or "\0" in name or len(parts) > _DEPTH_MAX:
            raise errors.BadRequest(f"the box sent a name that leads out of the copy: {name[:200]!r}")
        if self._root is None:
            self._root = parts[0] if parts else ""
        if self._root:
            if not parts or parts[0] != self._root:
                raise errors.BadRequest(f"the box sent a name that leads out of the copy: {name[:200]!r}")
            parts = parts[1:]
        return (self._name, *parts)

    @contextlib.contextmanager
    def _parent(self, parts: tuple[str, ...]) -> Iterator[int]:
        fd = os.dup(self._folder)
        try:
            for part in parts[:-1]:
                try:
                    following = os.open(part, _FOLDER, dir_fd=fd)
                except FileNotFoundError:  # the sender did not name it
                    os.mkdir(part, 0o777, dir_fd=fd)
                    following = os.open(part, _FOLDER, dir_fd=fd)
                except OSError as error:
                    if error.errno in (errno.ELOOP, errno.ENOTDIR):
                        raise errors.BadRequest(
                            f"{part!r} below {self._place} is a link or a file where the box has a directory",
                            hint="copy to a directory that does not exist yet",
                        ) from None
                    raise
                os.close(fd)
                fd = following
            yield fd
        finally:
            os.close(fd)

    def _make_folder(self, parts: tuple[str, ...], mode: int, parent: int) -> None:
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            seen = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(seen.st_mode):
                raise errors.BadRequest(
                    f"{parts[-1]!r} below {self._place} is there and is no directory"
                ) from None
            return
        self._modes_bytes += sum(map(len, parts)) + 64
        if self._modes_bytes > _DIRECTORIES_MAX_BYTES:
            raise errors.BadRequest("the box sent more directories than anybody has")
        self._modes.append((parts, mode))

    def _make_file(
        self, name: str, entry: tars.Entry, parent: int, reader: tars.Reader, progress: Callable[[int], None]
    ) -> None:
        self._clear(name, parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=parent)
        with open(fd, "wb", buffering=0) as file:
            for piece in reader.data():
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) or 0 :]
                self.bytes += len(piece)
                progress(self.bytes)
            os.fchmod(fd, entry.mode)
            with contextlib.suppress(OSError, OverflowError, ValueError):
                os.utime(fd, (entry.modified, entry.modified))
        self.files += 1

    def _make_link(self, parts: tuple[str, ...], entry: tars.Entry, parent: int) -> None:
        if not stays_inside(entry.target, len(parts) - 2):
            self._leave_out(entry, f"it is a link to {entry.target!r}, which leads out of the copy")
            return
        self._clear(parts[-1], parent)
        os.symlink(entry.target, parts[-1], dir_fd=parent)
        self.files += 1

    def _make_hard(self, parts: tuple[str, ...], entry: tars.Entry, parent: int) -> None:
        """A second name of a file below the place; nothing is ever written through either."""
        target = self._parts(entry.target)
        with self._parent(target) as folder:
            try:
                seen = os.stat(target[-1], dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                seen = None
            if seen is None or not stat.S_ISREG(seen.st_mode) or target == parts:
                self._leave_out(entry, "it is a second name of something that is not in the copy")
                return
            self._clear(parts[-1], parent)
            os.link(target[-1], parts[-1], src_dir_fd=folder, dst_dir_fd=parent, follow_symlinks=False)
        self.files += 1

    def _clear(self, name: str, parent: int) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            seen = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(seen.st_mode):
                raise errors.BadRequest(f"{name!r} below {self._place} is a directory") from None
            raise

    def _leave_out(self, entry: tars.Entry, why: str) -> None:
        if len(self.left_out) < 1000:
            self.left_out.append((entry.name, why))


def stays_inside(target: str, depth: int) -> bool:
    """Whether a link in a directory so deep in the copy surely leads to something in the copy.

    It goes up first, by no more than there is, and then only down: up again might be up from where another link led.
    """
    if not target or target.startswith("/") or "\0" in target or depth < 0:
        return False
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = 0
    while up < len(parts) and parts[up] == "..":
        up += 1
    return up <= depth and ".." not in parts[up:]
