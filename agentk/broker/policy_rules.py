"""The rules of a Policy, compiled once: frozen, in one fixed order, with every glob ready to match. Pure.

Must never leave out a rule that it cannot read: without one Deny a Policy is wider than its author wrote. What a
matcher means is said in `policy`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from agentk.api import errors
from agentk.broker import policy_globs as globbing
from agentk.broker import policy_hosts as hosts

Effect = Literal["Deny", "Ask", "Allow"]
EFFECTS: tuple[Effect, ...] = get_args(Effect)  # the first that applies counts
LANGUAGES = frozenset({"python", "shell", "node", "argv"})
FEATURES = frozenset(
    {"hostedTools", "remoteUrls", "storedResponses", "fileIds", "privateAddresses", "childrenDetached"}
)
# What a target may be to the guest; told by the gate, which knows it from uids, not from names.
RELATIONS = frozenset({"self", "descendants", "ancestors", "namespace"})
_FIELDS = frozenset(
    {
        "name",
        "effect",
        "methods",
        "models",
        "languages",
        "targets",
        "hosts",
        "ports",
        "httpMethods",
        "paths",
        "files",
        "tools",
        "arguments",
        "features",
        "approval",
    }
)
_MAX_RULES = 200  # as the schema says; what is stored may be older than the schema
_MAX_ITEMS = 100
_MAX_PATTERN = 512  # letters: bounds one step of matching


@dataclass(frozen=True)
class Rule:
    """One rule. None: not given, matches anything; empty: matches nothing."""

    name: str
    effect: Effect
    methods: globbing.Globs | None = None
    models: globbing.Globs | None = None
    languages: frozenset[str] | None = None
    targets: globbing.Globs | None = None  # "namespace/name"
    relations: frozenset[str] = frozenset()  # the words among the targets
    hosts: globbing.Globs | None = None
    ports: frozenset[int] | None = None
    http_methods: frozenset[str] | None = None
    paths: globbing.Globs | None = None
    files: globbing.Globs | None = None
    tools: globbing.Globs | None = None  # "Tool/name"
    arguments: tuple[tuple[str, globbing.Globs], ...] | None = None
    features: frozenset[str] | None = None


@dataclass(frozen=True, eq=False)
class Rules:
    """All rules of one Policy, Deny before Ask before Allow, then by name."""

    policy: str
    rules: tuple[Rule, ...]
    level: str = ""  # whose rules they are, when the Policy has none of its own
    broken: str = ""  # why they cannot be read; everything is denied then

    def __str__(self) -> str:
        level = f" (level {self.level})" if self.level and self.level != self.policy else ""
        return f'Policy "{self.policy}"{level}'


def compiled(policy: str, written: Any, level: str = "") -> Rules:
    """`spec.rules`, ready to decide by. Raises Invalid with every rule that cannot be read."""
    if not isinstance(written, list):
        raise errors.Invalid("expected a list of rules", field="spec.rules")
    causes: list[errors.Cause] = []
    made: dict[str, Rule] = {}
    if len(written) > _MAX_RULES:
        causes.append(errors.Cause("spec.rules", f"at most {_MAX_RULES} rules, found {len(written)}"))
    for at, one in enumerate(written[:_MAX_RULES]):
        try:
            rule = _rule(one, f"#{at}")
            if rule.name in made:
                raise errors.Invalid("another rule has this name", field="name")
            made[rule.name] = rule
        except errors.Invalid as error:
            where = f"spec.rules[{at}]" + (f".{error.field}" if error.field else "")
            causes.append(errors.Cause(where, error.message, hint=error.hint))
    if causes:
        raise errors.Invalid(f'the rules of Policy "{policy}" cannot be read', causes=causes)
    ordered = sorted(made.values(), key=lambda rule: (EFFECTS.index(rule.effect), rule.name))
    return Rules(policy, tuple(ordered), level)


def _rule(written: Any, index: str) -> Rule:
    if not isinstance(written, Mapping):
        raise errors.Invalid("expected a rule with name, effect and methods")
    if unknown := sorted(str(key) for key in written if key not in _FIELDS):
        raise errors.Invalid("is not a field of a rule", field=unknown[0])
    effect = written.get("effect")
    if effect not in EFFECTS:
        raise errors.Invalid("expected Deny, Ask or Allow", field="effect")
    if "approval" in written and effect != "Ask":
        raise errors.Invalid("only a rule with effect Ask has one", field="approval")
    name = written.get("name", index)
    if not isinstance(name, str) or not name:
        raise errors.Invalid("expected a name", field="name")
    targets = _texts(written, "targets", _target)
    words = None if targets is None else frozenset(targets) & RELATIONS
    return Rule(
        name=name,
        effect=effect,
        methods=_globs(_texts(written, "methods")),
        models=_globs(_texts(written, "models")),
        languages=_known(written, "languages", LANGUAGES),
        targets=None if targets is None else _globs([one for one in targets if one not in RELATIONS]),
        relations=words or frozenset(),
        hosts=_globs(_texts(written, "hosts", hosts.pattern)),
        ports=_ports(written),
        http_methods=_set(_texts(written, "httpMethods", _http_method)),
        paths=_globs(_texts(written, "paths", _path)),
        files=_globs(_texts(written, "files", _path)),
        tools=_globs(_texts(written, "tools", _tool)),
        arguments=_arguments(written),
        features=_known(written, "features", FEATURES),
    )


def _items(written: Mapping[str, Any], field: str) -> Iterator[tuple[str, Any]]:
    values = written[field]
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise errors.Invalid("expected a list; leave the field out to match anything", field=field)
    if len(values) > _MAX_ITEMS:
        raise errors.Invalid(f"at most {_MAX_ITEMS} items", field=field)
    yield from ((f"{field}[{at}]", value) for at, value in enumerate(values))


def _texts(
    written: Mapping[str, Any], field: str, read: Callable[[str], str] = lambda text: text
) -> list[str] | None:
    """The list, each item read; None when it is not given."""
    if field not in written:
        return None
    found = []
    for where, value in _items(written, field):
        if not isinstance(value, str) or not value or len(value) > _MAX_PATTERN:
            raise errors.Invalid(f"expected text of 1 to {_MAX_PATTERN} letters", field=where)
        try:
            found.append(read(value))
        except errors.Invalid as error:
            raise errors.Invalid(error.message, field=where, hint=error.hint) from None
    return found


def _known(written: Mapping[str, Any], field: str, known: frozenset[str]) -> frozenset[str] | None:
    def read(text: str) -> str:
        if text not in known:
            raise errors.Invalid(f'expected one of {", ".join(sorted(known))}, found "{text}"')
        return text

    return _set(_texts(written, field, read))


def _ports(written: Mapping[str, Any]) -> frozenset[int] | None:
    if "ports" not in written:
        return None
    for where, value in _items(written, "ports"):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
            raise errors.Invalid("expected a port from 1 to 65535", field=where)
    return frozenset(written["ports"])


def _target(text: str) -> str:
    if text in RELATIONS or text.count("/") == 1:
        return text
    hint = f'all agents of "{text}" are "{text}/*"' if "/" not in text else ""
    raise errors.Invalid("expected NAMESPACE/NAME, self, descendants, ancestors or namespace", hint=hint)


def _tool(text: str) -> str:
    """A Tool's name alone means all that it offers."""
    if text.count("/") > 1:
        raise errors.Invalid("expected TOOL or TOOL/NAME")
    return text if "/" in text else f"{text}/*"


def _arguments(written: Mapping[str, Any]) -> tuple[tuple[str, globbing.Globs], ...] | None:
    given = written.get("arguments")
    if given is None:
        return None
    if not isinstance(given, Mapping) or len(given) > _MAX_ITEMS:
        raise errors.Invalid(
            f"expected at most {_MAX_ITEMS} arguments, each with its globs", field="arguments"
        )
    found = []
    for name in sorted(map(str, given)):
        globs = _globs(_texts(given, name))
        assert globs is not None
        found.append((name, globs))
    return tuple(found)


def _http_method(text: str) -> str:
    if not text.isascii() or not text.isalpha():
        raise errors.Invalid("expected a method such as GET", hint="leave httpMethods out to match any")
    return text.upper()


def _path(text: str) -> str:
    if not text.startswith(("/", "*")):
        raise errors.Invalid("expected a path that starts with / or *")
    return text


def _globs(texts: list[str] | None) -> globbing.Globs | None:
    return None if texts is None else globbing.globs(texts)


def _set(texts: list[str] | None) -> frozenset[str] | None:
    return None if texts is None else frozenset(texts)
