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
