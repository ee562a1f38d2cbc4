"""The words every room of the gate shares: who asks, what is asked, what it may cost and what it did cost.

Plain frozen data. Who a guest is comes from the socket it speaks through, never from anything it says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Dialect = Literal["jsonrpc", "openai", "anthropic", "mcp", "agentos", "proxy", "control"]


class Amount(NamedTuple):
    """What a call may use or did use. Money in millionths of a US dollar: no float ever holds it."""

    tokens: int = 0
    calls: int = 0
    cost_micro_usd: int = 0

    def plus(self, other: "Amount") -> "Amount":
        return Amount(
            self.tokens + other.tokens, self.calls + other.calls, self.cost_micro_usd + other.cost_micro_usd
        )

    def minus(self, other: "Amount") -> "Amount":
        return self.plus(Amount(-other.tokens, -other.calls, -other.cost_micro_usd))


@dataclass(frozen=True)
class Guest:
    """An agent's one attempt, as the gate sees it."""

    uid: str  # metadata.uid of the Agent
    namespace: str
    name: str
    attempt: int
    run_id: str  # one generation's execution, over its attempts
    box_id: str
    spec: Mapping[str, Any] = field(default_factory=dict)  # of the Agent, with defaults
    policy_name: str = "baseline"
    policy: Mapping[str, Any] = field(default_factory=dict)  # spec of its Policy
    parents: tuple[str, ...] = ()  # uids of the agents that spawned it, nearest first


@dataclass(frozen=True)
class Call:
    """One request of a guest, as a dialect understood it."""

    guest: Guest
    method: str
    params: Mapping[str, Any]
    dialect: Dialect = "jsonrpc"
    form: str = (
        ""  # whose words `params` are in, when not the schema's own: openai.chat … Only a dialect writes it
    )
    key: str = ""  # idempotency key, scoped to the agent's uid and attempt
    fresh: bool = False  # the key was made for this call by a dialect: nobody can have used it before
    trace: str = ""  # W3C traceparent
    # The Runtime that what it spawns has in place of its own. Nothing a guest sends leads here: who holds the Agent
    # of a host program says it, once the Agent's Policy was asked.
    runtime: str = ""


@dataclass(frozen=True)
class Usage:
    """What a model call used, as the upstream told it (or counted, when it did not)."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_micro_usd: int = 0
    model: str = ""
    counted: bool = False  # True: an estimate of ours, because the upstream never said

    @property
    def amount(self) -> Amount:
        return Amount(self.input_tokens + self.output_tokens, 1, self.cost_micro_usd)
