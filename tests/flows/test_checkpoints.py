"""Agents kept as they are and brought back, with a real daemon and jails; and every death on the way."""

import secrets
from collections.abc import Iterator

import pytest

from agentk.api import kinds
from agentk.broker import crash
from tests.flows import household
from tests.flows.household import Household, Space, manifest, python, until

pytestmark = household.needs

# Tells what it has, and adds to it; with mail it goes on.
GROWING = """
import os, time
from agentk.sdk import client
agent = client.connect()
told = sorted(item.content for item in agent.recall(names=[f"n{n}" for n in range(9)]).items)
files = sorted(os.listdir("/workspace"))
print("has", told, files, os.path.islink("/workspace/link"), flush=True)
n = len(files)
agent.remember(f"fact {n}", name=f"n{n}")
open(f"/workspace/file{n}", "w").write("x" * 1000)
if not n:
    os.symlink("/etc/hostname", "/workspace/link")
    os.mkfifo("/workspace/pipe")
print("grown", flush=True)
time.sleep(1000)
"""


@pytest.fixture(scope="module")
def fragile() -> Iterator[Household]:
    with household.household() as home:
        yield home


def has(space: Space, name: str, times: int) -> str:
    """What it told when it had begun so many times."""
    until(f"{name} has begun {times} times", lambda: space.log(name).count("grown") >= times)
    return next(line for line in reversed(space.log(name)) if line.startswith("has"))


def test_an_agent_comes_back_as_it_was_and_as_another(space: Space) -> None:
    space.apply(python("a", GROWING, memory={}))
    has(space, "a", 1)
    said = space.agentk("checkpoint", "a", "--name", "first")
    assert "checkpoint.agentk.dev/first taken" in said.out
    assert "1 pages, 1 files" in said.err and "pipe" in said.err
    status = space.get("first", kinds.CHECKPOINT)["status"]
    assert (status["phase"], status["pages"], status["files"]) == ("Ready", 1, 1)
    assert status["journal"]["record"] > 0
    assert space.get("a")["status"]["phase"] == "Running"
    space.agentk("restart", "a")
    grown = has(space, "a", 2)
    assert "fact 0" in grown and "pipe" in grown
    space.agentk("restore", "agent/a", "-y")
    assert has(space, "a", 3) == "has ['fact 0'] ['file0', 'link'] True"
    space.agentk("restart", "a")
    assert "fact 2" in has(space, "a", 4)  # only once
    space.agentk("restore", "agent/a", "--from", "first", "--as", "b")
    assert has(space, "b", 1) == "has ['fact 0'] ['file0', 'link'] True"
    assert "first" in space.agentk("get", "checkpoints").out
    assert "not found" in space.agentk("restore", "agent/a", "--from", "none", code=1).err


def test_what_is_forgotten_is_in_no_checkpoint_and_no_file(space: Space) -> None:
    secret = f"kumquat{secrets.token_hex(16)}"
    space.apply(python("a", "import time; print('grown', flush=True); time.sleep(1000)", memory={}))
    has_it = space.running("a")
    assert has_it
    space.agentk("memory", "put", "a", secret, "--name", "it")
    space.agentk("checkpoint", "a", "--name", "c")
    told = space.agentk("memory", "forget", "a", "it")
    assert "1 checkpoint" in told.out + told.err
    until("nothing of it is in a file of the daemon", lambda: not _held(space.home, secret))


def test_a_checkpoint_goes_with_its_agent(space: Space) -> None:
    space.apply(python("a", "import time; print('grown', flush=True); time.sleep(1000)", memory={}))
    space.running("a")
    space.agentk("checkpoint", "a", "--name", "c")
    uid = space.get("c", kinds.CHECKPOINT)["metadata"]["uid"]
    folder = space.home.places.state / "store" / "checkpoints" / uid
    assert folder.is_dir()
    space.agentk("delete", "agent", "a")
    until("its files are gone", lambda: not folder.exists())


@pytest.mark.parametrize("point", crash.CHECKPOINTS)
def test_the_daemon_dies_on_the_way(fragile: Household, point: str) -> None:
    with household.space(fragile) as broken:
        broken.apply(python("a", GROWING, memory={}))
        has(broken, "a", 1)
        if point.startswith("checkpoint.") and point != "checkpoint.dropped":
            (fragile.crashes / point).touch()
        spec = {"agentRef": {"name": "a"}}
        broken.apply(manifest("Checkpoint", "c", spec=spec))
        until("it is taken", lambda: household.again(lambda: _phase(broken)) == "Ready")
        broken.agentk("restart", "a")
        has(broken, "a", 2)
        if point.startswith("restore."):
            (fragile.crashes / point).touch()
        household.again(lambda: broken.agentk("restore", "agent/a", "--from", "c", "-y"))
        assert household.again(lambda: has(broken, "a", 3)) == BACK
        if point == "checkpoint.dropped":
            (fragile.crashes / point).touch()
        uid = broken.get("c", kinds.CHECKPOINT)["metadata"]["uid"]
        broken.agentk("delete", "checkpoint", "c")
        until("it is gone", lambda: not (fragile.places.state / "store" / "checkpoints" / uid).exists())
        assert not (fragile.crashes / point).exists(), "nobody came by"


BACK = "has ['fact 0'] ['file0', 'link'] True"


def _phase(space: Space) -> str:
    return str((space.get("c", kinds.CHECKPOINT).get("status") or {}).get("phase"))


def _held(home: Household, secret: str) -> bool:
    files = (path for path in (home.places.state / "store").rglob("*") if path.is_file())
    return any(secret.encode() in path.read_bytes() for path in files)
