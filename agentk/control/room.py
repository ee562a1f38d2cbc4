"""Room on this machine and in the Quotas: asks the ledger at every look, and wakes those whose answer is another.

Nothing is awaited between an agent's being let in and its claim: no two agents get the same room. Who was frozen for
others keeps its claim to go on, and is asked about like one that wants to start.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from agentk.control import admission, claims, decide, deciding, plans, queueing, seeing
from agentk.control.claims import Key, State
from agentk.control.clock import Clock, Now

Object = dict[str, Any]
_LIVE = ("Starting", "Running")


class Room:
    def __init__(
        self,
        ledger: admission.Ledger,
        clock: Clock,
        changed: Callable[[str], None],
        wake: Callable[[Key], None],
        tell: Callable[[Key, plans.Event], None],
    ) -> None:
        """`changed(namespace)`: what it uses may be another. `wake(key)`: look at that agent again. `tell`: an Event
        of it."""
        self.ledger, self._changed, self._wake, self._tell = ledger, changed, wake, tell
        self._boot_id = clock.now().boot_id
        self._parked: set[Key] = set()  # refused for want of room
        self._blocked: dict[Key, claims.Claim] = {}  # kept from starting by something they refer to
        self._told: set[Key] = set()  # woken to make room
        self._timer = queueing.Queue(self._look, clock, workers=1, name="room")

    async def run(self) -> None:
        """Looks again when somebody has run long enough to make room."""
        await self._timer.run()

    def hear(self, key: Key, agent: Object) -> None:
        """An agent nobody has looked at yet."""
        if self.ledger.state(key) is None:
            claim = claims.claim(agent, claims.presumed(agent))
            if claim.state == "yields":
                claim = replace(claim, since=claims.frozen_since(agent, self._boot_id))
            self.ledger.note(claim)

    def hear_quota(self, quota: Object, gone: bool) -> None:
        namespace, name = str(quota["metadata"]["namespace"]), str(quota["metadata"]["name"])
        self.ledger.set_quota(namespace, name, None if gone else claims.hard(quota))
        self._wake_others()

    def unblock(self, keys: Iterable[Key]) -> None:
        """All that this may let start wait again, before the first of them asks: priority decides, not chance."""
        for key in keys:
            if key in self._blocked:
                self.ledger.note(replace(self._blocked.pop(key), state="waits"))

    def forget(self, key: Key) -> None:
        self._parked.discard(key)
        self._told.discard(key)
        self._blocked.pop(key, None)
        self.ledger.forget(key)
        self._settle(key[0])

    def decide(self, key: Key, agent: Object, sight: seeing.Sight, now: Now) -> plans.Decision:
        """What to do about one agent as there is room for it now."""
        self._blocked.pop(key, None)
        sight.observed = replace(sight.observed, admission=None, preempted=None)
        decision = decide.decide(agent, sight.observed, now)
        if wants := _wants(decision):
            self.ledger.note(claims.claim(agent, wants))
            decision = self._ask(key, agent, sight, now, decision)
        else:
            self._note(agent, sight, decision)
            if _runs(decision):
                decision = self._preempted(key, agent, sight, now, decision)
            if seeing.is_blocked(sight.observed):
                self._blocked[key] = claims.claim(agent, "rests")
        self._settle(key[0])
        return decision

    def _ask(
        self, key: Key, agent: Object, sight: seeing.Sight, now: Now, decision: plans.Decision
    ) -> plans.Decision:
        """One that wants to start or to go on."""
        problem = self.ledger.ask(key)
        if problem is None:
            self.ledger.note(claims.claim(agent, "holds"))
            self._parked.discard(key)
            return decision
        self._parked.add(key)
        sight.observed = replace(sight.observed, admission=problem)
        return self._preempted(key, agent, sight, now, decide.decide(agent, sight.observed, now))

    def _preempted(
        self, key: Key, agent: Object, sight: seeing.Sight, now: Now, decision: plans.Decision
    ) -> plans.Decision:
        preempted = self.ledger.preempted(key)
        if preempted is None:
            return decision
        sight.observed = replace(sight.observed, preempted=preempted)
        decision = decide.decide(agent, sight.observed, now)
        if _ends(decision):
            self.ledger.note(claims.claim(agent, "holds", leaving=True))
        return decision

    def _note(self, agent: Object, sight: seeing.Sight, decision: plans.Decision) -> None:
        there = sight.observed.boxes
        if there is None:
            return
        live = [one for one in there if one.phase in _LIVE]
        state: State = "rests"
        if live:
            stands = live[-1].frozen and decision.status["phase"] == "Suspended"
            state = "stands" if stands else "holds"
        elif not sight.looked_at and not sight.observed.references:
            state = "waits"
        self.ledger.note(claims.claim(agent, state, leaving=bool(live) and _ends(decision)))

    def _settle(self, namespace: str) -> None:
        self._wake_others()
        self._changed(namespace)

    def _wake_others(self) -> None:
        """Those that may start or go on now, and those that are to make room."""
        if self._parked:
            for key in self.ledger.admitted():
                if key in self._parked:
                    self._parked.discard(key)
                    self._wake(key)
        victims = self.ledger.victims()
        for key in victims.keys() - self._told:
            self._wake(key)
            if victims[key].why == deciding.PREEMPTED:
                told = f"{'/'.join(key)}, of lower priority, makes room for it"
                self._tell(victims[key].by, plans.Event("Normal", deciding.PREEMPTING, told))
        self._told = set(victims)
        again = self.ledger.again()
        if again is not None:
            self._timer.add_after("", again)

    async def _look(self, _: str) -> None:
        self._wake_others()


def _wants(decision: plans.Decision) -> State | None:
    if any(isinstance(one, plans.Start) for one in decision.actions):
        return "waits"
    goes_on = any(isinstance(one, plans.Thaw) for one in decision.actions)
    return "yields" if goes_on and not _ends(decision) else None


def _ends(decision: plans.Decision) -> bool:
    return bool(decision.status["phase"] == "Terminating")


def _runs(decision: plans.Decision) -> bool:
    return decision.status["phase"] == "Running" and decision.status.get("reason") != "Suspending"
