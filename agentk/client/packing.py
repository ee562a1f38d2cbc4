"""An agent's source as one archive named by its content: the same files give the same digest on every machine.

Owner, times and order say nothing; of the mode only "executable" stays. Nothing outside the source gets in: links
must stay inside, and only files, directories and links are packed.
"""

import hashlib
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from agentk.api import errors
from agentk.client import ignoring

MAX_BYTES = 256 * 1024 * 1024
MAX_FILES = 50_000
_IN_MEMORY_BYTES = 16 * 1024 * 1024
_SLOT_BYTES = 512  # a tar header


@dataclass(frozen=True)
class Packed:
    """An archive ready to be read from its start; `with` closes it."""

    digest: str  # "sha256:…" of the archive
    size_bytes: int
    file: IO[bytes]
    names: tuple[str, ...]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@dataclass(frozen=True)
class _Entry:
    path: Path
    name: str  # relative, with slashes
    status: os.stat_result


def pack(source: Path) -> Packed:
    """Pack a directory, or one file. Raises Invalid naming the file that cannot be packed."""
    file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 (handed out)
    try:
        entries = _entries(source)
        _check_sizes(source, entries)
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for entry in entries:
                _add(tar, entry, source)
        size = file.tell()
        file.seek(0)
        digest = hashlib.sha256()
        while data := file.read(1024 * 1024):
            digest.update(data)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return Packed(f"sha256:{digest.hexdigest()}", size, file, tuple(entry.name for entry in entries))


def _entries(source: Path) -> list[_Entry]:
    try:
        status = source.stat()
        if stat.S_ISREG(status.st_mode):
            return [_Entry(source, source.name, status)]
        if not stat.S_ISDIR(status.st_mode):
            raise errors.Invalid(f"{source} is neither a directory nor a file")
        file = source / ignoring.FILE
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        entries = list(_walk(source, "", ignoring.rules(lines)))
    except FileNotFoundError as error:
        raise errors.Invalid(f"{error.filename} does not exist") from None
    except OSError as error:
        raise errors.Invalid(f"{error.filename or source} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise errors.Invalid(f"{source / ignoring.FILE} is not UTF-8 text") from None
    return sorted(entries, key=lambda entry: entry.name)


def _walk(directory: Path, prefix: str, rules: list[ignoring.Rule]) -> Iterator[_Entry]:
    with os.scandir(directory) as found:
        for item in found:
            name = prefix + item.name
            is_directory = item.is_dir(follow_symlinks=False)
            if ignoring.ignored(name, is_directory, rules):
                continue
            yield _Entry(Path(item.path), name, item.stat(follow_symlinks=False))
            if is_directory:
                yield from _walk(Path(item.path), name + "/", rules)


def _check_sizes(source: Path, entries: list[_Entry]) -> None:
    """Before anything is read, so that a home directory named by mistake is told at once."""
    if len(entries) > MAX_FILES:
        raise errors.Invalid(
            f"{source} holds {len(entries)} files and directories; {MAX_FILES} can be packed",
            hint=f"list what the agent does not need in {ignoring.FILE}",
        )
    files = [entry for entry in entries if stat.S_ISREG(entry.status.st_mode)]
    total = sum(entry.status.st_size for entry in files) + _SLOT_BYTES * len(entries)
    if total > MAX_BYTES:
        largest = max(files, key=lambda entry: entry.status.st_size)
        raise errors.TooLarge(
            f"{source} is {total / 2**20:.0f} MiB; {MAX_BYTES // 2**20} MiB can be packed "
            f"(the largest file is {largest.name}, {largest.status.st_size / 2**20:.0f} MiB)",
            hint=f"list what the agent does not need in {ignoring.FILE}, or mount it as a volume",
        )


def _add(tar: tarfile.TarFile, entry: _Entry, source: Path) -> None:
    mode = entry.status.st_mode
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise errors.Invalid(f"{os.fsencode(entry.name)!r} in {source}: the name is not UTF-8") from None
    member = tarfile.TarInfo(entry.name)
    member.mode = 0o755 if mode & 0o111 else 0o644
    if stat.S_ISDIR(mode):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(member)
    elif stat.S_ISLNK(mode):
        member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, _link(entry, source)
        tar.addfile(member)
    elif stat.S_ISREG(mode):
        _add_file(tar, member, entry)
    else:
        what = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a FIFO"}.get(stat.S_IFMT(mode), "a device")
        raise errors.Invalid(
            f"{entry.path} is {what}: only files, directories and links can be packed",
            hint=f"add {entry.name} to {ignoring.FILE}",
        )


def _add_file(tar: tarfile.TarFile, member: tarfile.TarInfo, entry: _Entry) -> None:
    try:
        fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise errors.Invalid(
            f"{entry.path} cannot be read: {error.strerror}", hint=f"add {entry.name} to {ignoring.FILE}"
        ) from None
    with os.fdopen(fd, "rb") as file:
        member.size = entry.status.st_size
        now = os.fstat(fd)
        if not stat.S_ISREG(now.st_mode) or now.st_size != member.size:
            raise errors.Invalid(f"{entry.path} changed while it was packed", hint="try again")
        try:
            tar.addfile(member, file)
        except OSError as error:
            raise errors.Invalid(
                f"{entry.path} changed while it was packed: {error}", hint="try again"
            ) from None


def _link(entry: _Entry, source: Path) -> str:
    """Where a link points, when that is inside the source."""
    linked = os.readlink(entry.path)
    reached = os.path.normpath(os.path.join(os.path.dirname(entry.name), linked))
    if os.path.isabs(linked) or reached == ".." or reached.startswith("../"):
        raise errors.Invalid(
            f"{entry.path} links to {linked}, outside {source}",
            hint=f"copy the file, or add {entry.name} to {ignoring.FILE}",
        )
    return linked
