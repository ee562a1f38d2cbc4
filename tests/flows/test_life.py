"""The everyday story: apply, get, describe, logs, events, kill, delete, as a person types them."""

import json
import signal

from tests.flows import household
from tests.flows.household import Space, agent, python, shell

pytestmark = household.needs


@household.on_both
def test_from_apply_to_delete(space: Space) -> None:
    script = "echo one; echo two >&2; exec sleep 1000"
    assert space.apply(shell("a", script)).out == "agent.agentk.dev/a created\n"
    assert space.apply(shell("a", script)).out == "agent.agentk.dev/a unchanged\n"
    assert "met" in space.agentk("wait", "--for=condition=Ready", "agent/a", "--timeout", "100s").out
    space.logged("a", "two")
    assert sorted(space.agentk("logs", "a").lines) == ["one", "two"]
    described = space.agentk("describe", "agent", "a").out
    assert "Running" in described and "Started" in described
    assert "Started" in space.agentk("events").out
    assert space.agentk("kill", "a").out == "agent.agentk.dev/a killed\n"
    status = space.status("a")
    assert (status["phase"], status["reason"], status["signal"]) == ("Failed", "Killed", signal.SIGTERM)
    assert "deleted" in space.agentk("delete", "agent", "a").out
    assert "not found" in space.agentk("get", "agent", "a", code=1).err


def test_outputs(space: Space) -> None:
    space.apply(agent("a"), agent("b"))
    space.running("a"), space.running("b")
    assert [obj["metadata"]["name"] for obj in space.agentk("get", "ag", "-o", "json").json["items"]] == [
        "a",
        "b",
    ]
    assert "phase: Running" in space.agentk("get", "agent/a", "-o", "yaml").out
    assert space.agentk("get", "agents", "-o", "name").lines == ["agent.agentk.dev/a", "agent.agentk.dev/b"]
    assert space.agentk("get", "ag", "a", "-o", "jsonpath={.status.phase}").out.strip() == "Running"
    rows = space.agentk("get", "agents").lines
    assert rows[0].split()[:2] == ["NAME", "PHASE"] and rows[1].split()[:2] == ["a", "Running"]


@household.on_both
def test_logs_of_now_before_and_as_they_come(space: Space) -> None:
    script = (
        "echo attempt; for n in 1 2 3; do echo $n; done; test -e ran && exec sleep 1000; touch ran; exit 1"
    )
    backoff = {"initialSeconds": 0, "maxSeconds": 1}
    space.apply(shell("a", script, restartPolicy="OnFailure", restartBackoff=backoff))
    space.running("a", attempt=2)
    space.logged("a", "3")
    assert space.agentk("logs", "a", "--tail", "1").lines == ["3"]
    assert space.agentk("logs", "a", "--previous").lines[1:] == ["1", "2", "3"]
    assert space.agentk("logs", "a", "--since", "1h").lines[1:] == ["1", "2", "3"]
    following = space.begin("logs", "-f", "a")
    assert following.stdout is not None
    assert [following.stdout.readline() for _ in range(4)][1:] == ["1\n", "2\n", "3\n"]
    space.agentk("kill", "a", "--grace-period", "0")
    assert following.wait(household.SECONDS) == 0
    following.stdout.close()


def test_wait_fails_at_once_when_it_can_no_longer_come_true(space: Space) -> None:
    space.apply(shell("a", "exit 3"))
    space.phase("a", "Failed")
    ran = space.agentk("wait", "--for=condition=Ready", "agent/a", "--timeout", "1000s", code=1)
    assert "never" in ran.err
    assert space.agentk("wait", "--for=jsonpath={.status.exitCode}=3", "agent/a").code == 0


@household.on_both
def test_suspend_and_resume_stop_and_go_on(space: Space) -> None:
    space.apply(
        python(
            "a", "import time, itertools\nfor n in itertools.count(): print(n, flush=True); time.sleep(0.01)"
        )
    )
    space.running("a")
    space.logged("a", "3")
    space.agentk("suspend", "a")
    space.phase("a", "Suspended")
    frozen = space.log("a")
    space.agentk("resume", "a")
    status = space.running("a")
    space.logged("a", str(len(frozen) + 5))
    assert (status["attempt"], status["restartCount"]) == (1, 0)


@household.on_both
def test_restart_gives_a_new_box(space: Space) -> None:
    space.apply(agent("a"))
    before = space.running("a")
    space.agentk("restart", "a")
    after = space.running("a", attempt=before["attempt"] + 1)
    assert after["boxID"] != before["boxID"]


@household.on_both
def test_top_shows_what_it_uses(space: Space) -> None:
    space.apply(shell("a", "while :; do :; done"))
    space.running("a")
    header, row = space.agentk("top", "--interval", "0.5").lines
    assert header.split()[0] == "NAME" and row.split()[0] == "a"
    assert float(row.split()[1].rstrip("%")) > 0


def test_doctor_tells_what_the_launcher_found(space: Space) -> None:
    report = json.loads(space.agentk("doctor", "-o", "json", code=None).out)
    assert {"name", "ok", "message"} <= report["findings"][0].keys()


@household.on_both
def test_kill_takes_the_whole_tree_after_the_grace(space: Space) -> None:
    stubborn = "trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & echo up; while :; do sleep 1; done"
    space.apply(shell("a", stubborn, terminationGracePeriodSeconds=1))
    space.logged("a", "up")
    space.agentk("kill", "a")
    status = space.status("a")
    assert (status["phase"], status["reason"], status["signal"]) == ("Failed", "Killed", signal.SIGKILL)


@household.on_both
def test_agent_that_handles_no_signal_ends_by_sigterm(space: Space) -> None:
    space.apply(
        python(
            "a", "import time; print('up', flush=True); time.sleep(1000)", terminationGracePeriodSeconds=500
        )
    )
    space.logged("a", "up")
    space.agentk("kill", "a")
    assert space.status("a")["signal"] == signal.SIGTERM


@household.on_both
def test_file_survives_a_restart_and_scratch_does_not(space: Space) -> None:
    script = "cd /workspace; cat kept /tmp/gone; echo here > kept; echo here > /tmp/gone; echo done; exec sleep 1000"
    space.apply(shell("a", script))
    space.logged("a", "done")
    space.agentk("restart", "a")
    space.running("a", attempt=2)
    space.logged("a", "here")
    assert space.log("a").count("here") == 1
