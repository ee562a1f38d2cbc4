"""Sources made into directories: one per digest, extracted once, mounted read-only into many boxes.

The archive comes from a person's machine through the control API, so nothing in it is trusted: regular files,
directories and links that stay inside, bounded in number and size, with our own modes.
"""

import contextlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from agentk.api import errors

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_MEMBERS = 50_000
_MAX_DEPTH = 64
_MAX_BYTES = 1 << 30  # extracted; the archive itself is limited where it is received


def stage(folder: Path, digest: str, archive: bytes) -> Path:
    """Directory `folder`/DIGEST with the archive's files; made once, by rename, so a crash leaves no half of it.

    Raises Invalid naming the member that is not allowed.
    """
    final = folder / digest.removeprefix("sha256:")
    if final.is_dir():
        return final
    folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    half = Path(tempfile.mkdtemp(prefix=".half-", dir=folder))
    try:
        _extract(archive, half, digest)
        with contextlib.suppress(FileExistsError):
            _settle(half)
            half.rename(final)
    except OSError as error:
        if not final.is_dir():
            raise errors.Unavailable(f"source {digest} cannot be staged: {error}") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return final


def collect(folder: Path, in_use: Iterable[str]) -> list[str]:
    """Remove the directories of sources that nobody uses and what a crash left. Returns their digests."""
    kept = {digest.removeprefix("sha256:") for digest in in_use}
    gone = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)
            gone.append(f"sha256:{path.name}")
    return gone


def _extract(archive: bytes, into: Path, digest: str) -> None:
    """By hand, because Python 3.11.2 has no extraction filters. Links last: nothing is written through one."""
    members, total, links = 0, 0, dict[Path, str]()
    try:
        # Never compressed: a kilobyte could claim one header of gigabytes, which tarfile reads whole.
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            for member in tar:
                members, total = members + 1, total + max(0, member.size)
                if members > _MAX_MEMBERS or total > _MAX_BYTES:
                    raise errors.Invalid(f"source {digest} is too large: {members} files, {total} bytes")
                path = into / _inside(member.name, digest)
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                if member.issym():
                    _inside(
                        os.path.normpath(os.path.join(os.path.dirname(member.name), member.linkname)), digest
                    )
                    links[path] = member.linkname
                elif member.isreg() and (data := tar.extractfile(member)) is not None:
                    with open(os.open(path, _NEW_FILE, member.mode & 0o777 | 0o600), "wb") as file:
                        shutil.copyfileobj(data, file)
                else:
                    raise errors.Invalid(f"source {digest}: {member.name!r} is not a file, directory or link")
        for path, target in links.items():
            path.symlink_to(target)
    except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError) as error:  # chained headers
        raise errors.Invalid(f"source {digest} is not a usable archive: {error}") from error


def _inside(name: str, digest: str) -> str:
    """The name, when it stays below the source's own directory."""
    if name.startswith("/") or ".." in name.split("/"):
        raise errors.Invalid(f"source {digest}: {name!r} leads out of the source")
    if name.count("/") > _MAX_DEPTH:
        raise errors.Invalid(f"source {digest}: {name[:80]!r}… is deeper than {_MAX_DEPTH} directories")
    return name


def _settle(root: Path) -> None:
    """Readable by every box's uid, writable by none; on disk before the rename says it is whole."""
    for directory, _, names in os.walk(root):
        os.chmod(directory, 0o755)
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                os.chmod(path, 0o755 if os.stat(path).st_mode & 0o111 else 0o644)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
