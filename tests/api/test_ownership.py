"""Server-side apply: fields have owners, and a deleted line is a deleted field."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.api import admit, errors, fieldsets, kinds, objects, ownership, schemas
from api import samples
from api.samples import LATER, NOW, agent, core

Object = dict[str, Any]


def apply(
    live: Object | None, applied: Object, manager: str = "ci", force: bool = False, now: str = NOW
) -> Object:
    """As the daemon does it: check the piece, merge, admit the whole, keep what nobody may change."""
    merged = admit.admit(ownership.apply(live, admit.admit(applied, partial=True), manager, force, now))
    kind = admit.kind_of(merged)
    return objects.replace(kind, live, merged) if live else objects.new_object(kind, merged, now, "u")


def piece(**spec: Any) -> Object:
    obj = agent()
    obj["spec"] = spec
    return obj


def managers(obj: Object) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for owner in ownership._owners(obj, schemas.of(admit.kind_of(obj)), "", first=False):
        found.setdefault(owner.manager, set()).update(fieldsets.told(field) for field in owner.fields)
    return found


def owned(obj: Object, manager: str) -> set[str]:
    return managers(obj).get(manager, set())


def test_only_what_is_applied_is_owned() -> None:
    live = apply(None, agent(env=[{"name": "A", "value": "1"}]))
    assert owned(live, "ci") == {
        ".spec.command",
        '.spec.env[name="A"]',
        '.spec.env[name="A"].name',
        '.spec.env[name="A"].value',
    }


def test_a_deleted_line_is_a_deleted_field_and_its_default_returns() -> None:
    live = apply(None, agent(priority=5, args=["x"], env=[{"name": "A"}, {"name": "B"}]))
    live = apply(live, agent(env=[{"name": "B"}]))
    assert (
        live["spec"]["priority"] == 0
        and "args" not in live["spec"]
        and live["spec"]["env"] == [{"name": "B"}]
    )
    assert "env" not in apply(live, agent())["spec"]


def test_a_deleted_block_takes_its_defaults_along() -> None:
    live = apply(None, agent(livenessProbe={"heartbeat": {}}, volumes=[{"name": "v", "emptyDir": {}}]))
    assert live["spec"]["livenessProbe"]["periodSeconds"] == 10
    live = apply(live, agent(volumes=[{"name": "v", "hostPath": {"path": "/x"}}]))
    assert "livenessProbe" not in live["spec"]
    assert live["spec"]["volumes"] == [{"name": "v", "hostPath": {"path": "/x"}}]


def test_one_of_several_can_be_exchanged() -> None:
    live = apply(None, agent(source={"inline": {"files": {"a": "b"}}}))
    assert apply(live, agent(source={"path": "x"}))["spec"]["source"] == {"path": "x"}


def test_labels_are_deleted_one_by_one() -> None:
    obj = agent()
    obj["metadata"]["labels"] = {"a": "1", "b": "2"}
    live = apply(None, obj)
    obj["metadata"]["labels"] = {"b": "2"}
    live = apply(live, obj)
    assert live["metadata"]["labels"] == {"b": "2"}
    assert "labels" not in apply(live, agent())["metadata"]


def test_two_managers_work_on_one_object() -> None:
    live = apply(None, agent(env=[{"name": "A", "value": "1"}]))
    live = apply(live, piece(env=[{"name": "B", "value": "2"}], priority=3), "ops")
    assert live["spec"]["env"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    live = apply(live, agent())
    assert live["spec"]["env"] == [{"name": "B", "value": "2"}] and live["spec"]["priority"] == 3


def test_a_conflict_names_field_and_owner_and_changes_nothing() -> None:
    live = apply(None, agent(env=[{"name": "A", "value": "1"}], priority=1))
    before = copy.deepcopy(live)
    with pytest.raises(errors.Conflict) as caught:
        apply(live, piece(env=[{"name": "A", "value": "2"}], priority=2), "ops")
    assert [(c.field, c.message, c.reason) for c in caught.value.causes] == [
        ('.spec.env[name="A"].value', 'conflict with "ci" using agentk.dev/v1alpha1', "FieldManagerConflict"),
        (".spec.priority", 'conflict with "ci" using agentk.dev/v1alpha1', "FieldManagerConflict"),
    ]
    assert caught.value.status == 409 and live == before


def test_force_takes_the_field_over() -> None:
    live = apply(apply(None, agent(priority=1)), piece(priority=2), "ops", force=True)
    assert live["spec"]["priority"] == 2
    assert ".spec.priority" not in owned(live, "ci") and ".spec.priority" in owned(live, "ops")
    assert apply(live, agent())["spec"]["priority"] == 2


def test_the_same_value_is_shared_and_goes_with_its_last_owner() -> None:
    live = apply(apply(None, agent(priority=1)), piece(priority=1), "ops")
    assert ".spec.priority" in owned(live, "ci") & owned(live, "ops")
    live = apply(live, agent())
    assert live["spec"]["priority"] == 1
    assert apply(live, piece(suspend=False), "ops")["spec"]["priority"] == 0


def test_whole_lists_conflict_as_one() -> None:
    live = apply(None, agent())
    with pytest.raises(errors.Conflict, match=r"\.spec\.command"):
        apply(live, piece(command=["other"]), "ops")


def test_an_update_takes_ownership_of_what_it_changes() -> None:
    live = apply(None, agent(priority=1, suspend=False))
    new = copy.deepcopy(live)
    new["spec"]["priority"] = 9
    live = ownership.own_update(live, new, "kubectl-edit", LATER)
    assert owned(live, "kubectl-edit") == {".spec.priority"} and ".spec.suspend" in owned(live, "ci")
    with pytest.raises(errors.Conflict, match="kubectl-edit"):
        apply(live, agent(priority=1))


def test_what_an_update_removes_nobody_owns() -> None:
    live = apply(None, agent(args=["x"]))
    new = copy.deepcopy(live)
    del new["spec"]["args"]
    assert ".spec.args" not in owned(ownership.own_update(live, new, "edit", LATER), "ci")


def test_a_create_owns_what_it_made_and_managed_fields_of_clients_are_not_believed() -> None:
    obj = admit.admit(agent())
    obj["metadata"]["managedFields"] = [{"manager": "liar", "fieldsV1": {"f:spec": {}}}]
    made = ownership.own_update(None, obj, "cli", NOW)
    assert set(managers(made)) == {"cli"} and ".spec.command" in owned(made, "cli")


def test_status_is_owned_through_its_subresource_only() -> None:
    live = apply(None, agent())
    new = {**live, "status": {"phase": "Running"}}
    assert ownership.own_update(live, new, "x", LATER)["metadata"] == live["metadata"]
    by_status = ownership.own_update(live, new, "x", LATER, "status")
    assert by_status["metadata"]["managedFields"][-1]["subresource"] == "status"
    assert owned(by_status, "x") == {".status.phase"}


def test_an_object_from_before_ownership_is_somebodys() -> None:
    live = objects.new_object(kinds.AGENT, admit.admit(agent(priority=1)), NOW, "u")
    with pytest.raises(errors.Conflict, match="before-first-apply"):
        apply(live, agent(priority=2))


def test_a_finalizer_that_nobody_wrote_is_nobodys() -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}
    live = ownership.apply(None, namespace, "mine", False, NOW)
    live["metadata"]["finalizers"] = ["kubernetes"]
    again = ownership.apply(live, namespace, "mine", False, LATER)
    assert again == live


def test_old_updaters_become_one() -> None:
    live = apply(None, agent())
    for at in range(15):
        new = copy.deepcopy(live)
        new["metadata"].setdefault("labels", {})[f"l{at}"] = "x"
        live = ownership.own_update(live, new, f"m{at}", f"2026-01-01T00:00:{at:02}Z")
    updaters = [e for e in live["metadata"]["managedFields"] if e["operation"] == "Update"]
    assert len(updaters) == 10 and len(owned(live, "ancient-changes")) == 6


@pytest.mark.parametrize("key", ["uid", "resourceVersion"])
def test_a_manifest_of_another_version_is_a_conflict(key: str) -> None:
    obj = agent()
    obj["metadata"][key] = "other"
    with pytest.raises(errors.Conflict, match=f"metadata.{key}"):
        apply(apply(None, agent()), obj)


def test_managed_fields_cannot_be_applied() -> None:
    live = apply(None, agent())
    with pytest.raises(errors.BadRequest):
        ownership.apply(live, live, "ci", False, NOW)
    with pytest.raises(errors.BadRequest):
        ownership.apply(live, agent(), "", False, NOW)


def test_an_item_without_its_key_is_refused_with_its_field() -> None:
    with pytest.raises(errors.Invalid, match=r"spec\.env: every item needs name"):
        ownership.apply(None, piece(env=[{"value": "x"}]), "ci", False, NOW)


def test_values_of_a_secret_are_not_in_managed_fields() -> None:
    live = apply(None, core("Secret", stringData={"token": "hunter2hunter2"}))
    assert owned(live, "ci") == {".data.token"}
    kept = str(live["metadata"])
    assert "hunter2" not in kept and live["data"]["token"] not in kept


def test_sets_merge_by_value() -> None:
    policy = samples.ours("Policy", level="baseline", isolation={"allowRuntimes": ["a"]})
    other = samples.ours("Policy", isolation={"allowRuntimes": ["b"]})
    live = apply(apply(None, policy), other, "ops")
    assert live["spec"]["isolation"]["allowRuntimes"] == ["a", "b"]
    del policy["spec"]["isolation"]
    assert apply(live, policy)["spec"]["isolation"]["allowRuntimes"] == ["b"]


@given(samples.AGENTS)
def test_applying_again_changes_nothing(obj: Object) -> None:
    live = apply(None, obj)
    assert apply(live, obj, now=LATER) == live


@given(samples.SPECS, samples.SPECS)
def test_the_last_applied_is_all_there_is(first: Object, second: Object) -> None:
    """Whatever was applied before, a sole manager's object is what its last manifest says."""
    live = apply(apply(None, {**agent(), "spec": first}), {**agent(), "spec": second})
    assert samples.same(live["spec"], apply(None, {**agent(), "spec": second})["spec"]) or _same_but_order(
        live["spec"], second
    )


def _same_but_order(spec: Object, second: Object) -> bool:
    fresh = apply(None, {**agent(), "spec": second})["spec"]
    by_name = [{**s, "env": sorted(s.get("env") or [], key=lambda e: e["name"])} for s in (spec, fresh)]
    return samples.same(*by_name)


@given(samples.SPECS, st.data())
def test_each_deleted_line_is_gone(spec: Object, data: st.DataObject) -> None:
    live = apply(None, {**agent(), "spec": spec})
    dropped = data.draw(st.sampled_from(sorted(set(spec) - {"command"}) or ["command"]))
    left = {key: value for key, value in spec.items() if key != dropped or key == "command"}
    after = apply(live, {**agent(), "spec": left})
    assert after["spec"].get(dropped) == apply(None, {**agent(), "spec": left})["spec"].get(dropped)


@given(samples.SPECS, samples.SPECS)
def test_what_others_own_survives_my_leaving(mine: Object, theirs: Object) -> None:
    theirs = {key: value for key, value in theirs.items() if key not in ("source", "livenessProbe")}
    live = apply(None, {**agent(), "spec": theirs}, "theirs")
    try:
        live = apply(live, {**agent(), "spec": mine}, "mine")
    except errors.Conflict as conflict:
        assert all('"theirs"' in cause.message for cause in conflict.causes)
        return
    nothing = agent()
    del nothing["spec"]
    left = apply(live, nothing, "mine")
    assert _same_but_order(left["spec"], theirs)
    assert "mine" not in managers(left)


@given(samples.SPECS, samples.SPECS)
def test_forcing_gives_the_forcer_its_way(mine: Object, theirs: Object) -> None:
    live = apply(None, {**agent(), "spec": theirs}, "theirs")
    for key in (
        "source",
        "livenessProbe",
    ):  # one of several: a second owner's choice would be a second choice
        mine.pop(key, None)
    after = apply(live, {**agent(), "spec": mine}, "mine", force=True)
    fields = dict(
        fieldsets.leaves(admit.admit({**agent(), "spec": mine}, partial=True), schemas.of(kinds.AGENT))
    )
    held = dict(fieldsets.leaves(after, schemas.of(kinds.AGENT)))
    for field, value in fields.items():
        if field[:1] == ("f:spec",) and value is not fieldsets.CONTAINER:
            assert held[field] == value


@given(samples.AGENTS)
def test_fields_v1_reads_back(obj: Object) -> None:
    schema = schemas.of(kinds.AGENT)
    fields = frozenset(field for field, _ in fieldsets.leaves(admit.admit(obj), schema))
    assert fieldsets.from_v1(fieldsets.to_v1(fields)) == fields


@pytest.mark.parametrize("tree", [None, 5, [], {"f:a": 5}, {".": {}}, {"f:a": {".": {}, "f:b": None}}])
def test_foreign_fields_v1_is_read_as_far_as_it_goes(tree: Any) -> None:
    assert all(isinstance(field, tuple) for field in fieldsets.from_v1(tree))
