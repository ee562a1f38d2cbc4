"""Hosts that a spec may reach, and Secrets that are put into its requests: a child has a part of its parent's. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agentk.api import errors
from agentk.api.problems import Path, field_path, shown
from agentk.broker import narrowing_shapes as shapes
from agentk.broker import policy_hosts as hosts
from agentk.broker.narrowing_shapes import Found, Spec
from agentk.broker.policy_globs import covers


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


def network(asked: Any, had: Any) -> Found:
    if not asked:
        return
    open_child, ways = _egress(asked)
    open_parent, parent_ways = _egress(had)
    where: Path = ("network", "egress")
    if open_child and not open_parent:
        yield shapes.problem((*where, "default"), 'its parent has "Deny", asked for "Allow"')
    elif open_child:
        # What is listed is reached as it is listed; what is not, in every way. So nothing may be left out.
        for one in parent_ways:
            if not any(covers(way.host, one.host) for way in ways):
                yield shapes.problem(
                    (*where, "allow"), f"its parent reaches only {one} of {one.host}: list it too"
                )
    for at, way in enumerate(ways):
        if not _reachable(way, parent_ways, open_parent):
            has = "; ".join(map(str, parent_ways)) or "no host"
            yield shapes.problem((*where, "allow", at), f"its parent reaches {has}; asked for {way}")


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
    asked = shapes.only(shapes.mapping(network, ("network",)), {"egress"}, ("network",))
    egress = shapes.mapping(asked.get("egress"), where)
    shapes.only(egress, {"default", "allow"}, where)
    if egress.get("default", "Deny") not in ("Allow", "Deny"):
        raise errors.Invalid("expected Allow or Deny", field=field_path((*where, "default")))
    ways = [
        _way(one, (*where, "allow", at))
        for at, one in enumerate(shapes.items(egress.get("allow"), (*where, "allow")))
    ]
    return egress.get("default") == "Allow", ways


def _way(one: Any, path: Path) -> _Way:
    """One entry, read as `egress.parse` reads it."""
    entry = shapes.only(shapes.mapping(one, path), {"host", "ports", "methods", "privateAddresses"}, path)
    ports = [443] if entry.get("ports") is None else shapes.items(entry["ports"], (*path, "ports"))
    if not all(type(port) is int for port in ports):
        raise errors.Invalid("expected ports", field=field_path((*path, "ports")))
    methods = shapes.items(entry.get("methods"), (*path, "methods"))
    if not all(isinstance(method, str) for method in methods):
        raise errors.Invalid("expected methods", field=field_path((*path, "methods")))
    if type(entry.get("privateAddresses", False)) is not bool:
        raise errors.Invalid("expected true or false", field=field_path((*path, "privateAddresses")))
    try:
        host = hosts.pattern(shapes.text(entry, "host", path))
    except errors.Invalid as error:
        raise errors.Invalid(error.message, field=field_path((*path, "host"))) from None
    named = frozenset(method.upper() for method in methods)
    return _Way(host, frozenset(ports), named, entry.get("privateAddresses", False))


def secrets(child: Spec, parent: Spec) -> Found:
    """Secrets put into requests by the gate; to have one so does not mean to know it."""
    has = [shapes.mapping(one, ("secrets",)) for one in shapes.items(parent.get("secrets"), ("secrets",))]
    for at, one in enumerate(shapes.items(child.get("secrets"), ("secrets",))):
        asked = shapes.mapping(one, ("secrets", at))
        if not any(_injected(asked, other) for other in has):
            names = ", ".join(shown(other.get("name")) for other in has) or "none"
            told = f"its parent has {names}, for hosts of its own; asked for {shown(asked.get('name'))}"
            yield shapes.problem(("secrets", at), told)


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
