"""Single findings about the kernel, the disk, the clock and what else is on this host."""

import errno
import os
import platform
import pwd
import resource
import signal
import time
from pathlib import Path

from agentk.runtime import box, cgroup_text, cgroup_v1, kernel

DISK_FREE_BYTES = 512 * 1024 * 1024  # the store, logs and one or two workspaces
OPEN_FILES = 8192  # of the launcher, at 12 for a box
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "glusterfs"}
)
_SPEAKS_SECCOMP = Path("/proc/sys/kernel/seccomp/actions_avail")


def container() -> str:
    """What kind of container we are in, "" outside of one."""
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    manager = (cgroup_text.read(Path("/run/systemd/container")) or "").strip()
    if manager:
        return manager
    environment = (cgroup_text.read(Path("/proc/1/environ")) or "").split("\0")
    return next((entry.partition("=")[2] for entry in environment if entry.startswith("container=")), "")


def privilege(root: bool) -> box.Finding:
    """As what we run."""
    inside = f", inside a container ({container()})" if container() else ""
    if root and kernel.capabilities() >> 21 & 1:  # CAP_SYS_ADMIN
        return box.Finding("privilege", True, f"root: a host uid for each agent{inside}")
    if root:
        fix = "docker run --privileged …  # or start agentk as an ordinary user"
        return box.Finding("privilege", False, f"root without CAP_SYS_ADMIN{inside}", fix, needed=False)
    said = f"uid {os.geteuid()}: all boxes share it{inside}"
    return box.Finding("privilege", True, said, "sudo agentk daemon start  # for a host uid for each agent")


def kernel_calls() -> box.Finding:
    """The newest call that nothing works without, by calling it."""
    release = f"Linux {platform.release()} {platform.machine()}"
    try:
        handle = os.pidfd_open(os.getpid())
        signal.pidfd_send_signal(handle, 0)
        os.close(handle)
        os.close(kernel.open_tree("/", 0))
    except (OSError, AttributeError) as error:
        # a mount call may be refused to an ordinary user; missing is something else
        if isinstance(error, AttributeError) or error.errno == errno.ENOSYS:
            return box.Finding(
                "kernel", False, f"{release} has no pidfd or open_tree", "boot Linux 5.8 or newer"
            )
    return box.Finding("kernel", True, release)


def seccomp() -> box.Finding:
    """Whether filters can be loaded."""
    actions = (cgroup_text.read(_SPEAKS_SECCOMP) or "").split()
    if "errno" in actions:
        return box.Finding("seccomp", True, "filters can be loaded")
    return box.Finding(
        "seccomp", False, "this kernel has no seccomp filters", "boot a kernel with CONFIG_SECCOMP_FILTER=y"
    )


def clock() -> box.Finding:
    """Deadlines count the time that the machine sleeps."""
    asleep = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC))
    if time.time() < 1_700_000_000:
        said = f"the date is {time.strftime('%Y-%m-%d', time.gmtime())}"
        return box.Finding("clock", False, said, "sudo timedatectl set-ntp true", needed=False)
    return box.Finding("clock", True, f"CLOCK_BOOTTIME is there; {asleep:.0f} s asleep since boot")


def swap(version: str) -> box.Finding:
    """A memory limit without a swap limit is a wish."""
    name = "swap"
    if not cgroup_v1.swap_is_on():
        return box.Finding(name, True, "no swap", needed=False)
    entries = cgroup_text.mount_entries(cgroup_text.read(Path("/proc/self/mountinfo")) or "")
    if version == "v1":
        point = next(
            (e.point for e in entries if e.fstype == "cgroup" and "memory" in e.options), Path("/nowhere")
        )
        counted = (point / "memory.memsw.limit_in_bytes").exists()
    else:
        point = next((e.point for e in entries if e.fstype == "cgroup2"), Path("/nowhere"))
        own = cgroup_text.own_groups(cgroup_text.read(Path("/proc/self/cgroup")) or "").get("", "/")
        counted = (point / own.lstrip("/") / "memory.swap.max").exists()
    if counted:
        return box.Finding(name, True, "counted and limited with memory", needed=False)
    return box.Finding(
        name,
        False,
        "swap is on and not counted",
        "sudo swapoff -a  # or boot with swapaccount=1",
        needed=False,
    )


def disk(state: Path) -> box.Finding:
    """Kind and room of the file system that state is on."""
    there = next(path for path in (state, *state.parents) if path.is_dir())
    kind = file_system(there)
    fix = "AGENTK_STATE_DIR=/a/local/disk agentk daemon start"
    if kind in NETWORK_FILE_SYSTEMS:  # not even asked for its room: it may hang
        return box.Finding("disk", False, f"{state} is on {kind}, which loses locks and durability", fix)
    stat = os.statvfs(there)
    free = stat.f_bavail * stat.f_frsize
    said = f"{free // 1024**2} MiB free on {kind} for {state}"
    if free < DISK_FREE_BYTES:
        return box.Finding("disk", False, said, f"df -h {there}  # free some, or {fix}", needed=False)
    return box.Finding("disk", True, said)


def file_system(path: Path) -> str:
    """The type of the innermost mount that `path` is on; never touches it."""
    absolute = Path(os.path.realpath(path))
    entries = cgroup_text.mount_entries(cgroup_text.read(Path("/proc/self/mountinfo")) or "")
    around = [entry for entry in entries if absolute.is_relative_to(entry.point)]
    # the last line of the same length is the one mounted on top
    best = max(enumerate(around), key=lambda item: (len(item[1].point.parts), item[0]), default=None)
    return best[1].fstype if best else "unknown"


def open_files() -> box.Finding:
    """How many descriptors the launcher may have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= OPEN_FILES:
        said = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
        return box.Finding("open files", True, f"{said} allowed", needed=False)
    fix = f"ulimit -Hn {OPEN_FILES}  # as root, or LimitNOFILE={OPEN_FILES} in the unit"
    return box.Finding("open files", False, f"only {hard} allowed: room for few agents", fix, needed=False)


def linger(root: bool) -> box.Finding:
    """Whether a person's agents outlive the person's session."""
    if root or not Path("/run/systemd/system").is_dir():
        return box.Finding("linger", True, "not needed here", needed=False)
    name = pwd.getpwuid(os.geteuid()).pw_name
    if (Path("/var/lib/systemd/linger") / name).exists():
        return box.Finding("linger", True, "agents go on when you log out", needed=False)
    return box.Finding(
        "linger",
        False,
        "systemd ends your agents when you log out",
        f"loginctl enable-linger {name}",
        needed=False,
    )
