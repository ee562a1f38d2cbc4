"""The three shipped levels: what each lets an agent do, and that each allows no more than the one above it."""

from typing import Any

import pytest

from agentk.broker import policy, policy_rules
from agentk.broker.policy import Facts

FAMILY = frozenset({"descendants", "namespace"})
SIBLING = frozenset({"namespace"})
HTTP: dict[str, Any] = {"host": "api.example.com", "port": 443, "http_method": "GET", "path": "/"}
P, B, R = "privileged", "baseline", "restricted"

# The strictest level that still allows it; None: no level does.
CALLS: list[tuple[str, dict[str, Any], str | None]] = [
    *((method, {}, R) for method in ("hello", "noop", "log", "exit", "message.recv")),
    *((f"state.{verb}", {}, R) for verb in ("put", "get", "delete", "list", "cas")),
    ("think", {"models": ("m",)}, R),
    ("embed", {"models": ("m",)}, R),
    *(("exec", {"language": one}, B) for one in ("python", "shell", "node", "argv")),
    *((method, {}, B) for method in ("agent.spawn", "agent.list", "message.broadcast")),
    *((method, {}, B) for method in ("event.emit", "event.subscribe", "lock.acquire", "lock.release")),
    *((method, {}, B) for method in ("queue.put", "queue.get")),
    ("agent.kill", {"target": "a/kid", "relations": FAMILY}, B),
    ("agent.kill", {"target": "a/me", "relations": frozenset({"self", "namespace"})}, B),
    ("agent.kill", {"target": "a/sibling", "relations": SIBLING}, P),
    ("agent.wait", {"target": "a/sibling", "relations": SIBLING}, P),
    ("message.send", {"target": "a/kid", "relations": FAMILY}, R),
    ("message.send", {"target": "a/sibling", "relations": SIBLING}, B),
    ("message.send", {"target": "b/other"}, P),
    ("http.request", HTTP, B),
    ("http.request", {**HTTP, "http_method": "CONNECT", "path": ""}, B),
    ("agent.spawn", {"features": frozenset({"childrenDetached"})}, P),
    ("think", {"models": ("m",), "features": frozenset({"hostedTools"})}, P),
    ("think", {"models": ("m",), "features": frozenset({"remoteUrls", "fileIds", "storedResponses"})}, P),
    ("http.request", {**HTTP, "features": frozenset({"privateAddresses"})}, None),
    ("think", {"models": ("m",), "features": frozenset({"hostedTools", "newer"})}, None),
    ("a.call.of.a.later.version", {}, P),
]


@pytest.mark.parametrize(("method", "facts", "strictest"), CALLS)
def test_what_each_level_allows(method: str, facts: dict[str, Any], strictest: str | None) -> None:
    allowed = (P, B, R)[: (P, B, R).index(strictest) + 1] if strictest else ()
    for level in policy.LEVELS:
        verdict = policy.decide(policy.level_rules(level), method, Facts(**facts))
        assert verdict.effect == ("Allow" if level in allowed else "Deny"), verdict.reason


def test_only_rules_that_allow_are_shipped_and_every_rule_has_a_name() -> None:
    for level in policy.LEVELS:
        rules = policy.level_rules(level).rules
        assert rules and {rule.effect for rule in rules} == {"Allow"}
        assert not any(rule.name.startswith("#") or rule.methods is None for rule in rules)


def test_no_shipped_rule_allows_private_addresses() -> None:
    for level in policy.LEVELS:
        listed = [rule.features or frozenset() for rule in policy.level_rules(level).rules]
        assert "privateAddresses" not in frozenset().union(*listed)
        assert level == P or not any(listed)


def test_the_denial_of_a_default_agent_reads_well() -> None:
    rules = policy.read("team", {"level": "restricted"})
    assert policy.decide(rules, "exec", Facts(language="shell")).reason == (
        'no rule of Policy "team" (level restricted) allows exec of shell'
    )
    assert isinstance(rules, policy_rules.Rules)
