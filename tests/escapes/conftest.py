"""One launcher for each runtime and session; after each test, the proof that its agents left nothing on the host."""

from collections.abc import Callable, Iterator

import pytest

from tests.escapes import prison as prisons

# Those that promise isolation; `process` does not. Claimed: every box waited first, and every command beside one did.
RUNTIMES = ["nsjail", "nsjail-claimed", "podman"]


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
    return "claimed" in name and ("typed" in name or (limits and "hand" in name))
