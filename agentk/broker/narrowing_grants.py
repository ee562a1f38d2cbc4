"""What a spec is handed rather than held to: files, Secrets, ConfigMaps, hosts, tools, environments. Pure.

A child has a part of what its parent has. Nothing is compared by what it may contain later: a hostPath below one that
the parent may write to could be a link to anywhere by then, so it is the same path or none.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agentk.api import errors, quantities
from agentk.api.problems import Path, Problem, field_path, shown
from agentk.broker import policy_globs as globbing
from agentk.broker import policy_hosts as hosts

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
Spec = Mapping[str, Any]
Found = Iterator[Problem]
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
    yield from _network(child.get("network"), parent.get("network"))
    yield from _secrets(child, parent)
    yield from _environment(child, parent)
    yield from _tools(child, parent)
    yield from _pool(child.get("poolRef"), parent.get("poolRef"))
    yield from _ports(child)


def covers(wide: str, narrow: str) -> bool:
    """Whether all that the glob `narrow` matches surely is matched by `wide`."""
    return globbing.glob(wide).covers(narrow)


# files


def _source(asked: Any, had: Any) -> Found:
    """Inline files are the child's own words; a digest opens what somebody else may have sent."""
    source = _map(asked, ("source",))
    if set(source) - {"inline", "configMapRef"} and source != had:
        path = next(iter(sorted(set(source) - {"inline", "configMapRef"})))
        yield _problem(
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
                yield _problem(path, f"its parent has {others or 'no such thing'}, asked for {one}")


def _all(spec: Spec, mounted: bool) -> Iterator[tuple[Held, Path]]:
    """What is declared or, with `mounted`, what the box really sees."""
    source = _map(_map(spec.get("source"), ("source",)).get("configMapRef"), ("source", "configMapRef"))
    if source:
        yield Held("ConfigMap", _text(source, "name", ("source", "configMapRef"))), ("source", "configMapRef")
    for at, one in enumerate(_list(spec.get("context"), ("context",))):
        place: Path = ("context", at, "configMapRef")
        text = _only(_map(one, ("context", at)), {"name", "text", "configMapRef"}, ("context", at))
        if text.get("configMapRef") is not None:
            yield Held("ConfigMap", _text(_map(text["configMapRef"], place), "name", place)), place
    for at, one in enumerate(_list(spec.get("env"), ("env",))):
        path: Path = ("env", at, "valueFrom")
        variable = _only(_map(one, ("env", at)), {"name", "value", "valueFrom"}, ("env", at))
        origin = _map(variable.get("valueFrom"), path)
        for ref, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            if ref in origin:
                key = _map(origin[ref], (*path, ref))
                yield Held(kind, _text(key, "name", path), _text(key, "key", path)), (*path, ref)
        for other in set(origin) - {"secretKeyRef", "configMapKeyRef", "fieldRef"}:
            raise errors.Invalid("is not known", field=field_path((*path, str(other))))
    yield from _volumes(spec, mounted)


def _volumes(spec: Spec, mounted: bool) -> Iterator[tuple[Held, Path]]:
    where: Path = ("volumeMounts",)
    mounts = [
        _only(_map(one, where), {"name", "mountPath", "readOnly"}, where)
        for one in _list(spec.get("volumeMounts"), where)
    ]
    writable = {str(one.get("name")) for one in mounts if not one.get("readOnly")}
    seen = {str(one.get("name")) for one in mounts}
    for at, one in enumerate(_list(spec.get("volumes"), ("volumes",))):
        path: Path = ("volumes", at)
        volume = _map(one, path)
        if mounted and str(volume.get("name")) not in seen:
            continue
        for kind in sorted(set(volume) - {"name", "emptyDir"}):
            held, where = _map(volume[kind], (*path, kind)), (*path, kind)
            if kind == "hostPath":
                host_path = _text(held, "path", where).rstrip("/") or "/"
                read = "" if mounted and str(volume.get("name")) in writable else "read"
                yield Held("hostPath", host_path, read), where
            elif kind == "secret":
                yield Held("Secret", _text(held, "secretName", where)), where
            elif kind == "configMap":
                yield Held("ConfigMap", _text(held, "name", where)), where
            else:
                raise errors.Invalid("is not known", field=field_path(where))


def _storage(child: Spec, parent: Spec) -> Found:
    """The workspace and all empty directories together; the workspace alone is a bound."""
    asked, had = _storage_bytes(child), _storage_bytes(parent)
    if had is not None and asked is not None and asked > had:
        told = f"the workspace and these have {quantities.format_quantity(asked)} together; its parent has "
        yield _problem(("volumes",), f"{told}{quantities.format_quantity(had)}")


def _storage_bytes(spec: Spec) -> int | None:
    limits = _map(_map(spec.get("resources"), ("resources",)).get("limits"), ("resources", "limits"))
    if limits.get("ephemeral-storage") is None:
        return None
    size = quantities.parse_quantity(limits["ephemeral-storage"])
    for at, one in enumerate(_list(spec.get("volumes"), ("volumes",))):
        volume = _map(one, ("volumes", at))
        if "emptyDir" in volume:
            empty = _map(volume["emptyDir"], ("volumes", at, "emptyDir"))
            size += quantities.parse_quantity(empty.get("sizeLimit", _DEFAULT_EMPTY_DIR))
    return size


# the network


class _Way(NamedTuple):
    host: str
    ports: frozenset[int]
    methods: frozenset[str]  # empty: any
    private: bool

    def __str__(self) -> str:
        told = f"{self.host} on {', '.join(map(str, sorted(self.ports)))}"
        told += f" by {', '.join(sorted(self.methods))}" if self.methods else ""
        return told + (" at private addresses" if self.private else "")

    def grants(self, port: int, method: str, private: bool) -> bool:
        """`method` "": any."""
        fits = not self.methods or method in self.methods
        return port in self.ports and fits and (self.private or not private)


def _network(asked: Any, had: Any) -> Found:
    if not asked:
        return
    open_child, ways = _egress(asked)
    open_parent, parent_ways = _egress(had)
    where: Path = ("network", "egress")
    if open_child and not open_parent:
        yield _problem((*where, "default"), 'its parent has "Deny", asked for "Allow"')
    elif open_child:
        # What is listed is reached as it is listed; what is not, in every way. So nothing may be left out.
        for one in parent_ways:
            if not any(covers(way.host, one.host) for way in ways):
                yield _problem((*where, "allow"), f"its parent reaches only {one} of {one.host}: list it too")
    for at, way in enumerate(ways):
        if not _reachable(way, parent_ways, open_parent):
            has = "; ".join(map(str, parent_ways)) or "no host"
            yield _problem((*where, "allow", at), f"its parent reaches {has}; asked for {way}")


def _reachable(way: _Way, among: Sequence[_Way], open_parent: bool) -> bool:
    touched = [one for one in among if covers(one.host, way.host) or covers(way.host, one.host)]
    if open_parent and not touched:
        return not way.private
    fitting = [one for one in touched if covers(one.host, way.host)]
    return all(
        any(one.grants(port, method, way.private) for one in fitting)
        for port in way.ports
        for method in way.methods or ("",)
    ) and bool(fitting)


def _egress(network: Any) -> tuple[bool, list[_Way]]:
    where: Path = ("network", "egress")
    egress = _map(_only(_map(network, ("network",)), {"egress"}, ("network",)).get("egress"), where)
    _only(egress, {"default", "allow"}, where)
    if egress.get("default", "Deny") not in ("Allow", "Deny"):
        raise errors.Invalid("expected Allow or Deny", field=field_path((*where, "default")))
    ways = [
        _way(one, (*where, "allow", at))
        for at, one in enumerate(_list(egress.get("allow"), (*where, "allow")))
    ]
    return egress.get("default") == "Allow", ways


def _way(one: Any, path: Path) -> _Way:
    """One entry, read as `egress.parse` reads it."""
    entry = _only(_map(one, path), {"host", "ports", "methods", "privateAddresses"}, path)
    ports = [443] if entry.get("ports") is None else _list(entry["ports"], (*path, "ports"))
    if not all(type(port) is int for port in ports):
        raise errors.Invalid("expected ports", field=field_path((*path, "ports")))
    methods = _list(entry.get("methods"), (*path, "methods"))
    if not all(isinstance(method, str) for method in methods):
        raise errors.Invalid("expected methods", field=field_path((*path, "methods")))
    if type(entry.get("privateAddresses", False)) is not bool:
        raise errors.Invalid("expected true or false", field=field_path((*path, "privateAddresses")))
    try:
        host = hosts.pattern(_text(entry, "host", path))
    except errors.Invalid as error:
        raise errors.Invalid(error.message, field=field_path((*path, "host"))) from None
    named = frozenset(method.upper() for method in methods)
    return _Way(host, frozenset(ports), named, entry.get("privateAddresses", False))


def _secrets(child: Spec, parent: Spec) -> Found:
    """Secrets put into requests by the gate; to have one so does not mean to know it."""
    has = [_map(one, ("secrets",)) for one in _list(parent.get("secrets"), ("secrets",))]
    for at, one in enumerate(_list(child.get("secrets"), ("secrets",))):
        asked = _map(one, ("secrets", at))
        if not any(_injected(asked, other) for other in has):
            names = ", ".join(shown(other.get("name")) for other in has) or "none"
            told = f"its parent has {names}, for hosts of its own; asked for {shown(asked.get('name'))}"
            yield _problem(("secrets", at), told)


def _injected(asked: Spec, had: Spec) -> bool:
    """The same, or the same for fewer hosts."""
    if asked == had:
        return True
    into, inside = asked.get("inject"), had.get("inject")
    if not isinstance(into, Mapping) or not isinstance(inside, Mapping):
        return False
    if {**asked, "inject": {**into, "host": ""}} != {**had, "inject": {**inside, "host": ""}}:
        return False
    try:
        return covers(hosts.pattern(str(inside.get("host"))), hosts.pattern(str(into.get("host"))))
    except errors.Invalid:
        return False


# what it runs with


def _environment(child: Spec, parent: Spec) -> Found:
    has = _map(parent.get("environment"), ("environment",))
    for language, asked in _map(child.get("environment"), ("environment",)).items():
        if asked != has.get(language):
            told = "a spawned agent has its parent's environment or none: packages are not fetched for guests"
            yield _problem(("environment", str(language)), told)


def _pool(asked: Any, had: Any) -> Found:
    """What it takes from the Pool's template is compared like all that it asks for."""
    ref, own = _only(_map(asked, ("poolRef",)), {"name"}, ("poolRef",)), _map(had, ("poolRef",))
    if ref and ref != own:
        told = f"its parent has {shown(own.get('name')) if own else 'no Pool'}, asked for {shown(ref.get('name'))}"
        yield _problem(("poolRef", "name"), told)


def _ports(child: Spec) -> Found:
    """The host's are few, and whose they are its owner says."""
    for at, _ in enumerate(_list(child.get("ports"), ("ports",))):
        yield _problem(("ports", at), "a spawned agent has no port of the host")


def _tools(child: Spec, parent: Spec) -> Found:
    has = {one.name: one for one in _grants(parent)}
    for at, asked in enumerate(_grants(child)):
        had = has.get(asked.name)
        if had is None:
            names = ", ".join(f'"{name}"' for name in has) or "none"
            yield _problem(("tools", at), f'its parent has {names}, asked for "{asked.name}"')
        elif why := asked.wider(had):
            yield _problem(("tools", at), f'"{asked.name}" is wider than its parent has it: {why}')


class _Grant(NamedTuple):
    name: str
    allow: list[str] | None
    deny: list[str]
    approve: list[str]
    arguments: list[Any]
    most: int | None

    def wider(self, had: "_Grant") -> str:
        """In what; "" when it is not."""
        may = had.allow
        if may is not None and (
            self.allow is None or not all(any(covers(wide, one) for wide in may) for one in self.allow)
        ):
            return f"allow is {', '.join(may) or 'nothing'}"
        for field, mine, theirs in (
            ("deny", self.deny, had.deny),
            ("requireApproval", self.approve, had.approve),
        ):
            if missing := [one for one in theirs if not any(covers(wide, one) for wide in mine)]:
                return f"{field} has {', '.join(missing)}"
        if any(rule not in self.arguments for rule in had.arguments):
            return "each of its rules for arguments is needed"
        if had.most is not None and (self.most is None or self.most > had.most):
            return f"maxCalls is {had.most}"
        return ""


_GRANT = {"ref", "allow", "deny", "arguments", "requireApproval", "maxCalls", "resultBytes"}


def _grants(spec: Spec) -> Iterator[_Grant]:
    for at, one in enumerate(_list(spec.get("tools"), ("tools",))):
        path: Path = ("tools", at)
        tool = _only(_map(one, path), _GRANT, path)
        ref = _only(_map(tool.get("ref"), (*path, "ref")), {"name"}, path)
        most = tool.get("maxCalls")
        if most is not None and type(most) is not int:
            raise errors.Invalid("expected a whole number", field=field_path((*path, "maxCalls")))
        allow = None if tool.get("allow") is None else _texts(tool, "allow", path)
        yield _Grant(
            _text(ref, "name", (*path, "ref")),
            allow,
            _texts(tool, "deny", path),
            _texts(tool, "requireApproval", path),
            [{"name": "*", **_map(rule, path)} for rule in _list(tool.get("arguments"), path)],
            most,
        )


def _texts(tool: Spec, field: str, path: Path) -> list[str]:
    given = _list(tool.get(field), (*path, field))
    if not all(isinstance(glob, str) for glob in given):
        raise errors.Invalid("expected texts", field=field_path((*path, field)))
    return list(given)


# shapes


def _map(value: Any, path: Path) -> Spec:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise errors.Invalid("expected an object", field=field_path(path))
    return value


def _only(value: Spec, known: set[str], path: Path) -> Spec:
    for field in value:
        if field not in known:
            raise errors.Invalid("is not known", field=field_path((*path, str(field))))
    return value


def _list(value: Any, path: Path) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise errors.Invalid("expected a list", field=field_path(path))
    return value


def _text(held: Spec, field: str, path: Path) -> str:
    value = held.get(field)
    if not isinstance(value, str) or not value:
        raise errors.Invalid("expected text", field=field_path((*path, field)))
    return value


def _problem(path: Path, message: str) -> Problem:
    return Problem(("spec", *path), message, reason="FieldValueForbidden")
