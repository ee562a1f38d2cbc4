"""The words of this room: what is asked of a model, what comes back, what it used, and how it fails.

They are the room's own because the gate, which is above, may know this room but not the other way round. Nothing here
ever holds a key, and no error built here may quote a request header or an upstream's address with a query.
"""

import abc
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self

from agentk.api import errors

Dialect = Literal[
    "openai.chat", "openai.responses", "openai.embeddings", "anthropic.messages", "anthropic.count_tokens"
]
DIALECTS: tuple[Dialect, ...] = (
    "openai.chat",
    "openai.responses",
    "openai.embeddings",
    "anthropic.messages",
    "anthropic.count_tokens",
)

TOKENS_MAX = 2**32  # of one call: no model has as many, and a ledger of them never overflows

# What an upstream says of our own key or account is nothing the guest can mend: it would look for a key it has not.
_OURS = frozenset({401, 402, 403, 407})


@dataclass(frozen=True)
class Ask:
    """One request of a guest in its dialect, already through the allow-list."""

    dialect: Dialect
    body: Mapping[str, Any]
    stream: bool = False
    expected: int = 0  # most tokens it may use, when that was worked out already


@dataclass(frozen=True)
class Usage:
    """What a call used, as the upstream told it, or counted by us when it did not. Money in millionths of a dollar.

    `input_tokens` is everything the model read, what came from a prompt cache (`cached_tokens`) and what was written
    to one (`cache_write_tokens`) included.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cost_micro_usd: int = 0
    model: str = ""
    counted: bool = False  # True: an estimate of ours


@dataclass(frozen=True)
class Bound:
    """The most a call can use. `cost_micro_usd` is None when a price is unknown: no cost budget can admit it."""

    tokens: int
    cost_micro_usd: int | None
    calls: int = 1


class Reply(abc.ABC):
    """An answer under way. An async context manager: leaving it early closes the upstream at once."""

    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})  # allow-listed ones of the upstream
    deployment: str = ""  # id of the deployment that answered
    usage: Usage = Usage()  # complete once `chunks` ended or the reply was closed

    @abc.abstractmethod
    def chunks(self) -> AsyncIterator[bytes]:
        """The body in the asked dialect: one whole JSON document, or server-sent events as they come."""

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Stop at once; `usage` is then what was counted. Safe to call twice."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Refused(errors.UpstreamError):
    """A model's provider said no, with its own number, or could not be reached (`upstream_status` 0).

    `retryable` says whether another try, or another deployment, may do better.
    """

    def __init__(
        self,
        message: str,
        *,
        upstream_status: int = 0,
        type: str = "",
        code: str = "",
        param: str = "",
        retryable: bool | None = None,
        retry_after_seconds: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint, retry_after_seconds=retry_after_seconds)
        self.upstream_status = upstream_status
        self.type = type  # the provider's own words for the error
        self.provider_code = code
        self.param = param
        self.retryable = may_retry(upstream_status) if retryable is None else retryable

    @property
    def status(self) -> int:
        """The number a guest is shown: the upstream's, unless it is about our account."""
        if self.upstream_status < 400 or self.upstream_status in _OURS:
            return self.http_status
        return self.upstream_status


def may_retry(status: int) -> bool:
    """Whether a status promises nothing about the next try: overload, time-outs, and no answer at all."""
    return status in (0, 408, 409, 425, 429) or status >= 500
