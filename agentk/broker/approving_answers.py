"""An answer to an Approval, whoever gives it: on record before it counts, and told on the agent.

The journal has who answered and when as an intent, then the object changes, then the record ends. A daemon that dies
in between leaves an answer that nobody knows the outcome of, which is what the record says then.
"""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from agentk.api import errors, kinds
from agentk.broker import approving_shown as showing
from agentk.broker import crash
from agentk.broker.approving_words import NOBODY, Answer, Clock, Object, phase
from agentk.broker.guests import Guests
from agentk.store import store as stores
from agentk.store.journal import Intent, Journal, Outcome

_COMPONENT = "agentk-gate"
_VERBS = {"Approved": "approval.approve", "Denied": "approval.deny", "Expired": "approval.expire"}


class Answers:
    def __init__(self, store: stores.Store, journal: Journal, clock: Clock, guests: Guests) -> None:
        self._store, self._journal, self._clock, self._guests = store, journal, clock, guests

    async def give(self, namespace: str, name: str, answer: Answer) -> Object:
        """The object, answered. Raises NotFound, and Conflict when it was answered before or its time is over."""
        obj = await self._store.get(kinds.APPROVAL, namespace, name)
        self._changed(obj, obj, answer)
        effect = await self._journal.intend(_intent(obj, answer))
        crash.crashpoint("approval.answering")
        try:
            made = await self._store.modify(
                kinds.APPROVAL, namespace, name, lambda live: self._changed(obj, live, answer)
            )
        except errors.AgentkError as error:
            await self._journal.settle(effect, Outcome("error", json.dumps(error.to_status()).encode()))
            raise
        crash.crashpoint("approval.answered")
        await self._journal.settle(effect, Outcome("ok", b"{}"))
        reason = f": {answer.reason}" if answer.reason else ""
        kind = "Normal" if answer.phase == "Approved" else "Warning"
        told = f"{name} {answer.phase.lower()} by {answer.who}{reason}; {obj['spec'].get('summary', '')}"
        await self.tell(str(obj["spec"]["agentRef"].get("uid")), kind, f"Approval{answer.phase}", told)
        return made

    async def note(self, namespace: str, name: str, waits: bool) -> None:
        """Whether a call waits for it, in the object, while that says something."""

        def change(live: Object | None) -> Object:
            if live is None:
                raise errors.NotFound("it is gone")
            same = phase(live) != "Pending" or (live.get("status") or {}).get("waiting") == waits
            return live if same else showing.status(live, self._clock.text(), waiting=waits)

        with contextlib.suppress(errors.NotFound):
            await self._store.modify(kinds.APPROVAL, namespace, name, change)

    async def tell(self, agent: str, type_: str, reason: str, message: str) -> None:
        """An Event of the agent. One that cannot be written is lost: the Approval stays the truth."""
        obj = self._guests.of(agent)
        if obj is not None:
            with contextlib.suppress(errors.AgentkError):
                await self._store.record_event(obj, type_, reason, message, self._clock.text(), _COMPONENT)

    def _changed(self, was: Object, live: Object | None, answer: Answer) -> Object:
        """Also runs in the store's writer."""
        if live is None or live["metadata"]["uid"] != was["metadata"]["uid"]:
            raise errors.NotFound(f'approval "{was["metadata"]["name"]}" is gone')
        by_person = answer.name != NOBODY or answer.uid is not None
        if by_person and phase(live) == "Pending" and self._clock.left(live) <= 0:
            raise errors.Conflict(
                f"approval {live['metadata']['name']}: its time ran out at {live['spec']['deadline']}",
                hint="the agent has to ask again",
            )
        return showing.answered(live, answer, self._clock.text())


def _intent(obj: Mapping[str, Any], answer: Answer) -> Intent:
    spec, metadata = obj["spec"], obj["metadata"]
    said = {"approval": metadata["name"], "call": spec["method"], "digest": spec["digest"]}
    said |= {"reason": answer.reason} if answer.reason else {}
    said |= {} if answer.text is None else {"answer": answer.text}
    meta: dict[str, str | int] = {"approval": metadata["name"], "by": answer.name}
    if answer.uid is not None:
        meta["byUid"] = answer.uid
    if answer.remember:
        meta["remembered"] = 1
    if answer.matching:
        said["matching"] = dict(answer.matching)
    return Intent(
        namespace=metadata["namespace"],
        agent=spec["agentRef"]["name"],
        uid=str(spec["agentRef"].get("uid", "")),
        attempt=int(spec.get("attempt", 1)),
        run=str(spec.get("run", "")),
        method=_VERBS[answer.phase] if answer.text is None else "approval.answer",
        body=json.dumps(said, sort_keys=True).encode(),
        meta=meta,
    )
