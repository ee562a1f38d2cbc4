"""How a box ended, in words people know; each reason backed by what was read. Pure.

137 is not proof of an out-of-memory kill: only a counter that moved is. That forks were denied does not prove that
this is what ended a process, so it is told in the message and `PidsExceeded` is never guessed.
"""

import signal as signals
from dataclasses import asdict, dataclass
from typing import Any

from agentk.broker import exits as sayings
from agentk.runtime import box as boxes

_CAMEL = {
    "cpu_usec": "cpuUsec",
    "throttled_periods": "throttledPeriods",
    "throttled_usec": "throttledUsec",
    "memory_bytes": "memoryBytes",
    "memory_peak_bytes": "memoryPeakBytes",
    "oom_kills": "oomKills",
    "pids": "pids",
    "pids_denied": "pidsDenied",
    "storage_bytes": "storageBytes",
    "log_bytes": "logBytes",
    "log_held_back_usec": "logHeldBackUsec",
}


@dataclass(frozen=True)
class Termination:
    attempt: int
    reason: str
    message: str
    code: int | None
    signal: int | None
    started_at: str
    finished_at: str
    intended: bool  # we ended it

    def to_dict(self) -> dict[str, Any]:
        told = {
            "attempt": self.attempt,
            "reason": self.reason,
            "message": self.message,
            "exitCode": self.code,
            "signal": self.signal,
            "startedAt": self.started_at,
            "finishedAt": self.finished_at,
        }
        return {key: value for key, value in told.items() if value not in (None, "")}


def counters(counted: boxes.Counters) -> dict[str, int]:
    """As `status.counters`; what this host cannot tell is absent."""
    return {_CAMEL[key]: value for key, value in asdict(counted).items() if value is not None}


def termination(seen: boxes.Seen, now: str, said: sayings.Exit | None = None) -> Termination:
    """What is told of a box that ended or was lost. What its agent said of its end, it meant, however it came."""
    ended = seen.exit
    if said is not None:
        finished = (ended.finished_at if ended else "") or now
        message = _join(said.message, ended.message if ended else "")
        return Termination(
            seen.attempt, said.reason, message, said.code, None, seen.started_at, finished, False
        )
    if ended is None or (ended.source == "none" and ended.intent is None):
        message = (
            ended.message if ended else ""
        ) or "how it ended is not known: the machine or its keeper went away"
        finished = (ended.finished_at if ended else "") or now
        return Termination(seen.attempt, "Lost", message, None, None, seen.started_at, finished, False)
    code, number = ended.code, ended.signal
    if number is None and code is not None and 128 < code < 128 + signals.NSIG:
        number = code - 128
    reason, message = _reason(ended, code, number)
    return Termination(
        attempt=seen.attempt,
        reason=reason,
        message=message,
        code=code if code is not None or number is None else 128 + number,
        signal=number,
        started_at=seen.started_at,
        finished_at=ended.finished_at or now,
        intended=ended.intent is not None,
    )


def _reason(ended: boxes.Exit, code: int | None, number: int | None) -> tuple[str, str]:
    how = describe(code, number)
    extra = [ended.message] if ended.message else []
    if ended.intent is not None:
        return ended.intent.reason, _join(ended.intent.message, how, *extra)
    # Both are counted in the box's own leaf, which begins at zero with every attempt.
    killed, denied = ended.counters.oom_kills or 0, ended.counters.pids_denied or 0
    if denied:
        extra.append(f"the pids limit denied {denied} forks")
    if code == 0 and number is None:
        if killed:
            extra.append(f"{killed} of its processes ran out of memory and were killed")
        return "Completed", _join(*extra)
    if killed:
        return "OOMKilled", _join(f"{how}; the kernel counted {killed} out-of-memory kills", *extra)
    return "Error", _join(how, *extra)


def describe(code: int | None, number: int | None) -> str:
    """ "exit code 7", "exit code 143 (SIGTERM)", "killed by SIGKILL"."""
    name = ""
    if number is not None:
        try:
            name = signals.Signals(number).name
        except ValueError:
            name = f"signal {number}"
    if code is None:
        return f"killed by {name}" if name else "exit code unknown"
    return f"exit code {code} ({name})" if name else f"exit code {code}"


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
