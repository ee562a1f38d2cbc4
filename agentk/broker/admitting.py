"""What only the gate's rooms can say is wrong with an object, before it is stored: rules, budgets, routes, hosts."""

from collections.abc import Mapping
from typing import Any

from agentk.api import kinds, problems
from agentk.broker import budgets_limits, egress, egress_secrets, policy_rules
from agentk.llm import routefields


def check(kind: kinds.Kind, obj: Mapping[str, Any]) -> None:
    """Of an admitted object. Raises Invalid with the fields."""
    name = str(obj["metadata"].get("name", ""))
    if kind is kinds.MODELROUTE:
        problems.raise_all(routefields.read(obj)[1], kind.kind, name, None)
    elif kind is kinds.POLICY and "rules" in obj["spec"]:
        policy_rules.compiled(name, obj["spec"]["rules"])
    elif kind is kinds.QUOTA:
        budgets_limits.of_quota(obj["spec"])
    elif kind is kinds.AGENT:
        budgets_limits.of_agent(obj["spec"].get("budget"))
        egress_secrets.check(obj["spec"], egress.parse(obj["spec"]))
