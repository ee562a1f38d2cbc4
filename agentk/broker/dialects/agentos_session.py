"""One connection of the AgentOS dialect: who it is, what it keeps, and its one way to do anything: `Gate.call`.

What a connection keeps (async results, subscriptions, messages it has taken and not told) is bounded and ends with it.
"""

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

    async def source(self, script: str) -> tuple[dict[str, Any], str]:
        """What of an Agent's spec brings the script into its box, and the path it has there."""


@dataclass(frozen=True)
class Kernel:
    """What all sessions of one gate share."""

    call: Callable[[Call, Emit], Awaitable[Any]]  # Gate.call
    guests: Guests
    rules: Callable[[Guest], policy_rules.Rules]
    audit: Audit
    counters: Counters
    version: str
    ids: Ids = field(init=False)
    names: Names = field(init=False)  # what agents registered
    called: Names = field(init=False)  # what their parents called them
    rights: Rights = field(init=False)

    def __post_init__(self) -> None:
        for name, made in {
            "ids": Ids(self._alive),
            "names": Names(self._alive),
            "called": Names(self._alive),
            "rights": Rights(self.rules, self._alive),
        }.items():
            object.__setattr__(self, name, made)

    def _alive(self, uid: str) -> bool:
        return self.guests.of(uid) is not None


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

    @property
    def guest(self) -> Guest:
        """Raises Forbidden when its agent is being deleted."""
        return self._find()

    @property
    def agent_id(self) -> int:
        if not self._agent_id:
            try:
                self._agent_id = self.kernel.ids.of(self.guest.uid)
            except errors.AgentkError:
                return 0
        return self._agent_id

    async def call(self, method: str, params: Mapping[str, Any], emit: Emit | None = None) -> Any:
        return await self.kernel.call(Call(self.guest, method, params, "agentos"), emit or _unheard)

    async def permitted(self) -> None:
        """For what no call of the gate does: counts as its `noop`, and needs what that needs."""
        await self.call("noop", {})

    # who is meant

    def peer(self, number: int) -> Object | None:
        """An agent of the guest's namespace by its id."""
        found = self.kernel.guests.of(self.kernel.ids.uid(number))
        return found if found is not None and _namespace(found) == self.guest.namespace else None

    def peer_named(self, name: str) -> Object | None:
        """By its own name, what it registered, or what its parent called it."""
        guests, namespace = self.kernel.guests, self.guest.namespace
        for uid in (self.kernel.names.uid(namespace, name), self.kernel.called.uid(namespace, name)):
            if found := guests.of(uid):
                return found
        return guests.named(namespace, name)

    def of_family(self, agent: Object | None) -> Object | None:
        """The agent when it is the guest itself, or a descendant."""
        if agent is None:
            return None
        uid, own = agent["metadata"]["uid"], self.guest.uid
        return agent if uid == own or own in self.kernel.guests.parents(uid) else None

    def name(self, agent: Object) -> str:
        uid = agent["metadata"]["uid"]
        return self.kernel.names.of(uid) or self.kernel.called.of(uid) or str(agent["metadata"]["name"])

    def id(self, agent: Object) -> int:
        return self.kernel.ids.of(str(agent["metadata"]["uid"]))


def _namespace(agent: Object) -> str:
    return str(agent["metadata"].get("namespace") or "")


async def _unheard(data: Any) -> None:
    """Items of a stream that nobody asked for."""
