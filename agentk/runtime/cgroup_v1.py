"""cgroup v1, also beside an empty v2 ("hybrid"): one tree a controller, each with the same groups inside.

Counted where: `oom_kill` and `pids.events` are on the victim's own group, the leaf; usage is hierarchical.
"""

import errno
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from agentk.runtime import box, cgroup_text

PERIOD_USEC = 100_000
QUOTA_MIN_USEC = 1_000  # the kernel's own floor: 10 thousandths of a CPU
CONTROLLERS = ("memory", "cpu", "cpuacct", "pids", "freezer")
FREEZE_SECONDS = 0.3
_UNIFIED = "sudo agentk daemon start  # cgroup v1 cannot be delegated; or boot with systemd.unified_cgroup_hierarchy=1"
_PRIVILEGED = "docker run --privileged --cgroupns=private …  # the container's cgroup mounts are read-only"
_SWAP = "swap is not counted; boot with swapaccount=1 or run `swapoff -a`"


@dataclass(frozen=True)
class V1:
    """The v1 files below `roots` (controller → our root directory in its tree)."""

    roots: Mapping[str, Path]
    missing: Mapping[str, cgroup_text.Lack] = field(default_factory=dict)
    foreign: Sequence[
        Path
    ] = ()  # where our root would be in the trees we do not use: others make groups there for us
    version = "v1"

    @property
    def trees(self) -> Sequence[Path]:
        """Distinct directories in which every group is made; the first tells who is inside."""
        ordered = sorted(self.roots.items(), key=lambda item: item[0] != "freezer")
        return tuple(dict.fromkeys(path for _, path in ordered))

    def _file(self, controller: str, group: PurePosixPath, name: str) -> Path:
        return self.roots.get(controller, Path("/nonexistent")) / group / name

    def _lacking(self, controller: str) -> str:
        return str(self.missing.get(controller, f"no {controller} controller"))

    def adopt_inner(self, group: PurePosixPath) -> None:
        """Nothing: v1 has every controller in every group."""

    def adopt_leaf(self, group: PurePosixPath) -> None:
        """Nothing: v1 cannot make an OOM take a whole group, so it takes the largest process."""

    # limits

    def set_cpu(self, group: PurePosixPath, millis: int | None, weight: int) -> str:
        """Why it is not enforced, "" when it is. A quota above the parent's is held at the parent's."""
        if "cpu" not in self.roots:
            return self._lacking("cpu") if millis is not None else ""
        # weight 100 is the default of v2 as 1024 is of v1
        cgroup_text.write(self._file("cpu", group, "cpu.shares"), max(2, min(262_144, weight * 1024 // 100)))
        quota = -1 if millis is None else max(QUOTA_MIN_USEC, millis * PERIOD_USEC // 1000)
        above = (
            cgroup_text.number(cgroup_text.read(self._file("cpu", group.parent, "cpu.cfs_quota_us"))) or -1
        )
        if above > 0:
            # v1 refuses a child above its parent; what holds is the smaller of both anyway
            quota = above if quota < 0 else min(quota, above)
        self._lower_children(group, quota)
        cgroup_text.write(self._file("cpu", group, "cpu.cfs_period_us"), PERIOD_USEC)
        error = cgroup_text.write(self._file("cpu", group, "cpu.cfs_quota_us"), quota)
        found = cgroup_text.number(cgroup_text.read(self._file("cpu", group, "cpu.cfs_quota_us")))
        period = cgroup_text.number(cgroup_text.read(self._file("cpu", group, "cpu.cfs_period_us")))
        if millis is None or (found == quota and period == PERIOD_USEC):
            return ""
        return error or f"cpu.cfs_quota_us says {found} of {period} instead of {quota} of {PERIOD_USEC}"

    def cpu_quota(self, group: PurePosixPath) -> tuple[Path, str]:
        """The file of the quota, and what lifts it."""
        return self._file("cpu", group, "cpu.cfs_quota_us"), "-1"

    def _lower_children(self, group: PurePosixPath, quota: int) -> None:
        if quota < 0:
            return
        for child in sorted((self.roots["cpu"] / group).glob("**/cpu.cfs_quota_us"), reverse=True):
            mine = cgroup_text.number(cgroup_text.read(child)) or -1
            if child.parent != self.roots["cpu"] / group and mine > quota:
                cgroup_text.write(child, quota)

    def set_memory(self, group: PurePosixPath, size: int | None) -> str:
        """Memory, and memory plus swap, to the same number of bytes."""
        if "memory" not in self.roots:
            return self._lacking("memory") if size is not None else ""
        limit = self._file("memory", group, "memory.limit_in_bytes")
        both = self._file("memory", group, "memory.memsw.limit_in_bytes")
        value = -1 if size is None else size
        # memsw may never be below memory: up, the sum goes first; down, memory goes first
        error = cgroup_text.write(limit, value)
        if error:
            cgroup_text.write(both, value)
            error = cgroup_text.write(limit, value)
        swap_error = cgroup_text.write(both, value) if both.exists() else _SWAP if swap_is_on() else ""
        if size is None:
            return ""
        found = cgroup_text.number(cgroup_text.read(limit))
        if found is None or found > size:
            return error or f"memory.limit_in_bytes says {found} instead of {size}"
        return swap_error

    def set_pids(self, group: PurePosixPath, limit: int | None) -> str:
        """Processes and threads."""
        if "pids" not in self.roots:
            return self._lacking("pids") if limit is not None else ""
        path = self._file("pids", group, "pids.max")
        error = cgroup_text.write(path, "max" if limit is None else limit)
        found = cgroup_text.number(cgroup_text.read(path))
        return "" if limit is None or found == limit else error or f"pids.max says {found} instead of {limit}"

    # freeze and kill

    def freeze(self, group: PurePosixPath, frozen: bool) -> bool:
        """True when the group is in that state, after at most FREEZE_SECONDS."""
        state = self._file("freezer", group, "freezer.state")
        wanted = "FROZEN" if frozen else "THAWED"
        deadline = time.monotonic() + FREEZE_SECONDS
        while not cgroup_text.write(state, wanted):
            # a task in a vfork or in disk sleep keeps it at FREEZING; writing again retries
            if (cgroup_text.read(state) or "").strip() == wanted:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return False

    def is_frozen(self, group: PurePosixPath) -> bool:
        """FREEZING counts: it was asked for."""
        return (cgroup_text.read(self._file("freezer", group, "freezer.state")) or "").startswith("FR")

    def kill_all(self, group: PurePosixPath) -> bool:
        """False: v1 has no file that kills."""
        return False

    # counters

    def counters(self, group: PurePosixPath, leaf: PurePosixPath) -> box.Counters:
        """What is counted now; also after the last process ended."""
        stat = cgroup_text.keyed(cgroup_text.read(self._file("cpu", group, "cpu.stat")) or "")
        cpu_nsec = cgroup_text.number(cgroup_text.read(self._file("cpuacct", group, "cpuacct.usage")))
        throttled_nsec = stat.get("throttled_time")
        return box.Counters(
            cpu_usec=None if cpu_nsec is None else cpu_nsec // 1000,
            throttled_periods=stat.get("nr_throttled"),
            throttled_usec=None if throttled_nsec is None else throttled_nsec // 1000,
            memory_bytes=self._number("memory", group, "memory.usage_in_bytes"),
            memory_peak_bytes=self._number("memory", group, "memory.max_usage_in_bytes"),
            oom_kills=self._keyed("memory", leaf, "memory.oom_control", "oom_kill"),
            pids=self._number("pids", group, "pids.current"),
            pids_denied=self.pids_denied(group, leaf),
        )

    def pids_denied(self, group: PurePosixPath, leaf: PurePosixPath) -> int | None:
        """Forks that were refused."""
        return self._keyed("pids", leaf, "pids.events", "max")

    def _number(self, controller: str, group: PurePosixPath, name: str) -> int | None:
        return cgroup_text.number(cgroup_text.read(self._file(controller, group, name)))

    def _keyed(self, controller: str, group: PurePosixPath, name: str, key: str) -> int | None:
        return cgroup_text.keyed(cgroup_text.read(self._file(controller, group, name)) or "").get(key)


def _fix(error: OSError) -> str:
    return _PRIVILEGED if error.errno == errno.EROFS else _UNIFIED


def swap_is_on() -> bool:
    """Whether this machine has any swap at all."""
    return len((cgroup_text.read(Path("/proc/swaps")) or "").splitlines()) > 1


def open_v1(entries: Sequence[cgroup_text.MountEntry], name: str) -> V1:
    """Make our root directory in every controller's tree; what cannot be had is in `missing`."""
    roots: dict[str, Path] = {}
    missing: dict[str, cgroup_text.Lack] = {}
    for controller in CONTROLLERS:
        point = next((e.point for e in entries if e.fstype == "cgroup" and controller in e.options), None)
        if point is None:
            missing[controller] = cgroup_text.Lack(
                f"no {controller} controller is mounted",
                f"add cgroup_enable={controller} to the kernel's command line and reboot",
            )
            continue
        try:
            (point / name).mkdir(exist_ok=True)
        except OSError as error:
            missing[controller] = cgroup_text.Lack(
                f"cannot make {point / name}: {error.strerror}", _fix(error)
            )
            continue
        if controller == "memory":
            cgroup_text.write(point / name / "memory.use_hierarchy", 1)  # kernels before 5.11
        roots[controller] = point / name
    points = dict.fromkeys(entry.point for entry in entries if entry.fstype in ("cgroup", "cgroup2"))
    ours = {root.parent for root in roots.values()}
    return V1(roots, missing, tuple(point / name for point in points if point not in ours))
