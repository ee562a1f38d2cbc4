"""What the machine promises the tests that run in it, as root and as the user. AGENTK_VM says which."""

import importlib.metadata
import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.vm

CGROUPS = Path("/sys/fs/cgroup")
# Moves itself into a leaf first: a group with processes in it may not hand on controllers.
BITE = """
import pathlib, subprocess
(line,) = open("/proc/self/cgroup")
group = pathlib.Path("/sys/fs/cgroup" + line.strip().removeprefix("0::"))
leaf, box = group / "leaf", group / "box"
leaf.mkdir()
box.mkdir()
(leaf / "cgroup.procs").write_text("0")
(group / "cgroup.subtree_control").write_text("+memory +pids +cpu")
(box / "memory.max").write_text(str(32 << 20))
hog = f"open('{box}/cgroup.procs', 'w').write('0'); b'x' * (64 << 20)"
print(subprocess.run(["/usr/bin/python3", "-I", "-c", hog]).returncode)
print(*[line for line in (box / "memory.events").read_text().splitlines() if line.startswith("oom_kill ")])
"""
WHO = os.environ.get("AGENTK_VM", "")


def own_group() -> Path:
    (line,) = Path("/proc/self/cgroup").read_text().splitlines()
    return CGROUPS / line.removeprefix("0::/")


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_cgroups_are_unified() -> None:
    assert output("stat", "-f", "-c", "%T", str(CGROUPS)) == "cgroup2fs"


def test_systemd_is_the_first_process() -> None:
    assert Path("/proc/1/comm").read_text().strip() == "systemd"


def test_it_runs_as_it_was_asked() -> None:
    assert os.geteuid() == {"root": 0, "user": 1000}[WHO]


def test_the_own_group_is_delegated_with_its_controllers() -> None:
    group = own_group()
    assert {"cpu", "memory", "pids"} <= set((group / "cgroup.controllers").read_text().split())
    assert group.stat().st_uid == os.geteuid()


def test_a_limit_in_a_delegated_service_bites() -> None:
    """In a service of its own, because the suite around this test may have rearranged its own group."""
    scope = [] if WHO == "root" else ["--user"]
    run = ["systemd-run", *scope, "--wait", "--pipe", "--collect", "--quiet", "--property=Delegate=yes"]
    told = output(*run, "/usr/bin/python3", "-I", "-c", BITE)
    assert told.splitlines() == ["-9", "oom_kill 1"]


def test_the_manager_answers() -> None:
    scope = [] if WHO == "root" else ["--user"]
    assert output("systemctl", *scope, "show", "--property=Version").startswith("Version=252")


def test_the_users_session_is_there() -> None:
    assert WHO == "root" or os.environ["XDG_RUNTIME_DIR"] == "/run/user/1000"
    assert "Linger=yes" in output("loginctl", "show-user", "agent")


def test_a_user_namespace_with_more_than_one_uid() -> None:
    assert output("unshare", "--user", "--map-root-user", "id", "-u") == "0"
    assert any(line.startswith("agent:") for line in Path("/etc/subuid").read_text().splitlines())


def test_podman_works_for_this_account_with_overlays_and_limits() -> None:
    what = "{{.Host.CgroupsVersion}} {{.Host.OCIRuntime.Name}} {{.Store.GraphDriverName}} {{.Host.CgroupControllers}}"
    version, runtime, driver, *controllers = output("podman", "info", "--format", what).split()
    assert (version, runtime, driver) == ("v2", "crun", "overlay")
    assert {"cpu", "memory", "pids"} <= {word.strip("[]") for word in controllers}


def test_filesystems_and_loop_devices_are_there() -> None:
    known = Path("/proc/filesystems").read_text().split()
    assert {"ext4", "overlay"} <= set(known)
    assert Path("/dev/loop-control").exists()


def test_the_checkout_is_installed() -> None:
    assert importlib.metadata.version("agentk")
    assert (
        output("/opt/venv/bin/python", "-c", "import agentk; print(agentk.__path__[0])")
        == "/srv/agentk/agentk"
    )
