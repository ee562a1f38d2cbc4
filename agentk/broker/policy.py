"""What a Policy says about one call: Deny, Ask or Allow, by which rule, and why in a sentence. Pure.

A rule has an effect and matchers. It applies to a call when every matcher it gives matches:

* not given matches anything, also calls that do not have such a thing (`hosts` says nothing about `think`);
* an empty list matches nothing, so that the rule never applies;
* a list matches what one of its items matches. What a call does not have (a host, a target) matches no item,
  not even `*`.

Any Deny that applies denies; else any Ask asks; else any Allow allows; else it is denied, because no rule allows it.
The order of the rules is of no account. A call that may reach several models is decided for each, and the strictest
verdict counts.

Features are what goes beyond the call itself (`hostedTools`, `privateAddresses` …). Every one that a call uses must be
listed by a rule that applies and allows (or asks): it is never implied, not by `methods: ["*"]`. As a matcher,
`features` means calls that use one of them; so a rule that lists features allows no call without.

Hosts and paths are compared in their one spelling (`policy_hosts`, `policy_paths`); what has none is denied. A tunnel
(`http.request` with the method CONNECT) hides what it carries: to Deny and Ask it is any of the `httpMethods` and
`paths` they list; an Allow that lists httpMethods must list CONNECT, and one that lists paths never allows it. Methods,
models, targets and paths keep their case; hosts and HTTP methods have none.

The arguments of a tool are compared as text, each name with its globs; every name listed must fit. To Deny and Ask one
value of a list is enough, to Allow all of them must fit; an argument that is not given fits nothing.

Nothing here may be decided by what a guest says of itself: facts are told by the gate. A fact that every call of a
method has, and is missing, denies.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentk.api import errors, manifest
from agentk.broker import policy_arguments, words
from agentk.broker import policy_hosts as hosts
from agentk.broker import policy_paths as pathing
from agentk.broker import policy_rules as ruling
from agentk.data import files

LEVELS = ("privileged", "baseline", "restricted")
TUNNEL = "CONNECT"
MAX_FACT = 4096  # letters of one fact: matching takes a step for each
_SHIPPED = "20-policies.yaml"
# Without these a rule about them would be passed by in silence.
_ALWAYS_TOLD: dict[str, tuple[str, ...]] = {
    "think": ("models",),
    "embed": ("models",),
    "exec": ("language",),
    "agent.kill": ("target",),
    "agent.pause": ("target",),
    "agent.resume": ("target",),
    "message.send": ("target",),
    "http.request": ("host", "port", "http_method"),
    "tool.call": ("tool",),
}


@dataclass(frozen=True)
class Facts:
    """What a call is about, as far as rules ask. Empty: the call has no such thing."""

    models: tuple[str, ...] = ()  # every one it may reach, fallbacks included, as the ModelRoute names them
    language: str = ""
    target: str = ""  # "namespace/name"; a call to several agents is decided once for each
    relations: frozenset[str] = frozenset()  # what the target is to the guest: `related`
    host: str = ""
    port: int = 0
    http_method: str = ""
    path: str = ""
    file: str = ""  # what a call that reads or writes one names, absolute
    tool: str = ""  # "Tool/name": whose, and which of those it offers
    arguments: Mapping[str, Any] | None = None  # of the tool
    granted: "Verdict | None" = (
        None  # what the agent's own spec says of this call, besides the Policy: both must allow
    )
    features: frozenset[str] = frozenset()


NOTHING = Facts()  # of calls that are about themselves only; their verdicts are remembered


@dataclass(frozen=True)
class Verdict:
    effect: ruling.Effect
    rule: str  # its name; "" when no rule decided
    reason: str


@dataclass(frozen=True)
class Told:
    """What one rule has to do with a call."""

    rule: str
    effect: ruling.Effect
    applies: bool
    why: str


def decide(rules: ruling.Rules, method: str, facts: Facts) -> Verdict:
    """The verdict; never raises, whatever the facts hold."""
    if facts is NOTHING:
        return _of_nothing(rules, method)
    verdict = _judged(rules, method, facts)
    if facts.granted is None:
        return verdict
    return min(verdict, facts.granted, key=lambda one: ruling.EFFECTS.index(one.effect))


@functools.lru_cache(maxsize=4096)
def _of_nothing(rules: ruling.Rules, method: str) -> Verdict:
    return _judged(rules, method, NOTHING)


def _judged(rules: ruling.Rules, method: str, facts: Facts) -> Verdict:
    if rules.broken:
        return Verdict("Deny", "", f"{rules} denies everything: {rules.broken}")
    try:
        calls = _calls(method, facts)
    except errors.Invalid as error:
        return Verdict("Deny", "", f"{rules} cannot judge {_told(method, facts)}: {error.message}")
    verdicts = [_decided(rules, one) for one in calls]
    return min(verdicts, key=lambda verdict: ruling.EFFECTS.index(verdict.effect))


def explain(rules: ruling.Rules, method: str, facts: Facts) -> list[Told]:
    """For each rule, in the order they count: whether it applies, and what keeps it from it."""
    try:
        calls = _calls(method, facts)
    except errors.Invalid as error:
        return [Told(rule.name, rule.effect, False, error.message) for rule in rules.rules]
    told = []
    for rule in rules.rules:
        misses = [_miss(rule, one) for one in calls]
        applies = not all(misses)
        told.append(Told(rule.name, rule.effect, applies, "" if applies else _why(rule, misses[0], calls[0])))
        if applies:
            some = [one.model for one, miss in zip(calls, misses, strict=True) if not miss]
            of = f" (for {', '.join(some)})" if len(some) < len(calls) else ""
            told[-1] = replace(told[-1], why=f"every matcher of it matches{of}")
    return told


def read(policy: str, spec: Mapping[str, Any], shipped: str | None = None) -> ruling.Rules:
    """The rules of a Policy: its own, or those of its level. Never raises: what cannot be read denies everything."""
    try:
        if "rules" in spec:
            return ruling.compiled(policy, spec["rules"])
        level = str(spec.get("level", ""))
        return replace(level_rules(level, shipped), policy=policy)
    except errors.AgentkError as error:
        why = "; ".join([error.message, *(str(cause) for cause in error.causes)])
        return ruling.Rules(policy, (), broken=why)


def level_rules(level: str, text: str | None = None) -> ruling.Rules:
    """The rules of privileged, baseline or restricted, as shipped (or as in `text`, a manifest). Raises Invalid."""
    return _levels_rules(level, _shipped() if text is None else text)


@functools.cache
def _shipped() -> str:
    return (files.folder("manifests") / _SHIPPED).read_text()


@functools.lru_cache(maxsize=16)
def _levels_rules(level: str, text: str) -> ruling.Rules:
    for one in manifest.parse(text, _SHIPPED):
        spec = one.obj.get("spec") or {}
        if one.obj.get("kind") == "Policy" and spec.get("level") == level and level in LEVELS:
            if "rules" not in spec:
                raise errors.Invalid(f"{_SHIPPED} has no rules for level {level}")
            return ruling.compiled(level, spec["rules"], level)
    raise errors.Invalid(f'there is no level "{level}"', hint=f"levels are {', '.join(LEVELS)}")


def related(guest: words.Guest, namespace: str, uid: str, parents: tuple[str, ...]) -> frozenset[str]:
    """What an agent is to the guest, by uid, as a name may have been another's. `parents` are the agent's own."""
    is_so = {
        "self": uid == guest.uid,
        "descendants": guest.uid in parents,
        "ancestors": uid in guest.parents,
        "namespace": namespace == guest.namespace,
    }
    return frozenset(word for word, so in is_so.items() if so)


@dataclass(frozen=True, slots=True)
class _Call:
    """Facts in their one spelling, of one model."""

    method: str
    facts: Facts
    model: str
    host: str
    http_method: str
    paths: tuple[str, ...]
    file: str


def _calls(method: str, facts: Facts) -> list[_Call]:
    """One for each model. Raises Invalid for facts that cannot be judged."""
    for field in _ALWAYS_TOLD.get(method, ()):
        if not getattr(facts, field):
            raise errors.Invalid(f"its {_WORDS[field]} is not known")
    if "" in facts.models:
        raise errors.Invalid("a model has no name")
    if (
        len(method) > MAX_FACT
        or len(facts.target + facts.tool) > MAX_FACT
        or any(len(m) > MAX_FACT for m in facts.models)
    ):
        raise errors.Invalid(f"a name in it has more than {MAX_FACT} letters")
    host = hosts.canonical(facts.host) if facts.host else ""
    http_method = facts.http_method.upper()
    paths: tuple[str, ...] = ()
    if http_method and http_method != TUNNEL:
        paths = pathing.readings(facts.path or "/")
        if not paths:
            raise errors.Invalid("its path is too long, not absolute, or hides what it is")
    file = pathing.file(facts.file) if facts.file else ""
    if facts.file and not file:
        raise errors.Invalid("its file is too long, not absolute, or hides what it is")
    return [_Call(method, facts, model, host, http_method, paths, file) for model in facts.models or ("",)]


def _decided(rules: ruling.Rules, call: _Call) -> Verdict:
    asking: list[ruling.Rule] = []
    allowing: list[ruling.Rule] = []
    for rule in _candidates(rules, call.method):
        if _miss(rule, call):
            continue
        if rule.effect == "Deny":
            return Verdict("Deny", rule.name, f'rule "{rule.name}" of {rules} denies {_of(call)}')
        (asking if rule.effect == "Ask" else allowing).append(rule)
    listed = frozenset[str]().union(*(rule.features or () for rule in (*asking, *allowing)))
    if missing := call.facts.features - listed:
        with_what = ", ".join(sorted(missing))
        return Verdict("Deny", "", f"no rule of {rules} allows {with_what}: {_of(call)} uses it")
    if asking:
        told = f'rule "{asking[0].name}" of {rules} wants a person asked before {_of(call)}'
        return Verdict("Ask", asking[0].name, told)
    if allowing:
        name = allowing[0].name
        return Verdict("Allow", name, f'rule "{name}" of {rules} allows {_of(call)}')
    return Verdict("Deny", "", f"no rule of {rules} allows {_of(call)}")


@functools.lru_cache(maxsize=4096)
def _candidates(rules: ruling.Rules, method: str) -> tuple[ruling.Rule, ...]:
    """The rules whose methods match; the gate looks a method up before it asks, so there are few."""
    return tuple(rule for rule in rules.rules if rule.methods is None or rule.methods.match(method))


def _miss(rule: ruling.Rule, call: _Call) -> str:
    """The first matcher that does not match, as YAML spells it; "" when the rule applies."""
    facts = call.facts
    if rule.methods is not None and not rule.methods.match(call.method):
        return "methods"
    if rule.models is not None and not rule.models.match(call.model):
        return "models"
    if rule.languages is not None and facts.language not in rule.languages:
        return "languages"
    if rule.targets is not None and not (
        rule.targets.match(facts.target) or (facts.target and rule.relations & facts.relations)
    ):
        return "targets"
    if rule.hosts is not None and not rule.hosts.match(call.host):
        return "hosts"
    if rule.ports is not None and facts.port not in rule.ports:
        return "ports"
    if rule.files is not None and not (call.file and rule.files.match(call.file)):
        return "files"
    if rule.tools is not None and not rule.tools.match(facts.tool):
        return "tools"
    if rule.arguments is not None and not policy_arguments.fit(
        rule.arguments, facts.arguments, rule.effect == "Allow"
    ):
        return "arguments"
    if rule.features is not None and rule.features.isdisjoint(facts.features):
        return "features"
    return _miss_http(rule, call)


def _miss_http(rule: ruling.Rule, call: _Call) -> str:
    careful, tunnel = rule.effect != "Allow", call.http_method == TUNNEL
    listed = rule.http_methods
    if listed is not None and call.http_method not in listed and not (careful and tunnel and listed):
        return "httpMethods"
    if rule.paths is not None:
        if tunnel:
            return "" if careful and rule.paths else "paths"
        fits = [rule.paths.match(path) for path in call.paths]
        if not (any(fits) if careful else fits and all(fits)):
            return "paths"
    return ""


_WORDS = {
    "models": "model",
    "language": "language",
    "target": "target",
    "host": "host",
    "port": "port",
    "http_method": "HTTP method",
    "tool": "tool",
}


def _why(rule: ruling.Rule, miss: str, call: _Call) -> str:
    facts = call.facts
    if miss == "methods":
        return f"its methods ({rule.methods}) do not match {_short(call.method)}"
    if miss == "targets":
        listed = ", ".join(filter(None, [*sorted(rule.relations), str(rule.targets) if rule.targets else ""]))
        return (
            f"its targets ({listed or 'nothing'}) do not match {_short(facts.target) or 'a call to no agent'}"
        )
    wanted, had = {
        "models": (rule.models, call.model),
        "languages": (rule.languages, facts.language),
        "hosts": (rule.hosts, call.host),
        "ports": (rule.ports, str(facts.port or "")),
        "files": (rule.files, facts.file),
        "tools": (rule.tools, facts.tool),
        "arguments": (policy_arguments.told(rule.arguments or ()), "this call's"),
        "httpMethods": (rule.http_methods, call.http_method),
        "paths": (
            rule.paths,
            "a tunnel, whose paths nobody sees" if call.http_method == TUNNEL else facts.path,
        ),
        "features": (rule.features, ", ".join(sorted(facts.features))),
    }[miss]
    listed = ", ".join(sorted(str(one) for one in wanted)) if isinstance(wanted, frozenset) else str(wanted)
    return f"its {miss} ({listed or 'nothing'}) do not match {_short(had) or 'a call that has none'}"


def _of(call: _Call) -> str:
    facts = replace(call.facts, models=(call.model,) if call.model else (), host=call.host)
    return _told(call.method, facts)


def _told(method: str, facts: Facts) -> str:
    """`exec of shell`, `http.request GET to api.example.com:443/v1`: the call in a message."""
    told = _short(method)
    if facts.models or facts.language:
        told += f" of {_short(', '.join(facts.models) or facts.language)}"
    if facts.file:
        told += f" on {_short(facts.file)}"
    if facts.tool:
        told += f" of {_short(facts.tool)}"
    if facts.target:
        told += f" to {_short(facts.target)}"
    if facts.http_method:
        told += f" {_short(facts.http_method.upper())}"
    if facts.host:
        host = f"[{facts.host}]" if ":" in facts.host else facts.host
        told += f" to {_short(host)}" + (f":{facts.port}" if facts.port else "") + _short(facts.path)
    return told


def _short(text: str) -> str:
    """A text of the guest in a message: bounded, and on one line."""
    shown = text if text.isprintable() else text.encode("unicode_escape").decode()
    return shown if len(shown) <= 120 else shown[:120] + "…"
