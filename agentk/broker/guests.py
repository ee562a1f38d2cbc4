"""Who speaks through which door: a box's id as the guest it is, kept up to date from the store.

The id of a box is the only thing that says who a guest is; it comes from the listening socket, which the launcher
made for that box alone. Nothing here asks the guest.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from agentk.api import errors, kinds
from agentk.broker.words import Guest

DEFAULT_POLICY = "baseline"
DEFAULT_RUNTIME = "nsjail"
HELD = "agentk.dev/held"  # annotation of an Agent that stands for programs of the host, and lives while it is held
# Uid of who spawned an agent. Of one that is detached, and so not owned, this alone tells it.
SPAWNED_BY = "agentk.dev/spawnedBy"
_DEPTH_MAX = 64  # of agents that spawned agents: owners are objects, and a person may write a circle
_PAST_MAX = 1000  # agents that are gone and may still be asked for

Object = Mapping[str, Any]


class Guests:
    """Hears objects (`hear` fits `store.feeding.Feed`) and answers who a box is."""

    def __init__(self) -> None:
        self._agents: dict[str, Object] = {}  # by uid
        self._policies: dict[str, Object] = {}  # spec by name
        self._runtimes: dict[str, str] = {DEFAULT_RUNTIME: "nsjail"}  # type by name
        self._runs: dict[str, str] = {}  # box id → run id, told before the box starts
        self._known: dict[str, Guest] = {}  # made once until something changes
        self._past: dict[tuple[str, str], tuple[Object, tuple[str, ...]]] = {}
        self._names: dict[tuple[str, str], str] = {}  # uid by namespace and name
        self._bells: dict[str, set[asyncio.Event]] = {}  # by uid: who wants to know when it is heard of

    def hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        metadata = obj["metadata"]
        if kind is kinds.POLICY:
            if gone:
                self._policies.pop(metadata["name"], None)
            else:
                self._policies[metadata["name"]] = obj.get("spec") or {}
            self._known.clear()
        elif kind is kinds.RUNTIME and not gone:  # the type of one that is gone is still that of its boxes
            self._runtimes[metadata["name"]] = str((obj.get("spec") or {}).get("type"))
        elif kind is kinds.AGENT:
            uid = str(metadata["uid"])
            before = self._agents.get(uid)
            if gone:
                self._keep_past(before)
                self._agents.pop(uid, None)
                if self._names.get(_name(obj)) == uid:
                    del self._names[_name(obj)]
                self._runs = {box: run for box, run in self._runs.items() if _uid_of(box) != uid}
            else:
                self._agents[uid] = obj
                self._names[_name(obj)] = uid
            for bell in self._bells.get(uid, ()):
                bell.set()
            if gone or before is None or _asked(before) != _asked(obj):  # not for every status
                self._known.clear()

    def announce(self, box_id: str, run_id: str) -> None:
        """A box is about to start: its first call may be here before its status is. Repeatable."""
        self._runs[box_id] = run_id
        self._known.pop(box_id, None)

    def find(self, box_id: str) -> Guest:
        """Raises Forbidden when no such agent exists, or its Policy does not."""
        known = self._known.get(box_id)
        if known is None:
            known = self._known[box_id] = self._make(box_id)
        return known

    def of(self, uid: str) -> Object | None:
        """The Agent object; not to be changed."""
        return self._agents.get(uid)

    def runtime(self, spec: Object) -> tuple[str, bool]:
        """The name of an Agent's Runtime, and whether its boxes are jails."""
        name = str((spec.get("runtimeRef") or {}).get("name") or DEFAULT_RUNTIME)
        return name, self._runtimes.get(name) in ("nsjail", "podman")

    def named(self, namespace: str, name: str) -> Object | None:
        return self._agents.get(self._names.get((namespace, name), ""))

    def past(self, namespace: str, name: str, parent: str) -> Object | None:
        """The last that was heard of an agent that `parent` spawned, directly or not, and that is gone by now; for
        who asks a little late."""
        obj, parents = self._past.get((namespace, name), ({}, ()))
        return obj if parent in parents else None

    def _keep_past(self, agent: Object | None) -> None:
        parents = tuple(self.above(agent)) if agent else ()
        if agent is not None and parents:
            self._past.pop(_name(agent), None)
            self._past[_name(agent)] = (agent, parents)
            if len(self._past) > _PAST_MAX:
                del self._past[next(iter(self._past))]

    def all(self) -> list[Object]:
        """Every agent there is."""
        return list(self._agents.values())

    def parent(self, agent: Object) -> str:
        """Uid of the agent that spawned it; "" when a person made it, or that one is gone."""
        return next(self.above(agent), "")

    def parents(self, uid: str) -> tuple[str, ...]:
        """Uids of those that spawned it, nearest first."""
        agent = self._agents.get(uid)
        return tuple(self.above(agent)) if agent else ()

    @contextlib.contextmanager
    def listening(self, uid: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the agent is heard of, its end included."""
        bell = asyncio.Event()
        self._bells.setdefault(uid, set()).add(bell)
        try:
            yield bell
        finally:
            self._bells[uid].discard(bell)
            if not self._bells[uid]:
                del self._bells[uid]

    def family(self, uid: str) -> list[Object]:
        """The agent and every agent it spawned, and they spawned: all that it may know of."""
        return [
            agent for agent in self._agents.values() if uid in (agent["metadata"]["uid"], *self.above(agent))
        ]

    def of_namespace(self, namespace: str) -> list[Object]:
        """Every agent of it; not to be changed."""
        return [agent for agent in self._agents.values() if _name(agent)[0] == namespace]

    def uids(self) -> list[str]:
        """Of every agent there is."""
        return list(self._agents)

    def _make(self, box_id: str) -> Guest:
        uid, attempt = _uid_of(box_id), _attempt_of(box_id)
        agent = self._agents.get(uid)
        if agent is None or not attempt:
            raise errors.Forbidden("this agent is being deleted")
        spec = agent["spec"]
        policy_name = str((spec.get("policyRef") or {}).get("name") or DEFAULT_POLICY)
        policy = self._policies.get(policy_name)
        if policy is None:
            raise errors.Forbidden(
                f'Policy "{policy_name}" does not exist', hint="until it does, nothing is allowed"
            )
        namespace, name = _name(agent)
        run = self._runs.get(box_id) or _run_of(agent, uid, attempt)
        return Guest(
            uid, namespace, name, attempt, run, box_id, spec, policy_name, policy, tuple(self.above(agent))
        )

    def above(self, agent: Object) -> Iterator[str]:
        """Uids of those that spawned it, nearest first."""
        seen: set[str] = set()
        while len(seen) < _DEPTH_MAX:
            owner = _owner(agent)
            spawner = owner or str((agent["metadata"].get("annotations") or {}).get(SPAWNED_BY) or "")
            above = self._agents.get(spawner)
            # One that is detached stands alone once who spawned it is gone; one that is owned goes with it.
            if not spawner or spawner in seen or (above is None and not owner):
                return
            seen.add(spawner)
            yield spawner
            if above is None:
                return
            agent = above


def _uid_of(box_id: str) -> str:
    return box_id.rpartition("-")[0]


def _attempt_of(box_id: str) -> int:
    number = box_id.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


def _name(agent: Object) -> tuple[str, str]:
    return str(agent["metadata"].get("namespace") or ""), str(agent["metadata"]["name"])


def _asked(agent: Object) -> tuple[Any, ...]:
    """What of an Agent a guest is made of, besides the run."""
    metadata = agent["metadata"]
    run = (agent.get("status") or {}).get("run") or {}
    spawner = (metadata.get("annotations") or {}).get(SPAWNED_BY)
    return metadata.get("generation"), metadata.get("ownerReferences"), run.get("firstAttempt"), spawner


def _run_of(agent: Object, uid: str, attempt: int) -> str:
    """As the status tells, which a daemon that comes later finds there."""
    run = (agent.get("status") or {}).get("run") or {}
    first = run.get("firstAttempt")
    return f"{uid}-{first if isinstance(first, int) and first <= attempt else attempt}"


def _owner(agent: Object) -> str:
    """Uid of the Agent that owns it, else ""."""
    for reference in agent["metadata"].get("ownerReferences") or ():
        if reference.get("kind") == "Agent" and reference.get("controller"):
            return str(reference.get("uid"))
    return ""
