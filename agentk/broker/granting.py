"""What an agent is granted of tools: which it may see and call, with which arguments, how often, and after whom. Pure.

`spec.tools` of the agent says it, besides its Policy: both must allow a call. A Tool that no entry names does not exist
for the agent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentk.broker import policy, policy_arguments
from agentk.broker import policy_globs as globbing

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """What arguments of some of its tools may be."""

    at: int
    tools: globbing.Glob
    argument: str
    allow: globbing.Globs | None
    deny: globbing.Globs | None


@dataclass(frozen=True)
class Grant:
    """One entry of `spec.tools`."""

    tool: str  # name of the Tool
    allow: globbing.Globs | None = None
    deny: globbing.Globs | None = None
    approve: globbing.Globs | None = None
    rules: tuple[Rule, ...] = ()
    max_calls: int | None = None
    result_bytes: int | None = None

    def offers(self, name: str) -> bool:
        """Whether the agent may call it at all: what it may not, it is not told of."""
        return not self._refused(name)

    def judged(self, name: str, arguments: Spec) -> policy.Verdict:
        """Deny, Ask or Allow, with the field that says so."""
        if why := self._refused(name):
            return policy.Verdict("Deny", f"tools[{self.tool}].{why}", self._told(why, name))
        for rule in self.rules:
            if rule.tools.matches(name) and (why := _broken(rule, arguments)):
                field = f"arguments[{rule.at}]"
                told = f"{self._told(field, name)}: {why}"
                return policy.Verdict("Deny", f"tools[{self.tool}].{field}", told)
        if self.approve is not None and self.approve.match(name):
            rule_name = f"tools[{self.tool}].requireApproval"
            told = f"spec.{rule_name} wants a person asked before tool.call of {self.tool}/{name}"
            return policy.Verdict("Ask", rule_name, told)
        return policy.Verdict("Allow", "", f"spec.tools[{self.tool}] grants {self.tool}/{name}")

    def _refused(self, name: str) -> str:
        if self.deny is not None and self.deny.match(name):
            return "deny"
        return "allow" if self.allow is not None and not self.allow.match(name) else ""

    def _told(self, field: str, name: str) -> str:
        return f"spec.tools[{self.tool}].{field} refuses tool.call of {self.tool}/{name[:120]}"


def grants(spec: Spec) -> list[Grant]:
    """Of an Agent's spec, in its order."""
    return [_grant(one) for one in spec.get("tools") or ()]


def of(spec: Spec, tool: str) -> Grant | None:
    return next((_grant(one) for one in spec.get("tools") or () if one["ref"]["name"] == tool), None)


def _grant(written: Spec) -> Grant:
    rules = [
        Rule(
            at,
            globbing.glob(str(one.get("name", "*"))),
            str(one["argument"]),
            _globs(one.get("allow")),
            _globs(one.get("deny")),
        )
        for at, one in enumerate(written.get("arguments") or ())
    ]
    return Grant(
        str(written["ref"]["name"]),
        _globs(written.get("allow")),
        _globs(written.get("deny")),
        _globs(written.get("requireApproval")),
        tuple(rules),
        written.get("maxCalls"),
        written.get("resultBytes"),
    )


def _broken(rule: Rule, arguments: Spec) -> str:
    values = policy_arguments.values(arguments, rule.argument)
    if rule.allow is not None and not values:
        return f"{rule.argument} is not given, and only {rule.allow} is allowed"
    for value in values:
        if rule.deny is not None and policy_arguments.matches(rule.deny, value, refuses=True):
            return f"{rule.argument} may not be what it is"
        if rule.allow is not None and not policy_arguments.matches(rule.allow, value, refuses=False):
            return f"{rule.argument} may only be {rule.allow}"
    return ""


def _globs(texts: Any) -> globbing.Globs | None:
    return None if texts is None else globbing.globs([str(one) for one in texts])
