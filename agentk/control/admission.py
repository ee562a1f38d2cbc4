"""Who may start: Quotas of a namespace, and how many agents this machine takes. Pure, and a ledger that remembers.

Agents that run are never sent away here. Of those that wait, the highest priority goes first, then the oldest; one
that has no room holds back those behind it in its namespace, or a stream of small ones would starve it. One that
could never fit holds nobody back.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agentk.api import errors, quantities
from agentk.control.deciding import NODE_FULL, QUOTA_EXCEEDED
from agentk.control.plans import Problem

Key = tuple[str, str]  # namespace and name
State = Literal["holds", "waits", "rests"]


@dataclass(frozen=True)
class Amount:
    agents: int = 0
    cpu_millis: int = 0
    memory_bytes: int = 0

    def plus(self, other: "Amount") -> "Amount":
        return Amount(
            self.agents + other.agents,
            self.cpu_millis + other.cpu_millis,
            self.memory_bytes + other.memory_bytes,
        )


@dataclass(frozen=True)
class Claim:
    """One agent's part of its Quota. It holds it from just before its start until its box is gone."""

    key: Key
    priority: int
    created: str
    amount: Amount
    state: State = "rests"


@dataclass(frozen=True)
class Hard:
    """What one Quota allows. None: no bound."""

    name: str
    agents: int | None = None
    cpu_millis: int | None = None
    memory_bytes: int | None = None

    def over(self, amount: Amount) -> str:
        """The first bound that `amount` breaks, in words; "" when none."""
        if self.agents is not None and amount.agents > self.agents:
            return f"at most {self.agents} agents"
        if self.cpu_millis is not None and amount.cpu_millis > self.cpu_millis:
            return f"at most {quantities.format_cpu(self.cpu_millis)} CPU"
        if self.memory_bytes is not None and amount.memory_bytes > self.memory_bytes:
            return f"at most {quantities.format_quantity(self.memory_bytes)} of memory"
        return ""


def claim(agent: Mapping[str, Any], state: State) -> Claim:
    """What an Agent asks for. A limit that cannot be read counts as nothing: it will not start anyway."""
    metadata, spec = agent["metadata"], agent["spec"]
    limits = (spec.get("resources") or {}).get("limits") or {}
    try:
        cpu, memory = (
            quantities.parse_cpu(limits.get("cpu", 0)),
            quantities.parse_quantity(limits.get("memory", 0)),
        )
    except errors.Invalid:
        cpu, memory = 0, 0
    key = (str(metadata["namespace"]), str(metadata["name"]))
    created = str(metadata.get("creationTimestamp", ""))
    return Claim(key, int(spec.get("priority", 0)), created, Amount(1, cpu, memory), state)


def presumed(agent: Mapping[str, Any]) -> State:
    """What an agent's claim is until it has been looked at.

    One that may run holds, or another would get its room; one never looked at waits, so that one of lower priority
    that is looked at earlier does not go first.
    """
    status = agent.get("status") or {}
    phase = status.get("phase")
    if phase in ("Starting", "Running", "Terminating") or (phase == "Suspended" and status.get("boxID")):
        return "holds"
    new = (
        phase is None and not agent["spec"].get("suspend") and not agent["metadata"].get("deletionTimestamp")
    )
    return "waits" if new or status.get("reason") in (QUOTA_EXCEEDED, NODE_FULL) else "rests"


def hard(quota: Mapping[str, Any]) -> Hard:
    """What a Quota says. A bound that cannot be read counts as zero: better too little than too much."""
    bounds = quota["spec"].get("hard") or {}

    def read(key: str, parse: Any) -> int | None:
        if key not in bounds:
            return None
        try:
            return int(parse(bounds[key]))
        except (errors.Invalid, ValueError, TypeError):
            return 0

    return Hard(
        name=quota["metadata"]["name"],
        agents=read("agents", int),
        cpu_millis=read("cpu", quantities.parse_cpu),
        memory_bytes=read("memory", quantities.parse_quantity),
    )


def used(claims: Iterable[Claim]) -> Amount:
    """The sum of those that hold."""
    total = Amount()
    for one in claims:
        if one.state == "holds":
            total = total.plus(one.amount)
    return total


def refused(
    claims: Iterable[Claim], quotas: Mapping[str, Sequence[Hard]], max_agents: int
) -> dict[Key, Problem]:
    """Of the agents that wait, those that may not start now, with the reason. The others may."""
    all_claims = list(claims)
    totals: dict[str, Amount] = {}
    for one in all_claims:
        if one.state == "holds":
            totals[one.key[0]] = totals.get(one.key[0], Amount()).plus(one.amount)
    running = sum(total.agents for total in totals.values())
    answers: dict[Key, Problem] = {}
    heads: dict[str, Key] = {}  # the first of each namespace that had no room
    waiting = (one for one in all_claims if one.state == "waits")
    for one in sorted(waiting, key=lambda claim: (-claim.priority, claim.created, claim.key)):
        namespace = one.key[0]
        rules = quotas.get(namespace, ())
        total = totals.get(namespace, Amount()).plus(one.amount)
        never, now = _over(rules, one.amount), _over(rules, total)
        if never:
            answers[one.key] = Problem(QUOTA_EXCEEDED, f"it can never start: {never}")
        elif namespace in heads:
            told = f"it waits for room behind {heads[namespace][1]}, which has priority"
            answers[one.key] = Problem(QUOTA_EXCEEDED, told)
        elif now:
            answers[one.key] = Problem(QUOTA_EXCEEDED, f"no room: {now}")
            heads[namespace] = one.key
        elif running >= max_agents:
            answers[one.key] = Problem(NODE_FULL, f"this machine takes at most {max_agents} agents at once")
        else:
            totals[namespace], running = total, running + 1
    return answers


def _over(rules: Sequence[Hard], amount: Amount) -> str:
    for rule in rules:
        over = rule.over(amount)
        if over:
            return f'Quota "{rule.name}" allows {over} in this namespace'
    return ""


@dataclass
class Ledger:
    """All claims. Everything here is synchronous: between asking and holding nothing else runs."""

    max_agents: int
    _claims: dict[Key, Claim] = field(default_factory=dict)
    _quotas: dict[str, dict[str, Hard]] = field(default_factory=dict)
    _answers: dict[Key, Problem] | None = None  # None: to be reckoned anew

    def note(self, claim: Claim) -> None:
        """Make or change a claim."""
        before = self._claims.get(claim.key)
        if before == claim:
            return
        self._claims[claim.key] = claim
        # One that was let in and now holds changes nothing for the others.
        let_in = before is not None and before.state == "waits" and replace(before, state="holds") == claim
        if self._answers is not None and let_in and claim.key not in self._answers:
            return
        self._answers = None

    def forget(self, key: Key) -> None:
        if self._claims.pop(key, None) is not None:
            self._answers = None

    def set_quota(self, namespace: str, name: str, hard: Hard | None) -> None:
        """None: the Quota is gone."""
        rules = self._quotas.setdefault(namespace, {})
        if rules.get(name) == hard:
            return
        if hard is None:
            rules.pop(name, None)
        else:
            rules[name] = hard
        self._answers = None

    def ask(self, key: Key) -> Problem | None:
        """Why this waiting agent may not start; None when it may. It must hold before anything else is awaited."""
        return self._reckoned().get(key)

    def admitted(self) -> list[Key]:
        """All that wait and may start."""
        answers = self._reckoned()
        return [key for key, one in self._claims.items() if one.state == "waits" and key not in answers]

    def state(self, key: Key) -> State | None:
        one = self._claims.get(key)
        return one.state if one else None

    def used(self, namespace: str) -> Amount:
        return used(one for one in self._claims.values() if one.key[0] == namespace)

    def holding(self) -> int:
        return sum(one.state == "holds" for one in self._claims.values())

    def _reckoned(self) -> dict[Key, Problem]:
        if self._answers is None:
            quotas = {namespace: list(rules.values()) for namespace, rules in self._quotas.items()}
            self._answers = refused(self._claims.values(), quotas, self.max_agents)
        return self._answers
