"""What a spec is handed rather than held to: files, Secrets, ConfigMaps, hosts, tools, environments. Pure.

A child has a part of what its parent has. Nothing is compared by what it may contain later: a hostPath below one that
the parent may write to could be a link to anywhere by then, so it is the same path or none.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from agentk.api import errors, quantities
from agentk.api.problems import Path, field_path, shown
from agentk.broker import narrowing_hosts, narrowing_tools
from agentk.broker import narrowing_shapes as shapes
from agentk.broker.narrowing_shapes import Found, Spec

FIELDS = frozenset(
    {
        "source",
        "env",
        "volumes",
        "volumeMounts",
        "network",
        "secrets",
        "environment",
        "tools",
        "poolRef",
        "ports",
        "context",
    }
)
_DEFAULT_EMPTY_DIR = "64Mi"  # the schema's


class Held(NamedTuple):
    """Something a box gets to see: all of it, when `part` is empty."""

    kind: str  # Secret, ConfigMap or hostPath
    name: str
    part: str = ""  # of a Secret or ConfigMap the key; of a hostPath read, or nothing to write too

    def __str__(self) -> str:
        if self.kind == "hostPath":
            return f"hostPath {self.name}" + (" read-only" if self.part else " writable")
        return (f'key "{self.part}" of ' if self.part else "") + f'{self.kind} "{self.name}"'


def problems(child: Spec, parent: Spec) -> Found:
    """Raises Invalid for what is not shaped as the schema says."""
    yield from _source(child.get("source"), parent.get("source"))
    yield from _held(child, parent)
    yield from _storage(child, parent)
    yield from narrowing_hosts.network(child.get("network"), parent.get("network"))
    yield from narrowing_hosts.secrets(child, parent)
    yield from _environment(child, parent)
    yield from narrowing_tools.tools(child, parent)
    yield from _pool(child.get("poolRef"), parent.get("poolRef"))
    yield from _ports(child)


# files


def _source(asked: Any, had: Any) -> Found:
    """Inline files are the child's own words; a digest opens what somebody else may have sent."""
    source = shapes.mapping(asked, ("source",))
    if set(source) - {"inline", "configMapRef"} and source != had:
        path = next(iter(sorted(set(source) - {"inline", "configMapRef"})))
        yield shapes.problem(
            ("source", path), "a spawned agent has inline files, a ConfigMap, or its parent's source"
        )


def _held(child: Spec, parent: Spec) -> Found:
    told = set()
    for mounted in (False, True):
        has = {one for one, _ in _all(parent, mounted)}
        for one, path in _all(child, mounted):
            whole = one._replace(part="")
            if one not in has and whole not in has and path not in told:
                told.add(path)
                others = ", ".join(sorted(str(other) for other in has if other.name == one.name))
                yield shapes.problem(path, f"its parent has {others or 'no such thing'}, asked for {one}")


def _all(spec: Spec, mounted: bool) -> Iterator[tuple[Held, Path]]:
    """What is declared or, with `mounted`, what the box really sees."""
    source: Path = ("source", "configMapRef")
    named = shapes.mapping(shapes.mapping(spec.get("source"), ("source",)).get("configMapRef"), source)
    if named:
        yield Held("ConfigMap", shapes.text(named, "name", source)), source
    for at, one in enumerate(shapes.items(spec.get("context"), ("context",))):
        place: Path = ("context", at, "configMapRef")
        text = shapes.only(
            shapes.mapping(one, ("context", at)), {"name", "text", "configMapRef"}, ("context", at)
        )
        if text.get("configMapRef") is not None:
            yield (
                Held("ConfigMap", shapes.text(shapes.mapping(text["configMapRef"], place), "name", place)),
                place,
            )
    for at, one in enumerate(shapes.items(spec.get("env"), ("env",))):
        path: Path = ("env", at, "valueFrom")
        variable = shapes.only(shapes.mapping(one, ("env", at)), {"name", "value", "valueFrom"}, ("env", at))
        origin = shapes.mapping(variable.get("valueFrom"), path)
        for ref, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            if ref in origin:
                key = shapes.mapping(origin[ref], (*path, ref))
                yield Held(kind, shapes.text(key, "name", path), shapes.text(key, "key", path)), (*path, ref)
        for other in set(origin) - {"secretKeyRef", "configMapKeyRef", "fieldRef"}:
            raise errors.Invalid("is not known", field=field_path((*path, str(other))))
    yield from _volumes(spec, mounted)


def _volumes(spec: Spec, mounted: bool) -> Iterator[tuple[Held, Path]]:
    where: Path = ("volumeMounts",)
    mounts = [
        shapes.only(shapes.mapping(one, where), {"name", "mountPath", "readOnly"}, where)
        for one in shapes.items(spec.get("volumeMounts"), where)
    ]
    writable = {str(one.get("name")) for one in mounts if not one.get("readOnly")}
    seen = {str(one.get("name")) for one in mounts}
    for at, one in enumerate(shapes.items(spec.get("volumes"), ("volumes",))):
        path: Path = ("volumes", at)
        volume = shapes.mapping(one, path)
        if mounted and str(volume.get("name")) not in seen:
            continue
        for kind in sorted(set(volume) - {"name", "emptyDir"}):
            held, where = shapes.mapping(volume[kind], (*path, kind)), (*path, kind)
            if kind == "hostPath":
                host_path = shapes.text(held, "path", where).rstrip("/") or "/"
                read = "" if mounted and str(volume.get("name")) in writable else "read"
                yield Held("hostPath", host_path, read), where
            elif kind == "secret":
                yield Held("Secret", shapes.text(held, "secretName", where)), where
            elif kind == "configMap":
                yield Held("ConfigMap", shapes.text(held, "name", where)), where
            else:
                raise errors.Invalid("is not known", field=field_path(where))


def _storage(child: Spec, parent: Spec) -> Found:
    """The workspace and all empty directories together; the workspace alone is a bound."""
    asked, had = _storage_bytes(child), _storage_bytes(parent)
    if had is not None and asked is not None and asked > had:
        told = f"the workspace and these have {quantities.format_quantity(asked)} together; its parent has "
        yield shapes.problem(("volumes",), f"{told}{quantities.format_quantity(had)}")


def _storage_bytes(spec: Spec) -> int | None:
    limits = shapes.mapping(
        shapes.mapping(spec.get("resources"), ("resources",)).get("limits"), ("resources", "limits")
    )
    if limits.get("ephemeral-storage") is None:
        return None
    size = quantities.parse_quantity(limits["ephemeral-storage"])
    for at, one in enumerate(shapes.items(spec.get("volumes"), ("volumes",))):
        volume = shapes.mapping(one, ("volumes", at))
        if "emptyDir" in volume:
            empty = shapes.mapping(volume["emptyDir"], ("volumes", at, "emptyDir"))
            size += quantities.parse_quantity(empty.get("sizeLimit", _DEFAULT_EMPTY_DIR))
    return size


# what it runs with


def _environment(child: Spec, parent: Spec) -> Found:
    has = shapes.mapping(parent.get("environment"), ("environment",))
    for language, asked in shapes.mapping(child.get("environment"), ("environment",)).items():
        if asked != has.get(language):
            told = "a spawned agent has its parent's environment or none: packages are not fetched for guests"
            yield shapes.problem(("environment", str(language)), told)


def _pool(asked: Any, had: Any) -> Found:
    """What it takes from the Pool's template is compared like all that it asks for."""
    where: Path = ("poolRef",)
    ref, own = shapes.only(shapes.mapping(asked, where), {"name"}, where), shapes.mapping(had, where)
    if ref and ref != own:
        told = f"its parent has {shown(own.get('name')) if own else 'no Pool'}, asked for {shown(ref.get('name'))}"
        yield shapes.problem(("poolRef", "name"), told)


def _ports(child: Spec) -> Found:
    """The host's are few, and whose they are its owner says."""
    for at, _ in enumerate(shapes.items(child.get("ports"), ("ports",))):
        yield shapes.problem(("ports", at), "a spawned agent has no port of the host")
