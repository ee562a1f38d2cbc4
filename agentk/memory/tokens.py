"""How many tokens a piece of a prompt has, by whichever counter there is, and what providers teach us about that. Pure.

A model's own tokenizer is handed in where there is one. Without, the estimate is one for every model: a token for each
three bytes of JSON, which is too many for most texts. Until a provider said what a prompt had, it is taken three times:
no tokenizer of bytes makes more tokens than there are bytes. What a provider says corrects it: at once when it was
more, slowly when it was less, so a budget that was kept by the estimate is kept by the provider's count as well. A
tokenizer is believed, and only corrected when a provider read more.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

BYTES_A_TOKEN = 3
MESSAGE_TOKENS = 4  # what providers write around each message
REQUEST_TOKENS = 16  # and around all of them
IMAGE_TOKENS = 1_600  # of a picture of common size; its bytes say nothing

_LEAST, _MOST = 0.25, 4.0  # of a correction: a provider may answer anything
_SLOWLY = 0.2
_STEP = 20  # steps of a twentieth: a budget that moves with every answer would move pages with it

Count = Callable[[bytes], int]
# What of a message is counted: JSON as short as can be, JSON with blanks, or its words alone.
Form = Literal["json", "spaced", "words"]


def estimate(text: bytes) -> int:
    return -(-len(text) // BYTES_A_TOKEN)


@dataclass(frozen=True, slots=True)
class Counter:
    """What a window is counted with. `name` is what people are told."""

    name: str
    count: Count
    form: Form = "json"

    @property
    def exact(self) -> bool:
        """Whether it is the model's own count, and not an estimate."""
        return self.name != ESTIMATE.name


ESTIMATE = Counter("estimate", estimate)
# Its models have no tokenizer: they say that a request has a token for each three bytes of it as JSON with blanks.
SCRIPTED = Counter("scripted", estimate, "spaced")


@dataclass(frozen=True, slots=True)
class Correction:
    """What the count of one model is multiplied with. `cautious`: nothing was learned yet, and it is a bound."""

    ratio: float = 1.0
    cautious: bool = False
    least: float = _LEAST

    def learned(self, estimated: int, told: int) -> "Correction":
        """With what a provider told of a prompt. Numbers that cannot be are not learned from."""
        if estimated <= 0 or told <= 0:
            return self
        seen = min(max(told / estimated, self.least), _MOST)
        at_once = self.cautious or seen > self.ratio
        return Correction(seen if at_once else self.ratio + (seen - self.ratio) * _SLOWLY, least=self.least)

    @property
    def step(self) -> float:
        return math.ceil(self.ratio * _STEP) / _STEP

    def fits(self, budget: int) -> int:
        """So many estimated tokens fit into a budget of real ones."""
        return int(budget / self.step)

    def real(self, estimated: int) -> int:
        return math.ceil(estimated * self.step)


def first(counter: Counter) -> Correction:
    """Before any provider said anything."""
    return Correction(least=1.0) if counter.exact else Correction(float(BYTES_A_TOKEN), cautious=True)


def later(counter: Counter, ratio: float) -> Correction:
    """With what was learned before."""
    return Correction(max(1.0, ratio), least=1.0) if counter.exact else Correction(ratio)
