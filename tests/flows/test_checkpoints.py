"""Agents kept as they are and brought back, with a real daemon and jails; and every death on the way."""

import secrets
from collections.abc import Iterator

import pytest

from agentk.api import kinds
from agentk.broker import crash
from agentk.client import client
from agentk.control import crash as steward
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


@household.on_both
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
    assert "checkpoint.ask" in space.agentk("audit", "a").out
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
    space.apply(manifest("Checkpoint", "c", spec={"agentRef": {"name": "a"}}))
    until("it is taken", lambda: _phase(space) == "Ready")
    uid = space.get("c", kinds.CHECKPOINT)["metadata"]["uid"]
    folder = space.home.places.state / "store" / "checkpoints" / uid
    assert folder.is_dir()
    space.agentk("delete", "agent", "a")
    until("its files are gone", lambda: not folder.exists())


def test_a_quota_bounds_how_many_and_how_large(space: Space) -> None:
    def quota(**hard: object) -> None:
        space.apply(manifest("Quota", "q", spec={"hard": hard}))

    space.apply(python("a", GROWING, memory={}))
    has(space, "a", 1)
    quota(checkpoints=1, checkpointBytes="1Mi")
    space.agentk("checkpoint", "a", "--name", "first")
    used = until("it is counted", lambda: _used(space).get("checkpoints") and _used(space))
    assert used["checkpoints"] == 1 and used["checkpointBytes"] != "0"
    said = space.agentk("checkpoint", "a", "--name", "second", code=1)
    assert "Quota q allows 1 Checkpoints" in said.err
    quota(checkpoints=9, checkpointBytes="4Ki")
    said = space.agentk("checkpoint", "a", "--name", "third", code=1)
    assert "Quota q allows 4Ki of Checkpoints" in said.err
    assert space.get("a")["status"]["phase"] == "Running"
    assert (
        "CheckpointFailed" in space.events("a")
        and space.get("a")["status"]["lastCheckpoint"]["name"] == "first"
    )
    left = {path.name for path in (space.home.places.state / "store" / "checkpoints").iterdir()}
    assert not [name for name in left if name.endswith(".half")]


def _used(space: Space) -> dict[str, str]:
    return dict((space.get("q", kinds.QUOTA).get("status") or {}).get("used") or {})


# Does one thing for each word that it finds, and fails when it is told to.
WORKING = """
import os, time
from agentk.sdk import client
agent = client.connect()
print("begins with", sorted(os.listdir("/workspace")), flush=True)
while True:
    while not os.path.exists("/tmp/word"):
        time.sleep(0.02)
    word = open("/tmp/word").read()
    os.unlink("/tmp/word")
    open(f"/workspace/{word}", "w").close()
    if word == "fail":
        os._exit(3)
    agent.exec(argv=["true"])
    print("did", word, flush=True)
"""


def automatic(space: Space, name: str) -> dict[str, str]:
    """Phase of every automatic Checkpoint of an agent, by name."""
    labels = f"agentk.dev/automatic=true,agentk.dev/agent={name}"
    found = space.api.list(client.Selection(kinds.CHECKPOINT, space.name, labels)).items
    return {str(one["metadata"]["name"]): (one.get("status") or {}).get("phase", "") for one in found}


def work(space: Space, name: str, word: str, code: int | None = 0) -> None:
    """`code` None: the daemon or the box may die before the command is told that it has ended."""
    space.agentk("exec", name, "--", "sh", "-c", f"printf {word} > /tmp/w; mv /tmp/w /tmp/word", code=code)
    if word != "fail":
        space.logged(name, f"did {word}")


@household.on_both
def test_after_a_failure_it_begins_with_the_last_one(space: Space) -> None:
    wish = {"steps": 1, "keep": 1, "restore": "OnFailure"}
    again = {"restartPolicy": "OnFailure", "restartBackoff": {"initialSeconds": 0, "maxSeconds": 0}}
    space.apply(python("a", WORKING, checkpoint=wish, **again))
    space.running("a")
    for number, word in enumerate(("one", "two"), 1):
        work(space, "a", word)
        name = f"a-auto-{number}"
        space.until("a", lambda status, name=name: status.get("lastCheckpoint", {}).get("name") == name)
    until("the older one is gone", lambda: automatic(space, "a") == {"a-auto-2": "Ready"})
    work(space, "a", "fail", code=None)
    status = space.running("a", 2)
    assert status["restoredFrom"] == {"name": "a-auto-2", "attempt": 2}
    space.logged("a", "begins with ['one', 'two']")
    space.event("a", "Restored")
    assert "Checkpointed" in space.events("a")
    said = space.agentk("audit", "a").out
    assert "checkpoint.take" in said and "checkpoint.restore" in said
    told = space.agentk("describe", "agent", "a").out
    assert "Last Checkpoint" in told and "Restored From" in told, told


def test_time_takes_them_too_of_what_runs(space: Space) -> None:
    space.apply(python("a", "import time; time.sleep(1000)", checkpoint={"every": "1s", "keep": 2}))
    until("the first is gone", lambda: set(automatic(space, "a")) >= {"a-auto-2", "a-auto-3"})
    space.agentk("suspend", "a")
    space.phase("a", "Suspended")
    until("the last is taken", lambda: set(automatic(space, "a").values()) == {"Ready"})
    assert len(automatic(space, "a")) <= 3  # two stay; the oldest may be on its way
    space.agentk("delete", "agent", "a")
    until("they go with it", lambda: not automatic(space, "a"))


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


def test_the_daemon_dies_on_the_way_of_automatic_ones(fragile: Household) -> None:
    with household.space(fragile) as broken:
        wish = {"steps": 1, "keep": 1, "restore": "OnFailure"}
        always = {"restartPolicy": "Always", "restartBackoff": {"initialSeconds": 0, "maxSeconds": 0}}
        broken.apply(python("a", WORKING, checkpoint=wish, **always))
        broken.running("a")
        done: list[str] = []

        def newest(name: str) -> None:
            until(f"{name} alone is there", lambda: _there(broken) == {name: "Ready"})

        # The first makes one, and none goes yet.
        for number, point in enumerate(("", *steward.SAVING), 1):
            if point:
                (fragile.crashes / point).touch()
            done.append(f"w{number}")
            work(broken, "a", done[-1], None)
            newest(f"a-auto-{number}")
            assert not (fragile.crashes / point).is_file(), "nobody came by"
        number = len(done)
        for attempt, point in enumerate(("restore.memory", "restore.done"), 2):
            (fragile.crashes / point).touch()
            work(broken, "a", "fail", None)
            status = broken.running("a", attempt)
            assert status["restoredFrom"] == {"name": f"a-auto-{number}", "attempt": attempt}
            until("it says what it has", lambda n=attempt: len(_begun(broken)) == n)
            assert _begun(broken)[1:] == [f"begins with {sorted(done)}"] * (attempt - 1)
            assert not (fragile.crashes / point).exists(), "nobody came by"


def _begun(space: Space) -> list[str]:
    """What each attempt began with."""
    return [line for line in space.log("a") if line.startswith("begins with")]


def _there(space: Space) -> dict[str, str]:
    return household.again(lambda: automatic(space, "a"))
