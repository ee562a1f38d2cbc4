"""Whose memory is which: the room of an agent, the limits it shares, and the rooms of others that it may look into.

Names of agents are a person's to give only where a person gave them: an agent that another spawned has a room by its
uid, and goes by who spawned it first of all, so that no name it chooses opens a room that was there before.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from agentk.api import errors, kinds, memoryspecs
from agentk.broker import guests as agents
from agentk.broker import policy_globs as globbing
from agentk.memory import keeping

Object = Mapping[str, Any]
_ORPHAN = "~"  # before the account of one whose first ancestor is not known: no glob of a name means it


@dataclass(frozen=True)
class Standing:
    """What an agent has: where its pages are, by which rules."""

    namespace: str
    memory: str  # "memory/UID" of a Memory, "agent/UID" of an agent's own
    owner: str
    account: str
    settings: memoryspecs.Settings

    @property
    def whose(self) -> str:
        """Who takes turns with others at the memory."""
        return f"{self.memory}/{self.account}"

    @property
    def limits(self) -> keeping.Limits:
        bounds = self.settings.bounds
        return keeping.Limits(bounds.pages, bounds.bytes, bounds.total_pages, bounds.total_bytes)

    def shares(self, account: str) -> bool:
        """Whether agents of this account are among those that share."""
        sharing = self.settings.sharing
        if sharing is None or account.startswith(_ORPHAN):
            return False
        name = account.partition("/")[0]
        return sharing.namespace or any(globbing.glob(one).matches(name) for one in sharing.agents)

    def readable(self, there: Iterable[keeping.Room]) -> list[keeping.Room]:
        """Its own room first, and those that are shared with it."""
        return self._among(there, self.settings.sharing is not None and self.settings.sharing.read)

    def writable(self, there: Iterable[keeping.Room]) -> list[keeping.Room]:
        return self._among(there, self.settings.sharing is not None and self.settings.sharing.write)

    def _among(self, there: Iterable[keeping.Room], shared: bool) -> list[keeping.Room]:
        rooms = list(there)
        own = [room for room in rooms if room.owner == self.owner]
        if not shared or not self.shares(own[0].account if own else self.account):
            return own
        others = (room for room in rooms if room.owner != self.owner and self.shares(room.account))
        return [*own, *others][: keeping.ROOMS]


def name_of(owner: str) -> str:
    """Of the agent whose room it is."""
    return owner.partition("/")[0]


class Memories:
    """Hears Memory objects (`hear` fits `store.feeding.Feed`); asks `Guests` who spawned whom."""

    def __init__(self, guests: agents.Guests, sentence: str = "") -> None:
        """`sentence`: what the daemon's sentence model is called."""
        self._guests, self._sentence = guests, sentence
        self._all: dict[tuple[str, str], Object] = {}
        self._generations: dict[str, int] = {}  # of agents, by uid
        self._gone: set[str] = set()  # uids that were heard to go

    def hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> bool:
        """Whether it was about a memory: what is embedded or kept may have to change."""
        if kind is kinds.AGENT:
            return self._hear_agent(obj, gone)
        if kind is not kinds.MEMORY:
            return False
        key = str(obj["metadata"]["namespace"]), str(obj["metadata"]["name"])
        if gone:
            self._all.pop(key, None)
            self._gone.add(str(obj["metadata"]["uid"]))
        else:
            self._all[key] = obj
        return True

    def _hear_agent(self, obj: Object, gone: bool) -> bool:
        uid, generation = str(obj["metadata"]["uid"]), obj["metadata"].get("generation", 0)
        before = self._generations.pop(uid, None)
        if gone:
            self._gone.add(uid)
        else:
            self._generations[uid] = generation
        return gone or (before is not None and before != generation)

    def named(self, namespace: str, name: str) -> Object:
        """Raises NotFound."""
        found = self._all.get((namespace, name))
        if found is None:
            raise errors.NotFound(
                f'Memory "{name}" not found in namespace "{namespace}"', kind="memories", name=name
            )
        return found

    def all(self) -> list[Object]:
        return list(self._all.values())

    def of(self, uid: str) -> Standing:
        """Of an agent by its uid. Raises NotFound when it has no memory."""
        agent = self._guests.of(uid)
        if agent is None:
            raise errors.Forbidden("this agent is being deleted")
        return self.standing(agent)

    def standing(self, agent: Object) -> Standing:
        """Raises NotFound when it has none, or its Memory is not there."""
        spec = (agent.get("spec") or {}).get("memory")
        namespace = str(agent["metadata"].get("namespace") or "default")
        if spec is None:
            raise errors.NotFound(
                "this agent has no memory", hint="spec.memory of the Agent gives it one: memory: {}"
            )
        owner, account = self._names(agent)
        ref = str((spec.get("ref") or {}).get("name") or "")
        if ref:
            obj = self.named(namespace, ref)
            uid = str(obj["metadata"]["uid"])
            settings = self._settings(obj.get("spec") or {})
            return Standing(namespace, f"memory/{uid}", owner, account, settings)
        return Standing(namespace, f"agent/{self._first(agent)}", owner, account, self._settings(spec))

    def standing_of(self, room: keeping.Room) -> Literal["Held", "Gone", "Lost"]:
        """Held: it is somebody's; what agents left in a Memory is the Memory's. Gone: we heard its owner go. Lost:
        nobody knows of one, as after a restored backup."""
        where, _, uid = room.memory.partition("/")
        child = room.owner.partition("/")[2]
        nobody = bool(child) and self._guests.of(child) is None
        if where == "memory":
            there = any(str(obj["metadata"]["uid"]) == uid for obj in self._all.values())
            nobody = nobody and not room.pages
        else:
            there = self._guests.of(uid) is not None
        if there and not nobody:
            return "Held"
        return "Gone" if {uid, child} & self._gone or (there and where == "memory") else "Lost"

    def by_id(self, memory: str) -> tuple[str, memoryspecs.Settings] | None:
        """Namespace and settings of a Memory, or of an agent's own."""
        where, _, uid = memory.partition("/")
        if where == "agent":
            agent = self._guests.of(uid)
            spec = ((agent or {}).get("spec") or {}).get("memory")
            if agent is None or spec is None or "ref" in spec:
                return None
            return str(agent["metadata"].get("namespace") or "default"), self._settings(spec)
        for (namespace, _), obj in self._all.items():
            if str(obj["metadata"]["uid"]) == uid:
                return namespace, self._settings(obj.get("spec") or {})
        return None

    def _settings(self, spec: Object) -> memoryspecs.Settings:
        found = memoryspecs.read(spec)
        if not found.embedder.sentence:
            return found
        return replace(found, embedder=replace(found.embedder, model=self._sentence))

    def _names(self, agent: Object) -> tuple[str, str]:
        """Its room and its account."""
        first = self._guests.of(self._first(agent)) or agent
        orphan = _by_guest(first)
        return _owner(agent), f"{_ORPHAN if orphan else ''}{_owner(first)}"

    def _first(self, agent: Object) -> str:
        uid = str(agent["metadata"]["uid"])
        parents = self._guests.parents(uid)
        return parents[-1] if parents else uid


def _owner(agent: Object) -> str:
    """A name alone is a person's to give; what agents, Tasks and the like made goes by its uid."""
    metadata = agent["metadata"]
    made = bool(metadata.get("ownerReferences")) or _by_guest(agent)
    return f"{metadata['name']}/{metadata['uid']}" if made else str(metadata["name"])


def _by_guest(agent: Object) -> bool:
    return agents.SPAWNED_BY in (agent["metadata"].get("annotations") or {})
