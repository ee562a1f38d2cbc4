"""The verbs and texts that need no daemon."""

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import kinds
from agentk.cli import columns, completion, main, options, run, targets, usage
from agentk.cli.daemon import systemds
from agentk.client import outcome, units

Run = Callable[..., Any]


def test_help_lists_every_verb(agentk: Run) -> None:
    ran = agentk("--help")
    assert ran.code == 0
    assert all(f"\n  {verb} " in ran.out for verb in main.NAMES)


@pytest.mark.parametrize("verb", main.NAMES)
def test_every_verb_has_a_file_and_its_help_an_example(agentk: Run, verb: str) -> None:
    ran = agentk(verb, "--help")
    assert ran.code == 0
    assert f"agentk {verb}" in ran.out.split("Example", 1)[1]


def test_a_verb_of_kubectl_says_what_does_it_here(agentk: Run) -> None:
    for verb in main.ELSEWHERE:
        ran = agentk(verb, "x")
        assert ran.code == 2 and f"hint: {main.ELSEWHERE[verb]}" in ran.err
    assert not set(main.ELSEWHERE) & set(main.NAMES)


def test_every_file_with_an_app_is_a_verb() -> None:
    folder = Path(main.__file__).parent
    files = {
        path.stem.replace("_", "-") for path in folder.glob("*.py") if "\napp = typer" in path.read_text()
    }
    assert files == set(main.NAMES) | main.HIDDEN


def test_explain_prints_from_the_schema(agentk: Run) -> None:
    out = agentk("explain", "agent.spec.resources", "--recursive").out
    assert "memory" in out
    assert "default: 512Mi" in out
    assert "did you mean" in agentk("explain", "agent.spec.resorces").err


def test_api_resources(agentk: Run) -> None:
    assert agentk("api-resources").lines[1].split() == [
        "agents",
        "ag",
        "agentk.dev/v1alpha1",
        "true",
        "Agent",
    ]
    assert "runtimes.agentk.dev" in agentk("api-resources", "--cluster", "-o", "name").lines
    assert json.loads(agentk("api-resources", "-o", "json").out)[0]["verbs"]


def test_version_starts_no_daemon(agentk: Run, places: Path) -> None:
    ran = agentk("version", "-o", "json")
    assert (ran.code, list(json.loads(ran.out))) == (0, ["clientVersion"])
    assert not (places / "state").exists()


@pytest.mark.parametrize("shell", completion.SCRIPTS)
def test_completion_scripts(agentk: Run, shell: str) -> None:
    assert "agentk complete" in agentk("completion", shell).out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["ge"], "get"),
        (["get", "age"], "agents"),
        (["get", "--sel"], "--selector"),
        (["get", "ag", "-o", "j"], "json"),
        (["daemon", "sta"], "status"),
        (["tool", "ca"], "call"),
        (["task", ""], "cancel"),
        (["run", "--time"], "--timeout"),
    ],
)
def test_completion_offers(agentk: Run, typed: list[str], offered: str) -> None:
    assert offered in agentk("complete", "--", *typed).lines


def test_completion_offers_names(daemon: Any, agentk: Run) -> None:
    daemon.api.create(kinds.AGENT, "default", {"metadata": {"name": "web"}, "spec": {"command": ["x"]}})
    assert agentk("complete", "--", "logs", "").lines == ["web"]
    assert agentk("complete", "--", "get", "ag/w").lines == ["ag/web"]
    assert agentk("complete", "--", "task", "run", "").lines == ["web"]
    schedule = {"schedule": "@daily", "taskTemplate": {"spec": {"agentRef": {"name": "web"}}}}
    daemon.api.create(kinds.SCHEDULE, "default", {"metadata": {"name": "nightly"}, "spec": schedule})
    daemon.api.create(
        kinds.TOOL, "default", {"metadata": {"name": "words"}, "spec": {"command": {"argv": ["wc"]}}}
    )
    assert agentk("complete", "--", "suspend", "sched/").lines == ["sched/nightly"]
    assert agentk("complete", "--", "tool", "call", "w").lines == ["words"]
    assert agentk("complete", "--", "approve", "").lines == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["agents"], [("Agent", "")]),
        (["ag,cm"], [("Agent", ""), ("ConfigMap", "")]),
        (["ag", "a", "b"], [("Agent", "a"), ("Agent", "b")]),
        (["agent/a", "secret/s"], [("Agent", "a"), ("Secret", "s")]),
        (
            ["all"],
            [
                ("Agent", ""),
                ("Quota", ""),
                ("ModelRoute", ""),
                ("Pool", ""),
                ("Tool", ""),
                ("Task", ""),
                ("Schedule", ""),
                ("Skill", ""),
                ("Approval", ""),
            ],
        ),
        (["ag,agents"], [("Agent", "")]),
    ],
)
def test_targets(words: list[str], expected: list[tuple[str, str]]) -> None:
    assert [(one.kind.kind, one.name) for one in targets.parse(words)] == expected


@pytest.mark.parametrize("words", [[], ["agent/"], ["/a"], ["a/b/c"], ["agent/a", "b"], [","]])
def test_targets_that_mean_nothing(words: list[str]) -> None:
    with pytest.raises(usage.Usage):
        targets.parse(words)


@pytest.mark.parametrize(("text", "expected"), [("", None), ("30", 30), ("1h30m", 5400), ("0", 0)])
def test_seconds(text: str, expected: int | None) -> None:
    assert options.seconds(text, "--timeout") == expected


def test_seconds_that_are_none() -> None:
    with pytest.raises(usage.Usage, match="--timeout"):
        options.seconds("soon", "--timeout")


def statuses() -> Iterator[tuple[dict[str, Any], int]]:
    yield {"phase": "Succeeded", "reason": "Completed", "exitCode": 0}, 0
    yield {"phase": "Failed", "reason": "Error", "exitCode": 7}, 7
    yield {"phase": "Failed", "reason": "OOMKilled", "exitCode": 137, "signal": 9}, 137
    yield {"phase": "Failed", "reason": "Killed", "signal": 15}, 143
    yield {"phase": "Failed", "reason": "DeadlineExceeded", "exitCode": 143, "signal": 15}, 124
    yield {"phase": "Failed", "reason": "BudgetExceeded", "exitCode": 137}, 122
    yield {"phase": "Failed", "reason": "ApprovalDenied"}, 123
    yield {"phase": "Failed", "reason": "SandboxUnavailable"}, 125
    yield {"phase": "Failed", "reason": "Lost"}, 125
    yield {"phase": "Failed", "reason": "Error", "exitCode": 0}, 1


@pytest.mark.parametrize(("status", "code"), list(statuses()))
def test_exit_code_of_a_run(status: dict[str, Any], code: int) -> None:
    assert outcome.exit_code(status) == code


def test_the_envelope_has_what_ci_reads() -> None:
    counters = {"cpuUsec": 1500000, "memoryPeakBytes": 1024, "oomKills": 0}
    times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:02Z"}
    status = {"phase": "Failed", "reason": "Error", "exitCode": 3, "attempt": 1, "counters": counters} | times
    status["run"] = {"firstAttempt": 2}
    told = outcome.of({"metadata": {"uid": "u", "generation": 2}, "status": status}).envelope()
    assert (told["schema_version"], told["status"], told["exit_code"]) == (1, "Failed", 3)
    assert (told["termination_reason"], told["run_id"]) == ("Error", "u-2")
    used = {"attempts": 1, "wall_seconds": 2.0, "cpu_seconds": 1.5, "memory_peak_bytes": 1024, "oom_kills": 0}
    assert told["usage"] == used


def test_a_command_line_becomes_an_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "2")
    limits = {"memory": "64Mi", "cpu": "", "pids": None}
    spec = run.agent(["echo", "hi"], "x", limits, ["A=1=1", "OURS"], "", "")["spec"]
    assert spec["resources"] == {"limits": {"memory": "64Mi"}}
    assert spec["env"] == [{"name": "A", "value": "1=1"}, {"name": "OURS", "value": "2"}]
    assert (spec["command"], spec["restartPolicy"]) == (["echo", "hi"], "Never")


@pytest.mark.parametrize(
    "words", [["run"], ["run", "-f", "x", "true"], ["run", "--nope"], ["run", "-e", "NOPE_", "x"]]
)
def test_a_wrong_run_is_agentks_own_failure(agentk: Run, words: list[str]) -> None:
    assert agentk(*words).code == outcome.AGENTK


def test_a_daemon_of_systemd_is_restarted_by_systemd() -> None:
    assert systemds("0::/system.slice/agentk.service\n") == "systemctl restart agentk"
    own = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/agentk.service/keeper\n"
    assert systemds(own) == "systemctl --user restart agentk"
    assert systemds("0::/user.slice/user-0.slice/session-1.scope\n") == ""


def test_the_unit_delegates_and_lets_agents_live() -> None:
    env = {"HOME": "/home/a", "AGENTK_STATE_DIR": "/s%"}
    unit = units.unit("/usr/bin/python3", env, for_system=False)
    assert unit.path == Path("/home/a/.config/systemd/user/agentk.service")
    assert "Delegate=yes\nKillMode=process" in unit.text
    assert 'Environment="AGENTK_STATE_DIR=/s%%"' in unit.text
    assert unit.commands[0] == "loginctl enable-linger"


def test_no_verb_imports_another_rooms_weight() -> None:
    import subprocess
    import sys

    code = "import sys, agentk.cli.get; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"http.client", "yaml", "rich", "jsonschema", "starlette", "sqlite3", "asyncio", "tarfile", "ssl"}
    assert not heavy & set(loaded)


def test_modules_are_named_like_their_verbs() -> None:
    for verb in main.NAMES:
        assert importlib.import_module(f"agentk.cli.{verb.replace('-', '_')}").app


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("rm\u202e txt.a", "rm\\u202e txt.a"),
        ("a\u200bb", "a\\u200bb"),
        ("né ✓", "né ✓"),
    ],
)
def test_what_a_guest_wrote_reads_as_what_it_is(said: str, shown: str) -> None:
    assert columns.safe(said) == shown
