"""Processes by an identity that a reused pid cannot fake: pid, start time and boot id."""

import functools
import os
import signal
from pathlib import Path

from agentk.runtime import box as words
from agentk.runtime import kernel

_STATE, _START, _START_CODE, _STATUS = 0, 19, 23, 49  # of the fields after the name in /proc/PID/stat


def identify(pid: int) -> words.Process | None:
    """None when there is no such process, or only its corpse."""
    fields = stat(pid)
    if fields is None or fields[_STATE] in ("Z", "X"):
        return None
    return words.Process(pid, int(fields[_START]), _boot_id())


@functools.cache
def _boot_id() -> str:
    return kernel.boot_id()


def stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name, which may hold anything."""
    try:
        text = kernel.read(f"/proc/{pid}/stat")
    except OSError:
        return None
    return text.rpartition(b")")[2].decode().split()


def tells_its_end(process: words.Process) -> bool:
    """Whether `code_of` will be told: the kernel tells both or neither, to those with rights over the process."""
    fields = stat(process.pid)
    return fields is not None and int(fields[_START_CODE]) > 1


def code_of(process: words.Process, pidfd: int) -> int | None:
    """How this very process ended, 128+N for a signal. None when it has not, and on some kernels when its parent was
    faster than we and has taken its corpse."""
    fields = stat(process.pid)
    if fields and fields[_STATE] == "Z" and int(fields[_START]) == process.start_ticks:
        status: int | None = int(fields[_STATUS])
    else:
        status = kernel.reaped_status(pidfd)
    if status is None:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def is_alive(process: words.Process | None) -> bool:
    """Whether this very process still runs."""
    return process is not None and identify(process.pid) == process


def open_pidfd(process: words.Process) -> int | None:
    """A pidfd of this very process; None when it is gone."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if is_alive(process):
        return pidfd
    os.close(pidfd)
    return None


def send(process: words.Process | None, number: int) -> bool:
    """A signal to this very process. False when it is gone."""
    pidfd = open_pidfd(process) if process else None
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def children(pid: int) -> list[int]:
    """Pids of its children, those of all its threads."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def listens(pid: int, number: int) -> bool:
    """Whether a signal to PID 1 of a box would reach its agent by now.

    Before its init blocks or handles signals the kernel drops them for the first process of a pid namespace, and
    before the init's child has become another program it swallows them, as the init does.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True  # gone: nothing to wait for
    bit = 1 << (number - 1)
    masks = [
        int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigBlk:", "SigCgt:"))
    ]
    return any(mask & bit for mask in masks) and any(
        _program(child) != _program(pid) for child in children(pid)
    )


def _program(pid: int) -> tuple[int, int]:
    """What it executes, whatever its name is."""
    try:
        seen = os.stat(f"/proc/{pid}/exe")
    except OSError:
        return 0, 0
    return seen.st_dev, seen.st_ino
