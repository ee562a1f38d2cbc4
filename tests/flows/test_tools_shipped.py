"""The tools that come with agentk do what their examples say, and an agent of any namespace may be granted them."""

import json
from concurrent.futures import ThreadPoolExecutor

from agentk.api import kinds, manifest
from agentk.data import files
from tests.flows import household
from tests.flows.household import Space
from tests.flows.test_tools import call, granted

pytestmark = household.needs

SHIPPED = [
    one.obj
    for path in sorted(files.folder("manifests").glob("5*-tool*.yaml"))
    for one in manifest.parse(path.read_bytes(), path.name)
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


def test_who_may_write_files_may_not_have_them_run(space: Space) -> None:
    """Granted no program, a model must not get one by writing where the next Python looks for some."""
    run = "import os; os.system('touch /workspace/ran')\n"
    site = [f".local/lib/python3.{minor}/site-packages/x.pth" for minor in range(9, 16)]
    places = [*site, "usercustomize.py", "sitecustomize.py", "json.py", "fnmatch.py", "ast.py", "agentk.py"]
    told = call(
        space,
        granted("files", "calculator"),
        *(("files__write", {"path": path, "text": run}) for path in places),
        ("calculator", {"expression": "6*7"}),
        ("files__list", {}),
    )
    assert told[-2][2] == 42 and "json.py" in told[-1][1] and "ran" not in told[-1][1]


def test_a_person_is_asked_by_a_tool(space: Space) -> None:
    asking = ("ask-human", {"question": "Which one?", "choices": ["a", "b"]})
    with ThreadPoolExecutor(1) as apart:
        told = apart.submit(call, space, granted("ask-human"), asking)
        name = household.until(
            "it is asked", lambda: space.agentk("get", "approvals", "-o", "name").out.strip()
        )
        space.agentk("answer", name.partition("/")[2], "--text", "b")
        assert told.result()[0][1] == "b"


def test_memory_stays_over_a_restart_and_bears_what_is_thrown_at_it(space: Space) -> None:
    told = call(
        space,
        granted("memory", "shell"),
        ("memory__remember", {"text": "Ada's lamp burns whale oil.", "name": "ada", "tags": ["light"]}),
        ("memory__search", {"query": 'lamps" OR NEAR(* ^ -x) AND text: {'}),
        ("memory__search", {"query": '"*^('}),
        ("memory__remember", {"text": "x" * 70_000}),
        ("memory__remember", {"text": "fact\0, 山茶花の油", "name": "a'; DROP TABLE pages; --"}),
        ("memory__search", {"query": "茶花"}),
        ("shell", {"command": "cat /dev/zero >fill 2>/dev/null; true"}),
        ("memory__remember", {"text": "y" * 60_000}),
        ("memory__recall", {"name": "ada"}),
        ("shell", {"command": "rm fill; cp .memory.db kept; echo nonsense >.memory.db"}),
        ("memory__list", {}),
        ("shell", {"command": "mv kept .memory.db"}),
        ("memory__forget", {"name": "a'; DROP TABLE pages; --"}),
        ("memory__forget", {"name": "nobody"}),
        ("shell", {"command": "grep -c fact .memory.db; ls -A"}),
    )
    assert [one[0] for one in told] == [
        False, False, True, True, False, False, False, True, False, False, True, False, False, False, False,
    ]  # fmt: skip
    assert told[1][2][0]["text"] == told[8][2]["text"] == "Ada's lamp burns whale oil."
    assert "no word" in told[2][1] and "at most 65536" in told[3][1]
    assert told[5][2][0]["text"] == "fact, 山茶花の油"
    assert "no room: nothing was changed" in told[7][1] and "move it away" in told[10][1]
    assert (told[12][1], told[13][1]) == (
        "forgot a'; DROP TABLE pages; --",
        "nothing was remembered as 'nobody'",
    )
    assert told[14][1].split()[-2:] == ["0", ".memory.db"]
    space.agentk("restart", "a")
    household.until("it has run again", lambda: len(space.log("a")) > len(told))
    assert json.loads(space.log("a")[len(told)])[2] == {"name": "ada", "replaced": True, "kept": 1}
