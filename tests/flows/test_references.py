"""Secrets and ConfigMaps in agents; and where the value of a Secret is found besides: nowhere."""

import os
from collections.abc import Iterator
from pathlib import Path

from tests.flows import household
from tests.flows.household import Household, Space, manifest, processes, shell

pytestmark = household.needs
VALUE = "hunter2-hunter2-hunter2"
FROM_SECRET = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}}
FROM_MAP = {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "level"}}}
VOLUMES = {
    "volumes": [{"name": "s", "secret": {"secretName": "s"}}, {"name": "c", "configMap": {"name": "c"}}],
    "volumeMounts": [{"name": "s", "mountPath": "/secret"}, {"name": "c", "mountPath": "/config"}],
}


def secret(value: str = VALUE) -> household.Object:
    return manifest("Secret", "s", stringData={"token": value})


def config() -> household.Object:
    return manifest("ConfigMap", "c", data={"level": "high"})


@household.on_both
def test_values_arrive_as_env_and_as_files(space: Space) -> None:
    script = "echo $LEVEL $(cat /config/level); test $TOKEN = $(cat /secret/token) && echo same"
    space.apply(secret(), config(), shell("a", script, env=[FROM_SECRET, FROM_MAP], **VOLUMES))
    space.phase("a", "Succeeded")
    assert space.log("a") == ["high high", "same"]


def test_agent_waits_for_its_secret(space: Space) -> None:
    space.apply(shell("a", "exec sleep 1000", env=[FROM_SECRET]))
    status = space.until("a", lambda status: 's"' in status.get("message", ""))["status"]
    assert status["phase"] == "Pending" and status["reason"]
    space.apply(secret())
    space.running("a")


def test_agent_waits_for_the_skill_that_it_names(space: Space) -> None:
    front = "---\nname: sums\ndescription: Adds.\n---\n"
    files = {"SKILL.md": front, "__init__.py": "def add(a, b):\n    return a + b\n"}
    skill = manifest("Skill", "sums", spec={"description": "Adds.", "source": {"inline": {"files": files}}})
    use = [{"name": "sums"}, {"name": "none-*"}]
    space.apply(household.python("a", "from skills import sums; print(sums.add(1, 2))", skills={"use": use}))
    space.event("a", "ConfigError")
    status = space.status("a")
    assert (status["phase"], status["message"]) == ("Pending", 'skills.use: Skill "sums" does not exist')
    space.apply(skill)
    assert space.phase("a", "Succeeded", "Failed")["reason"] == "Completed" and space.log("a") == ["3"]


@household.on_both
def test_value_of_a_secret_is_only_where_it_belongs(space: Space) -> None:
    script = "printenv TOKEN > /dev/null && cat /secret/token > /dev/null && echo up; exec sleep 1000"
    space.apply(secret(), config(), shell("a", script, env=[FROM_SECRET], **VOLUMES))
    space.running("a")
    space.logged("a", "up")
    space.apply(secret(VALUE + "2"))
    space.agentk("kill", "a")
    space.apply(shell("b", script, env=[FROM_SECRET], **VOLUMES))
    space.running("b")
    found = [str(path) for path in traces_of(VALUE.encode(), space.home)]
    assert found == []
    told = space.agentk("events").out + space.agentk("describe", "agent", "b").out
    told += space.agentk("get", "agents", "-o", "yaml").out + space.agentk("describe", "secret", "s").out
    assert VALUE not in told


def traces_of(value: bytes, home: Household) -> Iterator[Path | str]:
    """Files of the household, and host processes that are no box's, which hold it."""
    store = home.places.state / "store"
    for top in (home.places.state, home.places.run):
        for folder, _, files in os.walk(top):
            for path in (Path(folder, file) for file in files):
                own = path.parent == store or store / "backups" in path.parents
                if (
                    not own
                    and path.is_file()
                    and "workspaces" not in path.parts
                    and value in path.read_bytes()
                ):
                    yield path
    for pid, argv in processes():
        inside = f"agentk-{home.places.instance}/" in household.read(Path(f"/proc/{pid}/cgroup"))
        environ = b"" if inside else read_bytes(Path(f"/proc/{pid}/environ"))
        if value.decode() in " ".join(argv) or value in environ:
            yield f"process {pid} {argv}"


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
