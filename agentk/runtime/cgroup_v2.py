"""cgroup v2: one tree. Processes are only in leaves; every level above hands its controllers down.

Where our tree begins: a systemd unit with Delegate= that we run in, else (root) the top of the hierarchy or the
container's own group, else (a person) the user manager's group, which systemd has given them.
"""

import contextlib
import errno
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from agentk.runtime import box, cgroup_text, cgroup_v1

CONTROLLERS = ("memory", "cpu", "pids")
KEEPER = "_keeper"  # no namespace can be called so
ASIDE = "_aside"  # nor so: whoever ran where our tree begins, ourselves among them
FREEZE_SECONDS = 0.3
MOVE_TRIES = 20
SCOPE_FIX = "systemd-run --user --scope -p Delegate=yes agentk daemon start"
CONTAINER_FIX = "docker run --privileged --cgroupns=private …  # the container's cgroup mount is read-only"
DELEGATE_FIX = (
    "sudo mkdir -p /etc/systemd/system/user@.service.d && "
    "printf '[Service]\\nDelegate=cpu memory pids\\n' | "
    "sudo tee /etc/systemd/system/user@.service.d/agentk.conf && "
    "sudo systemctl daemon-reload && sudo systemctl restart user@$(id -u).service"
)


@dataclass(frozen=True)
class V2:
    """The v2 files below `root`. `controllers` are those that reach our groups."""

    root: Path
    controllers: frozenset[str]
    missing: Mapping[str, cgroup_text.Lack] = field(default_factory=dict)
    version = "v2"
    foreign: Sequence[Path] = ()

    @property
    def trees(self) -> Sequence[Path]:
        """One."""
        return (self.root,)

    def _lacking(self, controller: str) -> str:
        return str(self.missing.get(controller, f"no {controller} controller"))

    def adopt_inner(self, group: PurePosixPath) -> None:
        """Hand the controllers down to the groups inside."""
        hand_down(self.root / group, self.controllers)

    def adopt_leaf(self, group: PurePosixPath) -> None:
        """An OOM takes the whole leaf, as the kubelet does it: no half-dead guest."""
        cgroup_text.write(self.root / group / "memory.oom.group", 1)

    # limits

    def set_cpu(self, group: PurePosixPath, millis: int | None, weight: int) -> str:
        """Why it is not enforced, "" when it is."""
        if "cpu" not in self.controllers:
            return self._lacking("cpu") if millis is not None else ""
        cgroup_text.write(self.root / group / "cpu.weight", max(1, min(10_000, weight)))
        period = cgroup_v1.PERIOD_USEC
        quota = "max" if millis is None else str(max(cgroup_v1.QUOTA_MIN_USEC, millis * period // 1000))
        return self._set(group, "cpu.max", f"{quota} {period}")

    def cpu_quota(self, group: PurePosixPath) -> tuple[Path, str]:
        """The file of the quota, and what lifts it."""
        return self.root / group / "cpu.max", "max"

    def set_memory(self, group: PurePosixPath, size: int | None) -> str:
        """Memory to so many bytes, swap to none."""
        if "memory" not in self.controllers:
            return self._lacking("memory") if size is not None else ""
        swap = self.root / group / "memory.swap.max"
        swap_error = ""
        if swap.exists():
            swap_error = self._set(group, "memory.swap.max", "max" if size is None else "0")
        elif size is not None and cgroup_v1.swap_is_on():
            swap_error = "swap is not counted; boot with swapaccount=1 or run `swapoff -a`"
        page = os.sysconf("SC_PAGE_SIZE")  # the kernel rounds down to it
        return (
            self._set(group, "memory.max", "max" if size is None else str(size // page * page)) or swap_error
        )

    def set_pids(self, group: PurePosixPath, limit: int | None) -> str:
        """Processes and threads."""
        if "pids" not in self.controllers:
            return self._lacking("pids") if limit is not None else ""
        return self._set(group, "pids.max", "max" if limit is None else str(limit))

    def _set(self, group: PurePosixPath, name: str, value: str) -> str:
        path = self.root / group / name
        error = cgroup_text.write(path, value)
        found = (cgroup_text.read(path) or "nothing").strip()
        return "" if found == value else error or f"{name} says {found} instead of {value}"

    # freeze and kill

    def freeze(self, group: PurePosixPath, frozen: bool) -> bool:
        """True when the group is in that state, after at most FREEZE_SECONDS."""
        if cgroup_text.write(self.root / group / "cgroup.freeze", int(frozen)):
            return False
        deadline = time.monotonic() + FREEZE_SECONDS
        while self._event(group, "frozen") != int(frozen):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def is_frozen(self, group: PurePosixPath) -> bool:
        """Asked for, whether or not the last task stands still already."""
        return cgroup_text.number(cgroup_text.read(self.root / group / "cgroup.freeze")) == 1

    def _event(self, group: PurePosixPath, key: str) -> int | None:
        return cgroup_text.keyed(cgroup_text.read(self.root / group / "cgroup.events") or "").get(key)

    def kill_all(self, group: PurePosixPath) -> bool:
        """cgroup.kill (kernel 5.14): no fork escapes it. False where it is missing."""
        return cgroup_text.write(self.root / group / "cgroup.kill", 1) == ""

    # counters

    def counters(self, group: PurePosixPath, leaf: PurePosixPath) -> box.Counters:
        """What is counted now; also after the last process ended."""
        stat = self._keyed(group, "cpu.stat")
        oom = self._keyed(leaf, "memory.events") or self._keyed(group, "memory.events")
        return box.Counters(
            cpu_usec=stat.get("usage_usec"),
            throttled_periods=stat.get("nr_throttled"),
            throttled_usec=stat.get("throttled_usec"),
            memory_bytes=self._number(group, "memory.current"),
            memory_peak_bytes=self._number(group, "memory.peak"),
            # one OOM of a whole leaf is one, however many it took; kernels before 5.17 count the processes
            oom_kills=oom.get("oom_group_kill") or oom.get("oom_kill"),
            pids=self._number(group, "pids.current"),
            pids_denied=self.pids_denied(group, leaf),
        )

    def pids_denied(self, group: PurePosixPath, leaf: PurePosixPath) -> int | None:
        """Forks that were refused. Kernels before 6.11 count one where it was tried, later ones where the limit is."""
        told = (self._keyed(group, "pids.events"), self._keyed(leaf, "pids.events"))
        return max((events["max"] for events in told if "max" in events), default=None)

    def _keyed(self, group: PurePosixPath, name: str) -> dict[str, int]:
        return cgroup_text.keyed(cgroup_text.read(self.root / group / name) or "")

    def _number(self, group: PurePosixPath, name: str) -> int | None:
        return cgroup_text.number(cgroup_text.read(self.root / group / name))


def hand_down(group: Path, controllers: frozenset[str]) -> str:
    """Enable `controllers` for the groups below; the first error's words, "" when all are on."""
    enabled = frozenset((cgroup_text.read(group / "cgroup.subtree_control") or "").split())
    errors = [
        cgroup_text.write(group / "cgroup.subtree_control", f"+{name}")
        for name in sorted(controllers - enabled)
    ]
    return next((error for error in errors if error), "")


def delegated(group: Path) -> bool:
    """Whether systemd marked this group as somebody else's to manage."""
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(group, name) == b"1":
                return True
        except OSError:
            continue
    return False


def is_user_manager(group: Path) -> bool:
    """`user@UID.service`, whose own children systemd --user manages."""
    return group.name.startswith("user@") and group.name.endswith(".service")


def candidates(point: Path, own: Path, uid: int, known: str) -> list[Path]:
    """Directories in which our root could be made, best first. `known`: where an earlier launcher had it."""
    lineage = [own, *own.parents]
    above = [group for group in lineage if group.is_relative_to(point) and group != point]
    found = [Path(known)] if known and Path(known).is_relative_to(point) and Path(known).is_dir() else []
    found += [g for g in above if delegated(g) and not is_user_manager(g) and g.stat().st_uid == uid]
    if uid == 0:
        found.append(point)
    found += [group for group in above if is_user_manager(group)]
    return list(dict.fromkeys(found))


def open_v2(
    entry: cgroup_text.MountEntry, own_path: str, uid: int, name: str, known: str
) -> V2 | cgroup_text.Lack:
    """Our tree, or why there is none."""
    own = entry.point / own_path.lstrip("/")
    lack = cgroup_text.Lack(f"no group below {entry.point} is ours to manage", SCOPE_FIX)
    for base in candidates(entry.point, own, uid, known):
        try:
            return _settle(base, name, own, entry.point)
        except OSError as error:
            for group in (base / name / KEEPER, base / name / ASIDE, base / name):
                with contextlib.suppress(OSError):
                    group.rmdir()
            fix = SCOPE_FIX if uid else CONTAINER_FIX if error.errno == errno.EROFS else ""
            lack = cgroup_text.Lack(f"cannot use {base}: {error.strerror or error}", fix)
    return lack


def _settle(base: Path, name: str, own: Path, point: Path) -> V2:
    """Make our root in `base`. Raises OSError when it is not ours to use."""
    root = base / name
    (root / KEEPER).mkdir(parents=True, exist_ok=True)
    # Only the top of the whole hierarchy may hold processes and hand controllers down at once.
    if (base / "cgroup.type").exists() and not is_user_manager(base):
        (root / ASIDE).mkdir(exist_ok=True)
        _empty(base, root / ASIDE)
        if not own.is_relative_to(base):
            # a launcher started elsewhere moves in: children can only be moved within what we may write
            _move(os.getpid(), root / ASIDE)
    available = frozenset((cgroup_text.read(base / "cgroup.controllers") or "").split())
    missing = {name: _why_missing(name, base, point) for name in CONTROLLERS if name not in available}
    wanted = frozenset(CONTROLLERS) & available
    problem = hand_down(base, wanted)
    reach = frozenset((cgroup_text.read(root / "cgroup.controllers") or "").split()) & wanted
    missing |= dict.fromkeys(wanted - reach, cgroup_text.Lack(f"{base} does not hand it down: {problem}"))
    if not (root / KEEPER / "cgroup.freeze").exists():
        missing["freezer"] = cgroup_text.Lack("this kernel is older than 5.2")
    hand_down(root, reach)
    return V2(root, reach, missing)


def _empty(base: Path, aside: Path) -> None:
    """Move whatever runs directly in `base` aside: "no internal processes"."""
    for _ in range(MOVE_TRIES):
        pids = (base / "cgroup.procs").read_text().split()
        if not pids:
            return
        for pid in pids:
            _move(int(pid), aside)
    raise OSError(errno.EBUSY, f"processes keep appearing in {base}")


def _move(pid: int, group: Path) -> None:
    try:
        (group / "cgroup.procs").write_text(str(pid))
    except ProcessLookupError:
        pass  # it ended meanwhile


def _why_missing(controller: str, base: Path, point: Path) -> cgroup_text.Lack:
    if controller not in (cgroup_text.read(point / "cgroup.controllers") or "").split():
        return cgroup_text.Lack(
            f"the kernel has no {controller} controller on cgroup v2",
            f"add cgroup_enable={controller} to the kernel's command line and reboot",
        )
    return cgroup_text.Lack(f"{base} was not given it", DELEGATE_FIX)
