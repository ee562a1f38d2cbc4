"""Real groups, real hostile children: on v1, on v2, as root and delegated, whatever this host has."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentk.runtime import box, cgroup, cgroup_proof, cgroup_text

pytestmark = pytest.mark.jail

MIB = 1024 * 1024
EATER = "b = [b'x' * 1048576 for _ in range({mib})]; print(len(b))"
BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
Spawn = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def groups() -> Iterator[cgroup.Cgroups]:
    opened = cgroup.Cgroups.open(f"test-{os.getpid()}")
    if opened.missing:
        pytest.skip(f"cgroups cannot be used here: {opened.missing}")
    yield opened
    swept(opened)
    assert opened.close_root()  # on a delegated v2 we were moved aside into it, and it stays


@pytest.fixture
def spawn(groups: cgroup.Cgroups) -> Iterator[Spawn]:
    """Run a Python program inside ns/UID/leaf."""
    started: list[subprocess.Popen[bytes]] = []

    def run(program: str, uid: str = "a", leaf: str = "box") -> subprocess.Popen[bytes]:
        files = groups.entry_files("ns", uid, leaf)
        enter = "".join(f"open({str(file)!r}, 'w').write('0')\n" for file in files)
        started.append(subprocess.Popen([sys.executable, "-c", enter + program], stdout=subprocess.DEVNULL))
        return started[-1]

    yield run
    swept(groups)
    for child in started:
        child.kill()
        child.wait()


def made(groups: cgroup.Cgroups, uid: str = "a", leaf: str = "box", **limits: int) -> None:
    assert groups.make_group("ns", uid, box.Limits(**limits)) == []
    groups.make_leaf("ns", uid, leaf)


def swept(groups: cgroup.Cgroups) -> None:
    for namespace, uid, leaf in groups.leftovers():
        assert not leaf or groups.kill(namespace, uid, leaf)
        assert groups.remove_group(namespace, uid)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_child_over_its_memory_limit_is_killed_and_counted(groups: cgroup.Cgroups, spawn: Spawn) -> None:
    made(groups, memory_bytes=48 * MIB)
    assert spawn(EATER.format(mib=96)).wait(20) == -signal.SIGKILL
    counted = groups.counters("ns", "a", "box")
    assert counted.oom_kills == 1
    assert counted.memory_peak_bytes is None or 40 * MIB < counted.memory_peak_bytes <= 48 * MIB


def test_an_oom_leaves_the_neighbour_alone(groups: cgroup.Cgroups, spawn: Spawn) -> None:
    made(groups, "a", memory_bytes=48 * MIB)
    made(groups, "b", memory_bytes=48 * MIB)
    neighbour = spawn("import time; time.sleep(60)", uid="b")
    assert spawn(EATER.format(mib=96), uid="a").wait(20) == -signal.SIGKILL
    assert neighbour.poll() is None
    assert groups.counters("ns", "b", "box").oom_kills == 0


def test_leaves_of_one_agent_share_its_limit(groups: cgroup.Cgroups, spawn: Spawn) -> None:
    made(groups, memory_bytes=96 * MIB)
    groups.make_leaf("ns", "a", "exec-1")
    spawn(EATER.format(mib=60) + "; import time; time.sleep(60)")
    until(lambda: (groups.counters("ns", "a", "box").memory_bytes or 0) > 60 * MIB)
    spawn(EATER.format(mib=60), leaf="exec-1").wait(20)
    kills = [groups.counters("ns", "a", leaf).oom_kills or 0 for leaf in ("box", "exec-1")]
    assert sum(kills) >= 1


def test_agents_of_one_namespace_share_its_limit(groups: cgroup.Cgroups, spawn: Spawn) -> None:
    made(groups, memory_bytes=512 * MIB)
    assert groups.set_namespace_limits("ns", 1000, 48 * MIB) == []
    assert spawn(EATER.format(mib=96)).wait(20) == -signal.SIGKILL
    assert groups.set_namespace_limits("ns", None, None) == []


def test_a_fork_bomb_is_denied_counted_and_killed(groups: cgroup.Cgroups, spawn: Spawn) -> None:
    made(groups, pids=100, memory_bytes=256 * MIB, cpu_millis=500)
    spawn(BOMB)
    until(lambda: (groups.counters("ns", "a", "box").pids_denied or 0) > 0)
    assert len(groups.pids("ns", "a", "box")) <= 100
    assert groups.kill("ns", "a", "box")
    assert groups.pids("ns", "a", "box") == set()


def test_a_throttled_crowd_dies_at_once_and_stays_limited(groups: cgroup.Cgroups, spawn: Spawn) -> None:
    made(groups, pids=200, cpu_millis=10)
    spawn("import os, time\nfor _ in range(90):\n  if not os.fork(): break\nwhile True: pass")
    until(lambda: (groups.counters("ns", "a", "box").throttled_periods or 0) >= 3)
    assert groups.kill("ns", "a", "box")
    spawn("while True: pass")
    throttled = groups.counters("ns", "a", "box").throttled_periods or 0
    until(lambda: (groups.counters("ns", "a", "box").throttled_periods or 0) > throttled)


def test_kill_is_faster_than_forks_without_a_pids_limit(groups: cgroup.Cgroups, spawn: Spawn) -> None:
    made(groups, memory_bytes=1024 * MIB)
    # each lives shortly and leaves two: never more than a few hundred, never the same pids
    spawn(
        "import os, time\nfor _ in range(10):\n  os.fork(); time.sleep(0.02)\nwhile not os.fork(): time.sleep(0.01)"
    )
    until(lambda: len(groups.pids("ns", "a", "box")) > 20)
    assert groups.kill("ns", "a", "box")
    assert groups.pids("ns", "a", "box") == set()


def test_a_frozen_group_can_be_killed(groups: cgroup.Cgroups, spawn: Spawn) -> None:
    made(groups)
    child = spawn("while True: pass")
    until(lambda: child.pid in groups.pids("ns", "a", "box"))
    assert groups.freeze("ns", "a", "box") and groups.is_frozen("ns", "a", "box")
    assert groups.kill("ns", "a", "box")
    assert child.wait(20) == -signal.SIGKILL


def test_a_frozen_group_stands_still_until_thawed(groups: cgroup.Cgroups, spawn: Spawn) -> None:
    made(groups)
    child = spawn("while True: pass")
    until(lambda: (groups.counters("ns", "a", "box").cpu_usec or 0) > 0)
    assert groups.freeze("ns", "a", "box")
    ticks = Path(f"/proc/{child.pid}/stat").read_text().split()[13]
    time.sleep(0.1)
    assert Path(f"/proc/{child.pid}/stat").read_text().split()[13] == ticks
    assert groups.thaw("ns", "a", "box") and not groups.is_frozen("ns", "a", "box")
    until(lambda: Path(f"/proc/{child.pid}/stat").read_text().split()[13] != ticks)


def test_a_spinning_child_is_throttled_and_the_count_outlives_it(
    groups: cgroup.Cgroups, spawn: Spawn
) -> None:
    made(groups, cpu_millis=100)
    child = spawn("while True: pass")
    until(lambda: (groups.counters("ns", "a", "box").throttled_periods or 0) >= 3)
    groups.kill("ns", "a", "box")
    child.wait(20)
    counted = groups.counters("ns", "a", "box")
    assert (counted.throttled_periods or 0) >= 3 and (counted.throttled_usec or 0) > 0
    assert (counted.cpu_usec or 0) > 0 and counted.pids == 0


@pytest.mark.parametrize("before, after", [(64, 128), (128, 64), (64, None), (None, 64)])
def test_memory_of_a_live_group_can_be_changed(
    groups: cgroup.Cgroups, spawn: Spawn, before: int | None, after: int | None
) -> None:
    sizes = [None if mib is None else mib * MIB for mib in (before, after)]
    assert groups.make_group("ns", "a", box.Limits(memory_bytes=sizes[0])) == []
    groups.make_leaf("ns", "a", "box")
    child = spawn("import time; time.sleep(60)")
    until(lambda: child.pid in groups.pids("ns", "a", "box"))
    assert groups.make_group("ns", "a", box.Limits(memory_bytes=sizes[1])) == []
    assert groups.make_group("ns", "a", box.Limits(memory_bytes=sizes[1])) == []


def test_a_limit_that_cannot_be_held_is_named(groups: cgroup.Cgroups, spawn: Spawn) -> None:
    made(groups, memory_bytes=128 * MIB)
    answers = groups.make_group("ns", "a", box.Limits(pids=2**40))
    assert [answer.partition(":")[0] for answer in answers] == ["pids"]


def test_an_agent_may_ask_for_more_cpu_than_its_namespace_has(groups: cgroup.Cgroups, spawn: Spawn) -> None:
    made(groups, "a", cpu_millis=1500)
    assert groups.set_namespace_limits("ns", 400, None) == []
    assert groups.make_group("ns", "b", box.Limits(cpu_millis=2000)) == []
    assert groups.set_namespace_limits("ns", None, None) == []


def test_the_keeper_is_outside_of_every_agent(groups: cgroup.Cgroups, spawn: Spawn) -> None:
    made(groups, pids=1)
    child = spawn("import time; time.sleep(60)")
    until(lambda: child.pid in groups.pids("ns", "a", "box"))
    for file in groups.keeper_files():
        assert cgroup_text.write(file, child.pid) == ""
    assert groups.pids("ns", "a", "box") == set()
    assert groups.leftovers() == [("ns", "a", "box")]


def test_leftovers_are_found_by_the_next_launcher(groups: cgroup.Cgroups, spawn: Spawn) -> None:
    made(groups, "a")
    groups.make_group("ns", "b", box.Limits())
    again = cgroup.Cgroups.open(f"test-{os.getpid()}", known=groups.location)
    assert again.leftovers() == [("ns", "a", "box"), ("ns", "b", "")]
    assert again.location == groups.location


def test_removal_waits_for_nobody_and_is_repeatable(groups: cgroup.Cgroups, spawn: Spawn) -> None:
    made(groups)
    child = spawn("import time; time.sleep(60)")
    until(lambda: child.pid in groups.pids("ns", "a", "box"))
    assert not groups.remove_group("ns", "a")
    assert groups.kill("ns", "a", "box")
    assert groups.remove_leaf("ns", "a", "box") and groups.remove_leaf("ns", "a", "box")
    assert groups.remove_group("ns", "a") and groups.remove_group("ns", "a")
    assert groups.leftovers() == []


def test_nothing_is_inside_what_is_not_there(groups: cgroup.Cgroups) -> None:
    assert groups.pids("ns", "none", "box") == set()
    assert groups.kill("ns", "none", "box")
    assert groups.counters("ns", "none", "box") == box.Counters()


@pytest.mark.parametrize("bad", ["..", "", "a/b", "cgroup.procs", "a\n", "/"])
def test_names_that_lead_elsewhere_are_refused(groups: cgroup.Cgroups, bad: str) -> None:
    with pytest.raises(ValueError, match="cannot name a cgroup"):
        groups.make_leaf("ns", "a", bad)
    with pytest.raises(ValueError, match="cannot name a cgroup"):
        groups.kill("ns", bad, "box")


def test_every_limit_is_proved_to_bite(groups: cgroup.Cgroups, tmp_path: Path) -> None:
    findings = groups.self_test(tmp_path / "proof")
    assert {finding.name: finding.ok for finding in findings} == {
        "cgroup memory limit": True,
        "cgroup pids limit": True,
        "cgroup cpu limit": True,
    }, findings
    assert groups.leftovers() == []


def test_a_limit_that_did_not_bite_is_told_as_not_held(
    groups: cgroup.Cgroups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, _, judge = cgroup_proof._CHILDREN["pids"]
    tame = cgroup_proof._CHILDREN | {"pids": (limits, lambda: 0, judge)}  # as if forks had been allowed
    monkeypatch.setattr(cgroup_proof, "_CHILDREN", tame)
    groups.self_test(tmp_path / "proof")
    assert not (tmp_path / "proof").exists()
    unheld = groups.make_group("ns", "a", box.Limits(memory_bytes=1 << 26, pids=5))
    assert [answer.partition(":")[0] for answer in unheld] == ["pids"]
    assert groups.make_group("ns", "b", box.Limits(memory_bytes=1 << 26)) == []


def test_the_proof_is_believed_only_for_this_boot(groups: cgroup.Cgroups, tmp_path: Path) -> None:
    marker = tmp_path / "proof"
    groups.self_test(marker)
    genuine = marker.read_text()
    assert groups.self_test(marker) == groups.self_test(tmp_path / "fresh")
    marker.write_text(genuine.replace(genuine[2:10], "00000000"))
    groups.self_test(marker)
    assert marker.read_text() == genuine


def test_open_never_raises_where_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup_text, "mount_entries", lambda text: [])
    nothing = cgroup.Cgroups.open("x")
    assert nothing.version == "none" and set(nothing.missing) >= {"memory", "cpu", "pids", "freezer"}
    unheld = nothing.make_group("ns", "a", box.Limits(memory_bytes=1, pids=1, cpu_millis=1))
    assert [answer.partition(":")[0] for answer in unheld] == ["cpu", "memory", "pids"]
    assert nothing.entry_files("ns", "a", "box") == [] and nothing.leftovers() == []
