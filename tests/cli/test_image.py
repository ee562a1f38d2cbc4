"""`agentk image`: against a podman with a storage of its own, and no daemon."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime import storages

Run = Callable[..., Any]
MINE = "localhost/agentk-test/mine:latest"


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """podman, for which there is no registry and no image yet."""
    if shutil.which("podman") is None:
        pytest.skip("there is no podman")
    registries = tmp_path / "registries.conf"
    registries.write_text('[[registry]]\nprefix="docker.io"\nlocation="docker.io"\nblocked=true\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(registries))

    def run(*words: str) -> str:
        done = subprocess.run(["podman", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with storages.storage(tmp_path) as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        probe = subprocess.run(["podman", "images"], capture_output=True, text=True, check=False)
        if probe.returncode:
            pytest.skip(f"podman does not work here: {probe.stderr.strip()[-200:]}")
        yield run


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
    ran = agentk("image", "build", "python", "--tag", "My Image")
    assert (ran.code, "not the name of an image" in ran.err) == (1, True)
    assert "pulling" not in ran.err


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
