"""What every kind of tool can: say what it offers, and be called. One implementation for each kind of Tool.

A kind never decides who may call it: that was decided before. It gives what the tool itself said, and bounds it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agentk.api import errors
from agentk.broker.words import Guest
from agentk.tools.offers import Offered, Outcome

Object = Mapping[str, Any]
Progress = Callable[[float | None, float | None, str], Awaitable[None]]  # done, total, in words


class NotYet(errors.Unavailable):
    """What it needs is being made, or somebody has to make it: nothing is made again by asking, so anybody may ask."""


@dataclass(frozen=True)
class Calling:
    """One call, as a kind of tool gets it."""

    offered: Offered
    arguments: Mapping[str, Any]  # fit the schema, as far as the gate looks
    guest: Guest | None  # who calls; None: a person, who has no jail
    effect: str  # names the call; unique
    key: str  # what a tool that is idempotent by key is told: the same when the same call comes again
    seconds: float  # its time
    progress: Progress | None = None


class Kind(Protocol):
    def names(self, tool: Object) -> Sequence[str] | None:
        """Of what it offers, when the spec alone says it."""

    async def fingerprint(self, tool: Object) -> str:
        """Of what its offers are made from: with another one they are asked for anew. "" for what only asking tells."""

    async def discover(self, tool: Object, guest: Guest | None) -> Sequence[Offered]:
        """What it offers, starting what that needs. Raises AgentkError, and Unusable for what cannot be offered."""

    async def call(self, tool: Object, calling: Calling) -> Outcome:
        """Raises AgentkError for what is no answer of the tool; OutcomeUnknown when nobody knows whether it ran."""


def spec(tool: Object) -> Mapping[str, Any]:
    found: Mapping[str, Any] = tool["spec"]
    return found


def is_keyed(tool: Object) -> bool:
    """Whether it is told a key by which it knows a call that is made again."""
    return bool(spec(tool).get("idempotent") == "key")


def name(tool: Object) -> str:
    return str(tool["metadata"]["name"])


def namespace(tool: Object) -> str:
    return str(tool["metadata"]["namespace"])


def uid(tool: Object) -> str:
    return str(tool["metadata"]["uid"])


async def apart(size: int, work: Callable[[], Any]) -> Any:
    """What takes long is done in a thread: the loop is everybody's."""
    return await asyncio.to_thread(work) if size > _APART_BYTES else work()


_APART_BYTES = 64 * 1024
