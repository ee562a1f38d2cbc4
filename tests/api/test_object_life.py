"""What the API writes into metadata, and what nobody may change."""

import copy

import pytest
from hypothesis import given

from agentk.api import errors, kinds, objects
from api import samples
from api.samples import LATER, NOW, agent


def made() -> objects.Object:
    return objects.new_object(kinds.AGENT, agent(), NOW, "uid-1")


def test_a_new_object_gets_its_metadata() -> None:
    obj = agent()
    obj["metadata"] |= {"resourceVersion": "5", "generation": 9, "uid": "mine", "deletionTimestamp": NOW}
    obj["status"] = {"phase": "Running"}
    new = objects.new_object(kinds.AGENT, obj, NOW, "uid-1")
    assert new["metadata"] == {"name": "a", "uid": "uid-1", "creationTimestamp": NOW, "generation": 1}
    assert "status" not in new


def test_a_generated_name_is_a_name_and_follows_from_the_uid() -> None:
    obj = agent()
    obj["metadata"] = {"generateName": "job-"}
    name = objects.new_object(kinds.AGENT, obj, NOW, "uid-1")["metadata"]["name"]
    assert name == objects.generated_name("job-", "uid-1") and len(name) == 9
    assert name != objects.generated_name("job-", "uid-2")


def test_generation_moves_with_spec_only() -> None:
    old = made()
    labelled = copy.deepcopy(old)
    labelled["metadata"]["labels"] = {"a": "b"}
    assert objects.replace(kinds.AGENT, old, labelled)["metadata"]["generation"] == 1
    changed = copy.deepcopy(labelled)
    changed["spec"]["priority"] = 5
    assert objects.replace(kinds.AGENT, old, changed)["metadata"]["generation"] == 2


def test_an_update_keeps_status_and_a_status_update_keeps_the_rest() -> None:
    old = {**made(), "status": {"phase": "Running"}}
    new = agent(priority=5) | {"status": {"phase": "Failed"}}
    assert objects.replace(kinds.AGENT, old, new)["status"] == {"phase": "Running"}
    by_status = objects.replace(kinds.AGENT, old, new, "status")
    assert by_status == {**old, "status": {"phase": "Failed"}}


@pytest.mark.parametrize("field", ["name", "namespace", "creationTimestamp"])
def test_fixed_metadata_cannot_be_changed(field: str) -> None:
    new = agent()
    new["metadata"][field] = "other"
    with pytest.raises(errors.Invalid, match=f"metadata.{field}"):
        objects.replace(kinds.AGENT, made(), new)


def test_another_uid_is_a_conflict() -> None:
    new = agent()
    new["metadata"]["uid"] = "uid-0"
    with pytest.raises(errors.Conflict, match="another object"):
        objects.replace(kinds.AGENT, made(), new)


def test_metadata_left_out_is_kept() -> None:
    old = objects.mark_deleted(made() | {}, NOW)
    old["metadata"]["resourceVersion"] = "7"
    new = agent()
    new["metadata"] |= {"generation": 99, "deletionTimestamp": LATER, "resourceVersion": "1"}
    assert objects.replace(kinds.AGENT, old, new)["metadata"] == old["metadata"]


def test_deleting_twice_is_deleting_once() -> None:
    once = objects.mark_deleted(made(), NOW, 10)
    assert objects.is_deleting(once) and not objects.is_deleting(made())
    assert objects.mark_deleted(once, LATER, 5) == once


def test_an_object_goes_when_its_last_finalizer_does() -> None:
    held = objects.mark_deleted(objects.with_finalizer(made(), "agentk.dev/box"), NOW)
    assert objects.has_finalizers(held) and not objects.is_gone(held)
    freed = objects.without_finalizer(held, "agentk.dev/box")
    assert objects.is_gone(freed) and "finalizers" not in freed["metadata"]


def test_finalizers_are_repeatable() -> None:
    once = objects.with_finalizer(made(), "x")
    assert objects.with_finalizer(once, "x") is once
    assert objects.without_finalizer(made(), "x") == made()


def test_no_new_finalizer_on_what_is_being_deleted() -> None:
    old = objects.mark_deleted(made(), NOW)
    new = objects.with_finalizer(old, "late")
    with pytest.raises(errors.Forbidden, match="late"):
        objects.replace(kinds.AGENT, old, new)


def test_an_owner_reference_points_back() -> None:
    child = agent("child")
    child["metadata"]["ownerReferences"] = [objects.owner_reference(made())]
    new = objects.new_object(kinds.AGENT, child, NOW, "uid-2")
    assert objects.owner_uids(new) == ["uid-1"]


@pytest.mark.parametrize(
    ("references", "field"),
    [
        ([{"kind": "Agent"}], r"ownerReferences\[0\].uid"),
        ([objects.owner_reference(made()), objects.owner_reference(made()) | {"uid": "x"}], "only one owner"),
        ([objects.owner_reference(made()) | {"uid": "uid-2"}], "cannot own itself"),
    ],
)
def test_bad_owner_references_are_refused(references: list[objects.Object], field: str) -> None:
    child = agent("child")
    child["metadata"]["ownerReferences"] = references
    with pytest.raises(errors.Invalid, match=field):
        objects.new_object(kinds.AGENT, child, NOW, "uid-2")


@given(samples.AGENTS, samples.SPECS)
def test_nothing_given_is_changed_in_place(obj: objects.Object, spec: objects.Object) -> None:
    before = copy.deepcopy(obj)
    old = objects.new_object(kinds.AGENT, obj, NOW, "u")
    kept = copy.deepcopy(old)
    new = objects.replace(kinds.AGENT, old, {**obj, "spec": spec})
    objects.mark_deleted(objects.with_finalizer(new, "x"), LATER)
    assert (obj, old) == (before, kept)
    assert new["metadata"]["generation"] == 1 + (spec != obj["spec"])
