"""kill -9 while a Pool fills and hands out: every agent runs exactly once, the Pool is full again, nothing is left."""

from collections.abc import Iterator

import pytest

from agentk.control import crash as steward
from agentk.runtime.launcher import crash as launcher
from tests.flows import household
from tests.flows.household import Household, Space
from tests.flows.test_deaths import check, count, revive
from tests.flows.test_pools import boxes, filled, gone, pool

pytestmark = household.needs
CASES = [("daemon", point) for point in steward.POINTS if point.split(".")[0] in ("wait", "claim")]
CASES += [("launcher", point) for point in launcher.POINTS if point.startswith("claim.")]

VICTIMS = [("daemon",), ("launcher",), ("daemon", "launcher"), ("keeper", "daemon", "launcher")]


@pytest.fixture(scope="module")
def fragile() -> Iterator[Household]:
    with household.household() as home:
        yield home


@pytest.fixture
def broken(fragile: Household, request: pytest.FixtureRequest) -> Iterator[Space]:
    fragile.kill("keeper")  # its successor knows of no earlier deaths, and waits less after the next one
    revive(fragile)
    with household.space(fragile, getattr(request, "param", "nsjail")) as made:
        yield made


@pytest.mark.parametrize(("who", "point"), CASES, ids=["-".join(case) for case in CASES])
def test_a_death_at_any_point_of_a_hand_out_changes_nothing(broken: Space, who: str, point: str) -> None:
    home, armed = broken.home, broken.home.crashes / point
    if point.startswith("wait."):
        armed.touch()
    broken.create(pool())
    filled(broken, ready=2)
    if not point.startswith("wait."):
        armed.touch()
    broken.create(count("a", poolRef={"name": "p"}))
    broken.running("a")
    household.until(f"{who} died at {point}", lambda: not armed.exists())
    broken.logged("a", "20")
    home.answers()
    household.until("two wait again", lambda: len(boxes(broken)) == 2)
    filled(broken, ready=2)
    waits = boxes(broken)
    broken.agentk("kill", "a", "--timeout", "100s")
    assert broken.phase("a", "Failed")["reason"] == "Killed"
    check(broken.log("a"))
    uid = broken.get("a")["metadata"]["uid"]
    gone(broken)
    broken.delete("a")
    home.clean(uid, *waits)


@pytest.mark.parametrize(
    ("broken", "victims"),
    [("nsjail", one) for one in VICTIMS] + [("podman", ("daemon", "launcher"))],
    ids=lambda one: one if isinstance(one, str) else "+".join(one),
    indirect=["broken"],
)
def test_a_pool_is_full_again_whoever_dies(broken: Space, victims: tuple[str, ...]) -> None:
    home = broken.home
    broken.create(pool())
    filled(broken, ready=2)
    broken.create(count("stays", poolRef={"name": "p"}))
    before = broken.running("stays")
    assert before["start"]["type"] == "Warm"
    filled(broken, ready=2, claimed=1)
    waits = boxes(broken)
    home.kill(*victims)
    revive(home)
    if "launcher" in victims:  # boxes that wait do not outlive it
        household.until("others wait", lambda: len(boxes(broken)) == 2 and not boxes(broken) & waits)
        home.clean(*waits)
    filled(broken, ready=2, claimed=1)
    if victims == ("daemon",):
        assert boxes(broken) == waits
    after = broken.running("stays")
    assert (after["boxID"], after["startedAt"]) == (before["boxID"], before["startedAt"])
    broken.create(count("next", lines=20, poolRef={"name": "p"}))
    status = broken.phase("next", "Failed")
    assert (status["start"]["type"], status["exitCode"]) == ("Warm", 7)
    check(broken.log("next"), end=True)
