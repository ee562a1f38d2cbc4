"""`agentk run`: the agent's output and exit code, and nothing left behind, however it ends."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentk.runtime import uids
from tests.flows import household
from tests.flows.household import Space, shell, text

pytestmark = [
    *household.needs,
    pytest.mark.skipif(os.geteuid() != 0 and not household.IN_VM, reason="needs cgroups that are ours"),
]


@pytest.fixture
def scratch(space: Space) -> Iterator[dict[str, str]]:
    """A TMPDIR in which a private daemon makes its state; nothing of it may be there at the end."""
    with household.folder() as folder:
        yield {"TMPDIR": str(folder)}
        household.until("the private daemon is gone", lambda: not left_behind(folder))


def left_behind(folder: Path) -> list[str]:
    found = [str(path) for path in folder.iterdir()]
    found += [
        " ".join(argv) for _, argv in household.processes() if any(str(folder) in word for word in argv)
    ]
    claims = uids.CLAIMS.iterdir() if os.geteuid() == 0 else ()
    return found + [str(file) for file in claims if str(folder) in household.read(file)]


@household.on_both
@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_exit_code_is_the_agents(space: Space, scratch: dict[str, str], script: str, code: int) -> None:
    on = ("--runtime", space.runtime)
    ran = space.agentk(
        "run", *on, "--memory", "64Mi", "--", "sh", "-c", f"echo out; {script}", code=code, **scratch
    )
    assert ran.out == "out\n"


def test_timeout_is_124(space: Space, scratch: dict[str, str]) -> None:
    space.agentk("run", "--timeout", "1s", "--memory", "64Mi", "sleep", "1000", code=124, **scratch)


def test_failure_of_our_own_is_125(space: Space, scratch: dict[str, str]) -> None:
    ran = space.agentk("run", "--runtime", "nowhere", "true", code=125, **scratch)
    assert "nowhere" in ran.err
    assert "64Mb" in space.agentk("run", "--memory", "64Mb", "true", code=125, **scratch).err
    env = [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "api", "key": "t"}}}]
    ran = space.agentk("run", "-f", "-", stdin=text(shell("job", "true", env=env)), code=125, **scratch)
    assert 'Secret "api" does not exist' in ran.err and "only what -f gives it" in ran.err


def test_envelope_tells_how_it_ended(space: Space, scratch: dict[str, str]) -> None:
    wanted = text(shell("job", "echo words; exit 7"))
    ran = space.agentk("run", "-f", "-", "-o", "json", stdin=wanted, code=7, **scratch)
    told = ran.json
    assert told.keys() >= {"schema_version", "status", "exit_code", "termination_reason", "usage", "run_id"}
    assert (told["status"], told["exit_code"], told["termination_reason"]) == ("Failed", 7, "Error")
    assert "words" in ran.err


def test_in_the_running_daemon_it_leaves_no_object(space: Space) -> None:
    space.agentk("run", "--use-daemon", "--name", "job", "--memory", "64Mi", "sh", "-c", "exit 3", code=3)
    assert space.agentk("get", "agents", "-o", "name").out == ""


@household.on_both
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_command_is_killed(
    space: Space, scratch: dict[str, str], number: signal.Signals
) -> None:
    on = ("--runtime", space.runtime)
    command = space.begin("run", *on, "--memory", "64Mi", "sh", "-c", "echo up; exec sleep 1000", **scratch)
    assert command.stdout is not None
    assert command.stdout.readline() == "up\n"
    command.send_signal(number)
    assert command.wait(household.SECONDS) == (-9 if number == signal.SIGKILL else 143)
    command.stdout.close()
