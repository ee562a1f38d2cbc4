"""One case under decision: what is given, and what has been decided so far. Lives for one call of `decide`."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from agentk.broker.exits import Exit
from agentk.control import digests, plans, policies
from agentk.control.clock import Now
from agentk.control.run import Cause, Ending, Run

QUOTA_EXCEEDED = "QuotaExceeded"
NODE_FULL = "NodeFull"
PREEMPTING = "Preempting"  # others make room for it
PREEMPTED = "Preempted"  # it made room for one of higher priority
TIME_SLICED = "TimeSliced"  # those of its priority have their turn
BUDGET_EXCEEDED = "BudgetExceeded"
MAKES_ROOM = (QUOTA_EXCEEDED, NODE_FULL, PREEMPTING)  # of an agent that waits for room to start
YIELDED = (PREEMPTED, TIME_SLICED, NODE_FULL)  # of one that is frozen and waits for room to go on
PROBING = "SandboxProbing"  # whether its Runtime works will be known in a moment

# A reason of a higher rank takes over a box that is ending already.
_RANK: dict[Cause, int] = {
    "replace": 0,
    "liveness": 0,
    "preempt": 0,
    "budget": 1,
    "deadline": 1,
    "exit": 1,
    "kill": 2,
    "delete": 3,
}


class Case:
    def __init__(self, agent: Mapping[str, Any], observed: plans.Observed, now: Now) -> None:
        self.metadata: Mapping[str, Any] = agent["metadata"]
        self.spec: Mapping[str, Any] = agent["spec"]
        self.observed, self.now = observed, now
        self.status: dict[str, Any] = copy.deepcopy(dict(agent.get("status") or {}))
        self.run = Run.from_dict(self.status.get("run")).rebased(now)
        self.policy = policies.read(self.spec)
        self.token = digests.token(agent)
        self.uid = str(self.metadata["uid"])
        self.generation = int(self.metadata.get("generation", 0))
        self.deleting = bool(self.metadata.get("deletionTimestamp"))
        self.actions: list[plans.Action] = []
        self.afterwards: list[plans.Action] = []
        self.events: list[plans.Event] = []
        self.again: float | None = None
        self.attempt_before = int(self.status.get("attempt", 0))

    @property
    def next_attempt(self) -> int:
        """Above every attempt the status or the runtime has ever named."""
        seen = [one.attempt for one in self.observed.boxes or ()]
        return max([self.run.recorded, int(self.status.get("attempt", 0)), *seen]) + 1

    def change(self, **fields: Any) -> None:
        self.run = replace(self.run, **fields)

    def phase(self, phase: str, reason: str, message: str) -> None:
        self.status["phase"] = phase
        for key, value in (("reason", reason), ("message", message)):
            if value:
                self.status[key] = value
            else:
                self.status.pop(key, None)

    def event(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self.events.append(plans.Event(kind, reason, message))

    def event_once(self, reason: str, kind: Literal["Normal", "Warning"], message: str) -> None:
        """For a standing fact: told when this attempt is first seen."""
        if self.attempt_before != self.status.get("attempt"):
            self.event(kind, reason, message)

    def wake(self, seconds: float) -> None:
        """Look again in `seconds`, or earlier."""
        seconds = max(0.0, seconds)
        self.again = seconds if self.again is None else min(self.again, seconds)

    def said(self, attempt: int) -> Exit | None:
        """How this attempt said that it ends."""
        said = self.observed.said
        return said if said is not None and said.attempt == attempt else None

    def kill(self) -> policies.KillRequest | None:
        """The kill that was asked for and is still to be acted upon."""
        asked = policies.kill_request(self.metadata)
        return None if asked is None or asked.text == self.run.kill_handled else asked

    def deadline_left(self) -> float | None:
        """Seconds until the run's deadline; None without one, or before the first start."""
        if self.policy.deadline_seconds is None or self.run.started is None:
            return None
        stood = self.run.stood(self.now) if self.policy.deadline_stops else 0.0
        return self.policy.deadline_seconds - (self.run.started.elapsed(self.now) - stood)

    def outranks(self, cause: Cause, running: Cause) -> bool:
        return _RANK[cause] > _RANK[running]

    def begin_ending(
        self, attempt: int, cause: Cause, reason: str, message: str, grace_seconds: float
    ) -> None:
        since = self.now.after(0)
        self.change(ending=Ending(attempt, cause, reason, message, self.token, since, grace_seconds))
