"""What becomes of agents that end, hang or stay too long."""

import pytest

from tests.flows import household
from tests.flows.household import Space, agent, shell

pytestmark = household.needs
AT_ONCE = {"initialSeconds": 0, "maxSeconds": 0}
BEATING = "while :; do touch /workspace/.heartbeat; sleep 0.1; done"


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [
        ("Never", 0, "Succeeded"),
        ("Never", 3, "Failed"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 3, ""),
        ("Always", 0, ""),
        ("Always", 3, ""),
    ],
)
def test_policy_decides_who_starts_again(space: Space, policy: str, code: int, phase: str) -> None:
    space.apply(shell("a", f"exit {code}", restartPolicy=policy, restartBackoff=AT_ONCE, backoffLimit=100))
    if phase:
        status = space.phase("a", phase)
        assert (status["attempt"], status["exitCode"]) == (1, code)
    else:
        status = space.until("a", lambda status: status.get("restartCount", 0) >= 2)["status"]
        assert status["lastTermination"]["exitCode"] == code


def test_crash_loop_waits_longer_each_time(space: Space) -> None:
    space.apply(
        shell("a", "exit 1", restartPolicy="Always", restartBackoff={"initialSeconds": 1, "maxSeconds": 1000})
    )
    looped = lambda status: status.get("reason") == "CrashLoopBackOff" and status["attempt"] >= 2  # noqa: E731
    status = space.until("a", looped)["status"]
    assert status["phase"] == "Pending" and status["nextRetryAt"] > status["finishedAt"]
    assert "BackOff" in space.events("a")


def test_too_many_failures_are_final(space: Space) -> None:
    space.apply(shell("a", "exit 5", restartPolicy="OnFailure", backoffLimit=2, restartBackoff=AT_ONCE))
    status = space.phase("a", "Failed")
    assert (status["attempt"], status["exitCode"]) == (3, 5)


def test_too_many_restarts_in_a_window_stall_it(space: Space) -> None:
    space.apply(
        shell(
            "a", "exit 1", restartPolicy="Always", restartBackoff=AT_ONCE, maxRestarts=2, restartWindow="1h"
        )
    )
    space.agentk("wait", "--for=condition=Stalled", "agent/a", "--timeout", "100s")
    space.event("a", "Stalled")
    assert space.status("a")["attempt"] == 3


def test_deadline_ends_it(space: Space) -> None:
    space.apply(shell("a", "exec sleep 1000", activeDeadlineSeconds=1, restartPolicy="Always"))
    status = space.phase("a", "Failed")
    assert status["reason"] == "DeadlineExceeded"


def test_finished_one_goes_after_its_time(space: Space) -> None:
    space.apply(shell("a", "exit 0", ttlSecondsAfterFinished=0))
    space.agentk("wait", "--for=delete", "agent/a", "--timeout", "100s")


@household.on_both
def test_agent_that_stops_beating_is_started_again(space: Space) -> None:
    probe = {
        "heartbeat": {"maxAgeSeconds": 1},
        "periodSeconds": 1,
        "failureThreshold": 1,
        "initialDelaySeconds": 2,
    }
    script = f"cd /workspace; if test -e ran; then {BEATING}; fi; touch ran .heartbeat; exec sleep 1000"
    wanted = {"livenessProbe": probe, "restartPolicy": "OnFailure", "restartBackoff": AT_ONCE}
    space.apply(shell("a", script, terminationGracePeriodSeconds=1, **wanted))
    status = space.running("a", attempt=2)
    assert "liveness" in status["lastTermination"]["message"]


@household.on_both
def test_ready_follows_its_probe(space: Space) -> None:
    probe = {
        "exec": {"command": ["test", "-e", "/workspace/ready"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    script = "cd /workspace; sleep 1; touch ready; echo up; while test ! -e no; do sleep 0.1; done; exec sleep 1000"
    space.apply(shell("a", script, readinessProbe={**probe, "timeoutSeconds": 60}))
    assert space.running("a")["ready"] is False
    space.until("a", lambda status: status.get("ready") is True)
    assert space.status("a")["attempt"] == 1


def test_unready_agent_is_not_restarted(space: Space) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 60}
    space.apply(agent("a", readinessProbe=probe, restartPolicy="Always"))
    space.running("a")
    ran = space.agentk("wait", "--for=condition=Ready", "agent/a", "--timeout", "3s", code=1)
    assert "timed out" in ran.err
    assert (space.status("a")["phase"], space.status("a")["attempt"]) == ("Running", 1)
