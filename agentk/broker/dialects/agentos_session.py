"""One connection of the AgentOS dialect: who it is, what it keeps, and its one way to do anything: `Gate.call`.

What a connection keeps (async results, subscriptions, messages it has taken and not told) is bounded and ends with it.
"""

import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentk.api import errors
from agentk.broker import policy_rules
from agentk.broker.dialects.agentos_ids import Ids, Names
from agentk.broker.dialects.agentos_recording import Recorder
from agentk.broker.dialects.agentos_rights import Rights
from agentk.broker.dialects.frames_serving import Start
from agentk.broker.guests import Guests
from agentk.broker.words import Call, Guest
from agentk.store import journal_words as entries

Emit = Callable[[Any], Awaitable[None]]
Object = Mapping[str, Any]
# (uids of agents, records after this id, how many at most) → the newest of them, in order
Audit = Callable[[list[str], int, int], Awaitable[list[entries.Record]]]
Counters = Callable[[str], Awaitable[Mapping[str, int]]]  # by box id, as `status.counters` spells them


class Host(Protocol):
    """The host program behind a session that is in no jail: its files are its own to hand out."""

    async def source(self, script: str, jailed: bool = True) -> tuple[dict[str, Any], str]:
        """What of an Agent's spec brings the script into its box, and the path it has there."""

    async def unjailed(self, guest: Guest) -> str:
        """The Runtime without a jail that what it spawns may have. Raises Denied."""


@dataclass(frozen=True)
class Kernel:
    """What all sessions of one gate share."""

    call: Callable[[Call, Emit], Awaitable[Any]]  # Gate.call
    guests: Guests
    rules: Callable[[Guest], policy_rules.Rules]
    audit: Audit
    counters: Counters
    version: str
    note: Callable[[str, str, dict[str, Any]], None] = lambda uid, type, data: None  # an event of an agent's
    ids: Ids = field(init=False)
    names: Names = field(init=False)  # what agents registered
    called: Names = field(init=False)  # what their parents called them
    rights: Rights = field(init=False)
    # Connections of host programs, each with an address of its own: `UID/N`. In a jail the agent has one address, its
    # uid; a held Agent stands for many programs that know nothing of each other.
    hosted: dict[str, "Session"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, made in {
            "ids": Ids(self._alive),
            "names": Names(self._alive),
            "called": Names(self._alive),
            "rights": Rights(self.rules, self._alive),
        }.items():
            object.__setattr__(self, name, made)

    def _alive(self, address: str) -> bool:
        uid, slash, _ = address.partition("/")
        return self.guests.of(uid) is not None and (not slash or address in self.hosted)


_connections = itertools.count(1)


@dataclass
class Message:
    """Taken from the mailbox, and not told yet."""

    id: str
    shown: dict[str, Any]
    sent: float


class Session:
    """Fits `frames_serving.Session` once `agentos.Speaker` adds how it answers."""

    def __init__(
        self, kernel: Kernel, find: Callable[[], Guest], start: Start, host: Host | None = None
    ) -> None:
        self.kernel = kernel
        self.start = start
        self.host = host
        self.recorder = Recorder()
        self.inbox: deque[Message] = deque()
        self.since: dict[str, int] = {}  # type of event → the last one that was before it was asked for
        self.heard = 0  # the last event told, or passed over
        self._find = find
        self._agent_id = 0
        self._connection = next(_connections) if host is not None else 0

    @property
    def guest(self) -> Guest:
        """Raises Forbidden when its agent is being deleted."""
        return self._find()

    @property
    def agent_id(self) -> int:
        if not self._agent_id:
            try:
                address = self.address
            except errors.AgentkError:
                return 0
            self._agent_id = self.kernel.ids.of(address)
            if self._connection:
                self.kernel.hosted[address] = self
        return self._agent_id

    @property
    def address(self) -> str:
        """Where messages for this program go."""
        uid = self.guest.uid
        return f"{uid}/{self._connection}" if self._connection else uid

    def leave(self) -> None:
        """Its address is nobody's from here on."""
        for address in [address for address, one in self.kernel.hosted.items() if one is self]:
            del self.kernel.hosted[address]

    async def call(
        self,
        method: str,
        params: Mapping[str, Any],
        emit: Emit | None = None,
        *,
        runtime: str = "",
        form: str = "",
    ) -> Any:
        asked = Call(self.guest, method, params, "agentos", form, runtime=runtime)
        return await self.kernel.call(asked, emit or _unheard)

    async def permitted(self) -> None:
        """For what no call of the gate does: counts as its `noop`, and needs what that needs."""
        await self.call("noop", {})

    # who is meant

    def peer(self, number: int) -> Object | None:
        """An agent of the guest's namespace by its id."""
        return self.at(self.kernel.ids.uid(number))

    def at(self, address: str) -> Object | None:
        found = self.kernel.guests.of(address.partition("/")[0])
        return found if found is not None and _namespace(found) == self.guest.namespace else None

    def address_of(self, name: str) -> str:
        """By what it registered, what its parent called it, or its own name; "" when there is none."""
        guests, namespace = self.kernel.guests, self.guest.namespace
        agent = guests.named(namespace, name)
        for names in (self.kernel.names, self.kernel.called):
            found = names.uid(namespace, name)
            # What a stranger calls itself, or its child, takes no agent's own name.
            if found and (agent is None or self.of_family(guests.of(found.partition("/")[0]))):
                return found
        return str(agent["metadata"]["uid"]) if agent is not None else ""

    def peer_named(self, name: str) -> Object | None:
        address = self.address_of(name)
        return self.at(address) if address else None

    def of_family(self, agent: Object | None) -> Object | None:
        """The agent when it is the guest itself, or a descendant."""
        if agent is None:
            return None
        uid, own = agent["metadata"]["uid"], self.guest.uid
        return agent if uid == own or own in self.kernel.guests.parents(uid) else None

    def name(self, agent: Object) -> str:
        uid, own = agent["metadata"]["uid"], str(agent["metadata"]["name"])
        called = self.kernel.called.of(uid)
        if called and not self.of_family(agent) and self.kernel.guests.named(_namespace(agent), called):
            called = ""  # an agent has this name, and this may not be it
        return self.kernel.names.of(uid) or called or own

    def id(self, agent: Object) -> int:
        return self.kernel.ids.of(str(agent["metadata"]["uid"]))


def _namespace(agent: Object) -> str:
    return str(agent["metadata"].get("namespace") or "")


async def _unheard(data: Any) -> None:
    """Items of a stream that nobody asked for."""
