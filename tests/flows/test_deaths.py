"""kill -9 of anything at any moment: every agent runs exactly once, no line is lost or doubled, every end is told as
it was, and nothing is left behind.
"""

import contextlib
import itertools
import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentk.control import crash as steward
from agentk.runtime.launcher import crash as launcher
from tests.flows import household
from tests.flows.household import IN_VM, Household, Space, python, shell

pytestmark = household.needs

# Its lock proves that no other instance lives; its numbers, that each line is there once.
COUNT = """
import fcntl, sys, time
lock = open("/workspace/lock", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    print("TWICE", flush=True)
    sys.exit(99)
print("begin", flush=True)
for number in range({lines}):
    print(number, flush=True)
    time.sleep(0.005)
print("end", flush=True)
sys.exit(7)
"""
# What has to be reached first, to get to a point at all.
BEFORE = {"adopt.after-half-made": "start.after-intent"}
# Told in stories of their own.
ELSEWHERE = ("environment.", "image.", "podman.", "exec.", "enter.", "claim.", "wait.", "workspace.")
CASES = [("launcher", point, "nsjail") for point in launcher.POINTS if not point.startswith(ELSEWHERE)]
# The launcher alone is tried at all that Podman boxes pass (test_launcher_podman_deaths); here where a daemon meets it.
MET = ("podman.after-start", "start.after-handle", "remove.after-leaf", "release.after-group")
CASES += [("launcher", point, "podman") for point in (*MET, "adopt.after-box")]
# The daemon knows no runtime.
CASES += [("daemon", point, "nsjail") for point in steward.POINTS if not point.startswith(ELSEWHERE)]
if IN_VM:
    CASES = [case for case in CASES if case[1] in ("start.after-handle", "adopt.after-box", "status.after")]
STORIES = itertools.count()


@pytest.fixture(scope="module")
def fragile() -> Iterator[Household]:
    with household.household() as home:
        yield home


@pytest.fixture
def broken(fragile: Household, runtime: str) -> Iterator[Space]:
    """A namespace in a household whose processes die."""
    if next(STORIES) % 3 == 2:
        fragile.kill("keeper")  # its successor knows of no earlier deaths, and waits less after the next one
        revive(fragile)
    with household.space(fragile, runtime) as made:
        yield made


def revive(home: Household) -> None:
    """As the next command would."""

    def revived() -> bool:
        home.agentk("daemon", "start", code=None)  # a daemon on its way out may have answered
        return bool(home.pid("keeper"))

    household.until("a keeper lives", revived)
    home.answers()


def count(name: str, lines: int = 1_000_000, **spec: object) -> household.Object:
    return python(name, COUNT.format(lines=lines), **spec)


def check(lines: list[str], end: bool = False, cut: bool = False) -> None:
    """Exactly one instance, its numbers in order; with `end` to the last, unless the status owned up to a `cut`."""
    if cut and not lines:
        return  # it ended before anybody had read a line
    assert lines[0] == "begin"
    finished = lines[-1] == "end"
    numbers = lines[1:-1] if finished else lines[1:]
    assert numbers == [str(number) for number in range(len(numbers))]
    assert finished or cut or not end


@pytest.mark.parametrize(("who", "point", "runtime"), CASES, ids=["-".join(case) for case in CASES])
def test_a_death_at_any_named_point_changes_nothing(broken: Space, who: str, point: str) -> None:
    home = broken.home
    armed = [home.crashes / name for name in (BEFORE.get(point), point) if name]
    for file in armed:
        file.touch()
    broken.create(count("a", terminationGracePeriodSeconds=100))
    if point.startswith("adopt."):
        if point not in BEFORE:
            broken.running("a")
        orphan(broken) if who == "daemon" else home.kill("launcher")
    broken.running("a")
    broken.logged("a", "20")
    if point.split(".")[0] in ("freeze", "thaw"):
        broken.agentk("suspend", "a")
        broken.phase("a", "Suspended")
        broken.agentk("resume", "a")
        broken.running("a")
    hard = point.startswith("kill.")
    broken.agentk("kill", "a", "--timeout", "100s", *(["--grace-period", "0"] if hard else []))
    status = broken.phase("a", "Failed")
    assert (status["reason"], status["signal"]) == ("Killed", signal.SIGKILL if hard else signal.SIGTERM)
    check(broken.log("a"))
    if point.startswith("delete-object."):
        broken.create(shell("b", "exit 0", ttlSecondsAfterFinished=0))
        broken.agentk("wait", "--for=delete", "agent/b", "--timeout", "100s")
    uid = broken.get("a")["metadata"]["uid"]
    broken.delete("a")
    household.until(f"{who} died at {point}", lambda: not any(file.exists() for file in armed))
    home.clean(uid)


def orphan(space: Space) -> None:
    """A box that is nobody's when the daemon starts: its object has gone for good meanwhile."""
    home = space.home
    saved = home.folder / "saved.tar"
    space.agentk("backup", str(saved))
    space.create(count("orphan"))
    space.running("orphan")
    uid = space.get("orphan")["metadata"]["uid"]
    home.agentk("daemon", "stop")
    home.agentk("restore", "--yes", str(saved))
    revive(home)
    saved.unlink()
    home.clean(uid)


@household.on_both
@pytest.mark.parametrize("point", [name for name in launcher.POINTS if name.startswith("end.")])
def test_an_end_while_the_launcher_dies_is_told_as_it_was(broken: Space, point: str) -> None:
    (broken.home.crashes / point).touch()
    broken.create(count("a", lines=50))
    status = broken.phase("a", "Failed")
    assert (status["reason"], status["exitCode"], status["attempt"]) == ("Error", 7, 1)
    check(broken.log("a"), end=True)
    assert not (broken.home.crashes / point).exists()


@household.on_both
@pytest.mark.parametrize(
    "victims",
    [("daemon",), ("launcher",), ("daemon", "launcher"), ("keeper",), ("keeper", "daemon", "launcher")],
    ids="+".join,
)
def test_what_ended_meanwhile_is_told_and_what_runs_goes_on(broken: Space, victims: tuple[str, ...]) -> None:
    home = broken.home
    broken.create(count("ends", lines=200), count("stays"))
    before = broken.running("stays")
    broken.logged("ends", "20")
    ending = keeper_of(home, broken.get("ends")["metadata"]["uid"])
    waits = home.pid("keeper") if "keeper" not in victims else 0
    if waits:
        os.kill(waits, signal.SIGSTOP)  # so that they stay away until it has ended
    home.kill(*victims)
    household.until("it ended", lambda: not household.is_alive(ending))
    if waits:
        os.kill(waits, signal.SIGCONT)
    revive(home)
    status = broken.phase("ends", "Failed")
    assert (status["exitCode"], status["reason"], status["attempt"]) == (7, "Error", 1)
    cut = {"daemon", "launcher"} <= set(victims) and "missing" in status["message"]
    check(broken.log("ends"), end=True, cut=cut)
    after = broken.running("stays")
    assert (after["boxID"], after["startedAt"]) == (before["boxID"], before["startedAt"])
    broken.logged("stays", str(len(broken.log("stays")) + 20))
    check(broken.log("stays"))


def keeper_of(home: Household, uid: str) -> int:
    """Host pid of the jail's process that waits for an agent's box."""
    (handle,) = (home.places.state / "boxes").glob(f"{uid}*/handle.json")
    return int(json.loads(handle.read_text())["keeper"]["pid"])


@household.on_both
@pytest.mark.parametrize("seed", range(1 if IN_VM else 3))
def test_random_deaths(broken: Space, seed: int) -> None:
    chance, home = random.Random(seed), broken.home
    names = [f"a{number}" for number in range(3 if IN_VM else 6)]
    for name in names:
        broken.create(count(name, lines=chance.randrange(100, 500)))
        if chance.random() < 0.8:
            wait_a_little(chance)
            victims = chance.sample(("daemon", "launcher", "keeper"), chance.choice((1, 1, 1, 2, 3)))
            home.kill(*victims)
            if "keeper" in victims:
                revive(home)
            home.answers()
    for name in names:
        status = broken.phase(name, "Failed")
        assert (status["exitCode"], status["reason"]) == (7, "Error")
        check(broken.log(name), end=True, cut="missing" in status["message"])


@household.on_both
@pytest.mark.parametrize("seed", range(1 if IN_VM else 2))
def test_random_deaths_while_all_are_deleted(broken: Space, seed: int) -> None:
    chance, home = random.Random(seed), broken.home
    names = [f"a{number}" for number in range(6)]
    broken.create(*(count(name) for name in names))
    deleting = broken.begin("delete", "agents", *names, "--timeout", "100s")
    for victim in chance.sample(("daemon", "launcher"), 2):
        wait_a_little(chance)
        home.kill(victim)
        home.answers()
    deleting.communicate()
    for name in names:
        with contextlib.suppress(AssertionError):
            broken.agentk("delete", "agent", name, "--ignore-not-found", "--timeout", "100s")
    assert broken.agentk("get", "agents", "-o", "name").out == ""


def wait_a_little(chance: random.Random) -> None:
    """Up to a few steps of whatever goes on; a moment, not a deadline."""
    signal.sigtimedwait([], chance.uniform(0, 0.2))


def test_the_launcher_stays_while_the_daemon_is_started_again(broken: Space) -> None:
    home = broken.home
    broken.create(count("a"))
    broken.running("a")
    pid = home.pid("launcher")
    home.agentk("daemon", "stop")
    assert (home.pid("daemon"), home.pid("launcher")) == (0, pid)
    broken.agentk("get", "agents")  # starts it
    broken.create(count("b"))
    broken.running("b")
    assert home.pid("launcher") == pid
    check(broken.log("a"))


@household.on_both
def test_a_reboot_loses_boxes_and_policy_starts_them_again(alone: Space) -> None:
    home = alone.home
    policies = ("Always", "OnFailure", "Never")
    kept = {"checkpoint": {"every": "1s", "restore": "OnFailure"}}
    script = "ls; touch there; exec sleep 1000"
    alone.create(*(shell(policy.lower(), script, restartPolicy=policy, **kept) for policy in policies))
    for policy in policies:
        alone.until(policy.lower(), lambda status: "lastCheckpoint" in status)
    home.kill("keeper", "daemon", "launcher")
    for handle in (home.places.state / "boxes").glob("*/handle.json"):
        end_with_the_machine(handle)
    revive(home)
    for name in ("always", "onfailure"):
        ended = alone.running(name, attempt=2)["lastTermination"]
        assert ended["reason"] == "Lost", ended
        assert alone.status(name)["restoredFrom"]["attempt"] == 2
        alone.logged(name, "there")
    assert alone.phase("never", "Failed")["reason"] == "Lost"


def end_with_the_machine(handle: Path) -> None:
    """What a reboot makes of a box: its processes are gone, and its record is of another boot."""
    told = json.loads(handle.read_text())
    for process in (told["keeper"], told["guest"]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process["pid"], signal.SIGKILL)
        household.until("it is gone", lambda pid=process["pid"]: not household.is_alive(pid))
        process["boot_id"] = "00000000-0000-0000-0000-000000000000"
    handle.write_text(json.dumps(told))
