"""Says why a budget refuses a call: whose budget, what is left, what was asked, when that changes, what to do."""

import math
from datetime import UTC, datetime

from agentk.api import errors
from agentk.broker import budgets_limits
from agentk.broker.budgets_limits import WORDS
from agentk.broker.budgets_node import Node, Owner, Shortage


def refusal(node: Node, asker: Owner, lacking: Shortage, now: float) -> errors.BudgetExceeded:
    """`asker` is who used the share, or the node's own owner."""
    resets_at = None if lacking.of_request else node.resets_at()
    told = _what(node, asker, lacking)
    waiting_helps = resets_at is not None and lacking.asked <= lacking.limit
    if resets_at is not None:
        ends = f"the window ends at {stamp(resets_at)}"
        told += f"; {ends}" if waiting_helps else "; no window has room for it"
    return errors.BudgetExceeded(
        told,
        hint=_next_step(node, lacking),
        kind=f"{node.owner.kind}s",
        name=node.owner.name,
        retry_after_seconds=max(1, math.ceil(resets_at - now)) if waiting_helps and resets_at else None,
    )


def stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _what(node: Node, asker: Owner, lacking: Shortage) -> str:
    noun = WORDS[lacking.resource].noun
    asked, limit, left = (
        budgets_limits.shown(lacking.resource, value)
        for value in (lacking.asked, lacking.limit, lacking.left)
    )
    if lacking.of_request:
        return f"{node.owner} allows {limit} {noun} a request, this one may use {asked}"
    if lacking.resource == "wall_seconds":
        return f"{node.owner} has used up its {limit} of {noun}"
    whose = f"the budget of {node.owner}"
    if lacking.of_share:
        whose = f"the share of {asker} in {node.owner} ({node.limits.largest_share_percent} %)"
    return f"{whose} has {left} of {limit} {noun} left, this call may use {asked}"


def _next_step(node: Node, lacking: Shortage) -> str:
    owner, words = node.owner, WORDS[lacking.resource]
    if lacking.of_request:
        return f"ask for fewer (max_tokens), or raise spec.budget.maxTokensPerRequest of {owner}"
    if lacking.held and lacking.used + lacking.asked <= lacking.limit:
        held = budgets_limits.shown(lacking.resource, lacking.held)
        return f"calls in flight hold {held} {words.noun} of it: ask again when they have ended"
    if lacking.of_share:
        return f"raise spec.largestShare or spec.hard.{words.field} of {owner}"
    more: float = lacking.asked - lacking.left
    if lacking.resource == "wall_seconds":  # as long again; what is missing is always "a moment"
        more = max(lacking.limit, 60)
    where = "" if owner.namespace == "default" else f" -n {owner.namespace}"
    return f"agentk budget add {owner} {words.flag} {budgets_limits.shown(lacking.resource, more)}{where}"
