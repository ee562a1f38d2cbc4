"""What the kernel writes, read: no cgroup is touched here."""

from pathlib import Path

from agentk.runtime import cgroup_text, cgroup_v2


def test_mount_entry_has_octal_escapes_undone() -> None:
    line = "29 1 0:26 / /sys/fs/my\\040cgroup rw,relatime shared:4 master:2 - cgroup2 cgroup rw,nsdelegate"
    [entry] = cgroup_text.mount_entries(line)
    assert (entry.point, entry.fstype) == (Path("/sys/fs/my cgroup"), "cgroup2")
    assert {"relatime", "nsdelegate"} <= entry.options


def test_lines_that_are_no_mounts_are_skipped() -> None:
    assert cgroup_text.mount_entries("\n - \n1 2 3\nrubbish - x y\n") == []


def test_own_groups_splits_joined_controllers() -> None:
    text = "4:cpu,cpuacct:/a:b\n1:name=systemd:/init.scope\n0::/user.slice\n"
    assert cgroup_text.own_groups(text) == {
        "cpu": "/a:b",
        "cpuacct": "/a:b",
        "name=systemd": "/init.scope",
        "": "/user.slice",
    }


def test_keyed_reads_events_and_skips_the_rest() -> None:
    assert cgroup_text.keyed("low 0\nmax 12\noom_kill 3\nN0=4 x\nmax_time\n") == {
        "low": 0,
        "max": 12,
        "oom_kill": 3,
    }


def test_number_of_max_and_of_nothing_is_none() -> None:
    assert [cgroup_text.number(text) for text in ("max\n", "", None, "12\n", "-1\n")] == [
        None,
        None,
        None,
        12,
        -1,
    ]


def test_write_never_creates_a_file(tmp_path: Path) -> None:
    assert cgroup_text.write(tmp_path / "memory.max", 1) == "memory.max: No such file or directory"
    assert list(tmp_path.iterdir()) == []


def test_a_lack_reads_as_one_sentence() -> None:
    assert str(cgroup_text.Lack("no cpu", "reboot")) == "no cpu; reboot"
    assert str(cgroup_text.Lack("no cpu")) == "no cpu"


def test_base_for_root_outside_of_a_unit_is_the_top() -> None:
    point = Path("/sys/fs/cgroup")
    assert cgroup_v2.candidates(point, point / "system.slice/ssh.service", 0, "") == [point]


def test_base_for_a_person_is_the_user_managers_group() -> None:
    point = Path("/sys/fs/cgroup")
    manager = point / "user.slice/user-1.slice/user@1.service"
    assert cgroup_v2.candidates(point, manager / "app.slice/x.scope", 1, "") == [manager]


def test_base_remembered_outside_of_the_hierarchy_is_not_believed(tmp_path: Path) -> None:
    assert cgroup_v2.candidates(Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup"), 1, str(tmp_path)) == []
