"""Liveness and readiness: a pure count of passes and failures, and the task that asks.

What the agent wrote is read by a program in a jail of the agent's own, never by opening its path out here. A
heartbeat's age is counted in CLOCK_BOOTTIME from when its file's time was last seen to change, so neither a jump of
the wall clock nor a date that the agent made up makes a dead one look alive.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentk.api import errors
from agentk.control import clock as clocks
from agentk.runtime import box as boxes

_MESSAGE_MAX = 200


@dataclass(frozen=True)
class Settings:
    command: Sequence[str] = ()  # empty: look at the heartbeat
    file: str = "/workspace/.heartbeat"
    max_age_seconds: float = 30.0
    initial_delay_seconds: float = 0.0
    period_seconds: float = 10.0
    timeout_seconds: float = 1.0
    failure_threshold: int = 3
    success_threshold: int = 1


@dataclass(frozen=True)
class Verdict:
    """None: too early to say."""

    passes: bool | None = None
    in_a_row: int = 0
    last: bool | None = None
    message: str = ""


@dataclass(frozen=True)
class Beat:
    """When the heartbeat's file was last seen to change."""

    stamp: str = ""
    since: float = 0.0  # boottime seconds


def read(probe: Mapping[str, Any]) -> Settings:
    """An Agent's livenessProbe or readinessProbe."""
    usual, heartbeat = Settings(), probe.get("heartbeat") or {}
    return Settings(
        command=tuple((probe.get("exec") or {}).get("command") or ()),
        file=heartbeat.get("file", usual.file),
        max_age_seconds=float(heartbeat.get("maxAgeSeconds", usual.max_age_seconds)),
        initial_delay_seconds=float(probe.get("initialDelaySeconds", usual.initial_delay_seconds)),
        period_seconds=float(probe.get("periodSeconds", usual.period_seconds)),
        timeout_seconds=float(probe.get("timeoutSeconds", usual.timeout_seconds)),
        failure_threshold=int(probe.get("failureThreshold", usual.failure_threshold)),
        success_threshold=int(probe.get("successThreshold", usual.success_threshold)),
    )


def step(verdict: Verdict, settings: Settings, passed: bool, message: str) -> Verdict:
    """The verdict after one more check."""
    in_a_row = verdict.in_a_row + 1 if verdict.last == passed else 1
    needed = settings.success_threshold if passed else settings.failure_threshold
    passes = passed if in_a_row >= needed else verdict.passes
    return Verdict(passes, min(in_a_row, needed), passed, message)


def beat(before: Beat, stamp: str, now: float) -> Beat:
    """`stamp` is the file's time as read at `now`."""
    return before if before.stamp == stamp else Beat(stamp, now)


class Prober:
    """Checks one box again and again, until it is cancelled. `tell` hears every change of the verdict."""

    def __init__(
        self, runtime: boxes.Runtime, clock: clocks.Clock, settings: Settings, tell: Callable[[Verdict], None]
    ) -> None:
        self._runtime, self._clock, self._settings, self._tell = runtime, clock, settings, tell
        self._verdict, self._beat = Verdict(), Beat()

    async def run(self, box_id: str, started_boottime: float) -> None:
        running_seconds = self._clock.now().boottime - started_boottime
        await self._clock.sleep(max(0.0, self._settings.initial_delay_seconds - running_seconds))
        while True:
            await self._check(box_id)
            await self._clock.sleep(self._settings.period_seconds)

    async def _check(self, box_id: str) -> None:
        settings = self._settings
        argv = settings.command or ("stat", "-c", "%Y", settings.file)
        try:
            result = await self._runtime.exec(box_id, argv, settings.timeout_seconds)
        except errors.AgentkError:
            return  # the box or its keeper is away: that is not for a probe to judge
        passed, message = self._judge(result)
        before = self._verdict
        self._verdict = step(before, settings, passed, message)
        if replace(self._verdict, in_a_row=0) != replace(before, in_a_row=0):
            self._tell(self._verdict)

    def _judge(self, result: boxes.ExecResult) -> tuple[bool, str]:
        settings = self._settings
        if result.timed_out:
            return False, f"no answer within {settings.timeout_seconds:g} s"
        if settings.command:
            if result.exit.code == 0:
                return True, ""
            text = (result.stderr or result.stdout).decode(errors="replace").strip()
            return False, f"exit code {result.exit.code}: {text}"[:_MESSAGE_MAX].rstrip(": ")
        if result.exit.code != 0:
            return False, f"{settings.file} is not there"
        now = self._clock.now().boottime
        self._beat = beat(self._beat, result.stdout.decode(errors="replace").strip(), now)
        if now - self._beat.since > settings.max_age_seconds:
            return False, f"{settings.file} was not touched for more than {settings.max_age_seconds:g} s"
        return True, ""
