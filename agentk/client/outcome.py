"""How a one-shot run ended: its exit code and its envelope. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

SCHEMA_VERSION = 1
BUDGET, APPROVAL, TIMEOUT, AGENTK = 122, 123, 124, 125

# Reasons whose exit code is agentk's own; every other end has the agent's.
_OWN = {
    "DeadlineExceeded": TIMEOUT,
    "IdleTimeout": TIMEOUT,
    "BudgetExceeded": BUDGET,
    "ApprovalDenied": APPROVAL,
    "ApprovalRequired": APPROVAL,
    "SandboxUnavailable": AGENTK,
    "Lost": AGENTK,
}
_SIGNAL_BASE = 128


@dataclass(frozen=True)
class Outcome:
    status: str  # Succeeded, Failed, or Error when agentk itself failed
    exit_code: int
    reason: str
    message: str = ""
    run_id: str = ""
    usage: dict[str, Any] | None = None

    def envelope(self) -> dict[str, Any]:
        """What `run -o json` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "status": self.status,
            "exit_code": self.exit_code,
            "termination_reason": self.reason,
            "message": self.message,
            "usage": self.usage or {},
            "run_id": self.run_id,
        }


def of(obj: dict[str, Any]) -> Outcome:
    """The outcome of an agent that has finished."""
    status = obj.get("status") or {}
    reason = str(status.get("reason", ""))
    metadata = obj["metadata"]
    return Outcome(
        status=str(status.get("phase", "Failed")),
        exit_code=exit_code(status),
        reason=reason,
        message=str(status.get("message", "")),
        run_id=f"{metadata['uid']}-{status.get('run', {}).get('firstAttempt', 1)}",
        usage=usage(status),
    )


def interrupted(number: int) -> Outcome:
    """The command itself was told to end by a signal."""
    return Outcome("Failed", _SIGNAL_BASE + number, "Killed", f"interrupted by signal {number}")


def exit_code(status: dict[str, Any]) -> int:
    """0 for success, agentk's own codes, else the child's: 128+N for signal N."""
    if status.get("phase") == "Succeeded":
        return 0
    own = _OWN.get(str(status.get("reason")))
    if own is not None:
        return own
    if status.get("exitCode"):
        return int(status["exitCode"]) & 0xFF
    if status.get("signal"):
        return _SIGNAL_BASE + int(status["signal"])
    return 1


def usage(status: dict[str, Any]) -> dict[str, Any]:
    """What it used, with units in the names; what the kernel could not count is left out."""
    counters = status.get("counters") or {}
    found: dict[str, Any] = {"attempts": status.get("attempt", 0)}
    if seconds := _seconds_between(status.get("startedAt"), status.get("finishedAt")):
        found["wall_seconds"] = round(seconds, 3)
    for ours, theirs, factor in (
        ("cpu_seconds", "cpuUsec", 1e6),
        ("throttled_seconds", "throttledUsec", 1e6),
        ("memory_peak_bytes", "memoryPeakBytes", 1),
        ("oom_kills", "oomKills", 1),
        ("pids_denied", "pidsDenied", 1),
        ("storage_bytes", "storageBytes", 1),
        ("log_bytes", "logBytes", 1),
    ):
        if counters.get(theirs) is not None:
            found[ours] = counters[theirs] / factor if factor != 1 else counters[theirs]
    return found | dict(status.get("usage") or {})


def _seconds_between(start: Any, end: Any) -> float | None:
    if not (isinstance(start, str) and isinstance(end, str)):
        return None
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except ValueError:
        return None
