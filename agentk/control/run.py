"""A run: one execution of what an agent asks for, over one or more attempts. Kept in `status.run`, so that the
steward knows after a restart of its own what it knew before.

A new run begins when the box-relevant spec changes or a restart is asked for: counters of failures, the deadline and
the outcome begin anew. An attempt is one process.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from agentk.control.clock import Moment, Now

Cause = Literal["kill", "deadline", "delete", "replace", "liveness", "exit", "budget", "preempt"]
Outcome = Literal["", "Succeeded", "Failed"]


@dataclass(frozen=True)
class Ending:
    """A box asked to end, and when it will be made to."""

    attempt: int
    cause: Cause
    reason: str
    message: str
    token: str  # what the agent asked for when this was decided
    since: Moment
    grace_seconds: float
    killed: bool = False  # SIGKILL was sent

    def to_dict(self) -> dict[str, Any]:
        return {
            "attempt": self.attempt,
            "cause": self.cause,
            "reason": self.reason,
            "message": self.message,
            "token": self.token,
            "since": self.since.to_dict(),
            "graceSeconds": self.grace_seconds,
            "killed": self.killed,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any] | None) -> "Ending | None":
        since = Moment.from_dict(stored["since"]) if stored else None
        if not stored or since is None:
            return None
        return cls(
            attempt=stored["attempt"],
            cause=stored["cause"],
            reason=stored["reason"],
            message=stored["message"],
            token=stored["token"],
            since=since,
            grace_seconds=stored["graceSeconds"],
            killed=stored.get("killed", False),
        )


@dataclass(frozen=True)
class Run:
    token: str = ""  # what its boxes are made of: `digests.token`
    generation: int = 0  # the agent's when the outcome was reached
    first_attempt: int = 1
    recorded: int = 0  # the highest attempt whose end is in the status
    started: Moment | None = None  # its first process
    finished: Moment | None = None
    stood_seconds: float = 0.0  # suspended since it started, up to the last time it went on
    stands: Moment | None = None  # suspended since then
    outcome: Outcome = ""
    stalled: str = ""  # why it is not started again although its policy would: a condition's reason
    failures: int = 0  # in a row
    refusals: int = 0  # starts the runtime refused, in a row
    retry: Moment | None = None  # not before this
    restarts: tuple[Moment, ...] = ()  # by themselves, within restartWindow
    ending: Ending | None = None
    kill_handled: str = ""  # the kill annotation that was acted upon
    yielded: str = ""  # why it was frozen for others: a reason
    refused: tuple[int, ...] = ()  # what the call may use that its budget has too little for

    def rebased(self, now: Now) -> "Run":
        """The same, counted in this boot."""
        return Run(
            **{
                **self.__dict__,
                "started": self.started and self.started.rebased(now),
                "finished": self.finished and self.finished.rebased(now),
                "stands": self.stands and self.stands.rebased(now),
                "retry": self.retry and self.retry.rebased(now),
                "restarts": tuple(moment.rebased(now) for moment in self.restarts),
            }
        )

    def noted(self, stands: bool, now: Now) -> "Run":
        """The same, with what is known now of whether it stands still. Before its first start nothing counts."""
        if stands:
            since = self.stands or (now.after(0) if self.started else None)
            return replace(self, stands=since)
        if self.stands is None:
            return self
        return replace(self, stands=None, stood_seconds=self.stood(now))

    def stood(self, now: Now) -> float:
        """Seconds that it was suspended since it started."""
        return self.stood_seconds + (max(0.0, self.stands.elapsed(now)) if self.stands else 0.0)

    def to_dict(self) -> dict[str, Any]:
        stored: dict[str, Any] = {
            "token": self.token,
            "generation": self.generation,
            "firstAttempt": self.first_attempt,
            "recorded": self.recorded,
            "failures": self.failures,
            "refusals": self.refusals,
            "outcome": self.outcome,
            "stalled": self.stalled,
            "killHandled": self.kill_handled,
            "restarts": [moment.to_dict() for moment in self.restarts],
            "started": self.started and self.started.to_dict(),
            "finished": self.finished and self.finished.to_dict(),
            "stoodSeconds": round(self.stood_seconds, 6),
            "stands": self.stands and self.stands.to_dict(),
            "retry": self.retry and self.retry.to_dict(),
            "ending": self.ending and self.ending.to_dict(),
            "yielded": self.yielded,
            "refused": list(self.refused),
        }
        return {key: value for key, value in stored.items() if value not in (None, "", 0, [])}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any] | None) -> "Run":
        if not stored:
            return cls()
        moments = [Moment.from_dict(moment) for moment in stored.get("restarts", ())]
        return cls(
            token=stored.get("token", ""),
            generation=stored.get("generation", 0),
            first_attempt=stored.get("firstAttempt", 1),
            recorded=stored.get("recorded", 0),
            started=Moment.from_dict(stored.get("started")),
            finished=Moment.from_dict(stored.get("finished")),
            stood_seconds=stored.get("stoodSeconds", 0.0),
            stands=Moment.from_dict(stored.get("stands")),
            outcome=stored.get("outcome", ""),
            stalled=stored.get("stalled", ""),
            failures=stored.get("failures", 0),
            refusals=stored.get("refusals", 0),
            retry=Moment.from_dict(stored.get("retry")),
            restarts=tuple(moment for moment in moments if moment),
            ending=Ending.from_dict(stored.get("ending")),
            kill_handled=stored.get("killHandled", ""),
            yielded=stored.get("yielded", ""),
            refused=tuple(stored.get("refused", ())),
        )
