"""What this machine lets agentk do, found out by trying, each failure with the command that mends it.

For `Runtime` objects and `agentk doctor`. Never raises; what could hang runs in a child with a time limit. Forks
without exec, so the caller must have one thread (the launcher has).
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentk.data import places
from agentk.runtime import (
    box,
    cgroup,
    cgroup_text,
    finding,
    kernel,
    probing_host,
    probing_jail,
    workspace,
    workspace_image,
    workspace_quota,
)
from agentk.runtime.podman import probing as podman_probing

NOTHING: Mapping[str, Any] = {}
find_nsjail = finding.nsjail
find_init = finding.init
_SAID = {
    "memory": "memory limits",
    "cpu": "CPU limits",
    "pids": "limits on processes",
    "freezer": "suspending",
}


def probe(
    where: places.Places,
    groups: cgroup.Cgroups | None = None,
    spaces: workspace.Workspaces | None = None,
    *,
    kind: str = "nsjail",
    serving: Mapping[str, Any] = NOTHING,
) -> box.Probe:
    """Whether boxes of that kind can be made here, and every finding. Limits are not needed: BestEffort does without.

    `serving`: what Podman's service says of itself, {} when none runs.
    """
    found = findings(where, groups, spaces, kind=kind, serving=serving)
    lacking = [f for f in found if f.needed and not f.ok]
    reason = "; ".join(f"{f.name}: {f.message}" for f in lacking)
    return box.Probe(not lacking, reason, found)


def findings(
    where: places.Places,
    groups: cgroup.Cgroups | None = None,
    spaces: workspace.Workspaces | None = None,
    *,
    kind: str = "nsjail",
    serving: Mapping[str, Any] = NOTHING,
) -> list[box.Finding]:
    """Every line of `agentk doctor` about this host. `groups` and `spaces` are the launcher's own."""
    root = os.geteuid() == 0
    podman = kind == "podman"
    checks: list[tuple[str, Callable[[], box.Finding]]] = [
        ("privilege", lambda: probing_host.privilege(root)),
        ("kernel", probing_host.kernel_calls),
        ("seccomp", probing_host.seccomp),
        ("clock", probing_host.clock),
        ("user namespaces", lambda: probing_jail.user_namespaces(root)),
        ("nsjail", lambda: probing_jail.nsjail(find_nsjail(), root)),
        ("init", lambda: probing_jail.init(find_init())),
        ("python", lambda: probing_jail.python(root)),
        ("cgroup version", lambda: cgroup_version(groups)),
        *[(f"cgroup {name}", _controller(groups, name)) for name in _SAID if groups],
        ("swap", lambda: probing_host.swap(groups.version if groups else "none")),
        ("workspace limit", lambda: workspace_limit(where, spaces, root)),
        ("disk", lambda: probing_host.disk(where.state)),
        ("open files", probing_host.open_files),
        ("linger", lambda: probing_host.linger(root)),
    ]
    found = [_guarded(name, check) for name, check in checks]
    if podman:
        found = [dataclasses.replace(one, needed=one.needed and one.name != "nsjail") for one in found]
    return [*found, *podman_probing.findings(root, podman, serving)]


def _guarded(name: str, check: Callable[[], box.Finding]) -> box.Finding:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - a doctor that falls over helps nobody
        words = str(error) or type(error).__name__
        return box.Finding(name, False, f"cannot tell: {words}", needed=False)


def cgroup_version(groups: cgroup.Cgroups | None) -> box.Finding:
    """Which cgroups there are. Without the launcher's own nothing is tried, for trying moves processes."""
    if groups is None:
        entries = cgroup_text.mount_entries(cgroup_text.read(Path("/proc/self/mountinfo")) or "")
        kinds = sorted({entry.fstype for entry in entries} & {"cgroup", "cgroup2"})
        said = f"mounted: {', '.join(kinds) or 'none'} (start the daemon to try them)"
        return box.Finding("cgroup version", bool(kinds), said, needed=False)
    if groups.version == "none":
        lack = next(iter(groups.lacks.values()), cgroup_text.Lack("no cgroups are mounted"))
        return box.Finding("cgroup version", False, lack.why, lack.fix, needed=False)
    return box.Finding("cgroup version", True, f"{groups.version} in {groups.location}", needed=False)


def _controller(groups: cgroup.Cgroups | None, name: str) -> Callable[[], box.Finding]:
    def check() -> box.Finding:
        lack = groups.lacks.get(name) if groups else None
        if lack is None:
            return box.Finding(f"cgroup {name}", True, f"{_SAID[name]}: available", needed=False)
        said = f"no {_SAID[name]}: {lack.why}"
        return box.Finding(f"cgroup {name}", False, said, lack.fix, needed=False)

    return check


def workspace_limit(where: places.Places, spaces: workspace.Workspaces | None, root: bool) -> box.Finding:
    """What holds the size of /workspace."""
    if spaces is not None:
        lacks = spaces.why_not()
    elif not root:
        lacks = {"tmpfs": "" if kernel.capabilities() else "ask the daemon, which has a namespace of its own"}
    else:
        state = next(path for path in (where.state, *where.state.parents) if path.is_dir())
        tools = "" if workspace_image.tool("mke2fs") else "no mke2fs; apt-get install e2fsprogs"
        lacks = {"quota": workspace_quota.why_not(state), "image": tools}
    usable = [medium for medium, why in lacks.items() if not why]
    if usable:
        return box.Finding("workspace limit", True, f"by {_names(usable)}", needed=False)
    said = "; ".join(f"{medium}: {why}" for medium, why in lacks.items())
    fix = "sudo apt-get install e2fsprogs && sudo modprobe loop" if root else "start the daemon as root"
    return box.Finding("workspace limit", False, said, fix, needed=False)


def _names(media: Sequence[str]) -> str:
    words = {"quota": "project quota", "image": "ext4 image", "tmpfs": "tmpfs"}
    return ", ".join(words.get(medium, medium) for medium in media)
