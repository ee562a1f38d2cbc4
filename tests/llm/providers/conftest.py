"""One worker process for all providers, since importing LiteLLM takes seconds; never into the tests' own process."""

from collections.abc import Iterator

import pytest

from providers.upstream import Desk, Upstream, serving, working


@pytest.fixture(scope="session")
def desk() -> Iterator[Desk]:
    yield from working()


@pytest.fixture
def upstream(desk: Desk) -> Iterator[Upstream]:
    yield from serving(desk)
