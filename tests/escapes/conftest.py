"""One launcher for each runtime and session; after each test, the proof that its agents left nothing on the host."""

import os
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
    """An emulated machine is ten times slower: there, other boxes than plain jails are tried with one policy.

    A second one is another filter, not another machine, and the host tries it with all of them.
    """
    if "AGENTK_VM" in os.environ:
        twice = [item for item in items if "/escapes/" in str(item.path) and _is_told_elsewhere(item.name)]
        items[:] = [item for item in items if item not in twice]
        config.hook.pytest_deselected(items=twice)


def _is_told_elsewhere(name: str) -> bool:
    return "restricted" in name and ("[restricted-nsjail" not in name or "claimed" in name)
