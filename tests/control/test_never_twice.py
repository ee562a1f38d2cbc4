"""Whatever happens, in whatever order, with a crash between any two steps: no agent runs twice, no end is lost.

The world here is a pure model of what a runtime and a store promise: boxes by id, an object that is replaced whole.
"""

import itertools
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agentk.control import clock, decide, digests, plans
from agentk.runtime import box
from tests.control import cases

LIVE = ("Starting", "Running")
FULL = plans.Problem("NodeFull", "no room")
FREEZE = plans.Preempted("Freeze", "Preempted", ("default", "high"), 9)
END = plans.Preempted("End", "Preempted", ("default", "high"), 9)


class World(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.agent: dict[str, Any] | None = cases.agent(
            restartPolicy="OnFailure", terminationGracePeriodSeconds=5
        )
        self.boxes: dict[str, box.Seen] = {}
        self.started: list[tuple[int, str]] = []  # attempt and what it was made of
        self.at, self.boot, self.numbers = 0.0, 1, itertools.count(1)
        self.room: dict[str, Any] = {}  # what others leave it

    def now(self) -> clock.Now:
        return cases.now(self.at, boot=f"boot-{self.boot}")

    def reconcile(self, steps: int) -> plans.Decision | None:
        """One pass, cut off by a crash after `steps` durable steps."""
        if self.agent is None:
            return None
        observed = plans.Observed(boxes=tuple(self.boxes.values()), **self.room)
        decision = decide.decide(self.agent, observed, self.now())
        for action in decision.actions:
            if (steps := steps - 1) < 0:
                return None
            self.act(action)
        if (steps := steps - 1) < 0 or self.agent is None:
            return None
        self.agent = {**self.agent, "status": decision.status}
        for action in decision.afterwards:
            if (steps := steps - 1) < 0:
                return None
            self.act(action)
        return decision

    def act(self, action: plans.Action) -> None:
        assert self.agent is not None
        match action:
            case plans.Start(attempt, token):
                assert not self.boxes, "started beside a box that is there"
                assert attempt not in [number for number, _ in self.started], "an attempt started again"
                self.started.append((attempt, token))
                made = cases.running(self.agent, attempt, self.at, annotations={"token": token})
                made = replace(made, process=box.Process(attempt, 1, f"boot-{self.boot}"))
                self.boxes[made.id] = made
            case plans.Signal(name, _, intent) | plans.Kill(name, intent):
                if isinstance(action, plans.Kill) and self.boxes[name].phase in LIVE:
                    self.end(name, 137, intent)
            case plans.Freeze(name) | plans.Thaw(name):
                frozen = isinstance(action, plans.Freeze)
                self.boxes[name] = replace(self.boxes[name], frozen=frozen)
            case plans.Remove(name):
                assert name not in self.boxes or self.boxes[name].phase not in LIVE, "removed while it runs"
                self.boxes.pop(name, None)
            case plans.Release():
                assert not self.live(), "released while it runs"
                self.boxes.clear()
            case plans.RemoveFinalizer() | plans.DeleteObject():
                self.agent = None

    def live(self) -> list[box.Seen]:
        return [one for one in self.boxes.values() if one.phase in LIVE]

    def end(self, name: str, code: int, intent: box.Intent | None = None) -> None:
        self.boxes[name] = cases.ended(self.boxes[name], code, self.at, intent=intent)

    @rule(steps=st.integers(0, 4))
    def crash(self, steps: int) -> None:
        self.reconcile(steps)

    @rule()
    def look(self) -> None:
        self.reconcile(99)

    @rule(seconds=st.sampled_from([1.0, 5.0, 20.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.at += seconds

    @precondition(lambda self: self.live())
    @rule(code=st.sampled_from([0, 1, 137]))
    def exits(self, code: int) -> None:
        self.end(self.live()[0].id, code)

    @rule(room=st.sampled_from([{}, {"admission": FULL}, {"preempted": FREEZE}, {"preempted": END}]))
    def others(self, room: dict[str, Any]) -> None:
        self.room = room

    @rule()
    def reboot(self) -> None:
        self.boot += 1
        for one in self.live():
            self.boxes[one.id] = cases.lost(one, self.at)

    @precondition(lambda self: self.agent)
    @rule(
        change=st.sampled_from(
            [
                {"command": ["x"]},
                {"command": ["y"]},
                {"suspend": True},
                {"suspend": False},
                {"restartPolicy": "Always"},
                {"restartPolicy": "Never"},
                {"maxRestarts": 1},
                {"activeDeadlineSeconds": 30},
                {"ttlSecondsAfterFinished": 60},
            ]
        )
    )
    def edit(self, change: dict[str, Any]) -> None:
        assert self.agent is not None
        metadata = {**self.agent["metadata"], "generation": self.agent["metadata"]["generation"] + 1}
        self.agent = {**self.agent, "spec": {**self.agent["spec"], **change}, "metadata": metadata}

    @precondition(lambda self: self.agent)
    @rule(which=st.sampled_from(["kill", "restartedAt"]))
    def ask(self, which: str) -> None:
        assert self.agent is not None
        number = str(next(self.numbers))
        text = cases.kill(self.agent["status"].get("attempt", 0), at=number) if which == "kill" else number
        self.agent = cases.annotated(self.agent, **{which: text})

    @precondition(lambda self: self.agent)
    @rule()
    def delete(self) -> None:
        assert self.agent is not None
        metadata = {**self.agent["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
        self.agent = {**self.agent, "metadata": metadata}

    @invariant()
    def at_most_one_lives(self) -> None:
        assert len(self.live()) <= 1

    @invariant()
    def what_is_gone_was_told(self) -> None:
        if self.agent is None or self.agent["metadata"].get("deletionTimestamp"):
            return  # nobody is left to tell
        told = self.agent["status"].get("run", {}).get("recorded", 0)
        there = {one.attempt for one in self.boxes.values()}
        for attempt, _ in self.started:
            assert attempt in there or attempt <= told, f"the end of attempt {attempt} is lost"

    def teardown(self) -> None:
        """Left alone it comes to rest: finished, suspended, or one box of what is asked for now."""
        self.room = {}
        for _ in range(60):
            decision = self.reconcile(99)
            if decision is None or decision.again is None:
                break
            self.at += decision.again
        if self.agent is not None and self.live():
            assert self.live()[0].annotations["token"] == digests.token(self.agent)


World.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestNeverTwice = World.TestCase
