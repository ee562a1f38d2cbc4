"""What the steward sees, and what it wants done: the words between seeing, deciding and acting. Frozen data only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agentk.broker.exits import Exit
from agentk.broker.lives import Overdrawn
from agentk.runtime.box import Counters, Intent, Seen

ProbeKind = Literal["liveness", "readiness"]


@dataclass(frozen=True)
class Problem:
    """Why an agent cannot start now: a CamelCase reason and a sentence for people."""

    reason: str
    message: str
    usual: bool = False  # it is on its way: told once a reason, not once a message


@dataclass(frozen=True)
class Preempted:
    """It is to make room."""

    how: Literal["Freeze", "End"]
    why: str  # a reason
    by: tuple[str, str]  # namespace and name of who needs it; for Events only
    priority: int  # of that one


@dataclass(frozen=True)
class Refusal:
    """The runtime said no to this attempt, and left nothing behind."""

    attempt: int
    message: str
    unenforced: Sequence[str] = ()  # limits it cannot hold, when that was why


@dataclass(frozen=True)
class Health:
    """What the probes say of the running box. None: not known yet, or nobody asks."""

    attempt: int = 0
    live: bool | None = None
    ready: bool | None = None
    message: str = ""


@dataclass(frozen=True)
class Observed:
    """All that is known of one agent at one moment, besides its object."""

    boxes: Sequence[Seen] | None = ()  # its main boxes; None: the runtime did not answer
    blind: str = ""  # why `boxes` is None
    counters: Counters | None = None  # of the running box
    health: Health = field(default_factory=Health)
    runtime: Problem | None = None  # why its runtime cannot make boxes
    references: Sequence[Problem] = ()  # a missing Secret, a forbidden hostPath, …
    source: Problem | None = None  # its files are not here
    environment: Problem | None = None  # its packages are not here, or not yet
    packages: Mapping[str, Any] | None = None  # status.environment; None: not looked at
    image: Problem | None = None  # what its box is made of is not here, or not yet
    pulled: str = ""  # how it came here
    admission: Problem | None = None  # no room in its quota or on this machine, to start or to go on
    preempted: Preempted | None = None
    refusal: Refusal | None = None  # of the start just tried
    host_uid: int = -1
    said: Exit | None = None  # how its newest attempt said that it ends
    answered: int | None = None  # times that its program's model answered, of one that ended and did not say
    overdrawn: Overdrawn | None = None
    awaited: Sequence[str] = ()  # calls of it that wait for a person
    usage: Mapping[str, Any] | None = None  # of its budget; None: nothing yet
    ports: Sequence[Mapping[str, Any]] | None = None  # as status.ports; None: nobody has looked yet
    kept: Mapping[str, Any] | None = None  # as status.lastCheckpoint; None: there is none


@dataclass(frozen=True)
class Start:
    attempt: int
    token: str  # what the box is made of: `digests.token`
    brings_back: bool = False  # it begins with the newest Checkpoint taken before its last process ended


@dataclass(frozen=True)
class Signal:
    box: str
    signal: int
    intent: Intent


@dataclass(frozen=True)
class Kill:
    box: str
    intent: Intent


@dataclass(frozen=True)
class Remove:
    box: str


@dataclass(frozen=True)
class Release:
    uid: str


@dataclass(frozen=True)
class Freeze:
    box: str


@dataclass(frozen=True)
class Thaw:
    box: str


@dataclass(frozen=True)
class RunProbe:
    kind: ProbeKind
    box: str


@dataclass(frozen=True)
class AddFinalizer:
    pass


@dataclass(frozen=True)
class RemoveFinalizer:
    pass


@dataclass(frozen=True)
class DeleteObject:
    """The agent has outlived its ttl."""


Action = (
    Start
    | Signal
    | Kill
    | Remove
    | Release
    | Freeze
    | Thaw
    | RunProbe
    | AddFinalizer
    | RemoveFinalizer
    | DeleteObject
)


@dataclass(frozen=True)
class Event:
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Decision:
    """`actions` are done in order, then `status` is written, then `afterwards` (which lose what the status now
    holds). `again`: seconds until to look again without being woken; 0 at once; None never."""

    actions: tuple[Action, ...]
    status: dict[str, Any]
    events: tuple[Event, ...]
    again: float | None
    afterwards: tuple[Action, ...] = ()
