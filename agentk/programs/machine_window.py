"""How many tokens a frame may show its model, by an estimate that what providers count corrects.

The estimate is a token for each three bytes of JSON, which is too many for most texts; it is corrected at once when a
provider counted more (scripts with a letter a token and more), slowly when it counted less.
"""

from __future__ import annotations

import json
import math
from typing import Any, Dict, List

BYTES_A_TOKEN = 3
_LEAST, _MOST = 0.25, 4.0  # of a correction: a provider may answer anything
_AROUND = 16  # what providers write around a request
_SLOWLY = 0.2
_STEPS = (
    20  # a correction is one of so many parts of one: lines that move with every answer would be cut anew
)
_ANSWER_BYTES = 400

Message = Dict[str, Any]


class TooLarge(Exception):
    """What a model must be shown does not fit into its window."""


def tokens(value: Any) -> int:
    """Estimated."""
    return -(-size(json.dumps(value, ensure_ascii=False)) // BYTES_A_TOKEN)


def size(text: str) -> int:
    """In bytes."""
    return len(text.encode("utf-8", "replace"))


def begin(text: str, most_bytes: int) -> str:
    """What of its beginning has so many bytes."""
    return text.encode("utf-8", "replace")[: max(0, most_bytes)].decode("utf-8", "ignore")


def short(text: str, most_bytes: int) -> str:
    if len(text) * 4 <= most_bytes or size(text) <= most_bytes:
        return text
    return f"{begin(text, most_bytes)}\n[cut: it has {len(text)} letters]"


class Window:
    def __init__(self, most: int, burst: int, functions: List[Dict[str, Any]], system: str) -> None:
        self.most = most
        self._burst = burst
        self._functions, self._system = tokens(functions), tokens(system) + _AROUND
        self._ratio = 1.0

    @property
    def room(self) -> int:
        """Estimated tokens that messages may have."""
        return int(self.most / self._step) - self._functions - self._system

    @property
    def answer_bytes(self) -> int:
        """Of one answer of a function: those of a turn have half of the room."""
        return max(_ANSWER_BYTES, self.room * BYTES_A_TOKEN // (2 * self._burst))

    @property
    def opening_bytes(self) -> int:
        """Of a routine, and of what it is given: both together leave two thirds of the room."""
        return max(_ANSWER_BYTES, min(self.answer_bytes, self.room * BYTES_A_TOKEN // 6))

    def fits(self, prompt: str) -> bool:
        """Whether a model that is shown nothing else can read it."""
        return self._real(tokens(prompt)) <= self.most

    def learned(self, messages: List[Message], told: int) -> None:
        """What a provider counted when it was shown these. Numbers that cannot be are not learned from."""
        estimated = self._functions + self._system + tokens(messages)
        if told <= 0:
            return
        seen = min(max(told / estimated, _LEAST), _MOST)
        self._ratio = seen if seen > self._ratio else self._ratio + (seen - self._ratio) * _SLOWLY

    def told(self, messages: List[Message], opening: str) -> str:
        """The parts of what is shown, for whoever looks on."""
        recap = max(0, size(str(messages[0]["content"])) - size(opening)) // BYTES_A_TOKEN
        named = {"tools": self._functions, "system": self._system, "recap": recap}
        named["work"] = tokens(messages) - recap
        parts = {name: self._real(count) for name, count in named.items()}
        said = ", ".join(f"{name} {count}" for name, count in parts.items())
        return f"{sum(parts.values())} of {self.most} tokens: {said}"

    @property
    def _step(self) -> float:
        return math.ceil(self._ratio * _STEPS) / _STEPS

    def _real(self, estimated: int) -> int:
        return int(estimated * self._step)
