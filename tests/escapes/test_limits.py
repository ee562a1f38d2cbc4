"""Hard limits: each program takes all it can, and the kernel's own counter says who stopped it."""

import dataclasses
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentk.runtime import box as words
from tests.escapes import prison as prisons
from tests.escapes import ways
from tests.escapes.prison import LIMITS, MIB

pytestmark = pytest.mark.jail

Need = Callable[[str], None]


def limits(**changes: int) -> words.Limits:
    return dataclasses.replace(LIMITS, **changes)


@ways.by("", *ways.INTO)
def test_memory_kills_the_box_and_is_counted(prison: prisons.Prison, need: Need, how: str) -> None:
    need("memory")
    ended = prison.how(how)(
        "greedy", {"kind": "memory", "amount": 512 * MIB}, limits=limits(memory_bytes=48 * MIB)
    )
    assert b"BEGUN" in ended.lines
    assert ended.exit.signal == signal.SIGKILL
    assert (ended.exit.counters.oom_kills or 0) >= 1
    peak = ended.exit.counters.memory_peak_bytes
    assert peak is None or 40 * MIB <= peak <= 48 * MIB


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_files_in_memory_count_as_memory(prison: prisons.Prison, need: Need, place: str) -> None:
    need("memory")
    facts = {"kind": "file", "path": f"{place}/big", "amount": 512 * MIB}
    made = prison.start("greedy", facts, limits=limits(memory_bytes=48 * MIB), tmp_bytes=1024 * MIB)
    ended = prison.wait(made)
    assert ended.exit.signal == signal.SIGKILL
    assert (ended.exit.counters.oom_kills or 0) >= 1


@pytest.mark.parametrize(
    ("place", "how"), [("/tmp", ""), ("/dev/shm", ""), ("/tmp", "hand"), ("/dev/shm", "typed")]
)
def test_scratch_is_full_at_its_size(prison: prisons.Prison, place: str, how: str) -> None:
    facts = {"kind": "file", "path": f"{place}/big", "amount": 64 * MIB}
    ended = prison.how(how)("greedy", facts, tmp_bytes=4 * MIB)
    assert ended.report["refused"] == "ENOSPC"
    assert 3 * MIB <= ended.report["written"] <= 4 * MIB


def test_a_volume_in_memory_is_full_at_its_size(prison: prisons.Prison) -> None:
    volume = words.Mount("tmpfs", "/cache", read_only=False, size_bytes=2 * MIB)
    facts = {"kind": "file", "path": "/cache/big", "amount": 64 * MIB}
    ended = prison.run("greedy", facts, mounts=[volume])
    assert (ended.report["refused"], ended.report["written"]) == ("ENOSPC", 2 * MIB)


@ways.by("", "hand")
def test_the_workspace_is_full_at_its_size(prison: prisons.Prison, how: str) -> None:
    ended = prison.how(how)("greedy", {"kind": "file", "path": "/workspace/big", "amount": 64 * MIB})
    assert ended.seen.workspace in ("quota", "image", "tmpfs")
    assert ended.report["refused"] in ("ENOSPC", "EDQUOT")
    assert 6 * MIB <= ended.report["written"] <= 9 * MIB  # the last block may be half of metadata
    assert 6 * MIB <= (prison.counters(ended.seen).storage_bytes or 0) <= 9 * MIB


@ways.by("", "typed")
def test_the_workspace_runs_out_of_inodes(prison: prisons.Prison, how: str) -> None:
    """A million empty files are no way around a limit in bytes."""
    ended = prison.how(how)("greedy", {"kind": "inodes", "path": "/workspace", "amount": 100_000})
    assert ended.report["refused"] in ("ENOSPC", "EDQUOT")
    assert 100 < ended.report["made"] < 20_000


@ways.by("", "typed")
def test_a_fork_bomb_is_denied_and_ends_with_one_kill(prison: prisons.Prison, need: Need, how: str) -> None:
    need("pids")
    start = prison.start_typed if how else prison.start
    made = start("greedy", {"kind": "forks"}, limits=limits(pids=24))
    prison.said(made, b"REPORT")
    seen = prison.counters(made)
    assert (seen.pids_denied or 0) >= 1 and (seen.pids or 0) <= 24
    ended = prison.kill(made)
    assert ended.report["refused"] == "EAGAIN"
    assert (ended.exit.signal, ended.exit.intent) == (signal.SIGKILL, words.Intent("Killed"))
    assert (ended.exit.counters.pids_denied or 0) >= 1
    prisons.until(
        "its leaf is gone", lambda: not [at for at in prison.groups() if at.parent.name == made.uid]
    )


@ways.by("hand")
def test_a_fork_bomb_put_into_a_box_ends_with_it(prison: prisons.Prison, need: Need, how: str) -> None:
    """It finds what the box's own program left of their one limit."""
    need("pids")
    made = prison.start_box(prison.box(["sleep", "1000"], limits=limits(pids=24)))
    with ThreadPoolExecutor() as pool:
        bomb = pool.submit(prison.put, made, "greedy", {"kind": "forks"})
        prisons.until("one more is refused", lambda: _is_denied(prison, made.uid))
        assert (prison.counters(made).pids or 0) <= 24
        assert prison.kill(made).exit.signal == signal.SIGKILL
        put = bomb.result()
    assert put.exit.signal == signal.SIGKILL and (put.exit.counters.pids_denied or 0) >= 1


def _is_denied(prison: prisons.Prison, uid: str) -> bool:
    """By the kernel's own count, wherever in the agent's group it counts."""
    files = [at / "pids.events" for at in prison.groups() if uid in at.parts]
    return any(file.read_text().split()[-1] != "0" for file in files if file.is_file())


@ways.by("", "hand")
def test_threads_count_as_processes(prison: prisons.Prison, need: Need, how: str) -> None:
    need("pids")
    ended = prison.how(how)("greedy", {"kind": "threads", "amount": 500}, limits=limits(pids=24))
    assert "can't start new thread" in ended.report["refused"]
    assert 10 < ended.report["made"] < 24
    assert (ended.exit.counters.pids_denied or 0) >= 1


@ways.by("", "hand")
def test_descriptors_end_at_the_limit(prison: prisons.Prison, how: str) -> None:
    """And the limit is hard."""
    ended = prison.how(how)("greedy", {"kind": "descriptors", "amount": 5000}, limits=limits(open_files=64))
    assert (ended.report["refused"], ended.report["highest"], ended.report["hard"]) == ("EMFILE", 63, 64)
    assert ended.report["raised"].startswith("refused")


def test_a_flood_of_lines_is_held_back_and_none_is_lost(prison: prisons.Prison) -> None:
    """Every line is there once and in order, over several files; the time it had to wait is counted."""
    log = words.LogLimits(max_bytes=256 * 1024, max_files=20, bytes_per_second=512 * 1024)
    ended = prison.run("greedy", {"kind": "flood", "amount": 20_000, "width": 80}, log=log)
    numbers = [int(line.split()[1]) for line in ended.lines if line.startswith(b"LINE ")]
    assert numbers == list(range(20_000)) and ended.report["written"] == 20_000
    assert ended.exit.counters.log_held_back_usec > 0
    assert ended.exit.counters.log_bytes > 20_000 * 90


def test_a_log_keeps_to_its_size(prison: prisons.Prison) -> None:
    """What is older goes; the last lines stay."""
    log = words.LogLimits(max_bytes=64 * 1024, max_files=2, bytes_per_second=64 * MIB)
    ended = prison.run("greedy", {"kind": "flood", "amount": 5_000, "width": 80}, log=log)
    assert ended.report["written"] == 5_000
    kept = sum(path.stat().st_size for path in prison.log_files(ended.seen))
    assert kept <= 2 * (64 + 32) * 1024
    assert len(prison.log_files(ended.seen)) == 2


@ways.by("", *ways.INTO)
def test_a_guest_cannot_make_the_launcher_wait(prison: prisons.Prison, how: str) -> None:
    """It turns its outputs to blocking, never reads or writes again, and others are served as before."""
    ended = prison.how(how)("unblocking")
    assert ended.exit.code == 0 and ended.report["before"] == [False, False]
    assert prison.run_box(prison.box(["echo", "served"])).text == "served"


@ways.by("", "hand")
def test_cpu_is_throttled_to_its_quota(prison: prisons.Prison, need: Need, how: str) -> None:
    """Two programs that burn all they can get a fifth of one CPU between them."""
    need("cpu")
    ended = prison.how(how)("greedy", {"kind": "cpu", "amount": 200_000}, limits=limits(cpu_millis=200))
    counted, told = ended.exit.counters, ended.report
    # On a machine so busy that they never come near their fifth, nothing has to hold them back.
    assert (counted.throttled_usec or 0) > 0 or told["used"] < 0.1 * told["elapsed"]
    assert (counted.cpu_usec or 0) >= told["used"] * 900_000
    # one period's quota may come on top at the start
    assert told["used"] <= 0.2 * told["elapsed"] * 1.3 + 0.04


def test_one_that_is_greedy_harms_only_itself(prison: prisons.Prison, need: Need) -> None:
    """While a box eats memory until it is killed, its neighbour counts on."""
    need("memory")
    neighbour = prison.start("victim", {"secret": "", "name": "n", "port": 9999})
    prison.said(neighbour, b"VICTIM")
    ended = prison.run(
        "greedy", {"kind": "memory", "amount": 512 * MIB}, limits=limits(memory_bytes=48 * MIB)
    )
    assert (ended.exit.counters.oom_kills or 0) >= 1
    assert prison.see(neighbour.id).phase == "Running"
    assert prison.counters(neighbour).oom_kills == 0
