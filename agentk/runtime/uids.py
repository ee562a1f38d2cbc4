"""Host uids for agents, when agentk runs as root: a block of numbers for each state directory on this machine.

A claim is a durable file named after the block, holding the path of the state directory that owns it. Two daemons
never share a block, a block keeps its owner across reboots, and one whose owner is gone is used again last of all:
files of its agents may lie on a disk that is only not mounted today.
"""

import fcntl
import grp
import os
import pwd
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agentk.api import errors

CLAIMS = Path("/var/lib/agentk-uids")
BASE = 1_900_000_000  # above every range that shadow-utils, systemd and containers hand out, below 2**31
SIZE = 10_000  # the first for the daemon, the last two for nobody and for who makes environments, else agents
BLOCKS = 1_000
_SMALLEST_HOST_RANGE = 10_000  # in a user namespace with fewer numbers, leave those of people alone


def block(state: Path, instance: str, *, claims: Path = CLAIMS) -> range:
    """The uids (and gids) of `state`, claimed durably. The first is the daemon's own, the last makes environments;
    the one before it owns nothing; agents get the others.

    `instance` only chooses where to look first. Raises Unavailable when no block is free or this process is in
    a user namespace that has no room for one.
    """
    blocks = mapped_blocks((_read("/proc/self/uid_map"), _read("/proc/self/gid_map")))
    taken = [*_subordinate("/etc/subuid"), *_subordinate("/etc/subgid")]
    with _locked(claims):
        owners = _owners(claims)
        for number, owner in owners.items():
            if owner == str(state) and number in blocks:
                return blocks[number]
        first = zlib.crc32(instance.encode())
        order = sorted(blocks, key=lambda number: (number - first) % BLOCKS)
        stale = [number for number in order if number in owners and not Path(owners[number]).exists()]
        for number in [number for number in order if number not in owners] + stale:
            if _is_free(blocks[number], taken):
                _write(claims / f"{number:03}", str(state))
                return blocks[number]
    raise errors.Unavailable(
        f"no block of {SIZE} host uids is free",
        hint=f"remove the claims of daemons that are gone from {claims}",
    )


def release(state: Path, *, claims: Path = CLAIMS) -> None:
    """Give up the claim of `state`, whose files are removed. Nothing to give up is success."""
    if not claims.is_dir():
        return
    with _locked(claims):
        for number, owner in _owners(claims).items():
            if owner == str(state):
                (claims / f"{number:03}").unlink()


def mapped_blocks(maps: Sequence[str]) -> dict[int, range]:
    """Number → block, as far as every map of this user namespace reaches. All of them outside of one."""
    wanted = {number: range(BASE + number * SIZE, BASE + (number + 1) * SIZE) for number in range(BLOCKS)}
    extents = [_extents(text) for text in maps if text]
    if all(_covers(each, wanted[0].start, wanted[BLOCKS - 1].stop) for each in extents):
        return wanted
    # Inside a smaller user namespace: count blocks down from the top of the largest extent.
    top = min(max(each, key=len, default=range(0)).stop for each in extents)
    found = {number: range(top - (number + 1) * SIZE, top - number * SIZE) for number in range(BLOCKS)}
    return {
        number: uids
        for number, uids in found.items()
        if uids.start >= _SMALLEST_HOST_RANGE
        and all(_covers(each, uids.start, uids.stop) for each in extents)
    }


def _extents(id_map: str) -> list[range]:
    rows = [line.split() for line in id_map.splitlines()]
    return [range(int(row[0]), int(row[0]) + int(row[2])) for row in rows if len(row) == 3]


def _covers(extents: Iterable[range], start: int, stop: int) -> bool:
    return any(extent.start <= start and stop <= extent.stop for extent in extents)


def _is_free(uids: range, taken: Iterable[range]) -> bool:
    """Nobody's subordinate range, and no user's or group's number."""
    if any(other.start < uids.stop and uids.start < other.stop for other in taken):
        return False
    users = [entry.pw_uid for entry in pwd.getpwall()] + [entry.gr_gid for entry in grp.getgrall()]
    return (
        not any(number in uids for number in users)
        and not _is_user(uids.start)
        and not _is_user(uids.stop - 1)
    )


def _is_user(uid: int) -> bool:
    try:  # a directory service may not list its users, but knows each
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _subordinate(file: str) -> Iterator[range]:
    for line in _read(file).splitlines():
        words = line.split(":")
        if len(words) == 3 and words[1].isdigit() and words[2].isdigit():
            yield range(int(words[1]), int(words[1]) + int(words[2]))


def _owners(claims: Path) -> dict[int, str]:
    return {int(file.name): _read(file) for file in claims.iterdir() if file.name.isdigit()}


@contextmanager
def _locked(claims: Path) -> Iterator[None]:
    claims.mkdir(mode=0o755, parents=True, exist_ok=True)
    lock = os.open(claims / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _write(file: Path, text: str) -> None:
    """Durable before it is used: files with these uids are about to be made."""
    scratch = file.with_name("new")
    with scratch.open("w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    scratch.rename(file)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(file: str | Path) -> str:
    try:
        return Path(file).read_text()
    except OSError:
        return ""
