"""Files named by what is in them: packed sources. Written once, never changed, checked whenever they are read."""

import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentk.api import errors
from agentk.store import backups

BLOB_BYTES_MAX = 256 * 1024 * 1024  # a blob is held in memory on its way

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Blobs:
    """Under `folder`/sha256/xx/. Methods block; safe from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._touching = threading.Lock()  # between seeing a file and touching it, no collection may take it
        self._keeping = threading.Lock()

    def put(self, data: bytes, expected: str = "") -> str:
        """Store `data`, synced; returns its digest. Repeatable.

        Raises TooLarge, BadRequest when it is not what `expected` names, Unavailable when the disk refuses.
        """
        if len(data) > BLOB_BYTES_MAX:
            raise errors.TooLarge(
                f"{len(data)} bytes are too many: a blob has at most {BLOB_BYTES_MAX}",
                hint="leave build results and data sets out of the source directory",
            )
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if expected and expected != digest:
            raise errors.BadRequest(f"the data is {digest}, not {expected[:80]}", hint="send it again")
        path = self.path(digest)
        try:
            if not self._fresh(path, data):
                _write(path, data, self._folder)
        except OSError as error:
            raise errors.Unavailable(f"blob cannot be stored: {error.strerror}") from error
        return digest

    def get(self, digest: str) -> bytes:
        """Raises NotFound, or Unavailable when the file is no longer what its name says."""
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError:
            raise errors.NotFound(f"no blob {digest}", hint="apply the manifest again") from None
        except OSError as error:
            raise errors.Unavailable(f"blob {digest} cannot be read: {error.strerror}") from error
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise errors.Unavailable(
                f"blob {digest} is damaged on the disk", hint="apply the manifest again: that repairs it"
            )
        return data

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def path(self, digest: str) -> Path:
        """Where a blob is or would be. Raises BadRequest for what is no digest."""
        if not _DIGEST.fullmatch(digest):
            raise errors.BadRequest(f'"{digest[:80]}" is no digest', hint="write sha256: and 64 hex digits")
        hexes = digest.removeprefix("sha256:")
        return self._folder / "sha256" / hexes[:2] / hexes

    def digests(self) -> list[str]:
        found = (self._folder / "sha256").glob("??/" + "[0-9a-f]" * 64)
        return sorted(f"sha256:{path.name}" for path in found)

    def collect(self, in_use: set[str], older_than_seconds: float) -> list[str]:
        """Remove what nobody uses and nobody sent lately, and what a crash left half written."""
        oldest, gone = time.time() - older_than_seconds, []
        with self._keeping:
            for path in (self._folder / "sha256").glob("??/*"):
                digest = f"sha256:{path.name}"
                if digest in in_use:
                    continue
                if self._gone(path, oldest) and _DIGEST.fullmatch(digest):
                    gone.append(digest)
        return gone

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While this is held nothing is collected."""
        with self._keeping:
            yield

    def _gone(self, path: Path, oldest: float) -> bool:
        with self._touching:
            try:
                if path.stat().st_mtime > oldest:
                    return False
                path.unlink()
            except FileNotFoundError:  # a half-written one that is whole by now
                return False
        return True

    def _fresh(self, path: Path, data: bytes) -> bool:
        """Whether the same bytes are there already; then they count as sent just now."""
        try:
            if path.read_bytes() != data:
                return False
            with self._touching:
                os.utime(path)
        except FileNotFoundError:
            return False
        return True


def _write(path: Path, data: bytes, top: Path) -> None:
    for folder in (top, top / "sha256", path.parent):
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            backups.sync(folder.parent)
    half = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        half.rename(path)
        backups.sync(path.parent)
    finally:
        half.unlink(missing_ok=True)
