"""The fields of an Agent's spec that say what to do around its box, read once, with the schema's defaults. Pure."""

import json
import signal as signals
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentk.api import errors, quantities

KILL = "agentk.dev/kill"
DEFAULT_GRACE_SECONDS = 10.0


@dataclass(frozen=True)
class Policy:
    restart: Literal["Always", "OnFailure", "Never"]
    backoff_limit: int
    initial_seconds: float
    max_seconds: float
    reset_after_seconds: float
    max_restarts: int | None
    window_seconds: float
    deadline_seconds: float | None
    deadline_stops: bool  # while it is suspended
    ttl_seconds: float | None
    grace_seconds: float
    suspend: bool
    liveness: bool
    readiness: bool
    on_exceeded: Literal["Pause", "Kill"]
    brings_back: bool  # its newest Checkpoint, after a failure


def read(spec: Mapping[str, Any]) -> Policy:
    """What `spec` says. An unreadable duration in a stored object counts as the default, not as a crash."""
    backoff = spec.get("restartBackoff") or {}
    restart = spec.get("restartPolicy", "OnFailure")
    return Policy(
        restart=restart if restart in ("Always", "Never") else "OnFailure",
        backoff_limit=spec.get("backoffLimit", 6),
        initial_seconds=float(backoff.get("initialSeconds", 10)),
        max_seconds=float(backoff.get("maxSeconds", 300)),
        reset_after_seconds=float(backoff.get("resetAfterSeconds", 600)),
        max_restarts=spec.get("maxRestarts"),
        window_seconds=_window(spec.get("restartWindow", "10m")),
        deadline_seconds=spec.get("activeDeadlineSeconds"),
        deadline_stops=spec.get("deadlineWhileSuspended") == "Stops",
        ttl_seconds=spec.get("ttlSecondsAfterFinished"),
        grace_seconds=float(spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)),
        suspend=bool(spec.get("suspend", False)),
        liveness=bool(spec.get("livenessProbe")),
        readiness=bool(spec.get("readinessProbe")),
        on_exceeded="Kill" if (spec.get("budget") or {}).get("onExceeded") == "Kill" else "Pause",
        brings_back=(spec.get("checkpoint") or {}).get("restore") == "OnFailure",
    )


@dataclass(frozen=True)
class KillRequest:
    """What `kill` asked for: the annotation as text, so that it is acted upon once."""

    text: str
    attempt: int | None
    signal: int
    grace_seconds: float | None


def kill_request(metadata: Mapping[str, Any]) -> KillRequest | None:
    """None when nothing, or nothing that can be read, was asked for."""
    text = (metadata.get("annotations") or {}).get(KILL, "")
    if not text:
        return None
    try:
        asked = json.loads(text)
        attempt, grace = asked.get("attempt"), asked.get("grace")
        return KillRequest(
            text=text,
            attempt=None if attempt is None else int(attempt),
            signal=signal_number(asked.get("signal") or signals.SIGTERM),
            grace_seconds=None if grace is None else max(0.0, float(grace)),
        )
    except (ValueError, TypeError, AttributeError):
        return None


def signal_number(name: str | int) -> int:
    """15 for 15, "15", "TERM" and "SIGTERM". Raises ValueError."""
    if isinstance(name, int) or name.isdigit():
        return int(signals.Signals(int(name)))
    wanted = name.upper()
    try:
        return int(signals.Signals[wanted if wanted.startswith("SIG") else f"SIG{wanted}"])
    except KeyError:
        raise ValueError(f"no signal named {name!r}") from None


def _window(text: str) -> float:
    try:
        return quantities.parse_duration(text)
    except errors.Invalid:
        return 600.0
