"""Agents that are made of images: from a registry to a box, and what is told on the way."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows import household
from tests.flows.household import Household, Space, manifest, python, shell
from tests.runtime import podmans, registry, storages
from tests.runtime.registry import Registry

pytestmark = [*household.needs, *podmans.needs_podman]
TELL = "read -r it </version; echo version $it"
STAND_STILL = f"{TELL}; kill -STOP $$$$"  # as Kubernetes has it, that is one dollar less of each two


@pytest.fixture(scope="module")
def pictures() -> Iterator[Household]:
    """A household whose podman has a storage of its own."""
    with household.folder() as folder:
        folder.chmod(0o755)
        with storages.storage(folder) as env, household.household(**env) as made:
            yield made


@pytest.fixture
def space(pictures: Household) -> Iterator[Space]:
    with household.space(pictures, "podman") as made:
        yield made


@pytest.fixture
def served() -> Iterator[Registry]:
    with registry.registry() as made:
        yield made


def push(served: Registry, version: int, name: str = "me/a", tag: str = "1", **config: Any) -> str:
    return served.push(name, tag, {**storages.shell(), "version": f"{version}\n".encode()}, **config)


def test_an_agent_is_made_of_its_image_and_says_of_which(space: Space, served: Registry) -> None:
    digest = push(served, 7, Env=["GREETING=hi"], WorkingDir="/srv", Labels={})
    name = f"{served.host}/me/a:1"
    space.apply(
        shell("a", f"{TELL}; echo $GREETING from $PWD; command -v python3 || echo no python", image=name)
    )
    status = space.phase("a", "Succeeded", "Failed")
    assert space.log("a") == ["version 7", "hi from /srv", "no python"], status
    assert (status["image"]["reference"], status["image"]["digest"]) == (name, digest)
    assert status["image"]["id"].startswith("sha256:")
    assert "Pulled" in space.events("a")
    assert digest in space.agentk("describe", "agent", "a").out
    assert name in space.agentk("get", "agents", "-o", "wide").out


def test_the_runtimes_own_image_lets_one_manifest_move(space: Space, served: Registry) -> None:
    push(served, 8)
    own = manifest("Runtime", "pictured", spec={"type": "podman", "image": f"{served.host}/me/a:1"})
    space.apply(own)
    script = "[ -e /version ] && echo an image || echo the host"
    for name, runtime in (("a", "pictured"), ("b", "nsjail"), ("c", "podman")):
        space.apply(shell(name, script, runtimeRef={"name": runtime}))
        space.phase(name, "Succeeded")
    assert [space.log(name) for name in "abc"] == [["an image"], ["the host"], ["the host"]]
    assert "image" not in space.status("c")


def test_a_pool_keeps_boxes_of_an_image_that_has_a_python(space: Space, served: Registry) -> None:
    name = f"{served.host}/me/python:1"
    served.push("me/python", "1", {**storages.python(), "version": b"7"}, Env=["PYTHONHASHSEED=0"])
    push(served, 1)
    pools = {"snake": name, "none": f"{served.host}/me/a:1"}
    space.apply(
        *(manifest("Pool", at, spec={"size": 1, "template": {"image": of}}) for at, of in pools.items())
    )
    space.agentk("wait", "pool/snake", "--for=condition=Ready", "--timeout=100s")
    secret = manifest("Secret", "s", stringData={"word": "hidden"})
    volumes = {
        "volumes": [{"name": "s", "secret": {"secretName": "s"}}],
        "volumeMounts": [{"name": "s", "mountPath": "/mnt/deep/s"}],
    }
    code = (
        "import os, socket, sys; print(open('/version').read(), open('/mnt/deep/s/word').read(), os.getcwd(),"
        " socket.gethostname() in open('/etc/hosts').read(), open('/etc/hostname').read().strip(),"
        " os.environ['PYTHONHASHSEED'], sys.flags.hash_randomization, os.listdir('/run/agentk') != [])"
    )
    space.apply(secret, python("warm", code, poolRef={"name": "snake"}, **volumes))
    space.apply(python("cold", code, image=name, **volumes))
    assert space.phase("warm", "Succeeded", "Failed")["start"]["type"] == "Warm", space.status("warm")
    space.phase("cold", "Succeeded", "Failed")
    assert space.log("warm") == ["7 hidden /workspace True warm 0 0 True"]
    assert space.log("cold") == ["7 hidden /workspace True cold 0 0 True"]
    space.agentk("wait", "pool/none", "--for=condition=Stalled", "--timeout=100s")
    assert (
        "its image has no python3, and only a Python can wait" in space.agentk("describe", "pool", "none").out
    )


def test_a_runtime_that_shows_the_host_says_so_instead_of_ignoring_an_image(space: Space) -> None:
    space.apply(shell("a", "echo x", image="python:3", runtimeRef={"name": "nsjail"}))
    status = space.phase("a", "Pending")
    assert status["reason"] == "ConfigError"
    assert "shows the host's own files" in status["message"]
    space.apply(shell("a", "echo x", runtimeRef={"name": "nsjail"}))
    space.phase("a", "Succeeded")


def test_a_wrong_password_is_told_and_the_right_one_tried_at_once(space: Space, served: Registry) -> None:
    push(served, 1)
    served.login = "me:right"
    name = f"{served.host}/me/a:1"
    ref = {"registry": served.host, "username": "me", "secretKeyRef": {"name": "login", "key": "password"}}
    space.apply(manifest("Secret", "login", stringData={"password": "wrong"}))
    space.apply(shell("a", TELL, image=name, imagePullSecrets=[ref]))
    status = space.until("a", lambda status: status.get("reason") == "ErrImagePull")["status"]
    assert "authentication required" in status["message"]
    space.event("a", "ErrImagePull")
    space.apply(manifest("Secret", "login", stringData={"password": "right"}))
    space.phase("a", "Succeeded")


def test_a_docker_configuration_serves_as_a_login(space: Space, served: Registry) -> None:
    push(served, 1)
    served.login = "me:right"
    held = json.dumps({"auths": {served.host: {"username": "me", "password": "right"}}})
    kind = {"type": "kubernetes.io/dockerconfigjson"}
    space.apply(manifest("Secret", "registry", stringData={".dockerconfigjson": held}, **kind))
    space.apply(shell("a", TELL, image=f"{served.host}/me/a:1", imagePullSecrets=[{"name": "registry"}]))
    space.phase("a", "Succeeded")


def test_what_is_not_to_be_had_is_told_by_kubernetes_names(space: Space, served: Registry) -> None:
    push(served, 1)
    space.apply(shell("a", TELL, image=f"{served.host}/me/a:missing"))
    status = space.until("a", lambda status: status.get("reason") == "ErrImagePull")["status"]
    assert "manifest unknown" in status["message"]
    space.apply(shell("b", TELL, image=f"{served.host}/me/a:1", imagePullPolicy="Never"))
    space.until("b", lambda status: status.get("reason") == "ErrImageNeverPull")
    space.apply(shell("c", TELL, image="localhost/not/made"))
    status = space.until("c", lambda status: status.get("reason") == "ErrImageNeverPull")["status"]
    assert "agentk image build" in status["message"]
    space.apply(shell("a", TELL, image=f"{served.host}/me/a:1"))  # another name is tried at once
    space.phase("a", "Succeeded")
    space.apply(shell("b", TELL, image=f"{served.host}/me/a:1", imagePullPolicy="IfNotPresent"))
    space.phase("b", "Succeeded")


def test_a_tag_that_moved_is_followed_at_the_next_start_and_a_digest_stays(
    space: Space, served: Registry
) -> None:
    old = push(served, 1)
    name = f"{served.host}/me/a"
    keep = {"terminationGracePeriodSeconds": 0}
    space.apply(
        shell("always", STAND_STILL, image=f"{name}:1", imagePullPolicy="Always", **keep),
        shell("present", STAND_STILL, image=f"{name}:1", **keep),
        shell("pinned", STAND_STILL, image=f"{name}@{old}", imagePullPolicy="Always", **keep),
    )
    for agent in ("always", "present", "pinned"):
        space.running(agent)
    new = push(served, 2)
    for agent, digest in (("present", old), ("always", new), ("pinned", old)):
        space.agentk("restart", agent)
        status = space.running(agent, attempt=2)
        assert status["image"]["digest"] == digest
    assert space.log("always") == ["version 1", "version 2"]
    assert space.log("present") == space.log("pinned") == ["version 1", "version 1"]


def test_a_registry_that_takes_long_keeps_nobody_else_waiting_and_no_death_stops_it(
    space: Space, served: Registry
) -> None:
    push(served, 1, name="me/slow")
    push(served, 2)
    space.apply(shell("quick", TELL, image=f"{served.host}/me/a:1"))
    space.phase("quick", "Succeeded")
    served.go_on.clear()
    space.apply(shell("slow", TELL, image=f"{served.host}/me/slow:1"))
    status = space.until("slow", lambda status: status.get("reason") == "Pulling")["status"]
    assert f"pulling {served.host}/me/slow:1" in status["message"]
    space.apply(shell("other", TELL, image=f"{served.host}/me/a:1"))
    space.phase("other", "Succeeded")
    space.home.kill("daemon", "launcher")
    space.home.answers()
    served.go_on.set()
    space.phase("slow", "Succeeded")
    assert space.events("slow").count("Pulled") == 1


def test_an_image_in_use_is_not_removed_by_the_command(space: Space, served: Registry) -> None:
    push(served, 1)
    name = f"{served.host}/me/a:1"
    space.apply(shell("a", STAND_STILL, image=name, terminationGracePeriodSeconds=0))
    space.running("a")
    (told,) = [one for one in space.agentk("image", "list", "-o", "json").json if name in one["names"]]
    assert told["agents"] == [f"{space.name}/a"]
    ran = space.agentk("image", "rm", name, code=1)
    assert f"{name} is in use by agent {space.name}/a" in ran.err
    space.delete("a")
    household.until("it can be removed", lambda: space.agentk("image", "rm", name, code=None).code == 0)


def quick_folder() -> dict[str, str]:
    """Memory, where a system can be made in it: dpkg waits for a disk at each step."""
    with contextlib.suppress(OSError):
        seen = os.statvfs("/dev/shm")
        if not seen.f_flag & (os.ST_NODEV | os.ST_NOEXEC) and seen.f_bavail * seen.f_frsize > 1 << 30:
            return {"TMPDIR": "/dev/shm"}
    return {}


@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="no mmdebstrap")
def test_without_a_registry_our_image_is_made_of_debian_packages_and_holds_our_agents(
    space: Space, tmp_path: Path
) -> None:
    """A minute: only this shows that what people get offline is what the Containerfile says, and enough."""
    blocked = tmp_path / "registries.conf"
    blocked.write_text('[[registry]]\nprefix="docker.io"\nlocation="docker.io"\nblocked=true\n')
    told = {"CONTAINERS_REGISTRIES_CONF": str(blocked), **quick_folder()}
    built = space.agentk("image", "build", "python", code=None, **told)
    if built.code and "mmdebstrap failed" in built.err:
        pytest.skip(f"no Debian packages here: {built.err.splitlines()[-1]}")
    assert (built.code, built.lines) == (0, ["localhost/agentk/python:latest"])
    assert "made from packages of Debian bookworm instead" in built.err
    (listed,) = [
        one for one in space.agentk("image", "list", "-o", "json").json if built.lines[0] in one["names"]
    ]
    assert listed["labels"]["dev.agentk.image"] == "python"
    program = """
from agentk.sdk import client
import os, pathlib, pwd, ssl, sys
client.connect().noop()
authorities = ssl.create_default_context().cert_store_stats()["x509_ca"]
print(os.getuid(), pwd.getpwuid(1000).pw_name, sys.prefix, authorities > 9)
gains = [path for path in pathlib.Path("/usr").rglob("*") if path.is_file() and path.stat().st_mode & 0o6000]
print(gains)
"""
    space.apply(household.python("a", program, image="localhost/agentk/python"))
    status = space.phase("a", "Succeeded", "Failed")
    assert space.log("a") == ["1000 agent /usr True", "[]"], status
