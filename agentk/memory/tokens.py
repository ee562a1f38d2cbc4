"""How many tokens a piece of a prompt has, without any tokenizer, and what providers teach us about that. Pure.

The estimate is one for every model: a token for each three bytes of JSON, which is too many for most texts. What a
provider says a prompt had corrects it: at once when it was more, slowly when it was less, so a budget that was kept by
the estimate is kept by the provider's count as well.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

BYTES_A_TOKEN = 3
MESSAGE_TOKENS = 4  # what providers write around each message
REQUEST_TOKENS = 16  # and around all of them
IMAGE_TOKENS = 1_600  # of a picture of common size; its bytes say nothing

_LEAST, _MOST = 0.25, 4.0  # of a correction: a provider may answer anything
_SLOWLY = 0.2
_STEP = 20  # steps of a twentieth: a budget that moves with every answer would move pages with it

Count = Callable[[bytes], int]


def estimate(text: bytes) -> int:
    return -(-len(text) // BYTES_A_TOKEN)


@dataclass(frozen=True, slots=True)
class Correction:
    """What the estimate of one model is multiplied with. It starts at one: nothing was learned yet."""

    ratio: float = 1.0

    def learned(self, estimated: int, told: int) -> "Correction":
        """With what a provider told of a prompt. Numbers that cannot be are not learned from."""
        if estimated <= 0 or told <= 0:
            return self
        seen = min(max(told / estimated, _LEAST), _MOST)
        return Correction(seen if seen > self.ratio else self.ratio + (seen - self.ratio) * _SLOWLY)

    @property
    def step(self) -> float:
        return math.ceil(self.ratio * _STEP) / _STEP

    def fits(self, budget: int) -> int:
        """So many estimated tokens fit into a budget of real ones."""
        return int(budget / self.step)

    def real(self, estimated: int) -> int:
        return math.ceil(estimated * self.step)
