"""Who may enter which directory, and how the daemon gives its rights away."""

import os
from pathlib import Path

from agentk.api import errors
from agentk.data.places import Places
from agentk.runtime import kernel, uids


def prepare(places: Places) -> int:
    """Make the directories with their owners. Returns the daemon's uid, which writes only `state/store`.

    As root the group of what the daemon must pass through is its own uid's, which nothing else has.
    """
    root = os.getuid() == 0
    uid = uids.block(places.state, places.instance).start if root else os.getuid()
    gid = uid if root else os.getgid()
    folders = (
        (places.state, os.getuid(), 0o750 if root else 0o700),
        (places.run, os.getuid(), 0o710 if root else 0o700),
        (places.state / "boxes", os.getuid(), 0o700),
        (places.state / "logs", os.getuid(), 0o750 if root else 0o700),
        (places.state / "store", uid, 0o700),
    )
    for path, owner, mode in folders:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        _own(path, owner, gid, mode)
    return uid


def become(uid: int) -> None:
    """Give every right away, for good. Call it in a child that is about to be the daemon."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def _own(path: Path, uid: int, gid: int, mode: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        seen = os.fstat(fd)
        if os.getuid() == 0:
            os.fchown(fd, uid, gid)
        elif seen.st_uid != uid:
            raise errors.Forbidden(f"{path} belongs to uid {seen.st_uid}, not to uid {uid}")
        os.fchmod(fd, mode)
    finally:
        os.close(fd)
