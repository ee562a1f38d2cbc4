"""A household for all stories that leave it as it was, a namespace for each, and one of its own for the others."""

import os
from collections.abc import Iterator

import pytest

from tests.flows import household
from tests.flows.household import Household, Space

# An emulated machine is ten times slower: what may differ with its cgroups, its systemd and an ordinary user.
_IN_VM = (
    "test_from_apply_to_delete",
    "test_suspend_and_resume_stop_and_go_on",
    "test_kill_takes_the_whole_tree_after_the_grace",
    "test_file_survives_a_restart_and_scratch_does_not",
    "test_the_example_moves_by_its_runtime_alone",
    "test_people_are_told_the_same_of_both",
    "test_many_agents_at_once",
    "test_nothing_is_left_when_the_command_is_killed[9",
    "test_a_death_at_any_named_point_changes_nothing",
    "test_what_ended_meanwhile_is_told_and_what_runs_goes_on[daemon+launcher",
    "test_what_ended_meanwhile_is_told_and_what_runs_goes_on[keeper-",
    "test_random_deaths[0",
    "test_daemon_has_no_right_of_root",
    "test_daemon_cannot_read_what_is_the_launchers",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if household.IN_VM:
        left = [item for item in items if "/flows/" in str(item.path) and not _is_for_vm(item)]
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=left)


def _is_for_vm(item: pytest.Item) -> bool:
    for_root = item.get_closest_marker("root") is not None
    return item.name.startswith(_IN_VM) and (os.geteuid() == 0 or not for_root)


@pytest.fixture(scope="session")
def home() -> Iterator[Household]:
    """Shared: whoever uses it kills none of its processes."""
    with household.household() as made:
        yield made


@pytest.fixture
def runtime() -> str:
    """What holds a story's agents; `household.on_both` overrides it."""
    return "nsjail"


@pytest.fixture
def space(home: Household, runtime: str) -> Iterator[Space]:
    """A namespace of this test's own."""
    with household.space(home, runtime) as made:
        yield made


@pytest.fixture
def alone(runtime: str) -> Iterator[Space]:
    """The same in a household of this test's own, for stories that break it."""
    with household.household() as home, household.space(home, runtime) as made:
        yield made
