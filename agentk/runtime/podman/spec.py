"""A box as the body of Podman's `create`. Pure: the same box and place give the same object.

Nothing of an agent's is in here but its limits: what it runs, its environment and its files are in the stage, which
is memory of this machine, and neither on Podman's disk nor in `podman inspect`. What a box may see, do and be is the
same as in a jail; where Podman would add something of its own (a shared /dev, /etc/hostname, cgroup mounts, which tell
names of the host), something of ours is put in its place.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentk.runtime import box as words
from agentk.runtime import nsjail

LABEL_INSTANCE = "dev.agentk.instance"  # a digest of the state directory: whose it is
LABEL_BOX, LABEL_UID = "dev.agentk.box", "dev.agentk.agent"
START = "/run/agentk-start"  # what the first process reads: all that it needs to become the agent
FIRST = ("/bin/sh", START)
LEAF = "libpod-"  # Podman names the group of a container after its id
_OPEN_FILES = 1024  # when nobody says
_EMPTY = ("/sys", "/sys/fs/cgroup")  # in Podman's own list of mounts, and nothing for an agent
# What Podman and the OCI runtime set by themselves.
_FOREIGN = ("TERM", "HOSTNAME", "HOME", "container", "PATH")


@dataclass(frozen=True)
class Ids:
    """Host uids (and gids) of a box, in the numbering of the namespace that Podman runs in."""

    agent: int
    nobody: int  # is root inside: a number that owns nothing anywhere, and that nobody runs as


@dataclass(frozen=True)
class Place:
    """Where one box is made."""

    name: str
    stage: str  # the directory that its mounts were put together in
    instance: str
    cgroup_parent: str  # the agent's group, as a path in the hierarchy
    ids: Ids
    seccomp: str  # a file, "" for no filter
    hard_open_files: int
    hard_processes: int  # what Podman's service may give
    masks: Sequence[str] = ()  # files of /proc that tell about the host
    groups: bool = True  # False: this host has no cgroups for us


def render(box: words.Box, place: Place) -> dict[str, Any]:
    """The body of POST /libpod/containers/create."""
    stage = place.stage
    ids = [
        {"container_id": 0, "host_id": place.ids.nobody, "size": 1},
        {"container_id": nsjail.INSIDE_UID, "host_id": place.ids.agent, "size": 1},
    ]
    told: dict[str, Any] = {
        "name": place.name,
        "labels": {LABEL_INSTANCE: place.instance, LABEL_BOX: box.id, LABEL_UID: box.uid},
        "rootfs": f"{stage}/root",
        "entrypoint": list(FIRST),
        "command": [],
        "env": {},
        "work_dir": "/",
        "user": f"{nsjail.INSIDE_UID}:{nsjail.INSIDE_UID}",
        "hostname": box.hostname,
        "userns": {"nsmode": "private"},
        "idmappings": {"UIDMap": ids, "GIDMap": ids},
        **{name: {"nsmode": "private"} for name in ("pidns", "ipcns", "utsns", "cgroupns")},
        "netns": {"nsmode": "none"},
        "use_image_hosts": True,
        "use_image_resolv_conf": True,
        "read_only_filesystem": True,
        "read_write_tmpfs": False,
        "image_volume_mode": "ignore",
        "mounts": _mounts(stage, box.tmp_bytes),
        "mask": ["/sys", *place.masks],
        "cap_drop": ["ALL"],
        "no_new_privileges": True,
        # labels of files that were never given any, and a /proc that nothing can be written to, not even a profile
        "selinux_opts": ["disable"],
        "apparmor_profile": "unconfined",
        "systemd": "false",
        "terminal": False,
        "stdin": False,
        "log_configuration": {"driver": "none"},
        "oom_score_adj": 0,
        "r_limits": _rlimits(box.limits, place),
    }
    if place.groups:
        told["resource_limits"] = {} if box.waits else _resources(box.limits)
        told |= {"cgroups_mode": "no-conmon", "cgroup_parent": place.cgroup_parent}
    if box.oci_runtime:
        told["oci_runtime"] = box.oci_runtime
    told["seccomp_profile_path"] = place.seccomp or "unconfined"
    return told


def _mounts(stage: str, tmp_bytes: int) -> list[dict[str, Any]]:
    """In place of what Podman would mount. Everything else is in the root already."""
    read_only = ["ro", "nosuid", "nodev", "noexec"]
    shown = [("dev", "/dev", ["rbind", "ro", "nosuid"])]
    shown += [("name", "/etc/hostname", ["bind", *read_only])]
    shown += [("mark", "/run/.containerenv", ["bind", *read_only])]
    binds = [
        {"type": "bind", "source": f"{stage}/{name}", "destination": target, "options": options}
        for name, target, options in shown
    ]
    # Once more one by one: where there is a user namespace, crun 1.8 leaves out what is mounted beneath a mount.
    binds += [
        {"type": "bind", "source": path, "destination": path, "options": ["bind", "nosuid", "noexec"]}
        for path in nsjail.DEVICES
    ]
    memory = [(at, [*read_only, "size=4k"]) for at in _EMPTY]
    memory.append(("/dev/shm", ["rw", "nosuid", "nodev", f"size={tmp_bytes}", "mode=1777"]))
    proc = {"type": "proc", "source": "proc", "destination": "/proc", "options": read_only}
    return [proc, *binds] + [
        {"type": "tmpfs", "source": "tmpfs", "destination": at, "options": [*options, "notmpcopyup"]}
        for at, options in memory
    ]


def _rlimits(limits: words.Limits, place: Place) -> list[dict[str, Any]]:
    files = min(limits.open_files or _OPEN_FILES, place.hard_open_files)
    # counts per host uid; the cgroup counts per agent. Podman's own number may be above what we may give.
    wanted = {"nofile": files, "nproc": place.hard_processes, "core": 0}
    return [{"type": name, "soft": number, "hard": number} for name, number in wanted.items()]


def _resources(limits: words.Limits) -> dict[str, Any]:
    """Beside those of the agent's group, which hold. Its share of the CPU is not repeated: a Quota may lower it.

    None of a box that waits: whose it becomes may have more.
    """
    told: dict[str, Any] = {}
    if limits.memory_bytes is not None:
        told["memory"] = {"limit": limits.memory_bytes}
    if limits.pids is not None:
        told["pids"] = {"limit": limits.pids}
    return told


def start_script(box: words.Box, door: str) -> bytes:
    """What the first process reads: wait for the word, then become the init of the agent's command.

    `door` is the folder of FIFOs inside. When our launcher dies before the word, the next one says it. Each other FIFO
    is opened to read and write, so that no death breaks a pipe or ends it.
    """
    stdin = f"<>{door}/in" if box.stdin else "</dev/null"
    env = {**nsjail.environment(box.env), **nsjail.late(box.env)}
    plain = {name: value for name, value in env.items() if name.replace("_", "a").isalnum()}
    odd = [f"{name}={value}" for name, value in env.items() if name not in plain]
    cwd = "/" if box.waits else shlex.quote(box.cwd)
    lines = [
        f"until read -r _ <{door}/go; do [ -p {door}/go ] || exit {nsjail.UNTOLD}; done",
        f"exec 0{stdin} 1<>{door}/out 2<>{door}/err",
        f"cd {cwd} 2>/dev/null || {{ echo 'agentk: cannot enter the working directory' >&2; exit 126; }}",
        f"unset OLDPWD {' '.join(_FOREIGN)}",
        *(f"export {name}={shlex.quote(value)}" for name, value in plain.items()),
        f"set -- {_words(box.argv)}",
        nsjail.FIND,
        f'exec {"/usr/bin/env " + _words(odd) + " " if odd else ""}{nsjail.INIT} -- "$@"',
    ]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def is_waiting(command_line: bytes) -> bool:
    """Whether a process (by its /proc/PID/cmdline) is the first of a box that has not become its init yet."""
    return tuple(command_line.rstrip(b"\0").split(b"\0")) == tuple(word.encode() for word in FIRST)


def _words(argv: Sequence[str]) -> str:
    return " ".join(map(shlex.quote, argv))
