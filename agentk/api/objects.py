"""The life of an object between its edits: what the API writes into metadata, and what nobody may change.

Pure: `now` (RFC 3339, UTC) and `uid` are passed in; nothing given is changed in place. resourceVersion is the store's.
"""

import copy
import hashlib
from typing import Any

from agentk.api import errors, kinds

Object = dict[str, Any]

# Given once by the API; an update that says otherwise is refused, one that leaves them out keeps them.
_FIXED = ("name", "namespace", "uid", "creationTimestamp", "generateName")
# Written by the API alone; an update cannot set them at all.
_OURS = ("generation", "deletionTimestamp", "deletionGracePeriodSeconds")
# Kubernetes' generated names: no vowels, so no words, and nothing that looks alike.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def new_object(kind: kinds.Kind, obj: Object, now: str, uid: str) -> Object:
    """The first version of an admitted object: uid, creationTimestamp, generation 1, no status."""
    made = copy.deepcopy(obj)
    made["apiVersion"], made["kind"] = kind.api_version, kind.kind
    metadata = made.setdefault("metadata", {})
    if not metadata.get("name"):
        prefix = metadata.get("generateName")
        if not prefix:
            raise errors.Invalid(f"{kind.kind} has no name", field="metadata.name")
        metadata["name"] = generated_name(prefix, uid)
    if not kind.namespaced:
        metadata.pop("namespace", None)
    for key in (*_OURS, "resourceVersion", "selfLink"):
        metadata.pop(key, None)
    metadata["uid"], metadata["creationTimestamp"] = uid, now
    metadata["generation"] = 1
    if kind.has_status:
        made.pop("status", None)
    check_owners(made)
    return made


def replace(kind: kinds.Kind, old: Object, new: Object, subresource: str = "") -> Object:
    """The version after `old` when a client writes `new`.

    Without a subresource everything but status is taken from `new`; with "status" only status is.
    generation moves only when something other than metadata and status changed.
    """
    if subresource == "status":
        made = copy.deepcopy(old)
        made.pop("status", None)
        if "status" in new:
            made["status"] = copy.deepcopy(new["status"])
        return made
    made = copy.deepcopy(new)
    made["apiVersion"], made["kind"] = old["apiVersion"], old["kind"]
    made["metadata"] = _kept_metadata(kind, old["metadata"], made.get("metadata") or {})
    if kind.has_status:
        made.pop("status", None)
        if "status" in old:
            made["status"] = copy.deepcopy(old["status"])
    if _body(kind, made) != _body(kind, old):
        made["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
    _check_finalizers(old["metadata"], made["metadata"])
    check_owners(made)
    return made


def mark_deleted(obj: Object, now: str, grace_seconds: int | None = None) -> Object:
    """The object as it waits for its finalizers. Repeatable: the first deletion's time stays.

    `grace_seconds` 0 is at once, None what the object itself says.
    """
    if is_deleting(obj):
        return obj
    made = copy.deepcopy(obj)
    made["metadata"]["deletionTimestamp"] = now
    if grace_seconds is not None:
        made["metadata"]["deletionGracePeriodSeconds"] = grace_seconds
    made["metadata"]["generation"] = made["metadata"].get("generation", 0) + 1
    return made


def is_deleting(obj: Object) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def has_finalizers(obj: Object) -> bool:
    return bool(obj["metadata"].get("finalizers"))


def is_gone(obj: Object) -> bool:
    """Whether the store may forget it: asked to be deleted, and nothing waits for it any more."""
    return is_deleting(obj) and not has_finalizers(obj)


def with_finalizer(obj: Object, name: str) -> Object:
    """The object with one finalizer more; itself when it has it."""
    held = obj["metadata"].get("finalizers") or []
    return obj if name in held else _with_finalizers(obj, [*held, name])


def without_finalizer(obj: Object, name: str) -> Object:
    """The object with one finalizer less; itself when it has it not."""
    held = obj["metadata"].get("finalizers") or []
    return _with_finalizers(obj, [f for f in held if f != name]) if name in held else obj


def owner_reference(owner: Object, *, controller: bool = True) -> Object:
    """What goes into `metadata.ownerReferences` of what `owner` makes."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": controller,
        "blockOwnerDeletion": True,
    }


def owner_uids(obj: Object) -> list[str]:
    return [str(ref.get("uid", "")) for ref in obj["metadata"].get("ownerReferences") or []]


def generated_name(prefix: str, uid: str) -> str:
    """`prefix` and five letters that follow from the uid."""
    number = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big")
    letters = ""
    for _ in range(5):
        number, at = divmod(number, len(_ALPHABET))
        letters += _ALPHABET[at]
    return prefix[:58] + letters


def check_owners(obj: Object) -> None:
    """Refuse owner references that could never be followed, or two controllers. Raises Invalid."""
    references = obj["metadata"].get("ownerReferences") or []
    causes = []
    for at, ref in enumerate(references):
        field = f"metadata.ownerReferences[{at}]"
        for key in ("apiVersion", "kind", "name", "uid"):
            if not ref.get(key):
                causes.append(errors.Cause(f"{field}.{key}", "is required", reason="FieldValueRequired"))
        if ref.get("uid") and ref["uid"] == obj["metadata"].get("uid"):
            causes.append(errors.Cause(f"{field}.uid", "an object cannot own itself"))
    if sum(bool(ref.get("controller")) for ref in references) > 1:
        causes.append(errors.Cause("metadata.ownerReferences", "only one owner can be the controller"))
    if causes:
        raise errors.Invalid(
            _titled(obj), causes=causes, kind=obj["kind"], name=obj["metadata"].get("name", "")
        )


def _kept_metadata(kind: kinds.Kind, old: Object, new: Object) -> Object:
    causes = []
    for key in _FIXED:
        if new.get(key) and new[key] != old.get(key) and (kind.namespaced or key != "namespace"):
            message = f'cannot be changed from "{old.get(key, "")}" to "{new[key]}"'
            causes.append(errors.Cause(f"metadata.{key}", message))
    if causes:
        if causes[0].field == "metadata.uid":  # the writer means an object of the same name that is gone
            raise errors.Conflict(
                f'{kind.singular} "{old["name"]}" is another object by now: its uid is {old["uid"]}',
                hint="get it again and repeat the change",
                kind=kind.kind,
                name=old["name"],
            )
        raise errors.Invalid(
            f'{kind.kind} "{old["name"]}" is invalid', causes=causes, kind=kind.kind, name=old["name"]
        )
    made = dict(new)
    for key in (*_FIXED, *_OURS):
        made.pop(key, None)
        if key in old:
            made[key] = old[key]
    made.pop("selfLink", None)
    if "resourceVersion" in old:
        made["resourceVersion"] = old["resourceVersion"]
    return made


def _check_finalizers(old: Object, new: Object) -> None:
    added = set(new.get("finalizers") or ()) - set(old.get("finalizers") or ())
    if old.get("deletionTimestamp") and added:
        raise errors.Forbidden(
            f"no new finalizers on an object being deleted: {', '.join(sorted(added))}",
            field="metadata.finalizers",
            name=old["name"],
        )


def _body(kind: kinds.Kind, obj: Object) -> Object:
    left_out = {"metadata", "status"} if kind.has_status else {"metadata"}
    return {key: value for key, value in obj.items() if key not in left_out}


def _with_finalizers(obj: Object, finalizers: list[str]) -> Object:
    made = copy.deepcopy(obj)
    made["metadata"]["finalizers"] = finalizers
    if not finalizers:
        del made["metadata"]["finalizers"]
    return made


def _titled(obj: Object) -> str:
    return f'{obj["kind"]} "{obj["metadata"].get("name", "")}" is invalid'
