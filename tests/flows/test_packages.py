"""Agents with packages: fetched and installed once, found by unmodified programs, whoever is killed meanwhile."""

import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentk.api import kinds
from agentk.runtime.launcher import crash
from tests.flows import household
from tests.flows.household import Household, Space, agent, manifest, python, shell
from tests.runtime import packages
from tests.runtime.packages import Index

pytestmark = household.needs
POINTS = [
    point
    for point in crash.POINTS
    if point.startswith("environment.") and point != "environment.after-remove"
]


@pytest.fixture(scope="module")
def index() -> Iterator[Index]:
    with packages.index() as made:
        made.wheel("leaf")
        made.wheel("tree", "2.1", requires=["leaf"], scripts=["grow"])
        yield made


@pytest.fixture(scope="module")
def home(index: Index) -> Iterator[Household]:
    """Its owner's pip knows this index alone."""
    told = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url}
    with household.household(**told, PIP_EXTRA_INDEX_URL="", PIP_FIND_LINKS="") as made:
        yield made


@pytest.fixture
def space(home: Household, runtime: str) -> Iterator[Space]:
    with household.space(home, runtime) as made:
        yield made


def wants(*requirements: str) -> household.Object:
    return {"python": {"requirements": list(requirements)}}


@household.on_both
def test_an_agent_its_commands_and_the_next_agent_share_what_was_made_once(space: Space) -> None:
    program = "import sys, tree; print(tree.VERSION, sys.prefix, flush=True); import time; time.sleep(1000)"
    tree = {"nsjail": "tree<3", "podman": "tree<4"}[
        space.runtime
    ]  # agents of any runtime share what was made
    space.apply(python("a", program, environment=wants(tree)))
    status = space.running("a")
    space.logged("a", "2.1 /opt/env/python")
    told = status["environment"]["python"]
    assert told["packages"] == 2
    assert [line.split(" ")[0] for line in told["lock"]] == ["leaf==1.0", "tree==2.1"]
    assert {one["type"]: one["status"] for one in status["conditions"]}["EnvironmentReady"] == "True"
    assert space.events("a")[0] == "EnvironmentResolving"  # of the other stages those that last a moment
    script = "grow; printf '#!/usr/bin/env python3\\nimport leaf\\n' > p; chmod +x p; ./p && echo same"
    space.apply(shell("b", script, environment=wants(tree.upper())))
    space.phase("b", "Succeeded")
    assert space.log("b") == ["script 2.1", "same"]
    assert "EnvironmentResolving" not in space.events("b")
    assert space.status("b")["environment"] == status["environment"]


BESIDE = """
import agentk.sdk.client as sdk
with sdk.connect() as agent:
    print(agent.exec_python("import tree; print(tree.VERSION)").stdout.strip(), agent.exec_shell("grow").stdout.strip())
"""


def test_commands_beside_an_agent_have_its_packages(space: Space) -> None:
    space.apply(python("a", BESIDE, environment=wants("tree")))
    space.phase("a", "Succeeded", "Failed")
    assert space.log("a") == ["2.1 script 2.1"]


def test_what_was_told_as_a_lock_is_one(space: Space, tmp_path: Path) -> None:
    space.apply(shell("a", "grow", environment=wants("tree>1")))
    lock = space.phase("a", "Succeeded")["environment"]["python"]["lock"]
    (tmp_path / "requirements.lock").write_text("# kept\n" + "\n".join(lock) + "\n")
    locked = shell(
        "b",
        "grow",
        environment={"python": {"lockFile": "requirements.lock"}},
        policyRef={"name": "restricted"},
    )
    (tmp_path / "agent.json").write_text(household.text(locked))
    space.agentk("apply", "-f", str(tmp_path / "agent.json"))
    status = space.phase("b", "Succeeded")
    assert status["environment"]["python"]["lock"] == lock and space.log("b") == ["script 2.1"]


def test_a_policy_says_what_may_be_fetched(space: Space) -> None:
    space.apply(shell("a", "grow", environment=wants("tree"), policyRef={"name": "restricted"}))
    status = space.phase("a", "Pending")
    assert status["reason"] == "PolicyDenied" and "level restricted allows Locked" in status["message"]
    name = f"none-{space.name}"
    space.apply(manifest("Policy", name, spec={"level": "baseline", "isolation": {"packages": "None"}}))
    space.apply(shell("b", "grow", environment=wants("tree"), policyRef={"name": name}))
    assert "isolation.packages is None" in space.phase("b", "Pending")["message"]
    space.agentk("delete", "policy", name)


def test_a_package_that_is_not_there_keeps_the_agent_waiting_and_says_so(space: Space, index: Index) -> None:
    space.apply(shell("a", "true", environment=wants("not-here")))
    found = space.until("a", lambda status: status.get("reason") == "EnvironmentFailed")
    assert found["status"]["phase"] == "Pending" and found["status"].get("restartCount", 0) == 0
    assert "No matching distribution found for not-here" in found["status"]["message"]
    ready = [one for one in found["status"]["conditions"] if one["type"] == "EnvironmentReady"]
    assert (ready[0]["status"], ready[0]["reason"]) == ("False", "EnvironmentFailed")
    index.wheel("not_here")
    space.phase("a", "Succeeded")


def test_one_shot_runs_with_packages_and_fails_at_once_without(space: Space, tmp_path: Path) -> None:
    file = tmp_path / "agent.json"
    file.write_text(household.text(shell("a", "grow", environment=wants("tree"))))
    ran = space.home.agentk("run", "-f", str(file))
    assert ran.lines == ["script 2.1"] and "agentk: Resolving" in ran.err
    file.write_text(household.text(shell("a", "grow", environment=wants("never-there"))))
    ran = space.home.agentk("run", "-f", str(file), code=125)
    assert "EnvironmentFailed" in ran.err and "No matching distribution found for never-there" in ran.err


def test_what_is_no_requirement_is_refused_with_its_line(space: Space) -> None:
    ran = space.apply(shell("a", "true", environment=wants("tree", "-e .")), code=1)
    assert "environment.python.requirements[1]" in ran.err and "option of pip" in ran.err
    both = {"python": {"requirements": ["a"], "venv": "/x/y"}}
    assert "environment.python" in space.apply(shell("a", "true", environment=both), code=1).err


@pytest.mark.parametrize(
    "who", [("daemon",), ("launcher",), ("daemon", "launcher"), ("keeper",)], ids="+".join
)
def test_a_death_while_one_is_made_changes_nothing(space: Space, index: Index, who: tuple[str, ...]) -> None:
    name = f"dead_{'_'.join(who)}"
    index.wheel(name, requires=["tree"])
    space.apply(shell("a", "grow", environment=wants(name)))
    space.until("a", lambda status: str(status.get("reason")).startswith("Environment"))
    space.home.kill(*who)
    if "keeper" in who:
        space.agentk("daemon", "start", code=None)
    space.home.answers()
    assert space.phase("a", "Succeeded")["attempt"] == 1
    assert space.log("a") == ["script 2.1"]


@pytest.mark.parametrize("point", POINTS)
def test_a_death_at_any_named_point_changes_nothing(space: Space, index: Index, point: str) -> None:
    name = "point_" + point.replace(".", "_").replace("-", "_")
    index.wheel(name, requires=["tree"])
    armed = space.home.crashes / point
    armed.touch()
    space.apply(shell("a", "grow", environment=wants(name)))
    assert space.phase("a", "Succeeded")["attempt"] == 1
    assert not armed.exists()


def test_a_virtual_environment_of_the_host_is_a_host_path(space: Space, index: Index) -> None:
    place = space.home.folder / f"venv-{space.name}"
    venv.create(place, symlinks=True)
    place.chmod(0o755)
    site = next((place / "lib").glob("python3*/site-packages"))
    (site / "mine.py").write_text("WORD = 'mine'\n")
    wanted = python("a", "import mine; print(mine.WORD)", environment={"python": {"venv": str(place)}})
    space.apply(wanted)
    assert "does not allow hostPath" in space.phase("a", "Pending")["message"]
    name = f"venv-{space.name}"
    rules = {"level": "baseline", "isolation": {"hostPaths": [{"pathPrefix": str(place)}]}}
    space.apply(manifest("Policy", name, spec=rules))
    space.apply({**wanted, "spec": {**wanted["spec"], "policyRef": {"name": name}}})
    space.phase("a", "Succeeded")
    assert space.log("a") == ["mine"]
    (place / "pyvenv.cfg").write_text("version = 2.7.1\n")
    space.apply(agent("b", "true", environment={"python": {"venv": str(place)}}, policyRef={"name": name}))
    space.until("b", lambda status: "made for Python 2.7" in status.get("message", ""))
    space.agentk("delete", "policy", name)


def test_boxes_that_wait_have_the_packages_of_their_pool_imported(space: Space) -> None:
    template = {
        "environment": wants("tree"),
        "modules": ["tree"],
        "resources": {"limits": dict(household.TINY)},
    }
    space.apply(manifest("Pool", "p", spec={"size": 1, "template": template}))
    space.agentk("wait", "pool/p", "--for=condition=Ready", "--timeout=100s")
    program = "import sys; print('tree' in sys.modules); import tree; print(tree.VERSION, sys.prefix)"
    space.apply(python("a", program, poolRef={"name": "p"}, resources={}))
    status = space.phase("a", "Succeeded", "Failed")
    assert status["start"]["type"] == "Warm", status["start"]
    assert space.log("a") == ["True", "2.1 /opt/env/python"]
    told = space.get("p", kinds.POOL)["status"]["environment"]["python"]
    assert told["name"] == status["environment"]["python"]["name"]
