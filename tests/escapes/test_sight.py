"""What a box sees of files, processes and itself: only its own."""

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.escapes import prison as prisons
from tests.escapes import ways

pytestmark = pytest.mark.jail

ABSENT = {"ENOENT"}
REFUSED = {"EPERM", "EACCES", "EROFS"}
DEVICES = ("null", "zero", "full", "random", "urandom")
# read-only whatever the uid is, so that a way to root would not help either
SYSTEM = ["/usr/.escape", "/usr/bin/env", "/etc/passwd", "/opt/agentk/bin/init", "/opt/agentk/lib/x.pth"]
SYSTEM += ["/run/agentk/x", "/hostile/attempts.py", "/x", "/dev/x", "/run/x", "/proc/sys/kernel/core_pattern"]
SYSTEM += ["/proc/sysrq-trigger", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches"]


@pytest.fixture(scope="session", params=ways.WAYS)
def sight(request: pytest.FixtureRequest, built: prisons.Prison) -> Iterator[Any]:
    """What looking.py found, with the host's secrets told to it. One box for all that is asked here, and one command
    beside a box, which may do no more."""
    if built.unhappy:
        pytest.skip(built.unhappy)
    prison = built
    neighbour = prison.agent()
    paths = [
        "/root",
        "/home",
        "/etc/shadow",
        "/etc/sudoers",
        "/var",
        "/sys",
        "/boot",
        "/mnt",
        "/srv",
        "/dev/mem",
    ]
    paths += [
        "/dev/kmsg",
        "/dev/fuse",
        "/dev/kvm",
        "/dev/loop0",
        "/dev/tty",
        "/dev/ptmx",
        "/run/systemd",
        "/run/user",
    ]
    ours = [prison.folder, prison.state, prison.run_dir, Path(prisons.__file__), Path.home()]
    ours += [prison.state / "workspaces" / neighbour.uid, prison.run_dir / "doors" / neighbour.uid]
    facts = {
        "paths": paths + [str(path) for path in ours],
        "secret_paths": [str(path) for path in ours],
        "kernel_paths": ["/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/kallsyms", "/proc/kmsg"],
        "kernel_writes": ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/self/loginuid"],
        "system_paths": SYSTEM,
    }
    how, level = request.param
    ended = prison.how(how)("looking", facts, seccomp=level, env={"LOG_LEVEL": "info"})
    assert (ended.exit.code, ended.exit.signal) == (0, None)
    prison.release_all()
    # what runs beside a Podman box is in it, too
    inside = how == "hand" or (prison.runtime == "podman" and how == "beside")
    told = {"uid": ended.seen.uid, "waited": prison.claims, "runtime": prison.runtime}
    yield {
        **ended.report,
        **told,
        "inside": inside,
        "box": ended.seen.id,
        "typed": request.param[0] == "typed",
    }


def test_the_hosts_files_are_not_there(sight: Any) -> None:
    """Not forbidden, absent. /etc/passwd is made up and knows nobody of the host."""
    reads = dict(sight["reads"])
    if sight["runtime"] == "podman":  # which always has one: this is empty, and read-only
        assert reads.pop("/sys") == "allowed: []"
        assert "sys" in sight["root"]
    assert {path: answer for path, answer in reads.items() if answer not in ABSENT} == {}
    assert not {"shadow", "sudoers", "machine-id", "ssh", "hosts.allow", "fstab"} & set(sight["etc"])
    assert set(sight["root"]) - ({"sys"} if sight["runtime"] == "podman" else set()) <= {
        *("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr"),
        *("dev", "etc", "opt", "proc", "run", "tmp", "workspace", "hostile"),
    }


def test_the_kernels_own_files_are_masked(sight: Any) -> None:
    """Kernel memory, keys and symbols: no byte of them."""
    empty = "allowed: b''"
    assert {
        path: said for path, said in sight["kernel_reads"].items() if said not in {empty, *REFUSED, *ABSENT}
    } == {}
    assert {path: said for path, said in sight["kernel_writes"].items() if said not in REFUSED | ABSENT} == {}


def test_only_workspace_and_scratch_are_writable(sight: Any) -> None:
    """Everything else is read-only in its mount, not only by its mode."""
    assert sight["writable"] == ["/dev/shm", "/tmp", "/workspace"]
    assert {path: said for path, said in sight["system_writes"].items() if said not in REFUSED | ABSENT} == {}
    writable = {at for at, flags in _mounts(sight) if "rw" in flags} - _masks(sight)
    assert writable == {"/dev/shm", "/tmp", "/workspace", *(f"/dev/{name}" for name in DEVICES)}
    assert {
        at for at, flags in _mounts(sight) if "rw" in flags and not {"nosuid", "nodev"} <= set(flags)
    } - _masks(sight) <= {f"/dev/{name}" for name in DEVICES}


def test_mountinfo_tells_no_path_of_the_host(sight: Any, prison: prisons.Prison) -> None:
    """Uids and digests only, in mounts and in links: not where agentk's state is, nor whose home that is in."""
    for told in (sight["mountinfo"], str(sight["fds"]), sight["cgroup"], str(sight["self_links"])):
        assert prison.folder.name not in told
    paths = _paths(sight["mountinfo"])
    # where sockets are, relative to the file system of /run: the one thing that has to be a bind of a directory
    assert paths.pop("/run/agentk").endswith(f"{prison.run_dir.name}/doors/{sight['uid']}")
    assert {at: path for at, path in paths.items() if path != at} == {}


def test_it_starts_with_three_descriptors(sight: Any) -> None:
    """Neither it nor its init got one of nsjail's or the launcher's.

    The init of a box that waited keeps one by which its program was told: a socket whose other end is closed.
    """
    assert set(sight["fds"]) == {"0", "1", "2"}
    assert set(sight["init_fds"]) - ({"3"} if sight["waited"] else set()) == {"0", "1", "2"}
    assert sight["fds"]["0"] in (
        ("/in", f"/run/agentk/{sight['box']}/in") if sight["typed"] else ("/dev/null",)
    )


def test_its_environment_is_its_own(sight: Any) -> None:
    """The launcher's canary is not in it, nor in its init's, nor any variable that nobody gave."""
    told = {"PATH", "HOME", "PYTHONPATH", "USER", "LOG_LEVEL", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}
    assert set(sight["environ"]) <= told
    assert prisons.CANARY not in sight["init_environ"]
    assert sight["environ"]["HOME"] == "/workspace"


def test_it_sees_only_its_own_processes(sight: Any) -> None:
    """PID 1 is its init; nobody else is there but itself, and what is put into a box sees the box's own."""
    assert "1" in sight["pids"] and len(sight["pids"]) <= 4
    known = ("looking.py", "sleep") if sight["inside"] else ("looking.py", "init\0--\0sh")
    pids = {pid: line for pid, line in sight["pids"].items() if pid != "1" or not sight["waited"]}
    assert all(any(name in line for name in known) for line in pids.values())


def test_its_cgroup_has_no_name_of_the_host(sight: Any) -> None:
    """Its leaf is the root of its own cgroup namespace. What is put into a box is in the box's, from a leaf beside it:
    that has a number, and no name."""
    paths = {line.split(":", 2)[2] for line in sight["cgroup"].splitlines()}
    if sight["inside"]:
        assert all(re.fullmatch(r"(/\.\.)+(/(exec|hand)-[0-9]+)?|/", path) for path in paths)
    else:
        assert paths == {"/"}


def test_its_host_name_is_the_manifests(sight: Any) -> None:
    """Not this machine's."""
    assert sight["uname"][1] == "agent" != socket.gethostname()


def test_it_holds_no_capability_at_all(sight: Any) -> None:
    """Neither it nor its init: inherited, permitted, effective, bounding, ambient; and it can gain none."""
    for status in (sight["status"], sight["init_status"]):
        assert {int(status[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert set(status["Uid"].split()) == {"1000"} == set(status["Gid"].split())
        # an ordinary user cannot drop its own groups; but for its first they have no name inside
        assert set(status["Groups"].split()) <= {"1000", "65534"}


def test_it_cannot_become_another_user(sight: Any) -> None:
    """EINVAL: uid 0 does not exist in its namespace; EPERM: it has no right to try."""
    assert {
        what: said for what, said in sight["uids"].items() if said not in ("EPERM", "EINVAL", "ENOSYS")
    } == {}


def test_setuid_programs_gain_nothing(sight: Any) -> None:
    """Run as its own uid, not even in the dynamic linker's secure mode: the kernel ignored the bit."""
    ran = {path: seen for path, seen in sight["suid"].items() if "AT_EUID" in seen}
    assert ran or not any(os.access(path, os.X_OK) for path in ("/usr/bin/mount", "/usr/bin/su"))
    for path, seen in ran.items():
        assert (seen["AT_UID"], seen["AT_EUID"], seen["AT_SECURE"]) == ("1000", "1000", "0"), path


def test_no_link_leads_out_of_the_workspace(sight: Any) -> None:
    """A symbolic link ends in its own tree; a hard link cannot cross the mount."""
    for what, said in sight["links"].items():
        assert said in ({"ENOENT"} if what.startswith("symlink") else {"EXDEV", "EPERM", "EROFS"}), what


def test_it_makes_no_device_node(sight: Any) -> None:
    """And has only the harmless ones."""
    assert set(sight["nodes"].values()) <= {"EPERM", "EROFS", "EACCES"}
    assert set(sight["dev"]) == {*DEVICES, "fd", "stdin", "stdout", "stderr", "shm"}


def _masks(sight: Any) -> set[str]:
    """Files of /proc that are /dev/null, which nobody minds being written."""
    rows = [line.split() for line in sight["mountinfo"].splitlines()]
    return {row[4] for row in rows if row[4].startswith("/proc/") and _is_device(row) and row[3] == "/null"}


def _mounts(sight: Any) -> list[tuple[str, list[str]]]:
    return [(line.split()[4], line.split()[5].split(",")) for line in sight["mountinfo"].splitlines()]


def _paths(mountinfo: str) -> dict[str, str]:
    """Target → what is shown there, as a path in its own file system; not of file systems made for this box."""
    rows = [line.split() for line in mountinfo.splitlines()]
    made = [row for row in rows if row[row.index("-") + 1] in ("tmpfs", "proc") and row[3].count("/") == 1]
    return {row[4]: row[3] for row in rows if row[3] != "/" and row not in made and not _is_device(row)}


def _is_device(row: list[str]) -> bool:
    return row[row.index("-") + 1] in ("devtmpfs", "tmpfs") and row[3][1:] in DEVICES
