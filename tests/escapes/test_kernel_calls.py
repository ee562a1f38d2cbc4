"""What the kernel answers to calls that lead out of a jail, made by number."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.escapes import prison as prisons
from tests.escapes import ways

pytestmark = pytest.mark.jail

REFUSED = {"EPERM", "ENOSYS"}


@pytest.fixture(scope="session", params=ways.WAYS)
def calls(request: pytest.FixtureRequest, built: prisons.Prison) -> Iterator[Any]:
    """What calling.py was answered. One box for all that is asked here, and one command beside a box."""
    if built.unhappy:
        pytest.skip(built.unhappy)
    how, level = request.param
    ended = built.how(how)("calling", seccomp=level)
    built.release_all()
    yield ended.report


@pytest.mark.parametrize("group", ["plain", "unshare", "clone", "clone3", "setns", "mounts", "ptrace", "x86"])
def test_calls_are_refused(calls: Any, group: str) -> None:
    """Mounts, namespaces, other processes, kernel subsystems, the machine itself."""
    assert {name: said for name, said in calls[group].items() if said not in REFUSED} == {}


def test_nothing_is_typed_into_a_terminal(calls: Any) -> None:
    """Also not by a request number whose high half the kernel ignores. Other ioctls go through."""
    harmless = calls["terminal"].pop("FIONREAD") if "FIONREAD" in calls["terminal"] else "allowed"
    assert harmless.startswith("allowed")
    assert set(calls["terminal"].values()) == {"EPERM"}


def test_no_foreign_call_slips_past_the_filter(calls: Any) -> None:
    """32-bit calls and x32 have other numbers: both are closed altogether."""
    for name, said in calls["foreign"].items():
        assert said in ({"SIGSYS"} if name.startswith("i386") else {"ENOSYS", "EPERM", "SIGSYS"}), name


def test_no_privilege_can_be_raised(calls: Any) -> None:
    """no_new_privs stays, ambient and bounding sets stay empty, execution domains stay Linux's own."""
    told = calls["privileges"]
    assert (told["unset no_new_privs"], told["no_new_privs"]) == ("EINVAL", 1)
    assert {told["raise ambient"], told["keep caps"]} <= {"EPERM"}
    assert set(told["bounding"]) == {0}
    assert calls["personality"] == "EPERM"


@ways.by("", *ways.INTO)
def test_without_seccomp_a_namespace_of_its_own_gains_nothing(prison: prisons.Prison, how: str) -> None:
    """The level `privileged` lets it be root of a new user namespace: masks, mounts and the machine still hold."""
    report = prison.how(how)("nesting", seccomp="privileged").report
    assert set(report["maps"].values()) == {"EROFS"}  # nobody in there is anybody outside
    found = report["found"]
    assert int(found.pop("capabilities"), 16) and found.pop("tmpfs of its own").startswith("allowed")
    refused = {
        "EPERM",
        "EACCES",
        "EROFS",
        "EINVAL",
        "ENOENT",
        "ENOSYS",
        "EBADF",
        "EOVERFLOW",
        "ENODEV",
        "EBUSY",
    }
    assert {name: said for name, said in found.items() if said not in refused} == {}
    assert (found["usr rw"], found["proc anew"], found["usr"]) == ("EPERM", "EPERM", "EROFS")
