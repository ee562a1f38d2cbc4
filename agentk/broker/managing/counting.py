"""What the tokens of a window are counted with, and what providers taught about that, by route and model."""

from collections.abc import Sequence
from typing import Protocol

from agentk.broker.words import Guest
from agentk.memory import tokens

_KNOWN = 1_000

Route = tuple[str, str, str]  # namespace, route, model: whose tokens are counted alike


class Counters(Protocol):
    """Tokenizers, as managed context needs them."""

    async def of(self, guest: Guest, model: str) -> tokens.Counter:
        """The one of this agent's model: its own tokenizer, what it says itself, or the estimate."""

    async def ready(self, guest: Guest, model: str, texts: Sequence[bytes]) -> bool:
        """Have the tokenizer count these, all at once, so that its counter has no need to. False: it cannot now."""


class Estimating:
    """Where no model has a tokenizer."""

    async def of(self, guest: Guest, model: str) -> tokens.Counter:
        return tokens.ESTIMATE

    async def ready(self, guest: Guest, model: str, texts: Sequence[bytes]) -> bool:
        return True


class Corrections:
    """Those used longest ago go first."""

    def __init__(self) -> None:
        self._known: dict[tuple[Route, str], tokens.Correction] = {}

    def of(self, route: Route, counter: tokens.Counter, kept: float | None = None) -> tokens.Correction:
        """`kept`: what was learned of it before this daemon began."""
        known = self._known.get((route, counter.name))
        if known is None:
            known = tokens.first(counter) if kept is None else tokens.later(counter, kept)
        return known

    def learn(
        self, route: Route, counter: tokens.Counter, before: tokens.Correction, counted: int, told: int
    ) -> tokens.Correction:
        """`told` 0: nobody said it."""
        known = self._known.pop((route, counter.name), before).learned(counted, told)
        if not known.cautious:
            self._known[route, counter.name] = known
        if len(self._known) > _KNOWN:
            del self._known[next(iter(self._known))]
        return known
