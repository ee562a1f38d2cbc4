"""What the gate would say to a call, without making it: the same parameters, facts and rules, and every rule's reason.

Pure but for the facts that a method looks up. Must never answer by other means than the gate decides: a second
opinion would be wrong one day.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentk.api import errors, kinds
from agentk.broker import egress, methods, policy
from agentk.broker import policy_rules as ruling
from agentk.broker.words import Guest

Given = Mapping[str, Any]  # what a person typed: text, or JSON

# Parameters that a rule may ask about. The others that a call needs are made up: they decide nothing.
_DECISIVE = {
    "http.request": ("url",),
    "message.send": ("to",),
    "tool.call": ("name",),
    **dict.fromkeys(("agent.kill", "agent.pause", "agent.resume"), ("name",)),
}
_FEATURES = "features"  # not a parameter: what the call would use besides


@dataclass(frozen=True)
class Answer:
    verdict: policy.Verdict
    told: Sequence[policy.Told]  # each rule, in the order they count
    facts: policy.Facts


def ask(method: methods.Method, rules: ruling.Rules, guest: Guest, given: Given) -> Answer:
    """Raises BadRequest when the call cannot be meant, and what the method raises when it looks up its facts."""
    params = method.parse(_params(method.name, given))
    facts = method.facts(guest, params)
    if features := _features(given):
        facts = replace(facts, features=facts.features | features)
    verdict = policy.decide(rules, method.name, facts)
    if verdict.effect == "Allow":
        verdict = _network(guest, method.name, facts) or verdict
    return Answer(verdict, policy.explain(rules, method.name, facts), facts)


def _network(guest: Guest, name: str, facts: policy.Facts) -> policy.Verdict | None:
    """What its handler would refuse although a rule allows it: a host that the agent's own spec does not list."""
    if name != "http.request":
        return None
    try:
        egress.permitted(egress.parse(guest.spec), facts.host, facts.port, facts.http_method)
    except errors.Denied as error:
        return policy.Verdict("Deny", "", error.message)
    return None


def _params(name: str, given: Given) -> dict[str, Any]:
    """Text as what the schema wants, and something for what is needed and was not said."""
    schema = methods.described()[name]["params"]
    known: Mapping[str, Any] = schema["properties"]
    params: dict[str, Any] = {}
    for key, value in given.items():
        if key == _FEATURES:
            continue
        if key not in known:
            hint = kinds.did_you_mean(key, [*known, _FEATURES], "parameters")
            raise errors.BadRequest(f"{name} has no parameter {key[:100]!r}", hint=hint, field=key[:100])
        params[key] = _typed(key, value, known[key])
    needed = list(schema.get("required", ()))
    choices = [one["required"] for one in schema.get("oneOf", ())]
    if choices and not any(set(choice) <= set(params) for choice in choices):
        needed += choices[0]
    for key in needed:
        if key not in params:
            if key in _DECISIVE.get(name, ()):
                raise errors.BadRequest(
                    f"say which {key}: rules ask for it", hint=f"{name} {key}=…", field=key
                )
            params[key] = _anything(known[key])
    return params


def _typed(key: str, value: Any, schema: Mapping[str, Any]) -> Any:
    """A text as JSON where the schema wants more than text."""
    wanted = schema.get("type")
    if not isinstance(value, str) or wanted == "string":
        return value
    try:
        return json.loads(value)
    except ValueError:
        if wanted == "array":
            return [value]
        if wanted is None:
            return value
        raise errors.BadRequest(f"{key}={value[:100]} is no {wanted}", field=key) from None


def _anything(schema: Mapping[str, Any]) -> Any:
    match schema.get("type"):
        case "string":
            return schema["enum"][0] if "enum" in schema else "x" * max(1, schema.get("minLength", 1))
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "array":
            return [_anything(schema.get("items", {}))]
        case "object":
            return {key: _anything(schema["properties"][key]) for key in schema.get("required", ())}
    return None


def _features(given: Given) -> frozenset[str]:
    value = given.get(_FEATURES, "")
    listed = value if isinstance(value, list) else str(value).split(",")
    features = frozenset(str(one).strip() for one in listed if one)
    if unknown := sorted(features - ruling.FEATURES):
        hint = kinds.did_you_mean(unknown[0], sorted(ruling.FEATURES), "features")
        raise errors.BadRequest(f"no feature {unknown[0][:100]!r}", hint=hint, field=_FEATURES)
    return features
