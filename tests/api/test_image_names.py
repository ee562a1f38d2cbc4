"""Names of images: one name means one thing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import errors, images

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.12", "docker.io/library/python:3.12"),
        ("me/agent", "docker.io/me/agent:latest"),
        ("index.docker.io/python", "docker.io/library/python:latest"),
        ("ghcr.io/me/agent:1.4", "ghcr.io/me/agent:1.4"),
        ("GHCR.io/me/agent", "ghcr.io/me/agent:latest"),
        ("localhost/mine", "localhost/mine:latest"),
        ("localhost:5000/mine", "localhost:5000/mine:latest"),
        ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        (f"python@{DIGEST}", f"docker.io/library/python@{DIGEST}"),
        (f"python:3.12@{DIGEST}", f"docker.io/library/python@{DIGEST}"),
    ],
)
def test_a_name_is_completed(text: str, asked: str) -> None:
    assert images.parse(text).asked == asked


def test_the_tag_beside_a_digest_is_kept_for_people() -> None:
    assert str(images.parse(f"python:3.12@{DIGEST}")) == f"docker.io/library/python:3.12@{DIGEST}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Python",
        "a//b",
        "/a",
        "a/",
        "a b",
        "-a",
        "python:",
        "python:a/b",
        "python@sha256:ab",
        "python@md5:" + "a" * 64,
        "a" * 64,
        "0" * 64,
        "x" * 300,
        "docker-archive:/etc/shadow",
        "oci-archive:/etc/shadow",
        "dir:/etc",
        "containers-storage:x@y",
        "docker://python",
        "ghcr.io/../x",
        "ghcr.io:port/x",
        "--help",
        "a\nb",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(errors.Invalid):
        images.parse(text)


@pytest.mark.parametrize(
    ("text", "asked", "policy"),
    [
        ("python", "", "Always"),
        ("python:latest", "", "Always"),
        ("python:3", "", "IfNotPresent"),
        (f"python@{DIGEST}", "", "IfNotPresent"),
        ("python:3", "Always", "Always"),
        ("python", "Never", "Never"),
        ("localhost/mine", "", "Never"),
        ("localhost/mine", "Always", "Never"),
        ("localhost:5000/mine", "", "Always"),
    ],
)
def test_when_to_look_at_the_registry(text: str, asked: str, policy: str) -> None:
    assert images.policy(images.parse(text), asked) == policy


@pytest.mark.parametrize("registry", ["127.0.0.1:5000", "127.8.0.1", "localhost:5000", "[::1]:80"])
def test_registries_of_this_machine(registry: str) -> None:
    assert images.parse(f"{registry}/a").is_loopback


@pytest.mark.parametrize("name", ["localhost/a", "a", "128.0.0.1/a", "127.0.0.1.example.com/a"])
def test_all_others_are_not(name: str) -> None:
    assert not images.parse(name).is_loopback


@given(st.text(max_size=300))
def test_a_completed_name_stays_as_it_is(text: str) -> None:
    try:
        found = images.parse(text)
    except errors.Invalid:
        return
    assert images.parse(str(found)) == found
    assert images.parse(found.asked).asked == found.asked
