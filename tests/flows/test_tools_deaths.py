"""kill -9 at every step of a tool's call: what may not be repeated never is, and what may be is done after all."""

from collections.abc import Iterator

import pytest

from agentk.broker import crash
from tests.flows import household
from tests.flows.household import Household, Space, python
from tests.flows.test_tools import command

pytestmark = household.needs

# Two calls; what each answers is how often the tool has done its work by then.
TWICE = """
from agentk.sdk import client, errors
agent = client.connect()
for _ in range(2):
    try:
        print(str(agent.tool_call("work")).split("It begins:\\n")[1].split("\\n")[0], flush=True)
    except errors.OutcomeUnknown:
        print("OutcomeUnknown", flush=True)
"""
WORK = "echo x >>done; wc -l <done; seq 200"
# By then it has not worked, or has.
BEFORE = ("call.intended", "tool.counted", "tool.making", "tool.made")
AFTER = ("tool.ran", "tool.kept", "call.handled")


@pytest.fixture(scope="module")
def fragile() -> Iterator[Household]:
    with household.household() as home:
        yield home


@pytest.fixture
def broken(fragile: Household) -> Iterator[Space]:
    with household.space(fragile) as made:
        yield made


def test_every_step_is_tried() -> None:
    assert {*BEFORE, *AFTER} == {*crash.TOOLING, "call.intended", "call.handled"}


@pytest.mark.parametrize(
    ("point", "idempotent"),
    [*((point, False) for point in (*BEFORE, *AFTER)), ("tool.made", True), ("call.handled", True)],
)
def test_the_daemon_dies_in_a_call_of_a_tool(broken: Space, point: str, idempotent: bool) -> None:
    limits = {"resources": {"limits": dict(household.TINY)}}
    broken.apply(command("work", "sh", "-c", WORK, idempotent=idempotent, resultBytes=800, jail=limits))
    (broken.home.crashes / point).touch()
    broken.apply(python("a", TWICE, tools=[{"ref": {"name": "work"}, "maxCalls": 3}]))
    assert broken.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(broken.log("a"))
    done = 0 if point in BEFORE else 1
    expected = [str(done + 1), str(done + 2)] if idempotent else ["OutcomeUnknown", str(done + 1)]
    assert broken.log("a") == expected
    assert not (broken.home.crashes / point).exists(), "nobody came by"
