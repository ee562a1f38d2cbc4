"""Words for cases of `decide`: an agent, its boxes and a moment, with defaults for what a test is not about."""

import copy
import json
from dataclasses import replace
from typing import Any

from agentk.control import clock, decide, digests, plans
from agentk.runtime import box

UID = "5d0f3b5e-0000-4000-8000-000000000001"
BOOT = "boot-1"
SPEC: dict[str, Any] = {"command": ["python", "main.py"], "restartPolicy": "OnFailure"}


def now(seconds: float = 0.0, boot: str = BOOT, wall: float | None = None) -> clock.Now:
    """`seconds` after the beginning; `wall` when the wall clock says otherwise."""
    begin = clock.Now("2026-01-01T00:00:00.000000Z", 1000.0, boot)
    walls = begin.after(seconds if wall is None else wall).wall
    return clock.Now(walls, 1000.0 + seconds, boot)


def agent(status: dict[str, Any] | None = None, *, generation: int = 1, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "a", "namespace": "default", "uid": UID, "generation": generation}
    metadata["finalizers"] = [decide.FINALIZER]
    return {"kind": "Agent", "metadata": metadata, "spec": {**SPEC, **spec}, "status": status or {}}


def annotated(one: dict[str, Any], **annotations: str) -> dict[str, Any]:
    made = copy.deepcopy(one)
    made["metadata"]["annotations"] = {f"agentk.dev/{key}": value for key, value in annotations.items()}
    return made


def kill(attempt: int, **fields: Any) -> str:
    return json.dumps({"attempt": attempt, "at": "2026-01-01T00:00:00Z", **fields})


def running(of: dict[str, Any], attempt: int = 1, at: float = 0.0, **fields: Any) -> box.Seen:
    begin = now(at)
    return replace(
        box.Seen(
            id=f"{UID}-{attempt}",
            uid=UID,
            namespace="default",
            attempt=attempt,
            leaf="box",
            phase="Running",
            process=box.Process(100 + attempt, 1, BOOT),
            started_at=begin.wall,
            started_boottime=begin.boottime,
            annotations={"token": digests.token(of)},
        ),
        **fields,
    )


def ended(seen: box.Seen, code: int | None = 0, at: float = 5.0, **fields: Any) -> box.Seen:
    end = box.Exit(code, None, "wait", now(at).wall)
    return replace(seen, phase="Exited", exit=replace(end, **fields))


def lost(seen: box.Seen, at: float = 5.0) -> box.Seen:
    return replace(seen, phase="Lost", exit=box.Exit(None, None, "none", now(at).wall))


class Story:
    """An agent whose status is written after every step, as the steward does it."""

    def __init__(self, **spec: Any) -> None:
        self.agent = agent(**spec)
        self.last: plans.Decision | None = None

    def step(self, at: float, *boxes: box.Seen, when: clock.Now | None = None, **seen: Any) -> plans.Decision:
        observed = plans.Observed(boxes=boxes, **seen)
        self.last = decide.decide(self.agent, observed, when or now(at))
        self.agent = {**self.agent, "status": self.last.status}
        return self.last

    def change(self, **spec: Any) -> None:
        self.agent["spec"].update(spec)
        self.agent["metadata"]["generation"] += 1

    def annotate(self, **annotations: str) -> None:
        self.agent = annotated(self.agent, **annotations)

    def delete(self) -> None:
        self.agent["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

    def box(self, attempt: int = 1, at: float = 0.0, **fields: Any) -> box.Seen:
        return running(self.agent, attempt, at, **fields)

    @property
    def status(self) -> dict[str, Any]:
        return self.agent["status"]

    def condition(self, kind: str) -> str:
        found = [c for c in self.status["conditions"] if c["type"] == kind]
        return f"{found[0]['status']}/{found[0]['reason']}" if found else "absent"


def kinds(decision: plans.Decision) -> list[str]:
    return [type(action).__name__ for action in (*decision.actions, *decision.afterwards)]


def reasons(decision: plans.Decision) -> list[str]:
    return [event.reason for event in decision.events]


def first(decision: plans.Decision, kind: type) -> Any:
    return next(action for action in decision.actions if isinstance(action, kind))


def crash(story: Story, attempt: int, at: float, code: int = 1) -> plans.Decision:
    """The attempt starts a second before `at`, and ends then."""
    one = story.box(attempt, at - 1)
    story.step(at - 1, one)
    return story.step(at, ended(one, code, at))
