"""A story that kills a process must kill that one, or it tells of another death than it says."""

import pytest

from tests.flows import host, household
from tests.flows.household import Space, shell

pytestmark = household.needs


@pytest.mark.parametrize("listens", [True, False])
def test_the_launcher_is_none_of_what_it_forked(
    space: Space, listens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of processes begin again when they are used up: then what it forked comes before itself."""
    home = space.home

    def named() -> list[int]:
        argv = ("agentk.runtime.launcher", str(home.places.state))
        return [pid for pid, told in host.processes() if all(word in told for word in argv)]

    space.create(shell("a", "exec sleep 1000"))
    space.running("a")
    household.until("a child waits for the next box", lambda: len(named()) > 1)
    monkeypatch.setattr(household, "processes", lambda: iter(sorted(host.processes(), reverse=True)))
    if not listens:
        monkeypatch.setattr(household.asking, "peer", lambda _: None)
    assert home.pid("launcher") == int((home.places.run / "launcher.pid").read_text())
