"""Does a limit that was written and read back also bite? Three small hostile children, once a boot.

All three run at the same time, each in a group of its own, in a namespace no manifest can name. Forks without exec,
so the caller must have one thread.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, Protocol

from agentk.runtime import box, kernel

NAMESPACE = "_proof"
MEMORY_BYTES = 32 * 1024 * 1024
PIDS = 6
CPU_MILLIS = 50  # 5 ms in each 100: used up also where a busy machine gives us little
SPIN_CPU_SECONDS = 0.015  # three periods' worth
SPIN_SECONDS = 3.0  # at most
WAIT_SECONDS = 5.0  # only a machine that stands still needs it


class Groups(Protocol):
    """What of `Cgroups` is needed here."""

    @property
    def version(self) -> str: ...
    @property
    def missing(self) -> dict[str, str]: ...
    @property
    def location(self) -> str: ...
    def make_group(self, namespace: str, uid: str, limits: box.Limits) -> list[str]: ...
    def make_leaf(self, namespace: str, uid: str, leaf: str) -> None: ...
    def entry_files(self, namespace: str, uid: str, leaf: str) -> list[Path]: ...
    def counters(self, namespace: str, uid: str, leaf: str) -> box.Counters: ...
    def kill(self, namespace: str, uid: str, leaf: str) -> bool: ...
    def remove_group(self, namespace: str, uid: str) -> bool: ...


def prove(groups: Groups, marker: Path) -> list[box.Finding]:
    """One finding a limit. A clean result is kept in `marker` and believed until the next boot."""
    key = [kernel.boot_id(), groups.version, groups.location]
    if not groups.missing and _remembered(marker) == key:
        return [_finding(name, "") for name in _CHILDREN]
    findings = [*_run(groups)]
    if all(finding.ok for finding in findings):
        _remember(marker, key)
    return findings


def _run(groups: Groups) -> Sequence[box.Finding]:
    children: dict[str, int] = {}
    problems: dict[str, str] = {}
    try:
        for name, (limits, act, _) in _CHILDREN.items():
            try:
                problems[name] = "; ".join(groups.make_group(NAMESPACE, name, limits))
                if not problems[name]:
                    groups.make_leaf(NAMESPACE, name, "box")
                    children[name] = _fork(groups.entry_files(NAMESPACE, name, "box"), act)
            except OSError as error:
                problems[name] = f"{name}: {error}"
        statuses = {name: _wait(pid) for name, pid in children.items()}
        for name, status in statuses.items():
            problems[name] = _CHILDREN[name][2](status, groups.counters(NAMESPACE, name, "box"))
    finally:
        for name in _CHILDREN:
            groups.kill(NAMESPACE, name, "box")
            groups.remove_group(NAMESPACE, name)
    return [_finding(name, problem) for name, problem in problems.items()]


def _fork(entry: Sequence[Path], act: Callable[[], int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        for file in entry:
            file.write_text("0")
        os._exit(act())
    finally:
        os._exit(70)


def _wait(pid: int) -> int:
    """The child's exit code, or minus its signal. One that does not end is killed."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


# the children


def _eat_memory() -> int:
    pieces = []
    for _ in range(64):
        pieces.append(b"x" * (1024 * 1024))
    return 0


def _fork_often() -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody reaps them
    for _ in range(2 * PIDS):
        try:
            pid = os.fork()
        except OSError:
            return 3
        if pid == 0:
            _pause()
    return 0


def _pause() -> NoReturn:
    time.sleep(WAIT_SECONDS)
    os._exit(0)


def _spin() -> int:
    start, end = time.process_time(), time.monotonic() + SPIN_SECONDS
    while time.process_time() - start < SPIN_CPU_SECONDS and time.monotonic() < end:
        pass
    return 0


# the judges: why the limit did not bite, "" when it did


def _judge_memory(status: int, counted: box.Counters) -> str:
    if status == -signal.SIGKILL and counted.oom_kills:
        return ""
    return f"memory: a child over its limit ended with {status}, OOM kills counted: {counted.oom_kills}"


def _judge_pids(status: int, counted: box.Counters) -> str:
    if status == 3 and counted.pids_denied:
        return ""
    return f"pids: a forking child ended with {status}, forks denied: {counted.pids_denied}"


def _judge_cpu(status: int, counted: box.Counters) -> str:
    if status == 0 and counted.throttled_periods:
        return ""
    return f"cpu: a spinning child ended with {status}, throttled periods: {counted.throttled_periods}"


_CHILDREN: dict[str, tuple[box.Limits, Callable[[], int], Callable[[int, box.Counters], str]]] = {
    "memory": (box.Limits(memory_bytes=MEMORY_BYTES), _eat_memory, _judge_memory),
    "pids": (box.Limits(pids=PIDS), _fork_often, _judge_pids),
    "cpu": (box.Limits(cpu_millis=CPU_MILLIS), _spin, _judge_cpu),
}


def _finding(name: str, problem: str) -> box.Finding:
    said = f"the {name} limit bites" if not problem else problem.removeprefix(f"{name}: ")
    fix = "" if not problem else "agentk doctor  # the lines on cgroups say what to mend"
    return box.Finding(f"cgroup {name} limit", not problem, said, fix)


def _remembered(marker: Path) -> object:
    try:
        return json.loads(marker.read_text())
    except (OSError, ValueError):
        return None


def _remember(marker: Path, key: list[str]) -> None:
    try:
        marker.write_text(json.dumps(key))
    except OSError:
        pass  # then it is proved again next time
