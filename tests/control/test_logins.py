"""Who asks a registry for an image: taken from Secrets that people wrote."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import images
from agentk.control import logins, plans
from agentk.runtime import box


def both(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def config(**auths: Any) -> dict[str, bytes]:
    return {".dockerconfigjson": json.dumps({"auths": auths}).encode()}


def asked(image: str, *pull_secrets: Any, **secrets: dict[str, bytes]) -> box.Login | None:
    problems: list[plans.Problem] = []
    found = logins.entries({"imagePullSecrets": list(pull_secrets)}, secrets, problems)
    assert problems == []
    return logins.choose(found, images.parse(image))


def test_a_login_is_for_its_registry_alone() -> None:
    held = config(**{"ghcr.io": {"auth": both("me", "pa:ss")}})
    assert asked("ghcr.io/me/a", {"name": "s"}, s=held) == box.Login("me", "pa:ss")
    assert asked("quay.io/me/a", {"name": "s"}, s=held) is None


@pytest.mark.parametrize("place", ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"])
def test_the_hub_as_docker_writes_it(place: str) -> None:
    held = config(**{place: {"username": "me", "password": "x"}})
    assert asked("python:3", {"name": "s"}, s=held) == box.Login("me", "x")


def test_the_longest_path_counts_and_no_part_of_a_name() -> None:
    held = config(
        **{
            "ghcr.io": {"auth": both("all", "1")},
            "ghcr.io/me/team": {"auth": both("team", "2")},
            "ghcr.io/me": {"auth": both("mine", "3")},
        }
    )
    for image, user in (("me/team/a", "team"), ("me/team", "team"), ("me/teams", "mine"), ("you/a", "all")):
        found = asked(f"ghcr.io/{image}", {"name": "s"}, s=held)
        assert found is not None and found.username == user


def test_a_host_may_have_stars_but_they_stay_within_a_part() -> None:
    held = config(**{"*.example.com": {"auth": both("me", "x")}})
    assert asked("a.example.com/x", {"name": "s"}, s=held) is not None
    assert asked("a.b.example.com/x", {"name": "s"}, s=held) is None
    assert asked("example.com/x", {"name": "s"}, s=held) is None


def test_an_identity_token_serves_in_place_of_a_password() -> None:
    held = config(**{"ghcr.io": {"auth": both("me", ""), "identitytoken": "t"}})
    assert asked("ghcr.io/a", {"name": "s"}, s=held) == box.Login("", "", "t")


def test_a_key_of_a_secret_with_a_user() -> None:
    one = {"registry": "127.0.0.1:5000", "username": "me", "secretKeyRef": {"name": "s", "key": "token"}}
    assert asked("127.0.0.1:5000/a", one, s={"token": b"x\n"}) == box.Login("me", "x")
    assert asked("127.0.0.1:5001/a", one, s={"token": b"x"}) is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "does not exist"),
        ({}, 'has no key ".dockerconfigjson"'),
        ({".dockerconfigjson": b"{"}, "does not hold a docker configuration"),
        ({".dockerconfigjson": b"[]"}, "does not hold a docker configuration"),
        ({".dockerconfigjson": b'{"auths": {"a": 1}}'}, "does not hold a docker configuration"),
        ({".dockerconfigjson": b'{"auths": {"a": {"auth": "!"}}}'}, "does not hold a docker configuration"),
        ({".dockerconfigjson": b"\xff"}, "is not text"),
        ({".dockerconfigjson": b"[" * 100_000}, "does not hold a docker configuration"),
    ],
)
def test_what_cannot_be_read_is_told_and_never_quoted(content: Any, told: str) -> None:
    problems: list[plans.Problem] = []
    secrets = {} if content is None else {"s": content}
    logins.entries({"imagePullSecrets": [{"name": "s"}]}, secrets, problems)
    assert [one.reason for one in problems] == ["ConfigError"]
    assert told in problems[0].message


@given(st.binary(max_size=200))
def test_nothing_that_a_secret_holds_breaks_it(content: bytes) -> None:
    logins.entries({"imagePullSecrets": [{"name": "s"}]}, {"s": {".dockerconfigjson": content}}, [])


def test_a_login_does_not_show_itself() -> None:
    assert "hidden" not in repr(box.Login("me", "hidden", "hidden"))
