"""Listings in Kubernetes' Table form."""

from typing import Any

import pytest

from agentk.api import admit, kinds, tables
from api.samples import NOW, agent, core, ours


def running() -> dict[str, Any]:
    obj = admit.admit(agent())
    obj["metadata"] |= {"creationTimestamp": "2025-12-31T23:56:48Z"}
    obj["status"] = {"phase": "Running", "ready": True, "restartCount": 2, "attempt": 3, "boxID": "b-3"}
    return obj


def row(kind: kinds.Kind, obj: dict[str, Any], wide: bool = False) -> dict[str, Any]:
    names = [column.name for column in kind.columns if wide or not column.wide]
    return dict(zip(names, tables.cells(kind, obj, NOW, wide=wide), strict=True))


def test_an_agents_row() -> None:
    assert row(kinds.AGENT, running()) == {
        "Name": "a",
        "Phase": "Running",
        "Ready": True,
        "Restarts": 2,
        "Reason": None,
        "Runtime": "nsjail",
        "Age": "3m12s",
    }
    wide = row(kinds.AGENT, running(), wide=True)
    assert (wide["CPU"], wide["Memory"], wide["Attempt"], wide["Box"]) == ("1", "512Mi", 3, "b-3")


def test_a_table_has_kubernetes_form() -> None:
    made = tables.table(kinds.AGENT, [running()], NOW, resource_version="5", cont="x", remaining=2)
    assert (made["apiVersion"], made["kind"]) == ("meta.k8s.io/v1", "Table")
    assert made["metadata"] == {"resourceVersion": "5", "continue": "x", "remainingItemCount": 2}
    assert len(made["rows"][0]["cells"]) == len(made["columnDefinitions"])
    assert [d["name"] for d in made["columnDefinitions"] if d["priority"] == 0][-1] == "Age"
    assert made["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert made["rows"][0]["object"]["metadata"] == running()["metadata"]
    assert set(made["rows"][0]["object"]) == {"apiVersion", "kind", "metadata"}


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.kind)
def test_an_empty_object_still_has_a_row(kind: kinds.Kind) -> None:
    cells = tables.table(kind, [{"metadata": {"name": "a"}}], NOW)["rows"][0]["cells"]
    assert len(cells) == len(kind.columns)


def test_an_events_row() -> None:
    event = core(
        "Event",
        involvedObject={"kind": "Agent", "name": "x"},
        type="Warning",
        reason="BackOff",
        message="two\nlines",
        count=4,
        lastTimestamp="2025-12-31T23:59:15Z",
    )
    assert row(kinds.EVENT, event) == {
        "Last Seen": "45s",
        "Type": "Warning",
        "Reason": "BackOff",
        "Object": "agent/x",
        "Message": "two\\nlines",
        "Count": 4,
    }


def test_an_event_is_as_old_as_the_last_of_its_series() -> None:
    event = core(
        "Event", lastTimestamp="2025-01-01T00:00:00Z", series={"lastObservedTime": "2025-12-31T23:59:55Z"}
    )
    assert row(kinds.EVENT, event)["Last Seen"] == "5s"
    assert row(kinds.EVENT, core("Event", eventTime="2025-12-31T23:59:55.5Z"))["Last Seen"] == "4s"


def test_a_tools_row_says_whether_it_can_be_used() -> None:
    tool = ours("Tool", command={"argv": ["x"]})
    assert row(kinds.TOOL, tool)["Ready"] is None
    tool["status"] = {
        "conditions": [{"type": "Ready", "status": "False"}, {"type": "Pinned", "status": "True"}]
    }
    shown = row(kinds.TOOL, tool, wide=True)
    assert (shown["Ready"], shown["Pinned"]) == ("False", "True")


def test_data_is_counted_never_shown() -> None:
    assert row(kinds.SECRET, core("Secret", data={"a": "aGk=", "b": "aGk="}, type="Opaque"))["Data"] == 2
    assert row(kinds.CONFIGMAP, core("ConfigMap", data={"a": "x"}, binaryData={"b": "YQ=="}))["Data"] == 2
    assert "aGk=" not in str(tables.table(kinds.SECRET, [core("Secret", data={"a": "aGk="})], NOW))


def test_unknown_ages_say_so() -> None:
    assert row(kinds.AGENT, agent())["Age"] == "<unknown>"
