"""Server-side apply: who owns which field, so that a line deleted from a manifest is a field deleted.

Pure. `metadata.managedFields` is all the memory there is; it holds names of fields, never their values.
Objects given are shaped (`admit(..., partial=True)` for what is applied); what comes out goes through `admit`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentk.api import admit, errors, fieldsets, schemas
from agentk.api.fieldsets import Field, Fields

Object = dict[str, Any]

_MAX_UPDATERS = 10  # as in Kubernetes: older ones become one entry
_ANCIENT = "ancient-changes"
_BEFORE = "before-first-apply"

# The API's own, or what names the object: nobody owns these.
_UNOWNED_METADATA = frozenset(
    {
        "name",
        "generateName",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
    }
)


@dataclass(frozen=True)
class _Owner:
    manager: str
    operation: str  # Apply | Update
    api_version: str
    subresource: str
    time: str
    fields: Fields

    def told(self) -> str:
        return f'"{self.manager}" using {self.api_version}'


def apply(live: Object | None, applied: Object, manager: str, force: bool, now: str) -> Object:
    """`live` as `manager` wants it: what it applies is set, what it applied before and no longer does is removed.

    Raises Conflict, with a cause for each field somebody else owns and wants otherwise, unless `force` takes them.
    Applying the same again changes nothing.
    """
    if not manager:
        raise errors.BadRequest("server-side apply needs a fieldManager")
    if applied.get("metadata", {}).get("managedFields"):
        raise errors.BadRequest("metadata.managedFields must not be applied", field="metadata.managedFields")
    schema = schemas.of(admit.kind_of(applied))
    wanted = _ownable(applied)
    mine = frozenset(field for field, _ in fieldsets.leaves(wanted, schema))
    if live is None:
        return _with_owners(applied, [_Owner(manager, "Apply", applied["apiVersion"], "", now, mine)])
    _check_same(live, applied)
    owners = _owners(live, schema, now)
    made = fieldsets.merged(live, wanted, schema)
    changed = _changed(_ownable(live), _ownable(made), schema)
    before = next((o for o in owners if _is(o, manager, "Apply", "")), None)
    others = [owner for owner in owners if owner is not before]
    others = _given_up(others, changed & mine, force, applied)
    made = _pruned(made, schema, before.fields if before else frozenset(), mine, others)
    if before and before.fields == mine and before.api_version == applied["apiVersion"]:
        own = before  # its time stays, or applying twice would write twice
    else:
        own = _Owner(manager, "Apply", applied["apiVersion"], "", now, mine)
    in_order = [own if owner is before else owner for owner in owners] if before else [*owners, own]
    kept = {id(old): new for old, new in zip([o for o in owners if o is not before], others, strict=True)}
    return _with_owners(made, [kept.get(id(owner), owner) for owner in in_order])


def own_update(old: Object | None, new: Object, manager: str, now: str, subresource: str = "") -> Object:
    """`new` with the fields that differ from `old` owned by `manager` alone, as after a PUT, POST or PATCH.

    Fields of status are owned only when written through `subresource` "status".
    """
    schema = schemas.of(admit.kind_of(new))
    status = subresource == "status"
    after = {"status": new["status"]} if status and "status" in new else {} if status else _ownable(new)
    before = {}
    if old is not None:
        before = {"status": old["status"]} if status and "status" in old else {} if status else _ownable(old)
    changed = _changed(before, after, schema)
    removed = _fields(before, schema) - _fields(after, schema)
    made, found = [], False
    for owner in _owners(old, schema, now, first=False) if old is not None else []:
        if _is(owner, manager, "Update", subresource):
            found = True
            fields = (owner.fields - removed) | changed
            owner = replace(owner, fields=fields, time=owner.time if fields == owner.fields else now)
        else:
            owner = replace(owner, fields=owner.fields - changed - removed)
        made.append(owner)
    if changed and not found:
        made.append(_Owner(manager, "Update", new["apiVersion"], subresource, now, changed))
    return _with_owners(new, _capped(made))


def _check_same(live: Object, applied: Object) -> None:
    """A manifest that names a version or a uid means that one and no other."""
    for key in ("uid", "resourceVersion"):
        asked, held = applied["metadata"].get(key), live["metadata"].get(key)
        if asked and asked != held:
            raise errors.Conflict(
                f'{applied["kind"]} "{live["metadata"]["name"]}" has {key} {held} by now, not {asked}',
                hint=f"leave metadata.{key} out, or get the object again",
                field=f"metadata.{key}",
            )


def _given_up(others: list[_Owner], contested: Fields, force: bool, applied: Object) -> list[_Owner]:
    """The other owners after losing the contested fields. Raises Conflict unless `force`."""
    lost = [(owner, owner.fields & contested) for owner in others]
    if any(fields for _, fields in lost) and not force:
        raise _conflict([(owner, sorted(fields)) for owner, fields in lost if fields], applied)
    return [replace(owner, fields=owner.fields - fields) if fields else owner for owner, fields in lost]


def _conflict(lost: list[tuple[_Owner, list[Field]]], applied: Object) -> errors.Conflict:
    causes = [
        errors.Cause(fieldsets.told(field), f"conflict with {owner.told()}", reason="FieldManagerConflict")
        for owner, fields in lost
        for field in fields
    ]
    return errors.Conflict(
        f"Apply failed with {len(causes)} conflict{'s' if len(causes) > 1 else ''}",
        hint="force the conflicts to take the fields over, or leave them out",
        causes=causes,
        kind=applied["kind"],
        name=applied["metadata"].get("name", ""),
    )


def _pruned(
    made: Object, schema: schemas.Schema, before: Fields, mine: Fields, others: list[_Owner]
) -> Object:
    """Without what the manager applied before, no longer does, and nobody else owns."""
    left_out = (
        fieldsets.parents(before) - fieldsets.parents(mine) - {("f:metadata",)}
    )  # name and uid are in it
    owned_by_others = fieldsets.parents(frozenset().union(*(owner.fields for owner in others)))
    pruned = fieldsets.without(made, schema, left_out - owned_by_others)
    return pruned if isinstance(pruned, dict) else {}


def _changed(before: Object, after: Object, schema: schemas.Schema) -> Fields:
    """Fields of `after` that are new or different."""
    was = dict(fieldsets.leaves(before, schema))
    return frozenset(
        field for field, value in fieldsets.leaves(after, schema) if field not in was or was[field] != value
    )


def _fields(obj: Object, schema: schemas.Schema) -> Fields:
    return frozenset(field for field, _ in fieldsets.leaves(obj, schema))


def _ownable(obj: Mapping[str, Any]) -> Object:
    """The part of an object that people write."""
    made = {
        key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "status", "metadata")
    }
    metadata = {k: v for k, v in obj.get("metadata", {}).items() if k not in _UNOWNED_METADATA}
    return {"metadata": metadata, **made} if metadata else made


def _owners(obj: Object, schema: schemas.Schema, now: str, *, first: bool = True) -> list[_Owner]:
    entries = obj["metadata"].get("managedFields") or []
    owners = [
        _Owner(
            str(entry.get("manager", "")),
            str(entry.get("operation", "Update")),
            str(entry.get("apiVersion", "")),
            str(entry.get("subresource", "")),
            str(entry.get("time", "")),
            fieldsets.from_v1(entry.get("fieldsV1")),
        )
        for entry in entries
        if isinstance(entry, Mapping)
    ]
    if not owners and first:  # made before anybody kept track: somebody wanted it so
        metadata = {
            key: value for key, value in obj["metadata"].items() if key != "finalizers"
        }  # not by people
        written = _fields(_ownable({**obj, "metadata": metadata}), schema)
        owners = [_Owner(_BEFORE, "Update", obj["apiVersion"], "", now, written)]
    return owners


def _is(owner: _Owner, manager: str, operation: str, subresource: str) -> bool:
    return (owner.manager, owner.operation, owner.subresource) == (manager, operation, subresource)


def _capped(owners: list[_Owner]) -> list[_Owner]:
    updaters = sorted((o for o in owners if o.operation == "Update" and o.fields), key=lambda o: o.time)
    if len(updaters) <= _MAX_UPDATERS:
        return owners
    old = updaters[: len(updaters) - _MAX_UPDATERS + 1]
    fields: Fields = frozenset().union(*(owner.fields for owner in old))
    ancient = replace(old[-1], manager=_ANCIENT, subresource="", fields=fields)
    return [ancient, *(owner for owner in owners if owner not in old)]


def _with_owners(obj: Object, owners: list[_Owner]) -> Object:
    entries = []
    for owner in owners:
        if not owner.fields:
            continue
        entry = {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": owner.api_version,
            "time": owner.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": fieldsets.to_v1(owner.fields),
        }
        if owner.subresource:
            entry["subresource"] = owner.subresource
        entries.append(entry)
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    if entries:
        metadata["managedFields"] = entries
    return {**obj, "metadata": metadata}
