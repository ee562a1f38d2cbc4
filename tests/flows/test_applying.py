"""Manifests as people change them: fields have owners, mistakes have a place."""

from pathlib import Path

from agentk.api import kinds
from tests.flows import household
from tests.flows.household import Space, agent, manifest, shell, text

pytestmark = household.needs


def test_deleting_a_line_removes_the_field(space: Space) -> None:
    space.apply(agent("a", "true", env=[{"name": "X", "value": "1"}], priority=5))
    space.apply(agent("a", "true"))
    spec = space.get("a")["spec"]
    assert "env" not in spec and spec["priority"] == 0


def test_field_of_another_owner_is_a_conflict_until_forced(space: Space) -> None:
    space.apply(agent("a", "true", priority=5))
    query = {"fieldManager": "somebody", "force": "true"}
    theirs = agent("a", "true", priority=7)
    path = kinds.AGENT.path(space.name, "a")
    space.api.request("PATCH", path, query=query, body=theirs, content_type="application/apply-patch+yaml")
    mine = text(agent("a", "true", priority=6))
    ran = space.agentk("apply", "-f", "-", stdin=mine, code=1)
    assert "somebody" in ran.err and "spec.priority" in ran.err
    space.agentk("apply", "-f", "-", "--force-conflicts", stdin=mine)
    assert space.get("a")["spec"]["priority"] == 6


def test_misspelt_field_is_told_with_its_place(space: Space, tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(
        "apiVersion: agentk.dev/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec:\n  comand: [sleep, '1']\n"
    )
    ran = space.agentk("apply", "-f", str(file), code=1)
    assert f"{file}:5:3" in ran.err and "command" in ran.err


def test_one_bad_document_does_not_stop_the_others(space: Space) -> None:
    ran = space.apply(agent("good", "true"), agent("bad", "true", nonsense=1), code=1)
    assert "agent.agentk.dev/good created" in ran.lines and "nonsense" in ran.err


def test_dry_runs_write_nothing(space: Space) -> None:
    wanted = text(agent("a"))
    assert "valid" in space.agentk("apply", "-f", "-", "--dry-run=client", stdin=wanted).out
    ran = space.agentk("apply", "-f", "-", "--dry-run=server", "-o", "json", stdin=wanted)
    assert ran.json["metadata"]["uid"]
    assert space.agentk("get", "agents", "-o", "name").out == ""


def test_source_is_packed_and_mounted(space: Space, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.sh").write_text("pwd; echo from a file; touch /app/x 2>&- || echo read-only")
    file = tmp_path / "agent.yaml"
    file.write_text(text(agent("a", "sh", "main.sh", source={"path": "./code"})))
    space.agentk("apply", "-f", str(file))
    space.phase("a", "Succeeded")
    assert space.log("a") == ["/app", "from a file", "read-only"]


def test_new_spec_replaces_the_box_and_keeps_the_files(space: Space) -> None:
    space.apply(shell("a", "echo kept > /workspace/f; echo old; exec sleep 1000"))
    space.logged("a", "old")
    before = space.running("a")
    space.apply(shell("a", "cat /workspace/f; exec sleep 1000"))
    after = space.running("a", attempt=before["attempt"] + 1)
    space.logged("a", "kept")
    obj = space.get("a")
    assert obj["metadata"]["generation"] == after["observedGeneration"] == 2
    assert after["boxID"] != before["boxID"]


def test_label_and_priority_leave_the_box_alone(space: Space) -> None:
    space.apply(agent("a"))
    before = space.running("a")
    labelled = agent("a")
    labelled["metadata"]["labels"] = {"tier": "web"}
    space.apply(labelled)
    obj = space.get("a")
    assert obj["metadata"]["generation"] == 1
    space.apply(agent("a", priority=9))
    after = space.until("a", lambda status: status["observedGeneration"] == 2)["status"]
    assert after["boxID"] == before["boxID"] and after["attempt"] == 1


def test_every_object_can_be_labelled_whatever_its_status_says(space: Space) -> None:
    space.apply(agent("a"), manifest("Quota", "q", spec={"hard": {"agents": 3}}))
    space.running("a")
    chosen = [
        (kinds.AGENT, "a"),
        (kinds.QUOTA, "q"),
        (kinds.RUNTIME, "nsjail"),
        (kinds.NAMESPACE, space.name),
    ]
    for kind, name in chosen:
        where = space.name if kind.namespaced else ""
        patched = space.api.patch(kind, where, name, {"metadata": {"labels": {"flow": "seen"}}})
        assert patched["metadata"]["labels"]["flow"] == "seen"


def test_owner_takes_its_dependents_along(space: Space) -> None:
    space.apply(manifest("ConfigMap", "owner", data={}))
    owner = space.get("owner", kinds.CONFIGMAP)["metadata"]
    owned = agent("a")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["uid"]}
    owned["metadata"]["ownerReferences"] = [reference]
    space.apply(owned)
    uid = space.running("a")["boxID"]
    space.agentk("delete", "configmap", "owner")
    space.agentk("wait", "--for=delete", "agent/a", "--timeout", "100s")
    space.home.clean(uid)


def test_namespace_takes_everything_in_it_along(space: Space) -> None:
    space.apply(agent("a"), manifest("Secret", "s", stringData={"k": "v"}))
    space.running("a")
    space.agentk("delete", "namespace", space.name)
    assert space.agentk("get", "agents,secrets", "-o", "name").out == ""
    assert "not found" in space.agentk("get", "namespace", space.name, code=1).err
