"""What each agent asks of its Quota and of this machine, and what both allow. Pure words; `sharing` decides on them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentk.api import errors, quantities
from agentk.control.deciding import MAKES_ROOM, YIELDED
from agentk.control.run import Run

Key = tuple[str, str]  # namespace and name
# holds: it has a box that runs, or is about to. yields: frozen for others, and wants to go on. stands: frozen because
# a person or its budget wants it so. waits: it wants to start. rests: nothing of these.
State = Literal["holds", "yields", "stands", "waits", "rests"]
# Those that have a box.
CONTENDING: tuple[State, ...] = ("holds", "yields", "waits")
THERE: tuple[State, ...] = ("holds", "yields", "stands")


@dataclass(frozen=True)
class Amount:
    """What counts against a Quota. A frozen box counts as one that runs: it may go on at any time."""

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
    """One agent's part of its Quota and of the machine, from just before its start until its box is gone."""

    key: Key
    priority: int
    created: str
    amount: Amount
    state: State = "rests"
    since: float = 0.0  # boottime at which it came into this state
    ran: float = 0.0  # seconds of turns it had before; who comes anew begins with as many as who had fewest
    preempts: bool = True  # others may have to make room for it
    ends: bool = False  # it cannot be frozen for others: it ends
    leaving: bool = False  # its box is ending


@dataclass(frozen=True)
class Hard:
    """What one Quota allows. None: no bound."""

    name: str
    agents: int | None = None
    cpu_millis: int | None = None
    memory_bytes: int | None = None
    checkpoints: int | None = None
    checkpoint_bytes: int | None = None

    def over(self, amount: Amount) -> str:
        """The first bound that `amount` breaks, in words; "" when none."""
        if self.agents is not None and amount.agents > self.agents:
            return f"at most {self.agents} agents"
        if self.cpu_millis is not None and amount.cpu_millis > self.cpu_millis:
            return f"at most {quantities.format_cpu(self.cpu_millis)} CPU"
        if self.memory_bytes is not None and amount.memory_bytes > self.memory_bytes:
            return f"at most {quantities.format_quantity(self.memory_bytes)} of memory"
        return ""


def claim(agent: Mapping[str, Any], state: State, leaving: bool = False) -> Claim:
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
    return Claim(
        key=(str(metadata["namespace"]), str(metadata["name"])),
        priority=int(spec.get("priority", 0)),
        created=str(metadata.get("creationTimestamp", "")),
        amount=Amount(1, cpu, memory),
        state=state,
        preempts=spec.get("preemptionPolicy") != "Never",
        ends=spec.get("onPreempted") == "End",
        leaving=leaving,
    )


def frozen_since(agent: Mapping[str, Any], boot_id: str) -> float:
    """Boottime at which it was suspended, as its status has it; 0 when that is not known."""
    stands = Run.from_dict((agent.get("status") or {}).get("run")).stands
    return stands.boottime if stands is not None and stands.boot_id == boot_id else 0.0


def presumed(agent: Mapping[str, Any]) -> State:
    """What an agent's claim is until it has been looked at.

    One that may run holds, or another would get its room; one never looked at waits, so that one of lower priority
    that is looked at earlier does not go first.
    """
    status = agent.get("status") or {}
    phase, reason = status.get("phase"), status.get("reason")
    if phase in ("Starting", "Running", "Terminating"):
        return "holds"
    if phase == "Suspended" and status.get("boxID"):
        return "yields" if reason in YIELDED else "stands"
    new = (
        phase is None and not agent["spec"].get("suspend") and not agent["metadata"].get("deletionTimestamp")
    )
    return "waits" if new or reason in MAKES_ROOM else "rests"


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
        checkpoints=read("checkpoints", int),
        checkpoint_bytes=read("checkpointBytes", quantities.parse_quantity),
    )


def used(claims: Iterable[Claim]) -> Amount:
    """The sum of those that have a box."""
    total = Amount()
    for one in claims:
        if one.state in THERE:
            total = total.plus(one.amount)
    return total
