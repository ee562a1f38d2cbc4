"""The tools that come with agentk do what their examples say, and an agent of any namespace may be granted them."""

from concurrent.futures import ThreadPoolExecutor

from agentk.api import kinds, manifest
from agentk.data import files
from tests.flows import household
from tests.flows.household import Space
from tests.flows.test_tools import call, granted

pytestmark = household.needs

SHIPPED = [
    one.obj for one in manifest.parse((files.folder("manifests") / "50-tools.yaml").read_bytes(), "50")
]


def test_every_example_is_so(home: household.Household) -> None:
    assert all(
        home.api.get(kinds.TOOL, "default", one["metadata"]["name"])["spec"]["everywhere"] for one in SHIPPED
    )
    names = [one["metadata"]["name"] for one in SHIPPED if one["spec"].get("examples")]
    told = home.agentk("tool", "test", *names, AGENTK_NAMESPACE="default").lines
    examples = sum(len(one["spec"].get("examples") or ()) for one in SHIPPED)
    assert len([line for line in told if ": examples[" in line and line.endswith(": ok")]) == examples


def test_an_agent_of_another_namespace_has_them_in_its_own_workspace(space: Space) -> None:
    told = call(
        space,
        granted("files", "shell", "calculator", "fetch"),
        ("tool.list", {"search": "write a file"}),
        ("files__write", {"path": "notes/a.txt", "text": "hi"}),
        ("shell", {"command": "cat notes/a.txt; pwd; ln -s /etc out"}),
        ("files__read", {"path": "out/passwd"}),
        ("calculator", {"expression": "6*7"}),
        ("fetch", {"url": "https://example.com/"}),
    )
    assert told[0][0][0] == "files__write" and told[1][0] is False
    assert told[2][1] == "hi/workspace\n"
    assert told[3][0] is True and "not in the workspace" in told[3][1]
    assert told[4][2] == 42
    assert told[5][0] == "PolicyDenied"  # it reaches nobody, and so does its tool


def test_a_person_is_asked_by_a_tool(space: Space) -> None:
    asking = ("ask-human", {"question": "Which one?", "choices": ["a", "b"]})
    with ThreadPoolExecutor(1) as apart:
        told = apart.submit(call, space, granted("ask-human"), asking)
        name = household.until(
            "it is asked", lambda: space.agentk("get", "approvals", "-o", "name").out.strip()
        )
        space.agentk("answer", name.partition("/")[2], "--text", "b")
        assert told.result()[0][1] == "b"
