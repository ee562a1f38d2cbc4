"""How the rules of a Policy are read: what cannot be is refused with its place, or denies everything."""

from typing import Any

import pytest

from agentk.api import errors
from agentk.broker import policy, policy_rules
from tests.broker.ruling import allow, deny, rules


@pytest.mark.parametrize(
    ("rule", "where"),
    [
        ({"effect": "Permit"}, "effect"),
        ({"effect": "Allow", "method": ["think"]}, "method"),
        ({"effect": "Allow", "hosts": None}, "hosts"),
        ({"effect": "Allow", "hosts": "a.com"}, "hosts"),
        ({"effect": "Allow", "methods": [""]}, "methods[0]"),
        ({"effect": "Allow", "methods": ["x" * 513]}, "methods[0]"),
        ({"effect": "Allow", "methods": [7]}, "methods[0]"),
        ({"effect": "Allow", "ports": [443, 0]}, "ports[1]"),
        ({"effect": "Allow", "ports": [True]}, "ports[0]"),
        ({"effect": "Allow", "languages": ["perl"]}, "languages[0]"),
        ({"effect": "Allow", "features": ["all"]}, "features[0]"),
        ({"effect": "Allow", "targets": ["team"]}, "targets[0]"),
        ({"effect": "Allow", "httpMethods": ["*"]}, "httpMethods[0]"),
        ({"effect": "Allow", "paths": ["v1/*"]}, "paths[0]"),
        ({"effect": "Allow", "name": ""}, "name"),
        ({"effect": "Allow", "approval": {"timeout": "1h"}}, "approval"),
        ("Allow", ""),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused_with_its_place(rule: Any, where: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        policy_rules.compiled("team", [allow(), rule])
    assert [cause.field for cause in caught.value.causes] == [
        "spec.rules[1]" + (f".{where}" if where else "")
    ]


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(errors.Invalid, match="cannot be read"):
        rules(allow(name="a"), deny(name="a"))


def test_a_policy_that_cannot_be_read_denies_everything_and_says_why() -> None:
    made = policy.read("team", {"level": "privileged", "rules": [allow(), {"effect": "Deny", "hostz": []}]})
    verdict = policy.decide(made, "noop", policy.NOTHING)
    assert verdict.effect == "Deny" and "spec.rules[1].hostz: is not a field of a rule" in verdict.reason
    assert policy.decide(policy.read("team", {}), "noop", policy.NOTHING).effect == "Deny"
    assert policy.decide(policy.read("team", {"level": "god"}), "noop", policy.NOTHING).effect == "Deny"


def test_rules_of_its_own_replace_those_of_the_level() -> None:
    made = policy.read("team", {"level": "privileged", "rules": []})
    assert policy.decide(made, "noop", policy.NOTHING).reason == 'no rule of Policy "team" allows noop'


SHIPPED = """
kind: Policy
metadata: {name: baseline}
spec: {level: baseline, rules: [{name: nothing, effect: Deny, methods: ["*"]}]}
"""


def test_a_policy_without_rules_gets_those_of_its_level() -> None:
    made = policy.read("team", {"level": "baseline"}, SHIPPED)
    assert policy.decide(made, "noop", policy.NOTHING).reason == (
        'rule "nothing" of Policy "team" (level baseline) denies noop'
    )
    assert policy.level_rules("baseline", SHIPPED) is policy.level_rules("baseline", SHIPPED)
    with pytest.raises(errors.Invalid, match="no level"):
        policy.level_rules("restricted", SHIPPED)
