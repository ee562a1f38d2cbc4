"""Put a backup in place of the store, with the rights of the daemon and none of root's."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from agentk.api import errors
from agentk.daemon import keeper, rights
from agentk.data.places import Places
from agentk.memory import backups, database, driver
from agentk.store import archives

# What is in a backup besides objects and sources: what agents remember.
PARTS = {database.DATABASE: backups.wrong}


def restore(places: Places, archive: Path, *, memory: bool = True) -> list[str]:
    """See `archives.restore`. As root it happens in a child of the daemon's uid, so every file stays the daemon's.
    Without `memory` what agents remember stays as it is.

    Raises AlreadyExists while a daemon runs, Unavailable and Invalid as `archives.restore` does.
    """
    lock = keeper.lock(places)
    try:
        uid = rights.prepare(places)
        store = places.state / "store"
        out = () if memory else (database.DATABASE,)
        if uid == os.getuid():
            return archives.restore(store, archive, PARTS, out)
        copied = store / "restoring.tar"
        try:
            with archive.open("rb") as source, open(_new(copied), "wb") as target:
                os.fchown(target.fileno(), uid, uid)
                shutil.copyfileobj(source, target)
            return _as(uid, store, copied, out)
        finally:
            copied.unlink(missing_ok=True)
    finally:
        os.close(lock)


def _new(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _as(uid: int, store: Path, archive: Path, out: Sequence[str]) -> list[str]:
    """In a forked child: everything is imported already, so it need not read an interpreter that is closed to it."""
    driver.error_types()  # with this, its SQLite is, too
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code, said = 1, ""
        try:
            os.close(read)
            rights.become(uid)
            said = "\n".join(archives.restore(store, archive, PARTS, out))
            code = 0
        except Exception as error:  # noqa: BLE001 (told through the pipe; a fork must not go on)
            said = str(error)
        os.write(write, said.encode())
        sys.stdout.flush()
        os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise errors.Invalid(said)
    return said.splitlines()
