"""Starting, keeping and ending the daemon, with real processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentk.daemon import keeper
from tests.flows import household
from tests.flows.household import Household

pytestmark = pytest.mark.timeout(600)
KEY = "sk-never-to-be-inherited"
ALL = ("keeper", "daemon", "launcher")
RUN = [sys.executable, "-I", "-m", "agentk.daemon", "run"]


@pytest.fixture(scope="module")
def kept() -> Iterator[Household]:
    """Started by somebody who has a key in his environment."""
    with household.household(OPENAI_API_KEY=KEY) as home:
        yield home


@pytest.fixture
def down(tmp_path: Path) -> Iterator[Household]:
    """Nothing of it runs yet."""
    with household.folder() as made:
        home = Household(made)
        yield home
        home.end()


def test_whoever_comes_second_is_told_the_pid_of_the_first(kept: Household) -> None:
    second = subprocess.run(RUN, env=kept.environment, capture_output=True, text=True)
    assert second.returncode == keeper.EXIT_CONFIG
    assert f"pid {kept.pid('keeper')}" in second.stderr and "agentk daemon stop" in second.stderr


def test_starting_what_runs_changes_nothing(kept: Household) -> None:
    pids = [kept.pid(name) for name in ALL]
    assert "runs already" in kept.agentk("daemon", "start").out
    assert [kept.pid(name) for name in ALL] == pids


@pytest.mark.parametrize("name", ["daemon", "launcher"])
def test_whichever_dies_is_started_again(kept: Household, name: str) -> None:
    before, keeping = kept.pid(name), kept.pid("keeper")
    kept.kill(name)
    kept.answers()
    assert kept.pid(name) not in (0, before) and kept.pid("keeper") == keeping


def test_callers_wait_while_the_daemon_is_away(kept: Household) -> None:
    os.kill(kept.pid("keeper"), signal.SIGSTOP)
    kept.kill("daemon")
    asking = subprocess.Popen(
        [*household.AGENTK, "get", "namespaces"], env=kept.environment, text=True, stdout=-1
    )
    household.until("it is connected", lambda: waits_for(asking.pid))
    os.kill(kept.pid("keeper"), signal.SIGCONT)
    assert "default" in asking.communicate()[0] and asking.returncode == 0


def waits_for(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return any("socket:" in os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir())
    return False


@pytest.mark.parametrize("name", ALL)
def test_no_key_of_the_caller_is_inherited(kept: Household, name: str) -> None:
    environ = Path(f"/proc/{kept.pid(name)}/environ").read_bytes().decode()
    assert KEY not in environ and "PATH=" in environ


@pytest.mark.parametrize("name", ALL)
def test_caller_may_end_its_session(kept: Household, name: str) -> None:
    assert os.getsid(kept.pid(name)) != os.getsid(0)


def test_commands_at_once_start_one_daemon(down: Household) -> None:
    command = [*household.AGENTK, "get", "namespaces", "-o", "name"]
    asking = [
        subprocess.Popen(command, env=down.environment, stdout=-1, stderr=-1, text=True) for _ in range(4)
    ]
    said = [one.communicate() for one in asking]
    assert [out for out, _ in said] == ["namespace/default\n"] * 4
    assert sum("starting" in told for _, told in said) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [("maxAgentz: 3\n", "maxAgents"), ("maxAgents: many\n", "maxAgents"), ("{\n", "config.yaml")],
)
def test_mistake_in_the_config_reaches_the_caller(down: Household, text: str, told: str) -> None:
    config = down.folder / "config.yaml"
    config.write_text(text)
    ran = down.agentk("daemon", "start", code=1, AGENTK_CONFIG=str(config))
    assert told in ran.err and "config.yaml" in ran.err
    for _ in range(1000):  # the caller is told first, then the keeper takes its launcher along and ends
        if not any(down.pid(name) for name in ALL):
            break
        time.sleep(0.01)
    assert [down.pid(name) for name in ALL] == [0, 0, 0]
    kept = subprocess.run(
        [*RUN, "--config", str(config)], env=down.environment, capture_output=True, text=True
    )
    assert kept.returncode == keeper.EXIT_CONFIG and told in kept.stderr


def test_missing_config_is_told(down: Household) -> None:
    ran = down.agentk("daemon", "start", code=1, AGENTK_CONFIG="/nonexistent/config.yaml")
    assert "/nonexistent/config.yaml" in ran.err


def test_store_that_cannot_be_opened_is_told(down: Household) -> None:
    down.start()
    down.agentk("daemon", "stop")
    store = down.places.state / "store"
    (store / "state.lock").unlink()
    (store / "state.lock").mkdir()
    ran = down.agentk("get", "namespaces", code=1)
    assert "did not start" in ran.err and "state.lock" in ran.err


def test_path_too_long_for_a_socket_is_told(down: Household) -> None:
    ran = down.agentk("daemon", "start", code=1, AGENTK_RUN_DIR="/tmp/" + "long" * 30)
    assert "AGENTK_RUN_DIR" in ran.err


def test_stop_ends_all_that_has_nothing_to_keep(down: Household) -> None:
    down.start()
    down.agentk("daemon", "stop")
    household.until("all have ended", lambda: not any(down.pid(name) for name in ALL))
    assert not down.places.socket.exists()
    assert "does not run" in down.agentk("daemon", "stop").out


def test_daemon_ends_with_its_keeper(down: Household) -> None:
    down.start()
    down.kill("keeper")
    household.until("the daemon has ended", lambda: not down.pid("daemon"))
    assert down.pid("launcher")
    assert "namespace/default" in down.agentk("get", "namespaces", "-o", "name").out


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="without root the daemon is the caller's own uid")
def test_interpreter_in_a_closed_directory_is_shown_and_nothing_beside_it(down: Household) -> None:
    closed = down.folder / "closed"
    closed.mkdir(mode=0o700)
    (closed / "key").write_text(KEY)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", closed / "venv"], check=True)
    site = next((closed / "venv" / "lib").glob("python*/site-packages"))
    (site / "ours.pth").write_text("\n".join(path for path in sys.path if path.startswith("/")))
    top = Path(household.__file__).parent.parent.parent
    (site / "checkout.pth").write_text(f"{top}\n")
    command = [closed / "venv" / "bin" / "python", "-m", "agentk.cli.main", "get", "namespaces", "-o", "name"]
    ran = subprocess.run(command, env=down.environment, capture_output=True, text=True)
    assert ran.stdout == "namespace/default\n", ran.stderr + down.words()
    assert os.listdir(f"/proc/{down.pid('daemon')}/root{closed}") == ["venv"]
