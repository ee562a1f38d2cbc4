"""Room on this machine and in the Quotas: asks the ledger at every look, and wakes those whose answer is another.

Nothing is awaited between an agent's being let in and its claim: no two agents get the same room.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from agentk.control import admission, decide, plans, seeing
from agentk.control.clock import Now

Object = dict[str, Any]
Key = admission.Key


class Room:
    def __init__(
        self, ledger: admission.Ledger, changed: Callable[[str], None], wake: Callable[[Key], None]
    ) -> None:
        """`changed(namespace)`: what it uses may be another. `wake(key)`: look at that agent again."""
        self.ledger, self._changed, self._wake = ledger, changed, wake
        self._parked: set[Key] = set()  # refused for want of room
        self._blocked: dict[Key, admission.Claim] = {}  # kept from starting by something they refer to

    def hear(self, key: Key, agent: Object) -> None:
        """An agent nobody has looked at yet."""
        if self.ledger.state(key) is None:
            self.ledger.note(admission.claim(agent, admission.presumed(agent)))

    def hear_quota(self, quota: Object, gone: bool) -> None:
        namespace, name = str(quota["metadata"]["namespace"]), str(quota["metadata"]["name"])
        self.ledger.set_quota(namespace, name, None if gone else admission.hard(quota))
        self.wake_parked()

    def unblock(self, keys: Iterable[Key]) -> None:
        """All that this may let start wait again, before the first of them asks: priority decides, not chance."""
        for key in keys:
            if key in self._blocked:
                self.ledger.note(replace(self._blocked.pop(key), state="waits"))

    def forget(self, key: Key) -> None:
        self._parked.discard(key)
        self._blocked.pop(key, None)
        self.ledger.forget(key)
        self._settle(key[0])

    def decide(self, key: Key, agent: Object, sight: seeing.Sight, now: Now) -> plans.Decision:
        """What to do about one agent as there is room for it now."""
        self._blocked.pop(key, None)
        decision = decide.decide(agent, sight.observed, now)
        if any(isinstance(one, plans.Start) for one in decision.actions):
            self.ledger.note(admission.claim(agent, "waits"))
            problem = self.ledger.ask(key)
            if problem is None:
                self.ledger.note(admission.claim(agent, "holds"))
                self._parked.discard(key)
            else:
                sight.observed = replace(sight.observed, admission=problem)
                self._parked.add(key)
                decision = decide.decide(agent, sight.observed, now)
        else:
            live = any(one.phase in ("Starting", "Running") for one in sight.observed.boxes or ())
            if sight.observed.boxes is not None and sight.observed.admission is None:
                waits = not live and not sight.looked_at and not sight.observed.references
                state: admission.State = "holds" if live else "waits" if waits else "rests"
                self.ledger.note(admission.claim(agent, state))
            if seeing.is_blocked(sight.observed):
                self._blocked[key] = admission.claim(agent, "rests")
        self._settle(key[0])
        return decision

    def wake_parked(self) -> None:
        if self._parked:
            for key in self.ledger.admitted():
                if key in self._parked:
                    self._parked.discard(key)
                    self._wake(key)

    def _settle(self, namespace: str) -> None:
        self.wake_parked()
        self._changed(namespace)
