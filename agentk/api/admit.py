"""The one way in: an object is admitted when it is right in every field; else every problem is told at once.

What comes out has its defaults and nothing unknown. Pure, and repeatable: admitting it again changes nothing.
"""

from collections.abc import Mapping
from typing import Any

from agentk.api import checking, crosschecks, errors, kinds, manifest, schemas, shaping
from agentk.api.problems import Path, Problem, field_path, raise_all, shown

# Values below these are never quoted in a message.
_SECRET_BELOW = {"Secret": ("data", "stringData")}


def admit(
    obj: Mapping[str, Any],
    written: manifest.Manifest | None = None,
    *,
    strict: bool = True,
    partial: bool = False,
    defaults: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The object with its defaults, checked in every field. Raises Invalid with a cause for each problem.

    `written` gives problems their line. Without `strict` unknown fields are dropped, not refused. `partial` takes
    the piece of an object that server-side apply sends: nothing is required, and no default is put in.
    `defaults` (a Runtime's `spec.defaults`) go below the spec and above the schema's.
    """
    kind = kind_of(obj, written)
    metadata = obj.get("metadata")
    name = str(metadata.get("name", "")) if isinstance(metadata, Mapping) else ""
    if hostile := shaping.scan(obj):
        raise_all(hostile, kind.kind, "", written)
    unknown: list[Problem] = []
    made = shaping.shaped(obj, schemas.of(kind), unknown)
    secret = _SECRET_BELOW.get(kind.kind, ())
    found = unknown if strict else []
    found += checking.check(made, kind.schema_file, secret_below=secret, partial=partial)
    found += _naming(kind, made)
    found += crosschecks.check(kind, _without_misshapen(made, found))
    raise_all(found, kind.kind, name, written)
    made = crosschecks.folded(made) if kind is kinds.SECRET else made
    if not partial:
        if defaults and isinstance(made.get("spec"), dict):
            shaping.under(made["spec"], defaults)
        shaping.filled(made, schemas.of(kind))
        raise_all(
            crosschecks.check(kind, made), kind.kind, name, written
        )  # defaults may not fit what is given
    return made


def unknown_fields(obj: Mapping[str, Any]) -> list[str]:
    """A warning for each unknown field, for callers that admit without `strict`."""
    found: list[Problem] = []
    shaping.shaped(obj, schemas.of(kind_of(obj)), found)
    return [f'unknown field "{field_path(problem.path)}"' for problem in found]


def admit_update(
    old: Mapping[str, Any], new: Mapping[str, Any], written: manifest.Manifest | None = None
) -> None:
    """Refuse changes of what cannot be changed. Both are admitted objects. Raises Invalid."""
    kind = kind_of(new, written)
    found = list(_changed(schemas.of(kind), old, new, ()))
    if kind in (kinds.SECRET, kinds.CONFIGMAP) and old.get("immutable"):
        if not new.get("immutable"):
            found.append(Problem(("immutable",), "cannot be taken back once it is true"))
        for field in ("data", "binaryData"):
            if (old.get(field) or {}) != (new.get(field) or {}):
                hint = f"delete the {kind.kind} and make it again"
                found.append(Problem((field,), "cannot be changed: the object is immutable", hint))
    raise_all(found, kind.kind, str(new["metadata"].get("name", "")), written)


def admit_config(obj: Mapping[str, Any], written: manifest.Manifest | None = None) -> dict[str, Any]:
    """The daemon's configuration with its defaults. Raises Invalid like `admit`."""
    found = shaping.scan(obj)
    schema = schemas.load("config.json")
    made = shaping.shaped(obj, schema, found)
    found += checking.check(made, "config.json")
    raise_all(found, "configuration", "", written)
    return dict(shaping.filled(made, schema))


def kind_of(obj: Mapping[str, Any], written: manifest.Manifest | None = None) -> kinds.Kind:
    """The Kind of an object. Raises Invalid when apiVersion or kind is missing or unknown."""
    api_version, kind = obj.get("apiVersion"), obj.get("kind")
    found = []
    for field, value, such in (("apiVersion", api_version, kinds.API_VERSION), ("kind", kind, "Agent")):
        if value is None or value == "":
            found.append(
                Problem((field,), "is required", f"such as {field}: {such}", reason="FieldValueRequired")
            )
        elif not isinstance(value, str):
            found.append(Problem((field,), f"expected text, found {shown(value)}"))
    raise_all(found, "object", "", written)
    try:
        return kinds.find(str(api_version)[:200], str(kind)[:200])
    except errors.BadRequest as error:
        problem = Problem((error.field,), error.message, error.hint, reason="FieldValueNotSupported")
        raise_all([problem], "object", "", written)
        raise


def _naming(kind: kinds.Kind, obj: Mapping[str, Any]) -> list[Problem]:
    metadata = obj.get("metadata")
    if metadata is not None and not isinstance(metadata, Mapping):
        return []  # its type is told already
    found = []
    if not (metadata and (metadata.get("name") or metadata.get("generateName"))):
        hint = "give the object a name, or a prefix as generateName"
        found.append(Problem(("metadata", "name"), "is required", hint, reason="FieldValueRequired"))
    if not kind.namespaced and metadata and metadata.get("namespace"):
        message = f"a {kind.kind} belongs to no namespace"
        found.append(Problem(("metadata", "namespace"), message, "leave it out", True))
    return found


def _without_misshapen(obj: dict[str, Any], found: list[Problem]) -> dict[str, Any]:
    """The object less every value of a wrong type: checks across fields would trip over them."""
    for path in [problem.path for problem in found if problem.reason == "FieldValueTypeInvalid"]:
        while path and isinstance(path[-1], int):  # the whole list, or the others would move up
            path = path[:-1]
        if path:
            obj = _without(obj, path)
    return obj


def _without(value: Any, path: Path) -> Any:
    """A copy, changed along the path only."""
    if isinstance(value, dict):
        below = {key: held for key, held in value.items() if key != path[0]}
        if len(path) > 1 and path[0] in value:
            below[path[0]] = _without(value[path[0]], path[1:])
        return below
    if isinstance(value, list):
        return [_without(held, path[1:]) if at == path[0] else held for at, held in enumerate(value)]
    return value


def _changed(schema: schemas.Schema, old: Any, new: Any, path: Path) -> list[Problem]:
    found = []
    for rule in schema.get("x-kubernetes-validations", ()):
        if rule["rule"] == "self == oldSelf" and old != new:
            found.append(Problem(path, f"{rule['message']} (it is {shown(old)})"))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key, below in schema.get("properties", {}).items():
            if key in old and key in new:
                found += _changed(below, old[key], new[key], (*path, key))
    return found
