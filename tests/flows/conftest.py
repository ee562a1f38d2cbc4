"""A household for all stories that leave it as it was, a namespace for each, and one of its own for the others."""

from collections.abc import Iterator

import pytest

from tests.flows import household
from tests.flows.household import Household, Space


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
