"""The host as it is seen from outside of every box: its processes, mounts and loop devices."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def owners(pid: int) -> list[int]:
    """Real, effective, saved and file-system uid of a process, in our numbering; [] when it is gone."""
    return [int(word) for word in status(pid).get("Uid", "").split()]


def status(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":")[::2] for line in text.splitlines())
    return {name: value.strip() for name, value in pairs}


def oom_score(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/oom_score_adj").read_text().strip()
    except OSError:
        return ""


def groups_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def is_corpse(pid: int) -> bool:
    return status(pid).get("State", "X")[0] in "ZX"


def mounts_of(pid: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    except OSError:
        return []


def loops() -> list[str]:
    """Files that a loop device shows."""
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(file.read_text().strip())
        except OSError:
            continue  # let go of just now
    return found


def as_uid(uid: int, act: Callable[[], str]) -> str:
    """What `act` answers in a forked child that has nothing but `uid`."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(write, act().encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def bystander(uid: int) -> subprocess.Popen[bytes]:
    """A process of the host with the uid of a box (-1: our own)."""
    user = {} if uid < 0 else {"user": uid, "group": uid, "extra_groups": ()}
    return subprocess.Popen(["/bin/sleep", "1000"], **user)  # type: ignore[call-overload, no-any-return]


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
