"""`agentk get` against a real API: what is listed, how it is drawn, what is an error."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from agentk.api import kinds

Run = Callable[..., Any]


def make(daemon: Any, name: str, labels: dict[str, str] | None = None, **spec: Any) -> None:
    obj = {"metadata": {"name": name, "labels": labels or {}}, "spec": {"command": ["sleep", "1"]} | spec}
    daemon.api.create(kinds.AGENT, "default", obj)


def test_lists_with_the_kinds_columns(daemon: Any, agentk: Run) -> None:
    make(daemon, "web")
    daemon.status("web", phase="Running", ready=True, restartCount=2)
    ran = agentk("get", "agents")
    assert ran.code == 0
    assert ran.lines[0].split()[:4] == ["NAME", "PHASE", "READY", "RESTARTS"]
    assert ran.lines[1].split()[:4] == ["web", "Running", "true", "2"]


@pytest.mark.parametrize("word", ["agents", "agent", "ag", "Agent", "agents.agentk.dev"])
def test_a_kind_has_many_names(daemon: Any, agentk: Run, word: str) -> None:
    make(daemon, "web")
    assert agentk("get", word, "-o", "name").out == "agent.agentk.dev/web\n"


def test_nothing_there_is_said_on_stderr(daemon: Any, agentk: Run) -> None:
    ran = agentk("get", "agents")
    assert (ran.code, ran.out, ran.err) == (0, "", "No resources found in default namespace.\n")


def test_a_name_that_is_not_there_is_an_error_and_the_others_are_shown(daemon: Any, agentk: Run) -> None:
    make(daemon, "web")
    ran = agentk("get", "agent", "web", "nope")
    assert ran.code == 1
    assert "web" in ran.out
    assert 'agents.agentk.dev "nope" not found' in ran.err


def test_ignore_not_found(daemon: Any, agentk: Run) -> None:
    ran = agentk("get", "agent", "nope", "--ignore-not-found")
    assert (ran.code, ran.out) == (0, "")


def test_json_of_one_is_the_object_and_of_many_a_list(daemon: Any, agentk: Run) -> None:
    make(daemon, "a")
    make(daemon, "b")
    one = json.loads(agentk("get", "agent/a", "-o", "json").out)
    many = json.loads(agentk("get", "agents", "-ojson").out)
    assert (one["kind"], one["metadata"]["name"]) == ("Agent", "a")
    assert (many["kind"], [item["metadata"]["name"] for item in many["items"]]) == ("List", ["a", "b"])
    assert "managedFields" not in one["metadata"]


def test_yaml_reads_back(daemon: Any, agentk: Run) -> None:
    import yaml

    make(daemon, "a", env=[{"name": "TEXT", "value": "one\ntwo: three"}])
    out = agentk("get", "agent/a", "-o=yaml").out
    assert yaml.safe_load(out)["spec"]["env"] == [{"name": "TEXT", "value": "one\ntwo: three"}]
    assert out.startswith("apiVersion:")


def test_jsonpath_and_custom_columns(daemon: Any, agentk: Run) -> None:
    make(daemon, "a", priority=5)
    template = 'jsonpath={range .items[*]}{.metadata.name}:{.spec.priority}{"\\n"}{end}'
    assert agentk("get", "ag", "-o", template).out == "a:5\n"
    columns = "custom-columns=NAME:.metadata.name,WHAT:.spec.nothing"
    assert agentk("get", "ag", "-o", columns).lines == ["NAME   WHAT", "a      <none>"]


def test_several_kinds_are_told_apart(daemon: Any, agentk: Run) -> None:
    make(daemon, "a")
    daemon.api.create(kinds.CONFIGMAP, "default", {"metadata": {"name": "c"}, "data": {}})
    ran = agentk("get", "agents,cm")
    assert "agent.agentk.dev/a" in ran.out
    assert "configmap/c" in ran.out


def test_selectors_choose(daemon: Any, agentk: Run) -> None:
    make(daemon, "a", {"tier": "web"})
    make(daemon, "b", {"tier": "db"})
    daemon.status("b", phase="Running")
    assert agentk("get", "ag", "-l", "tier=web", "-o", "name").out == "agent.agentk.dev/a\n"
    assert agentk("get", "ag", "--field-selector", "status.phase=Running", "-oname").lines == [
        "agent.agentk.dev/b"
    ]


def test_all_namespaces_shows_whose(daemon: Any, agentk: Run) -> None:
    daemon.api.create(kinds.NAMESPACE, "", {"metadata": {"name": "team"}})
    daemon.api.create(kinds.AGENT, "team", {"metadata": {"name": "x"}, "spec": {"command": ["true"]}})
    make(daemon, "a")
    ran = agentk("get", "ag", "-A")
    assert [line.split()[:2] for line in ran.lines] == [
        ["NAMESPACE", "NAME"],
        ["default", "a"],
        ["team", "x"],
    ]
    assert agentk("-n", "team", "get", "ag", "-o", "name").out == "agent.agentk.dev/x\n"


def test_sort_by_and_show_labels(daemon: Any, agentk: Run) -> None:
    for name, priority in (("a", 9), ("b", 10), ("c", -1)):
        make(daemon, name, {"name": name}, priority=priority)
    ran = agentk("get", "ag", "--sort-by", ".spec.priority", "--show-labels", "--no-headers")
    assert [line.split()[0] for line in ran.lines] == ["c", "a", "b"]
    assert ran.lines[0].endswith("name=c")


def test_a_guests_words_cannot_drive_the_terminal(daemon: Any, agentk: Run) -> None:
    make(daemon, "a")
    daemon.status("a", phase="Failed", reason="\x1b]0;owned\x07")
    ran = agentk("get", "ag")
    assert "\x1b" not in ran.out
    assert "\\x1b" in ran.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["get", "agnts"], "did you mean 'agents'?"),
        (["gte", "agents"], "did you mean 'agentk get'?"),
        (["get", "agents", "-o", "jsn"], "did you mean '-o json'?"),
        (["get", "agents", "-o", "jsonpath={.a"], "never closed"),
        (["get", "agents", "--lables", "x"], "No such option: --lables"),
        (["get", "agent/a", "b"], "KIND/NAME and plain words do not mix"),
        (["get", "agent", "a", "-A"], "do not go together"),
        (["get"], "Missing argument"),
    ],
)
def test_what_is_wrong_is_told_before_a_daemon_is_asked(agentk: Run, words: list[str], said: str) -> None:
    ran = agentk(*words)
    assert ran.code == (1 if words[-1] == "agnts" else 2)
    assert said in ran.err
    assert ran.out == ""
