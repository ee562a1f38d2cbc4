"""The cgroups of all agents of one instance: ROOT/NAMESPACE/UID/LEAF.

Limits sit on UID's group, so that a box and fifty execs in it share them; a Quota's sit on NAMESPACE's; processes
are only in leaves and in the keeper's group. Two dialects, v1 and v2, know the kernel's files; this one knows the
tree. Every verb is repeatable. Nothing here blocks for more than a few seconds, whatever a guest does.

An OOM takes the whole leaf on v2 (as the kubelet has it) and the largest process on v1, which knows nothing better.
"""

import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from agentk.runtime import box, cgroup_proof, cgroup_text, cgroup_v1, cgroup_v2

KILL_SECONDS = 2.0
REMOVE_SECONDS = 0.5  # the last task may still be on its way out of the kernel
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,127}")  # no dots: no kernel file can be meant
_NO_LEAF = PurePosixPath(".")


class Dialect(Protocol):
    """The kernel's files of one cgroup version."""

    @property
    def missing(self) -> Mapping[str, cgroup_text.Lack]: ...
    @property
    def version(self) -> str: ...
    @property
    def trees(self) -> Sequence[Path]: ...
    @property
    def foreign(self) -> Sequence[Path]: ...
    def adopt_inner(self, group: PurePosixPath) -> None: ...
    def adopt_leaf(self, group: PurePosixPath) -> None: ...
    def set_cpu(self, group: PurePosixPath, millis: int | None, weight: int) -> str: ...
    def cpu_quota(self, group: PurePosixPath) -> tuple[Path, str]: ...
    def set_memory(self, group: PurePosixPath, size: int | None) -> str: ...
    def set_pids(self, group: PurePosixPath, limit: int | None) -> str: ...
    def freeze(self, group: PurePosixPath, frozen: bool) -> bool: ...
    def is_frozen(self, group: PurePosixPath) -> bool: ...
    def kill_all(self, group: PurePosixPath) -> bool: ...
    def counters(self, group: PurePosixPath, leaf: PurePosixPath) -> box.Counters: ...
    def pids_denied(self, group: PurePosixPath, leaf: PurePosixPath) -> int | None: ...


class Cgroups:
    """All groups of one instance. Made by `open`, which never raises."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._trees = tuple(dialect.trees)
        self._foreign = tuple(dialect.foreign)
        self._toothless: dict[str, str] = {}  # limits that were seen not to bite, and how
        for tree in self._trees:
            (tree / cgroup_v2.KEEPER).mkdir(exist_ok=True)

    @classmethod
    def open(cls, instance: str, *, root_name: str | None = None, known: str = "") -> "Cgroups":
        """Find what this host offers. `instance` "" is the default one; `known` is an earlier `location`."""
        name = root_name or (f"agentk-{instance}" if instance else "agentk")
        try:
            return cls(_find(name, known))
        except OSError as error:  # a file system that lies about what it allows
            return cls(_nothing(cgroup_text.Lack(f"cannot use cgroups: {error}")))

    @property
    def missing(self) -> dict[str, str]:
        """Controller → why it cannot be used and how to mend it. Empty when all is well."""
        return {name: str(lack) for name, lack in self._dialect.missing.items()}

    @property
    def lacks(self) -> Mapping[str, cgroup_text.Lack]:
        """`missing`, with the reason and the mending command apart."""
        return self._dialect.missing

    @property
    def version(self) -> str:
        """v2, v1 (also hybrid) or none."""
        return self._dialect.version if self._trees else "none"

    @property
    def location(self) -> str:
        """The directory our root was made in. Keep it, with the boot id: the next `open` finds its groups there."""
        return str(self._trees[0].parent) if self._trees else ""

    # making

    def make_group(self, namespace: str, uid: str, limits: box.Limits) -> list[str]:
        """Make an agent's group, or change its limits. Answers those the kernel does not hold: "memory: why"."""
        group = _path(namespace, uid)
        for inner in (_NO_LEAF, group.parent, group):
            self._make(inner)
            self._dialect.adopt_inner(inner)
        return self._limit(group, limits)

    def _limit(self, group: PurePosixPath, limits: box.Limits) -> list[str]:
        answers = {
            "cpu": self._dialect.set_cpu(group, limits.cpu_millis, limits.cpu_weight),
            "memory": self._dialect.set_memory(group, limits.memory_bytes),
            "pids": self._dialect.set_pids(group, limits.pids),
        }
        asked = {"cpu": limits.cpu_millis, "memory": limits.memory_bytes, "pids": limits.pids}
        for name, why in self._toothless.items():
            if asked[name] is not None:
                answers[name] = answers[name] or why
        return [f"{name}: {why}" for name, why in answers.items() if why]

    def set_namespace_limits(
        self, namespace: str, cpu_millis: int | None, memory_bytes: int | None
    ) -> list[str]:
        """A Quota's limits, for all agents of the namespace together. Answers as `make_group` does."""
        group = _path(namespace)
        self._make(group)
        self._dialect.adopt_inner(_NO_LEAF)
        self._dialect.adopt_inner(group)
        answers = {
            "cpu": self._dialect.set_cpu(group, cpu_millis, 100),
            "memory": self._dialect.set_memory(group, memory_bytes),
        }
        return [f"{name}: {why}" for name, why in answers.items() if why]

    def make_leaf(self, namespace: str, uid: str, leaf: str) -> None:
        """Make one leaf in a group that exists."""
        group = _path(namespace, uid, leaf)
        self._make(group)
        self._dialect.adopt_leaf(group)

    def limit_leaf(self, namespace: str, uid: str, leaf: str, limits: box.Limits) -> list[str]:
        """Limits of one leaf that nobody is in yet, below its group's own. Answers as `make_group` does."""
        return self._limit(_path(namespace, uid, leaf), limits)

    def _make(self, group: PurePosixPath) -> None:
        for tree in self._trees:
            (tree / group).mkdir(exist_ok=True, parents=True)

    # entering

    def entry_files(self, namespace: str, uid: str, leaf: str) -> list[Path]:
        """Files into which a forked child writes "0", in order, to be inside."""
        return [tree / _path(namespace, uid, leaf) / "cgroup.procs" for tree in self._trees]

    def keeper_files(self) -> list[Path]:
        """The same for the group of those that watch over boxes; it has no limits."""
        return [tree / cgroup_v2.KEEPER / "cgroup.procs" for tree in self._trees]

    def in_hierarchy(self, namespace: str, uid: str) -> str:
        """An agent's group as a path in its hierarchy, as who else makes groups in it names it. "" without cgroups."""
        if not self._trees:
            return ""
        group = point = self._trees[0] / _path(namespace, uid)
        while not os.path.ismount(point) and point != point.parent:
            point = point.parent
        return f"/{group.relative_to(point)}"

    # watching

    def pids(self, namespace: str, uid: str, leaf: str) -> set[int]:
        """Who is inside now, in the caller's pid numbers. Empty when the leaf is not there."""
        return self._pids(_path(namespace, uid, leaf))

    def _pids(self, group: PurePosixPath) -> set[int]:
        found: set[int] = set()
        for tree in self._trees:  # a child killed half-way in is in some trees only
            found.update(int(pid) for pid in (cgroup_text.read(tree / group / "cgroup.procs") or "").split())
        return found - {0}  # 0: a process of a pid namespace we do not see

    def counters(self, namespace: str, uid: str, leaf: str) -> box.Counters:
        """OOM kills are the leaf's; the rest is the group's, since it was made. Holds until removal."""
        return self._dialect.counters(_path(namespace, uid), _path(namespace, uid, leaf))

    def pids_denied(self, namespace: str, uid: str, leaf: str) -> int | None:
        """Of `counters` that one."""
        return self._dialect.pids_denied(_path(namespace, uid), _path(namespace, uid, leaf))

    def leaf_counters(self, namespace: str, uid: str, leaf: str) -> box.Counters:
        """Of this leaf alone."""
        return self._dialect.counters(_path(namespace, uid, leaf), _path(namespace, uid, leaf))

    def leftovers(self) -> list[tuple[str, str, str]]:
        """Every (namespace, uid, leaf) on disk; the leaf is "" for a group without any."""
        found: set[tuple[str, str, str]] = set()
        for tree in self._trees:
            for group in (uid for namespace in _children(tree) for uid in _children(namespace)):
                leaves = [leaf.name for leaf in _children(group)] or [""]
                found.update((group.parent.name, group.name, leaf) for leaf in leaves)
        named = {(namespace, uid) for namespace, uid, leaf in found if leaf}
        return sorted(entry for entry in found if entry[2] or entry[:2] not in named)

    # ending

    def kill(self, namespace: str, uid: str, leaf: str, *, wait_seconds: float = KILL_SECONDS) -> bool:
        """SIGKILL to all inside, faster than they fork. True when nobody is left after at most `wait_seconds`."""
        group = _path(namespace, uid, leaf)
        if not self._pids(group):
            return True
        quota, unlimited = self._dialect.cpu_quota(group.parent)
        before = cgroup_text.read(quota)
        # The dead pay for their own exit: a hundred of them on a hundredth of a CPU would be dying for seconds.
        cgroup_text.write(quota, unlimited)
        cgroup_text.write(*self._dialect.cpu_quota(group))  # its own is not put back: here is only dying left
        try:
            return self._kill(group, time.monotonic() + wait_seconds)
        finally:
            if before is not None:
                cgroup_text.write(quota, before.strip())

    def _kill(self, group: PurePosixPath, deadline: float) -> bool:
        pause = 0.0005
        while self._pids(group):
            if not self._dialect.kill_all(group):
                self._kill_each(group)
            if not self._pids(group):
                break
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        return True

    def _kill_each(self, group: PurePosixPath) -> None:
        self._dialect.freeze(group, True)  # frozen, nobody forks and no pid is reused
        try:
            handles = []
            for pid in self._pids(group) - {os.getpid()}:
                try:
                    handles.append((pid, os.pidfd_open(pid)))
                except OSError:
                    continue  # gone, or we are out of descriptors: the next round takes it
            still = self._pids(group)
            for pid, handle in handles:
                if pid in still:
                    _send(handle, signal.SIGKILL)
                os.close(handle)
        finally:
            self._dialect.freeze(group, False)

    def freeze(self, namespace: str, uid: str, leaf: str) -> bool:
        """Stop all inside. True when they stand still."""
        return self._dialect.freeze(_path(namespace, uid, leaf), True)

    def thaw(self, namespace: str, uid: str, leaf: str) -> bool:
        """Let them go on."""
        return self._dialect.freeze(_path(namespace, uid, leaf), False)

    def is_frozen(self, namespace: str, uid: str, leaf: str) -> bool:
        """Whether a freeze was asked for."""
        return self._dialect.is_frozen(_path(namespace, uid, leaf))

    def remove_leaf(self, namespace: str, uid: str, leaf: str) -> bool:
        """True when it is gone; False while processes are inside."""
        return self._remove(_path(namespace, uid, leaf))

    def remove_group(self, namespace: str, uid: str) -> bool:
        """Remove an agent's group with its empty leaves, and the namespace's when it was the last."""
        group = _path(namespace, uid)
        trees = (*self._foreign, *self._trees)
        leaves = {leaf.name for tree in trees for leaf in _children(tree / group)}
        removed = [self._remove(group / leaf) for leaf in sorted(leaves)]
        gone = all(removed) and self._remove(group)
        for tree in trees:
            _remove_empty(tree / group.parent)
        return gone

    def _remove(self, group: PurePosixPath) -> bool:
        deadline = time.monotonic() + REMOVE_SECONDS
        while True:
            # others first: as long as one of ours is there it is found again
            removed = [_remove_empty(tree / group) for tree in self._foreign]
            removed += [_remove_empty(tree / group) for tree in self._trees if all(removed)]
            gone = all(removed)
            if gone or self._pids(group) or time.monotonic() > deadline:
                return gone
            time.sleep(0.002)

    def close_root(self) -> bool:
        """Remove our root as well, unless somebody was moved aside into it. False when agents are left, or somebody is
        in the keeper's group."""
        gone = True
        for tree in (*self._foreign, *self._trees):
            left = [namespace for namespace in _children(tree) if not _remove_empty(namespace)]
            gone = _remove_empty(tree / cgroup_v2.KEEPER) and not left and gone
            if _remove_empty(tree / cgroup_v2.ASIDE):
                gone = _remove_empty(tree) and gone
        return gone

    def self_test(self, marker: Path) -> list[box.Finding]:
        """Prove with real children that each limit bites; once a boot when all do (`marker` remembers).

        One that does not is told by `make_group` from then on.
        """
        self._toothless = {}
        findings = cgroup_proof.prove(self, marker)
        bad = {finding.name.split()[1]: finding.message for finding in findings if not finding.ok}
        self._toothless = {name: f"a test of this limit failed: {why}" for name, why in bad.items()}
        return findings


def _find(name: str, known: str) -> Dialect:
    entries = cgroup_text.mount_entries(cgroup_text.read(Path("/proc/self/mountinfo")) or "")
    unified = next((entry for entry in entries if entry.fstype == "cgroup2"), None)
    own = cgroup_text.own_groups(cgroup_text.read(Path("/proc/self/cgroup")) or "")
    if any(entry.fstype == "cgroup" and "memory" in entry.options for entry in entries) or not unified:
        return cgroup_v1.open_v1(entries, name)
    found = cgroup_v2.open_v2(unified, own.get("", "/"), os.geteuid(), name, known)
    return _nothing(found) if isinstance(found, cgroup_text.Lack) else found


def _nothing(reason: cgroup_text.Lack) -> Dialect:
    return cgroup_v1.V1({}, dict.fromkeys(("memory", "cpu", "pids", "freezer"), reason))


def _path(*parts: str) -> PurePosixPath:
    """Names come from the daemon, which holds less than we do: nothing may lead out of our tree."""
    for part in parts:
        if not _WORD.fullmatch(part):
            raise ValueError(f"{part!r} cannot name a cgroup")
    return PurePosixPath(*parts)


def _children(group: Path) -> list[Path]:
    try:
        return [
            Path(entry.path)
            for entry in os.scandir(group)
            if entry.is_dir() and entry.name not in (cgroup_v2.KEEPER, cgroup_v2.ASIDE)
        ]
    except OSError:
        return []


def _remove_empty(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _send(handle: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
