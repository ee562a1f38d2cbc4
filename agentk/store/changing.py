"""What may happen to an object, as functions of the writer's transaction: create, modify, set a status, delete.

The life-cycle rules themselves are in api/objects; here they meet what is stored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, kinds, objects
from agentk.store import rows
from agentk.store.writer import Tx

Object = dict[str, Any]
Change = Callable[[Object | None], Object | None]


@dataclass(frozen=True)
class Name:
    """One object by name; `namespace` is "" for kinds that have none."""

    kind: kinds.Kind
    namespace: str
    name: str

    @property
    def key(self) -> str:
        return rows.key_of(self.kind)

    def missing(self) -> errors.NotFound:
        return errors.NotFound(
            f'{rows.key_of(self.kind)} "{self.name}" not found', kind=self.kind.plural, name=self.name
        )


def name_of(kind: kinds.Kind, namespace: str | None, name: str) -> Name:
    """Raises BadRequest when a namespaced kind comes without a namespace."""
    if kind.namespaced and not namespace:
        raise errors.BadRequest(f"{kind.plural} live in a namespace, and none was named")
    return Name(kind, (namespace or "") if kind.namespaced else "", name)


@dataclass(frozen=True)
class Made:
    """A new object, ready to be inserted. Made outside the transaction, so that it holds up nobody."""

    name: Name
    obj: Object
    body: str


def make(kind: kinds.Kind, obj: Object, now: str, uid: str) -> Made:
    """Raises Invalid or TooLarge for what cannot be stored."""
    made = objects.new_object(kind, obj, now, uid)
    name = name_of(kind, made["metadata"].get("namespace"), made["metadata"]["name"])
    return Made(name, made, rows.freeze(made))


def create(tx: Tx, made: Made, in_live_namespace: bool) -> Object:
    """Raises AlreadyExists; NotFound or Forbidden for a namespace that is missing or ending."""
    name = made.name
    if in_live_namespace and name.kind.namespaced:
        _check_namespace(tx, name)
    if rows.load(tx.conn, name.key, name.namespace, name.name):
        raise errors.AlreadyExists(
            f'{name.key} "{name.name}" already exists', kind=name.kind.plural, name=name.name
        )
    return rows.insert(tx, name.key, made.obj, made.body)


def modify(
    tx: Tx, name: Name, change: Change, now: str, uid: str, expected: str | None, in_live_namespace: bool
) -> Object:
    """See Store.modify."""
    old = rows.load(tx.conn, name.key, name.namespace, name.name)
    if old is None:
        new = None if expected else change(None)
        if new is None:
            raise name.missing()
        metadata = {**(new.get("metadata") or {}), "name": name.name}
        if name.namespace:
            metadata["namespace"] = name.namespace
        return create(tx, make(name.kind, {**new, "metadata": metadata}, now, uid), in_live_namespace)
    _check_expected(name, old, None, expected)
    changed = change(old.object())
    if changed is None:
        return _delete(tx, old, now, None)
    guarded = _guarded(name, old.object(), changed)
    return rows.remove(tx, old, guarded) if objects.is_gone(guarded) else rows.update(tx, old, guarded)


def set_status(tx: Tx, name: Name, uid: str, status: Object) -> Object | None:
    old = rows.load(tx.conn, name.key, name.namespace, name.name)
    if old is None or old.uid != uid:
        return None
    return rows.update(tx, old, {**old.object(), "status": status})


def delete(
    tx: Tx, name: Name, uid: str | None, expected: str | None, now: str, grace_seconds: int | None
) -> Object:
    old = rows.load(tx.conn, name.key, name.namespace, name.name)
    if old is None:
        raise name.missing()
    _check_expected(name, old, uid, expected)
    return _delete(tx, old, now, grace_seconds)


def _delete(tx: Tx, old: rows.Row, now: str, grace_seconds: int | None) -> Object:
    obj = old.object()
    if objects.has_finalizers(obj):
        return rows.update(tx, old, objects.mark_deleted(obj, now, grace_seconds))
    return rows.remove(tx, old)


def _guarded(name: Name, old: Object, new: Object) -> Object:
    """`new`, with what no edit may change taken from `old`, and a generation that moves with the spec."""
    metadata = dict(new.get("metadata") or {})
    for part in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"):
        if part not in old["metadata"]:
            continue
        if part == "uid" and metadata.get(part, old["metadata"][part]) != old["metadata"][part]:
            raise errors.Conflict(
                f'{name.key} "{name.name}" is another object by now',
                hint="get it again and repeat the change",
                kind=name.kind.plural,
                name=name.name,
            )
        metadata[part] = old["metadata"][part]
    left_out = {"metadata", "status"} if name.kind.has_status else {"metadata"}
    same = _without(old, left_out) == _without(new, left_out)
    generation = old["metadata"].get("generation", 0) + (0 if same else 1)
    metadata["generation"] = max(generation, metadata.get("generation", 0))
    return {**new, "metadata": metadata}


def _without(obj: Object, left_out: set[str]) -> Object:
    return {key: value for key, value in obj.items() if key not in left_out}


def _check_expected(name: Name, old: rows.Row, uid: str | None, expected: str | None) -> None:
    if uid is not None and uid != old.uid:
        problem = f"its uid is {old.uid}, not {uid}"
    elif expected is not None and expected != str(old.rv):
        problem = "the object has been modified"
    else:
        return
    raise errors.Conflict(
        f'operation cannot be fulfilled on {name.key} "{name.name}": {problem}',
        hint="get it again and repeat the change",
        kind=name.kind.plural,
        name=name.name,
    )


def _check_namespace(tx: Tx, name: Name) -> None:
    found = rows.load(tx.conn, "namespaces", "", name.namespace)
    if found is None:
        raise errors.NotFound(
            f'namespaces "{name.namespace}" not found',
            hint="make the namespace first",
            kind="namespaces",
            name=name.namespace,
        )
    if objects.is_deleting(found.object()):
        raise errors.Forbidden(
            f'namespace "{name.namespace}" is being deleted: nothing new can be made in it',
            kind=name.kind.plural,
            name=name.name,
        )
