"""One launcher for each runtime and session; after each test, the proof that its agents left nothing on the host."""

from collections.abc import Callable, Iterator

import pytest

from tests.escapes import prison as prisons

# Those that promise isolation; `process` does not. Claimed: every box waited first, and every command beside one did.
RUNTIMES = ["nsjail", "nsjail-claimed", "podman", "podman-claimed"]
# Of a Podman box that waited, what is put into it at the claim and what holds it then: the rest is as it was made.
_CLAIMED_PODMAN = (
    "test_calls_are_refused",
    "test_no_privilege_can_be_raised",
    "test_memory_kills_the_box_and_is_counted",
    "test_the_workspace_is_full_at_its_size",
    "test_a_fork_bomb_is_denied_and_ends_with_one_kill",
    "test_a_box_is_nobody_on_the_host",
    "test_what_one_leaves_the_next_does_not_find",
    "test_a_box_outlives_its_launcher_and_is_ended_by_the_next",
)
_CLAIMED_PODMAN_FILES = ("test_sight.py", "test_others.py")


@pytest.fixture(scope="session", params=RUNTIMES)
def built(request: pytest.FixtureRequest) -> Iterator[prisons.Prison]:
    made = prisons.Prison(request.param)
    yield made
    made.close()


@pytest.fixture
def prison(built: prisons.Prison) -> Iterator[prisons.Prison]:
    if built.unhappy:
        pytest.skip(built.unhappy)
    yield built
    built.release_all()


@pytest.fixture
def need(prison: prisons.Prison) -> Callable[[str], None]:
    """Skips with the host's reason when it cannot limit what is named."""

    def check(controller: str) -> None:
        if controller in prison.missing:
            pytest.skip(prison.missing[controller])

    return check


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What would prove nothing new is not run."""
    twice = [item for item in items if "/escapes/" in str(item.path) and _is_told_elsewhere(item)]
    items[:] = [item for item in items if item not in twice]
    config.hook.pytest_deselected(items=twice)


def _is_told_elsewhere(item: pytest.Item) -> bool:
    """What is typed goes to a box that never waited, and limits are those of the agent's group, whoever came in how."""
    name, limits = item.name.partition("[")[2], item.path.name in ("test_limits.py", "test_leftovers.py")
    if "podman-claimed" in name and not _is_told_by_claimed_podman(item):
        return True
    return "claimed" in name and ("typed" in name or (limits and "hand" in name))


def _is_told_by_claimed_podman(item: pytest.Item) -> bool:
    if any(way in item.name.partition("[")[2] for way in ("restricted", "beside", "hand", "typed")):
        return False
    return item.name.startswith(_CLAIMED_PODMAN) or item.path.name in _CLAIMED_PODMAN_FILES
