"""Which Skills an agent may use and which names it may save under, as its `spec.skills` says. Pure.

What is not named is not there. A Skill of another namespace needs both sides: the agent asks for it, and the Skill
names the agent's namespace.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, skillspecs
from agentk.api.problems import Path, Problem, field_path, shown
from agentk.broker import policy_globs

Object = Mapping[str, Any]
Key = tuple[str, str]  # namespace and name


@dataclass(frozen=True)
class Entry:
    """A Skill without its files."""

    namespace: str
    name: str
    description: str
    version: int
    namespaces: frozenset[str]
    saved_by: str  # uid of the agent that saved it; "" when a person applied it
    size_bytes: int = 0

    @property
    def key(self) -> Key:
        return self.namespace, self.name


def entry(skill: Object) -> Entry:
    metadata, spec = skill["metadata"], skill["spec"]
    return Entry(
        str(metadata["namespace"]),
        str(metadata["name"]),
        str(spec["description"]),
        int(spec.get("version", 1)),
        frozenset(spec.get("namespaces") or ()),
        str((metadata.get("annotations") or {}).get(skillspecs.SAVED_BY, "")),
        skillspecs.size(skill),
    )


def namespaces(spec: Object, own: str) -> frozenset[str]:
    """Whose Skills the agent asks for."""
    return frozenset(str(one.get("namespace") or own) for one in _uses(spec))


def may_use(spec: Object, own: str, skill: Entry) -> bool:
    """Of an agent of the namespace `own`. An older version only when it is written out."""
    if skill.namespace != own and not skill.namespaces & {own, "*"}:
        return False
    return any(_names(one, own, skill) for one in _uses(spec))


def chosen(spec: Object, own: str, skills: Iterable[Entry]) -> list[Entry]:
    """One of each name, in order: a version that is written out before the latest, the agent's own namespace before
    others, and these as the agent names them."""
    uses = _uses(spec)
    found: dict[str, tuple[tuple[bool, bool, int], Entry]] = {}
    for skill in skills:
        if not may_use(spec, own, skill):
            continue
        at = next(at for at, one in enumerate(uses) if _names(one, own, skill))
        rank = (not _is_version(skill.name), skill.namespace != own, at)
        module = skillspecs.module(skill.name)
        if module not in found or rank < found[module][0]:
            found[module] = rank, skill
    return [found[module][1] for module in sorted(found)]


def missing(spec: Object, own: str, skills: Iterable[Entry]) -> list[Key]:
    """What it names and may not use. A glob names none; what the agent may save itself is not there at first."""
    there = {one.key for one in skills if may_use(spec, own, one)}
    named = [(str(one.get("namespace") or own), str(one["name"])) for one in _uses(spec)]
    return [
        (namespace, name)
        for namespace, name in dict.fromkeys(named)
        if (namespace, name) not in there
        and is_name(name)
        and not (namespace == own and may_save(spec, skillspecs.base(name)))
    ]


def is_name(text: str) -> bool:
    """Whether it is one name, and no glob of names."""
    return not set(text) & set("*?")


def may_save(spec: Object, name: str) -> bool:
    return any(policy_globs.glob(str(one)).matches(name) for one in _skills(spec).get("save") or ())


def wider(asked: Any, had: Any) -> Iterator[Problem]:
    """Why a child's `spec.skills` is wider than its parent's. Raises Invalid for what is not shaped as it should be."""
    child, parent = _read(asked), _read(had)
    for at, (namespace, name) in enumerate(child[0]):
        if not any(_covers(one, (namespace, name)) for one in parent[0]):
            told = ", ".join(shown(glob) for _, glob in parent[0]) or "none"
            yield _problem(("use", at), f"its parent has {told}, asked for {shown(name)}")
    for at, name in enumerate(child[1]):
        if not any(policy_globs.covers(one, name) for one in parent[1]):
            told = ", ".join(map(shown, parent[1])) or "none"
            yield _problem(("save", at), f"its parent may save {told}, asked for {shown(name)}")


def _covers(wide: Key, narrow: Key) -> bool:
    if _is_version(narrow[1]):  # a glob is about the latest alone
        return wide == narrow
    return wide[0] == narrow[0] and policy_globs.covers(wide[1], narrow[1])


def _read(written: Any) -> tuple[list[Key], list[str]]:
    if written is None:
        return [], []
    if not isinstance(written, Mapping) or set(written) - {"use", "save"}:
        raise errors.Invalid("is not known", field="skills")
    uses, saves = written.get("use") or (), written.get("save") or ()
    for field, held in (("use", uses), ("save", saves)):
        if not isinstance(held, list | tuple):
            raise errors.Invalid("expected a list", field=f"skills.{field}")
    keys = []
    for at, one in enumerate(uses):
        where = field_path(("skills", "use", at))
        if not isinstance(one, Mapping) or set(one) - {"name", "namespace"}:
            raise errors.Invalid("is not known", field=where)
        name, namespace = one.get("name"), one.get("namespace", "")
        if not isinstance(name, str) or not isinstance(namespace, str):
            raise errors.Invalid("expected texts", field=where)
        keys.append((namespace, name))
    if not all(isinstance(one, str) for one in saves):
        raise errors.Invalid("expected texts", field="skills.save")
    return keys, list(saves)


def _names(one: Object, own: str, skill: Entry) -> bool:
    if str(one.get("namespace") or own) != skill.namespace:
        return False
    if _is_version(skill.name):
        return bool(one["name"] == skill.name)
    return policy_globs.glob(str(one["name"])).matches(skill.name)


def _is_version(name: str) -> bool:
    return skillspecs.base(name) != name


def _uses(spec: Object) -> Sequence[Object]:
    return _skills(spec).get("use") or ()


def _skills(spec: Object) -> Object:
    return spec.get("skills") or {}


def _problem(path: Path, message: str) -> Problem:
    return Problem(("spec", "skills", *path), message, reason="FieldValueForbidden")
