"""What only the gate's rooms can say is wrong with an object, before it is stored: rules, budgets, routes, hosts."""

from collections.abc import Mapping
from typing import Any

from agentk.api import errors, kinds, problems
from agentk.broker import budgets_limits, egress, egress_secrets, egress_urls, policy_rules
from agentk.broker.guarding import rails
from agentk.llm import routefields


def check(kind: kinds.Kind, obj: Mapping[str, Any]) -> None:
    """Of an admitted object. Raises Invalid with the fields."""
    name = str(obj["metadata"].get("name", ""))
    if kind is kinds.MODELROUTE:
        problems.raise_all(routefields.read(obj)[1], kind.kind, name, None)
    elif kind is kinds.POLICY:
        if "rules" in obj["spec"]:
            policy_rules.compiled(name, obj["spec"]["rules"])
        if "guardrails" in obj["spec"]:
            rails.read(obj["spec"]["guardrails"])
    elif kind is kinds.QUOTA:
        budgets_limits.of_quota(obj["spec"])
    elif kind is kinds.AGENT:
        budgets_limits.of_agent(obj["spec"].get("budget"))
        egress_secrets.check(obj["spec"], egress.parse(obj["spec"]))
    elif kind is kinds.TOOL:
        _tool(obj["spec"])
    elif kind is kinds.TASK:
        _template(obj["spec"], "spec")
    elif kind is kinds.SCHEDULE:
        _template(obj["spec"]["taskTemplate"]["spec"], "spec.taskTemplate.spec")


def _template(task: Mapping[str, Any], where: str) -> None:
    """What only becomes an Agent when the work begins."""
    spec = (task.get("template") or {}).get("spec")
    if spec is None:
        return
    try:
        budgets_limits.of_agent(spec.get("budget"))
        egress_secrets.check(spec, egress.parse(spec))
    except errors.Invalid as error:
        field = error.field.replace("spec", f"{where}.template.spec", 1)
        raise errors.Invalid(error.message, field=field, hint=error.hint) from None


def _tool(spec: Mapping[str, Any]) -> None:
    """What of it only becomes an Agent, or a request, when it is first used."""
    jail = spec.get("jail") or {}
    try:
        egress_secrets.check(jail, egress.parse(jail))
    except errors.Invalid as error:
        field = error.field.replace("spec", "spec.jail", 1)
        raise errors.Invalid(error.message, field=field, hint=error.hint) from None
    url = str((spec.get("http") or {}).get("url") or "")
    if "://" in url:
        try:
            egress_urls.parse(egress_urls.base(url))
        except (errors.BadRequest, errors.Invalid) as error:
            raise errors.Invalid(error.message, field="spec.http.url", hint=error.hint) from None
