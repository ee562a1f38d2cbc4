"""kill -9 at every step of a Skill's saving and running: no version is lost or doubled, and nothing runs twice."""

from collections.abc import Iterator

import pytest

from agentk.broker import crash
from tests.flows import household
from tests.flows.household import Household, python
from tests.flows.test_skills import ALL, names

pytestmark = household.needs

SAVING = """
from agentk.sdk import client, errors
agent = client.connect()
RUN = "def run():\\n    open('/workspace/ran', 'a').write('x')\\n    return "
for number in (1, 2, 3):
    saved = agent.skill_save("s", "Counts.", code=f"{RUN}{number}\\n")
    print(saved.version, flush=True)
try:
    print(agent.skill_run("s", "run").result, flush=True)
except errors.OutcomeUnknown:
    print("OutcomeUnknown", flush=True)
print(open("/workspace/ran").read(), flush=True)
"""


@pytest.fixture(scope="module")
def fragile() -> Iterator[Household]:
    with household.household() as home:
        yield home


@pytest.mark.parametrize("point", [*crash.SKILLS, "call.handled"])
def test_the_daemon_dies_in_a_call_about_a_skill(fragile: Household, point: str) -> None:
    with household.space(fragile) as broken:
        (broken.home.crashes / point).touch()
        broken.apply(python("a", SAVING, skills=ALL))
        assert broken.phase("a", "Succeeded", "Failed")["reason"] == "Completed", "\n".join(broken.log("a"))
        ran = "OutcomeUnknown" if point == "skill.ran" else "3"
        assert broken.log("a") == ["1", "2", "3", ran, "x"]
        assert names(broken) == {"s", "s.v1", "s.v2"}
        assert not (broken.home.crashes / point).exists(), "nobody came by"
