"""The ledger of all claims: asked before an agent starts or goes on, and by those that run whether they may.

Everything here is synchronous: between asking and holding nothing else runs. `sharing` decides.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from agentk.control import claims, sharing
from agentk.control.claims import Amount, Claim, Hard, Key, State
from agentk.control.plans import Preempted, Problem

_WANT: tuple[State, ...] = ("waits", "yields")


@dataclass
class Ledger:
    node: sharing.Node
    boottime: Callable[[], float]
    _claims: dict[Key, Claim] = field(default_factory=dict)
    _quotas: dict[str, dict[str, Hard]] = field(default_factory=dict)
    _answers: sharing.Reckoning | None = None  # None: to be reckoned anew
    _holding: int = 0

    def note(self, claim: Claim) -> None:
        """Make or change a claim. Since when it is in its state is told by the first that has it so."""
        before = self._claims.get(claim.key)
        if before is not None and before.state == claim.state:
            claim = replace(claim, since=before.since, ran=before.ran)
        else:
            claim = replace(claim, since=claim.since or self.boottime(), ran=self._ran(before, claim))
        if before == claim:
            return
        self._claims[claim.key] = claim
        self._holding += (claim.state == "holds") - (before is not None and before.state == "holds")
        if not self._changes_nothing(before, claim):
            self._answers = None

    def _changes_nothing(self, before: Claim | None, claim: Claim) -> bool:
        """For the others: one that was let in now holds what it was promised, and nobody waits to take it back."""
        if before is None or before.state not in _WANT or self._answers is None or self._answers.refused:
            return False
        return replace(before, state="holds", since=claim.since) == claim

    def _ran(self, before: Claim | None, claim: Claim) -> float:
        """What it has had of turns, so that nobody saves up claims by not asking for any."""
        if not self.node.slice_seconds:
            return 0.0
        now = self.boottime()
        ran = 0.0 if before is None else _ran(before, now)
        if claim.state in claims.CONTENDING and (before is None or before.state not in claims.CONTENDING):
            others = [
                _ran(one, now)
                for one in self._claims.values()
                if one.priority == claim.priority and one.key != claim.key and one.state in claims.CONTENDING
            ]
            ran = max(ran, min(others, default=0.0))
        return ran

    def forget(self, key: Key) -> None:
        before = self._claims.pop(key, None)
        if before is not None:
            self._holding -= before.state == "holds"
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
        """Why this agent may not start, or go on; None when it may. It must hold before anything else is awaited."""
        return self._reckoned().refused.get(key)

    def preempted(self, key: Key) -> Preempted | None:
        """For whom this agent is to make room, and how; None when it may go on."""
        return self._reckoned().victims.get(key)

    def victims(self) -> Mapping[Key, Preempted]:
        """All that are to make room."""
        return self._reckoned().victims

    def admitted(self) -> list[Key]:
        """All that want to start or to go on, and may."""
        refused = self._reckoned().refused
        return [key for key, one in self._claims.items() if one.state in _WANT and key not in refused]

    def again(self) -> float | None:
        """Seconds after which the answers may be others by themselves."""
        due = self._reckoned().again
        return None if due is None else max(0.0, due - self.boottime())

    def state(self, key: Key) -> State | None:
        one = self._claims.get(key)
        return one.state if one else None

    def used(self, namespace: str) -> Amount:
        return claims.used(one for one in self._claims.values() if one.key[0] == namespace)

    def holding(self) -> int:
        return self._holding

    def spare(self) -> int:
        """How many more boxes than those of agents this machine takes. No agent waits for one of them to go."""
        there = sum(one.state in claims.THERE for one in self._claims.values())
        return max(0, self.node.boxes - there)

    def _reckoned(self) -> sharing.Reckoning:
        answers, now = self._answers, self.boottime()
        if answers is None or (answers.again is not None and now >= answers.again):
            quotas = {namespace: list(rules.values()) for namespace, rules in self._quotas.items()}
            answers = self._answers = sharing.reckon(self._claims.values(), quotas, self.node, now)
        return answers


def _ran(one: Claim, now: float) -> float:
    return one.ran + (now - one.since if one.state == "holds" else 0.0)
