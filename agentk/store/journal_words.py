"""What the journal is told and what it tells: plain frozen data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "error", "denied", "cancelled", "unknown"]

# `intent` before an effect and `result` after it; `unknown` is the result of one whose process ended; `local` is
# effect and result at once; `note` had no effect (a denial). The rest are the journal's own.
Kind = Literal[
    "intent", "result", "unknown", "local", "note",
    "opened", "seal", "erased", "trimmed", "checkpoint", "closed",
]  # fmt: skip


@dataclass(frozen=True)
class Intent:
    """What is about to happen."""

    namespace: str
    agent: str
    uid: str
    attempt: int
    run: str
    method: str
    body: bytes  # what was asked, as JSON
    key: str = ""  # the guest's idempotency key
    reserved: Mapping[str, int] = field(default_factory=dict)  # tokens, calls, cost_micro_usd
    parent: str = ""  # effect id of the call that this one is part of
    trace: str = ""  # W3C traceparent
    # route, model, verdict's rule … `counted_tokens` and `counted_cost_micro_usd` are the most that is used when the
    # answer never comes: the settlement of an effect that stays unknown. Without them all that was reserved is.
    meta: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How it ended."""

    status: Status
    body: bytes
    used: Mapping[str, int] = field(default_factory=dict)  # tokens, calls, cost_micro_usd, and more if known
    meta: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """A call whose idempotency key was used before."""

    effect: str
    method: str
    digest: str  # compare with Journal.digest(method, body); "" when the body was erased or trimmed
    outcome: Outcome | None  # None: in flight. `unknown`: it may have happened
    answer_erased: bool = False  # the outcome is true, its body is gone


@dataclass(frozen=True)
class Unsettled:
    """An intent whose outcome nobody knows: in flight, or left by a process that ended."""

    effect: str
    record: int
    at: float  # Unix seconds
    uid: str
    run: str
    attempt: int
    namespace: str
    agent: str
    method: str
    in_flight: bool  # of this process; else it is never done again by itself
    reserved: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One row of the journal, with its bodies (None: there is none, or it is gone)."""

    id: int
    seq: int
    at: float  # Unix seconds
    kind: str
    uid: str
    run: str
    attempt: int
    namespace: str
    agent: str
    method: str
    effect: str
    of: int | None  # the record of the intent that this is the result of
    parent: str
    key: str
    trace: str
    status: str
    amounts: Mapping[str, int]  # reserved (of an intent) or used
    meta: Mapping[str, Any]
    asked: bytes | None
    answer: bytes | None
    asked_digest: str
    answer_digest: str
    hash: str
