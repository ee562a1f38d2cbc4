"""Every Approval there is, by the call that may have its answer. In memory: complete before the first call.

Only the gate makes Approvals, and it notes each here before it is on the disk, so two calls never take one for theirs.
"""

from collections.abc import Mapping
from typing import Any

from agentk.broker import approving_likeness as likeness
from agentk.broker import previews
from agentk.broker.approving_words import Clock, Identity, Known, known
from agentk.broker.previews import File

Place = tuple[str, str]  # namespace, name


class Index:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[Place, Known] = {}
        self._of: dict[str, set[Place]] = {}  # by uid of the agent
        self.claimed: dict[Place, str] = {}  # a call waits for it now; of which agent

    def put(self, one: Known) -> None:
        self._known[one.namespace, one.name] = one
        self._of.setdefault(one.agent, set()).add((one.namespace, one.name))

    def hear(self, obj: Mapping[str, Any], gone: bool) -> None:
        place = (str(obj["metadata"]["namespace"]), str(obj["metadata"]["name"]))
        before = self._known.get(place)
        if gone:
            # What is told may be the end of one whose name the next has by now.
            if before is not None and before.uid in ("", obj["metadata"].get("uid")):
                self.drop(place)
            return
        self.put(known(obj))

    def drop(self, place: Place) -> None:
        one = self._known.pop(place, None)
        if one is not None:
            self._of[one.agent].discard(place)
            if not self._of[one.agent]:
                del self._of[one.agent]

    def get(self, place: Place) -> Known | None:
        return self._known.get(place)

    def all(self) -> list[Known]:
        return list(self._known.values())

    def of(self, agent: str) -> list[Known]:
        return sorted((self._known[place] for place in self._of.get(agent, ())), key=lambda one: one.name)

    def left(self, one: Known) -> float:
        return self._clock.left(one.obj)

    def waited(self, agent: str) -> list[Known]:
        """Those that calls of the agent wait for now."""
        return [one for one in self.of(agent) if (one.namespace, one.name) in self.claimed]

    def fitting(self, agent: str, run: str, digest: str, slot: str, files: tuple[File, ...]) -> Known | None:
        """The one whose answer a call may have: its own first, then one that nobody waits for any more."""
        found = [one for one in self.of(agent) if (one.run, one.digest) == (run, digest)]
        for one in found:
            if slot and one.slot == slot and one.phase == "Denied":
                return one  # the same key has the same answer, however often
        usable = [one for one in found if self._usable(one) and not previews.changed(one.files, files)]
        return next((one for one in usable if one.slot == slot), next(iter(usable), None))

    def of_another(self, agent: str, run: str, digest: str, slot: str) -> bool:
        """Whether the key of this call was another call's."""
        same = [one for one in self.of(agent) if slot and (one.run, one.slot) == (run, slot)]
        return any(one.digest != digest for one in same)

    def remembered(
        self, agent: str, identity: Identity, params: Mapping[str, Any], files: tuple[File, ...]
    ) -> list[Known]:
        """Answers that stand for every call like this one; those that deny it first."""
        found = [one for one in self.of(agent) if one.remembered and _is_for(one, identity, params, files)]
        return sorted(found, key=lambda one: one.phase != "Denied")

    def _usable(self, one: Known) -> bool:
        if (one.namespace, one.name) in self.claimed or self.left(one) <= 0:
            return False
        return one.phase == "Pending" or (one.phase != "Expired" and not one.used and not one.remembered)


def _is_for(one: Known, identity: Identity, params: Mapping[str, Any], files: tuple[File, ...]) -> bool:
    if not one.matching:
        return one.digest == identity.digest and not previews.changed(one.files, files)
    return likeness.unchanged(one.files, files) and likeness.alike(
        one.parts, one.matching, identity.parts, params, one.phase != "Denied"
    )
