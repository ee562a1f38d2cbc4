"""A backup a person makes: one tar file with the databases and every blob; and the way back from it.

The archive may come from anywhere, so nothing in it is trusted: known names only, blobs checked against their
digests, the database checked and its schema known, all before anything of the store is touched.
"""

import io
import json
import os
import re
import secrets
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from agentk.api import errors
from agentk.store import backups, opening, rows, schema
from agentk.store.blobs import BLOB_BYTES_MAX, Blobs

_ABOUT = "agentk-backup.json"
_FORMAT = 1
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_CHUNK = 1 << 20


# Other databases of the same folder, of which this room knows nothing but their names. Save: writes a consistent copy
# into a new file. Check: what is wrong with a copy from anywhere, "" when it may take the database's place.
Save = Callable[[Path], None]
Check = Callable[[Path], str]
_NONE: Mapping[str, Any] = {}


def write(folder: Path, blobs: Blobs, archive: Path, parts: Mapping[str, Save] = _NONE) -> None:
    """Write the store at `folder`, which may be in use, to `archive` (0600), complete or not at all.

    `parts` are of a moment before the store's: nothing in them belongs to an object that came later. Raises
    Unavailable with the reason.
    """
    half = archive.with_name(f".{archive.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(half, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file, tarfile.open(fileobj=file, mode="w") as tar, blobs.kept():
            about = {"format": _FORMAT, "created": backups.stamp(time.time())}
            _add(tar, _ABOUT, json.dumps(about).encode())
            with tempfile.TemporaryDirectory(dir=folder, prefix=backups.SCRATCH) as scratch:
                for name, save in parts.items():
                    save(Path(scratch) / name)
                    tar.add(Path(scratch) / name, name)
                copy = Path(scratch) / backups.DATABASE
                backups.copy_to(folder / backups.DATABASE, copy)
                tar.add(copy, backups.DATABASE)
            for digest in blobs.digests():
                name = digest.removeprefix("sha256:")
                _add(tar, f"blobs/sha256/{name[:2]}/{name}", blobs.get(digest))
        backups.sync(half)
        half.rename(archive)
        backups.sync(archive.parent)
    except (OSError, sqlite3.Error, tarfile.TarError) as error:
        raise errors.Unavailable(f"backup to {archive} failed: {error}") from error
    finally:
        half.unlink(missing_ok=True)


def restore(
    folder: Path, archive: Path, parts: Mapping[str, Check] = _NONE, leave_out: Sequence[str] = ()
) -> list[str]:
    """Put the store of `archive`, and of `parts` what it has, in place of what is at `folder`, which is kept under
    other names. `leave_out`: names of parts that stay as they are.

    Every resourceVersion given out before is Expired afterwards. Raises Unavailable while a daemon runs, Invalid
    when the archive is not one of ours or damaged; then nothing is changed. Returns what to tell a person. Repeatable:
    the store goes last, so who dies in the middle has the objects there were and does it again.
    """
    opening.check_folder(folder)
    lock_fd = opening.lock(folder)
    try:
        backups.finish(folder)
        staged = backups.staged(folder)
        count, had = _unpack(archive, folder, Blobs(folder / "blobs"), [*parts])
        _check(staged, archive)
        coming = [name for name in parts if name in had and name not in leave_out]
        for name in coming:
            if wrong := parts[name](backups.staged(folder, name)):
                raise errors.Invalid(f"{archive} holds a {name} that {wrong}")
        current = folder / backups.DATABASE
        backups.begin_epoch(staged, _newest(current))
        ending = f".before-restore-{backups.stamp(time.time())}"
        told = [f"{archive} was restored, with {count} blobs{''.join(f' and {name}' for name in coming)}"]
        for name in coming:
            backups.sync(backups.staged(folder, name))
            kept = backups.swap(folder, f"{name}{ending}", name)
            told += [f"the {name} there was is kept as {kept}"] if kept.exists() else []
        aside = backups.swap(folder, f"{backups.DATABASE}{ending}")
        return [*told, f"the store there was is kept as {aside}"] if aside.exists() else told
    except (OSError, sqlite3.Error) as error:
        raise errors.Unavailable(f"{archive} cannot be restored: {error}") from error
    finally:
        backups.finish(folder)
        os.close(lock_fd)


def _unpack(archive: Path, folder: Path, blobs: Blobs, parts: Sequence[str]) -> tuple[int, set[str]]:
    """How many blobs there were, and the names of all that is no blob."""
    count, seen = 0, set[str]()
    databases = (backups.DATABASE, *parts)
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                source = tar.extractfile(member) if member.isreg() else None
                found = _BLOB.fullmatch(member.name)
                known = found or member.name in (_ABOUT, *databases)
                if source is None or member.name in seen or not known:
                    raise errors.Invalid(f"{archive} holds {member.name!r}, which no backup of ours does")
                seen.add(member.name)
                if member.name == _ABOUT:
                    _check_format(archive, source.read(4096))
                elif not found:
                    _copy(source, backups.staged(folder, member.name))
                elif member.size <= BLOB_BYTES_MAX:
                    blobs.put(source.read(), f"sha256:{found[2]}")
                    count += 1
    except (tarfile.TarError, errors.BadRequest) as error:
        raise errors.Invalid(f"{archive} is not a whole backup: {error}") from error
    if not {_ABOUT, backups.DATABASE} <= seen:
        raise errors.Invalid(f"{archive} is not a backup of agentk: it has no {backups.DATABASE}")
    return count, seen & {*databases}


def _check_format(archive: Path, text: bytes) -> None:
    try:
        known = json.loads(text)["format"] == _FORMAT
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise errors.Invalid(f"{archive} has a format we do not know", hint="restore it with a newer agentk")


def _check(staged: Path, archive: Path) -> None:
    damage = backups.damage(staged)
    if damage:
        raise errors.Invalid(f"{archive} holds a damaged database: {damage}")
    with closing(sqlite3.connect(staged)) as conn:
        if "objects" not in schema.applied(conn):
            raise errors.Invalid(f"{archive} holds a database that is not agentk's")
        newer = schema.unknown(conn)
    if newer:
        raise errors.Invalid(f"{archive} was written by a newer agentk: it has the migration {newer[0]}")


def _newest(database: Path) -> int:
    """The last resourceVersion of the store that is about to go; 0 when it can no longer say.

    Closing it folds what a crash left in its log into the file, so that the file is whole when it is set aside.
    """
    if not database.exists():
        return 0
    try:
        with closing(sqlite3.connect(database, timeout=5)) as conn:
            return rows.newest(conn)
    except sqlite3.Error:
        return 0


def _copy(source: IO[bytes], staged: Path) -> None:
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        while chunk := source.read(_CHUNK):
            file.write(chunk)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), 0o600, int(time.time())
    tar.addfile(info, io.BytesIO(data))
