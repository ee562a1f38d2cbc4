"""`agentk image`: against a podman with a storage of its own, and no daemon."""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
MINE = "localhost/agentk-test/mine:latest"


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """podman, for which there is no registry and no image yet."""
    if shutil.which("podman") is None:
        pytest.skip("there is no podman")
    storage, registries = tmp_path / "storage.conf", tmp_path / "registries.conf"
    storage.write_text(
        f'[storage]\ndriver="overlay"\ngraphroot="{tmp_path}/graph"\nrunroot="{tmp_path}/run-root"\n'
    )
    registries.write_text('[[registry]]\nprefix="docker.io"\nlocation="docker.io"\nblocked=true\n')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(registries))

    def run(*words: str) -> str:
        done = subprocess.run(["podman", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    probe = subprocess.run(["podman", "images"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"podman does not work here: {probe.stderr.strip()[-200:]}")
    yield run
    # overlay's own bind of its directory would keep the test's folder busy
    subprocess.run(["podman", "system", "reset", "--force"], capture_output=True, check=False)
    subprocess.run(["umount", "-l", f"{tmp_path}/graph/overlay"], capture_output=True, check=False)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "hello").write_text("hello\n")
    (folder / "Containerfile").write_text("FROM scratch\nCOPY hello /hello\n")
    return folder


def test_an_image_is_built_listed_and_removed(agentk: Run, podman: Callable[..., str], context: Path) -> None:
    built = agentk("image", "build", "--tag", "localhost/agentk-test/mine", str(context))
    assert (built.code, built.lines) == (0, [MINE])
    assert "STEP" in built.err
    (told,) = json.loads(agentk("image", "list", "-o", "json").out)
    assert told["names"] == [MINE]
    assert told["id"].removeprefix("sha256:") in podman("images", "--no-trunc", "--quiet")
    assert agentk("image", "list").lines[1].split()[0] == MINE
    assert agentk("image", "rm", "localhost/agentk-test/mine").lines == [f"{MINE} removed"]
    assert json.loads(agentk("image", "list", "-o", "json").out) == []


def test_an_image_is_removed_by_its_id(agentk: Run, podman: Callable[..., str], context: Path) -> None:
    agentk("image", "build", "-f", f"{context}/Containerfile", "-t", MINE, str(context))
    short = agentk("image", "list").lines[1].split()[1]
    assert agentk("image", "rm", short).code == 0
    assert podman("images", "--quiet") == ""


def test_a_build_that_fails_says_what_podman_said(
    agentk: Run, podman: Callable[..., str], context: Path
) -> None:
    (context / "Containerfile").write_text("FROM scratch\nCOPY missing /missing\n")
    ran = agentk("image", "build", "--tag", MINE, str(context))
    assert ran.code == 1
    assert "podman build failed" in ran.err
    assert "missing" in ran.err


def test_an_image_that_is_not_there(agentk: Run, podman: Callable[..., str]) -> None:
    ran = agentk("image", "rm", "nothing:1")
    assert ran.code == 1
    assert "there is no image docker.io/library/nothing:1" in ran.err


def test_an_image_that_a_container_holds_stays(
    agentk: Run, podman: Callable[..., str], context: Path
) -> None:
    agentk("image", "build", "--tag", MINE, str(context))
    podman("create", "--name", "holds", MINE, "/hello")
    ran = agentk("image", "rm", MINE)
    assert ran.code == 1
    assert "in use" in ran.err


def test_a_build_needs_a_name_of_its_own(agentk: Run, podman: Callable[..., str], context: Path) -> None:
    ran = agentk("image", "build", str(context))
    assert ran.code == 2
    assert "--tag" in ran.err


def test_without_podman_it_says_how_to_get_it(agentk: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    ran = agentk("image", "list")
    assert ran.code == 1
    assert "there is no podman" in ran.err
    assert "apt-get install" in ran.err


@pytest.mark.root
def test_a_daemon_of_somebody_else_has_other_images(agentk: Run, places: Path) -> None:
    if os.geteuid():
        pytest.skip("only root makes directories of others")
    (places / "run").mkdir()
    os.chown(places / "run", 12345, 12345)
    ran = agentk("image", "list")
    assert ran.code == 1
    assert "belongs to uid 12345" in ran.err


@pytest.mark.timeout(600)
def test_without_a_registry_the_same_is_made_of_debian_packages(
    agentk: Run, podman: Callable[..., str], tmp_path: Path
) -> None:
    """Takes half a minute: only this shows that what people get offline is what the Containerfile says."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("there is no mmdebstrap")
    ran = agentk("image", "build", "python")
    if ran.code and "mmdebstrap failed" in ran.err:
        pytest.skip(f"no Debian packages here: {ran.err.splitlines()[-1]}")
    assert (ran.code, ran.lines) == (0, ["localhost/agentk/python:latest"])
    assert "blocked" in ran.err
    assert "made from packages of Debian bookworm instead" in ran.err
    config = json.loads(podman("image", "inspect", ran.lines[0]))[0]["Config"]
    assert (config["User"], config["WorkingDir"]) == ("1000:1000", "/workspace")
    assert config["Labels"]["dev.agentk.image"] == "python"
    podman("save", "--format", "oci-dir", "--output", f"{tmp_path}/saved", ran.lines[0])
    layers = [path for path in (tmp_path / "saved").rglob("*") if path.stat().st_size > 1 << 20]
    with tarfile.open(layers[0]) as tree:
        members = tree.getmembers()
    assert [one.name for one in members if one.isfile() and one.mode & 0o6000] == []
    assert {"usr/bin/python3", "usr/bin/python", "etc/ssl/certs/ca-certificates.crt"} <= {
        one.name.removeprefix("./") for one in members
    }
