"""What the gate asks a person, and hears of one. Pure.

An Approval is bound to one exact call by a digest over all of it, secrets included, keyed so that it tells nothing.
Its moments are told by the wall clock and counted by the machine's own, which nobody sets.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from agentk.api import quantities
from agentk.broker.approving_likeness import Matching
from agentk.broker.methods import Method, Params
from agentk.broker.policy import Verdict
from agentk.broker.previews import File
from agentk.broker.words import Call, Guest

TIMEOUT_SECONDS = 3600.0
RETENTION_SECONDS = 7 * 24 * 3600.0
PENDING_MAX = 16
_MOST_SECONDS = 10 * 365 * 24 * 3600.0  # what is longer is for ever
NOBODY = "deadline"  # who answered when nobody did
_NAME_MAX = 200

Object = dict[str, Any]
Default = Literal["Deny", "Allow"]
Phase = Literal["Pending", "Approved", "Denied", "Expired"]


@dataclass(frozen=True)
class Clock:
    """Unix seconds that do not jump, and the same moment as the machine counts since its start."""

    now: Callable[[], float]
    began: float = 0.0  # what `now` was when the machine started
    boot_id: str = ""

    def text(self, at: float | None = None) -> str:
        moment = datetime.fromtimestamp(self.now() if at is None else at, UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def left(self, obj: Mapping[str, Any]) -> float:
        """Seconds until the deadline; negative when it is over."""
        spec = obj["spec"]
        counted = spec.get("clock") or {}
        if counted.get("bootID") == self.boot_id and self.boot_id:
            return float(counted["seconds"]) - (self.now() - self.began)
        return datetime.fromisoformat(str(spec["deadline"])).timestamp() - self.now()


@dataclass(frozen=True)
class Terms:
    """How long a person has, what it becomes without one, and how much of it there may be."""

    timeout_seconds: float = TIMEOUT_SECONDS
    default: Default = "Deny"
    pending_max: int = PENDING_MAX
    retention_seconds: float = RETENTION_SECONDS


def terms(policy: Mapping[str, Any], rule: str) -> Terms:
    """Those of a Policy's spec, and of the rule that asks where it says otherwise."""
    whole = policy.get("approvals") or {}
    rules: list[Mapping[str, Any]] = policy.get("rules") or []
    own = next((one.get("approval") or {} for one in rules if one.get("name") == rule), {})
    told = {**whole, **own}

    def seconds(field: str, otherwise: float) -> float:
        return min(quantities.parse_duration(told[field]), _MOST_SECONDS) if field in told else otherwise

    return Terms(
        seconds("timeout", TIMEOUT_SECONDS),
        "Allow" if told.get("default") == "Allow" else "Deny",
        int(told.get("maxPending", PENDING_MAX)),
        seconds("retention", RETENTION_SECONDS),
    )


@dataclass(frozen=True)
class Identity:
    """What a call is, by digests that tell nothing."""

    digest: str  # of all of it
    slot: str  # of the guest's key; "" without one
    parts: Mapping[str, str]  # of each argument by itself


@dataclass(frozen=True)
class Asking:
    """One call that a person is to be asked about."""

    call: Call
    method: Method
    params: Params
    body: bytes  # the parameters as the journal has them, with secrets
    verdict: Verdict
    again: Callable[[], Verdict]  # what the Policy says now. Raises Forbidden when nobody may ask any more


def bounded(terms: Terms, asking: Asking) -> Terms:
    """Those of a question: its agent may ask for less time, and is never let through by nobody."""
    if not asking.method.asks:
        return terms
    seconds = min(terms.timeout_seconds, float(asking.params.get("timeoutSeconds", terms.timeout_seconds)))
    return replace(terms, timeout_seconds=seconds, default="Deny")


@dataclass(frozen=True)
class Answer:
    """What somebody says to an Approval."""

    phase: Literal["Approved", "Denied", "Expired"]
    name: str = NOBODY  # of who says it
    uid: int | None = None
    reason: str = ""
    remember: bool = False
    matching: Matching = ()  # what is remembered is of calls like this one
    text: str | None = None  # to a question

    @property
    def who(self) -> str:
        return self.name if self.uid is None else f"{self.name} (uid {self.uid})"


@dataclass(frozen=True)
class Known:
    """What is kept in mind of one Approval: enough to find it by the call that is made."""

    namespace: str
    name: str
    uid: str  # its own
    agent: str  # uid of who asks
    run: str
    digest: str
    slot: str
    phase: Phase = "Pending"
    used: bool = False
    remembered: bool = False
    at: float = 0.0  # when it was answered, Unix seconds
    retention_seconds: float = RETENTION_SECONDS
    summary: str = ""
    files: tuple[File, ...] = ()  # that it is bound to
    parts: Mapping[str, str] = field(default_factory=dict)  # of one that is remembered for calls like it
    matching: Matching = ()
    obj: Object = field(default_factory=dict)  # of its spec only what its deadline is told by

    @property
    def open(self) -> bool:
        """Whether a person, or a call, is still to come to it."""
        unused = self.phase == "Approved" and not self.used and not self.remembered
        return self.phase == "Pending" or unused


def known(obj: Mapping[str, Any]) -> Known:
    spec, status = obj["spec"], obj.get("status") or {}
    metadata = obj["metadata"]
    matching = tuple((one["name"], one["glob"]) for one in status.get("matching") or ())
    parts = {one["name"]: one["digest"] for one in spec.get("parts") or ()} if matching else {}
    when = {key: spec[key] for key in ("deadline", "clock") if key in spec}
    return Known(
        str(metadata["namespace"]),
        str(metadata["name"]),
        str(metadata.get("uid", "")),
        str(spec["agentRef"].get("uid", "")),
        str(spec.get("run", "")),
        str(spec["digest"]),
        str(spec.get("slot", "")),
        phase(obj),
        bool(status.get("used")),
        bool(status.get("remembered")),
        _seconds(status.get("at")),
        quantities.parse_duration(spec["retention"]) if "retention" in spec else RETENTION_SECONDS,
        str(spec.get("summary", "")),
        files_of(obj),
        parts,
        matching,
        {"spec": when},
    )


def phase(obj: Mapping[str, Any]) -> Phase:
    told: Phase = (obj.get("status") or {}).get("phase") or "Pending"
    return told


def named(guest: Guest, number: str) -> str:
    """The name of an Approval: a person types it."""
    return f"{guest.name[:_NAME_MAX].rstrip('-.')}-{number[:10]}"


def files_of(obj: Mapping[str, Any]) -> tuple[File, ...]:
    told = obj["spec"].get("files") or ()
    return tuple(File(one["path"], one.get("sha256", ""), int(one.get("sizeBytes", 0))) for one in told)


def _seconds(at: Any) -> float:
    return datetime.fromisoformat(at).timestamp() if at else 0.0
