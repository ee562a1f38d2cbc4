"""What is decided about a Task, case by case; and that no crash between two steps makes a second agent."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agentk.broker.exits import Exit
from agentk.control import decide, plans, policies, tasking
from tests.control import cases

Object = dict[str, Any]
ENDED = ("Succeeded", "Failed", "Cancelled")


def task(**spec: Any) -> Object:
    metadata = {"name": "t", "namespace": "default", "uid": "u1", "generation": 1}
    return {"apiVersion": "agentk.dev/v1alpha1", "kind": "Task", "metadata": metadata} | {
        "spec": {"agentRef": {"name": "a"}, **spec}
    }


def agent(of: Object, **status: Any) -> Object:
    made = tasking.made(of, {"command": ["x"]}, "agentk.dev/task")
    made["metadata"] |= {"uid": "agent-1", "finalizers": [decide.FINALIZER, tasking.FINALIZER]}
    return {**made, "status": {"run": {"token": "k"}, **status}}


def look(of: Object, seen: tasking.Seen, at: float = 0) -> tasking.Decision:
    decision = tasking.decide_task(of, seen, cases.now(at))
    of["status"] = decision.status
    return decision


def told(decision: tasking.Decision) -> tuple[str, str]:
    return decision.status["phase"], decision.status.get("reason", "")


def test_it_makes_one_agent_and_tells_how_that_goes() -> None:
    one = task()
    assert look(one, tasking.Seen()).actions == (tasking.Make(),)
    pending = look(one, tasking.Seen(agent(one, phase="Pending", reason="QuotaExceeded")))
    assert told(pending) == ("Pending", "QuotaExceeded") and not pending.actions
    running = look(
        one, tasking.Seen(agent(one, phase="Running", attempt=1, startedAt="2026-01-01T00:00:00Z"))
    )
    assert told(running) == ("Running", "") and running.status["startTime"] == "2026-01-01T00:00:00Z"
    over = agent(one, phase="Succeeded", reason="Completed", attempt=1, exitCode=0)
    said = Exit(1, 0, "done", b'{"answer":42}', steps=3)
    done = look(one, tasking.Seen(over, said, {"tokens": 7, "calls": 2, "costUsd": "0.1", "wallTime": "1s"}))
    assert told(done) == ("Succeeded", "Completed") and done.afterwards == (tasking.LetGo(),)
    status = done.status
    assert (status["result"], status["exitCode"], status["attempts"]) == ('{"answer":42}', 0, 1)
    assert status["steps"] == 3
    assert status["usage"] == {"tokens": 7, "calls": 2, "costUsd": "0.1"}
    assert {one["type"]: one["status"] for one in status["conditions"]} == {
        "Finished": "True",
        "Succeeded": "True",
        "Reconciling": "False",
        "Stalled": "False",
    }
    after = look(one, tasking.Seen())
    assert (after.status, after.actions, after.afterwards, after.again) == (status, (), (), None)


def test_the_end_of_its_agent_is_its_own() -> None:
    for reason in ("Error", "OOMKilled", "DeadlineExceeded", "Killed", "Lost"):
        one = task()
        assert told(look(one, tasking.Seen(agent(one, phase="Failed", reason=reason)))) == ("Failed", reason)


def test_cancelled_before_it_began_it_makes_nothing() -> None:
    one = task(cancel=True)
    decision = look(one, tasking.Seen())
    assert told(decision) == ("Cancelled", "Cancelled") and not decision.actions


def test_cancelled_while_it_runs_its_agent_is_killed_once() -> None:
    one = task(cancel=True, suspend=True)
    new = agent(one, phase="Pending")
    new["status"] = {}
    assert not look(one, tasking.Seen(new)).actions, "nobody would hear the kill"
    (kill,) = look(one, tasking.Seen(agent(one, phase="Running", attempt=1))).actions
    assert isinstance(kill, tasking.Kill)
    killed = agent(one, phase="Running", attempt=1)
    killed["metadata"]["annotations"] = {policies.KILL: kill.text}
    assert policies.kill_request(killed["metadata"]) is not None
    assert not look(one, tasking.Seen(killed)).actions
    over = agent(one, phase="Failed", reason="Killed", attempt=1)
    assert told(look(one, tasking.Seen(over))) == ("Cancelled", "Cancelled")


def test_done_before_the_kill_came_it_has_succeeded() -> None:
    one = task(cancel=True)
    over = agent(one, phase="Succeeded", reason="Completed", attempt=1)
    assert told(look(one, tasking.Seen(over))) == ("Succeeded", "Completed")


def test_suspended_and_let_go_on() -> None:
    one = task(suspend=True)
    decision = look(one, tasking.Seen())
    assert told(decision) == ("Pending", "Suspended") and not decision.actions
    one["spec"]["suspend"] = False
    suspended = agent(one, phase="Suspended", attempt=1)
    suspended["spec"]["suspend"] = True
    assert look(one, tasking.Seen(suspended)).actions == (tasking.Suspend(False),)


def test_an_agent_that_is_not_there_yet_is_waited_for_and_told_once() -> None:
    one, missing = task(), plans.Problem("AgentNotFound", "no such agent")
    first = look(one, tasking.Seen(missing=missing))
    assert told(first) == ("Pending", "AgentNotFound") and len(first.events) == 1
    assert not look(one, tasking.Seen(missing=missing)).events


def test_an_agent_that_is_deleted_ends_it_when_its_box_is_gone() -> None:
    one = task()
    leaving = agent(one, phase="Terminating", attempt=1)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert told(look(one, tasking.Seen(leaving)))[0] == "Running"
    leaving["metadata"]["finalizers"] = [tasking.FINALIZER]
    gone = look(one, tasking.Seen(leaving))
    assert told(gone) == ("Failed", "AgentDeleted") and gone.afterwards == (tasking.LetGo(),)


def test_it_is_deleted_when_its_time_is_over_and_not_before() -> None:
    one = task(ttlSecondsAfterFinished=60)
    decision = look(one, tasking.Seen(agent(one, phase="Succeeded", attempt=1)), at=0)
    assert decision.again == 60 and decision.afterwards == (tasking.LetGo(),)
    assert look(one, tasking.Seen(), at=59.5).again == 0.5
    assert look(one, tasking.Seen(), at=60).afterwards == (tasking.Delete(),)


def test_while_it_is_deleted_it_only_lets_its_agent_go() -> None:
    one = task()
    look(one, tasking.Seen(agent(one, phase="Running", attempt=1)))
    one["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    decision = look(one, tasking.Seen(agent(one, phase="Running", attempt=1)))
    assert not decision.actions and decision.afterwards == (tasking.LetGo(),)


class Life(RuleBasedStateMachine):
    """The world promises: an agent by name, gone when deleted and held by nobody; a status replaced whole."""

    def __init__(self) -> None:
        super().__init__()
        self.task, self.agent, self.made, self.at = task(), None, 0, 0.0
        self.task["status"] = None
        self.ended = ""

    @rule(steps=st.integers(0, 4))
    def look(self, steps: int) -> None:
        """One pass, cut off by a crash after `steps` durable steps."""
        decision = tasking.decide_task(self.task, tasking.Seen(self.agent), cases.now(self.at))
        for action in decision.actions:
            if (steps := steps - 1) < 0:
                return
            if isinstance(action, tasking.Make) and self.agent is None:
                self.made += 1
                self.agent = agent(self.task, phase="Pending")
        if (steps := steps - 1) < 0:
            return
        self.task["status"] = decision.status
        for action in decision.afterwards:
            if (steps := steps - 1) < 0:
                return
            if isinstance(action, tasking.LetGo):
                assert decision.status["phase"] in ENDED
                assert self.agent is not None
                self.agent["metadata"]["finalizers"].remove(tasking.FINALIZER)
                self.reap()

    def reap(self) -> None:
        if self.agent and self.agent["metadata"].get("deletionTimestamp"):
            self.agent["metadata"]["finalizers"] = [
                one for one in self.agent["metadata"]["finalizers"] if one != decide.FINALIZER
            ]
            if not self.agent["metadata"]["finalizers"]:
                self.agent = None

    @precondition(lambda self: self.agent is not None)
    @rule(phase=st.sampled_from(("Running", "Succeeded", "Failed")))
    def go_on(self, phase: str) -> None:
        assert self.agent is not None
        if self.agent["status"].get("phase") not in ENDED:
            self.agent["status"] |= {"phase": phase, "attempt": 1}

    @precondition(lambda self: self.agent is not None)
    @rule()
    def delete_agent(self) -> None:
        assert self.agent is not None
        self.agent["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self.reap()

    @rule()
    def cancel(self) -> None:
        self.task["spec"]["cancel"] = True

    @invariant()
    def one_agent_and_one_end(self) -> None:
        assert self.made <= 1
        phase = (self.task.get("status") or {}).get("phase", "")
        if self.ended:
            assert phase == self.ended, "an end was taken back"
        if phase in ENDED:
            self.ended = phase


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestLife = Life.TestCase
