"""How much a page is worth in the window, broken down so that a person can see why it left. Pure.

Four parts, each from 0 to 1, weighed and added. Age counts in seconds and in pages, for a conversation may take a
month or a second. Same pages, same clock, same words: same score, on every machine.
"""

import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[^\W_]+")
_WORDS_MOST = 2_000  # of one page that are compared: a question has few
_UNKNOWN = 0.1  # of a rare word's weight: what is asked may be called otherwise
_SHORT = 2_000  # characters of a text whose words are remembered
_OFTEN = 4  # so many uses are worth half of what uses can be worth


@dataclass(frozen=True, slots=True)
class Weights:
    recency: float = 1.0
    importance: float = 1.0
    frequency: float = 0.5
    similarity: float = 1.5


@dataclass(frozen=True, slots=True)
class HalfLives:
    recency_seconds: float = 3_600.0
    recency_pages: float = 48.0
    frequency_seconds: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Score:
    """Each part already weighed; the total decides, least first."""

    recency: float
    importance: float
    frequency: float
    similarity: float

    @property
    def total(self) -> float:
        return self.recency + self.importance + self.frequency + self.similarity


def score(
    *,
    age_seconds: float,
    age_pages: int,
    importance: float,
    accesses: int,
    similarity: float,
    weights: Weights,
    halves: HalfLives,
) -> Score:
    age = max(0.0, age_seconds)
    recency = _half(age / halves.recency_seconds + max(0, age_pages) / halves.recency_pages)
    frequency = accesses / (accesses + _OFTEN) * _half(age / halves.frequency_seconds)
    return Score(
        weights.recency * recency,
        weights.importance * importance,
        weights.frequency * frequency,
        weights.similarity * min(1.0, max(0.0, similarity)),
    )


@functools.lru_cache(maxsize=4_096)
def _words_of(text: str) -> frozenset[str]:
    return _words(text)


def words(text: str) -> frozenset[str]:
    """What of a text is compared: its words, without case, as they come. Lexical: of meaning it knows nothing."""
    return _words_of(text) if len(text) <= _SHORT else _words(text)


def _words(text: str) -> frozenset[str]:
    found: set[str] = set()
    for match in _WORD.finditer(text.casefold()):
        found.add(match.group())
        if len(found) >= _WORDS_MOST:
            break
    return frozenset(found)


def likeness(asked: frozenset[str], texts: Sequence[frozenset[str]]) -> list[float]:
    """How much of what is asked each text has, 0 to 1. Rare words count most, and those that every other text has for
    nothing: they tell none from another. A word that no text has counts a little against all."""
    counts: dict[str, int] = dict.fromkeys(asked, 0)
    for text in texts:
        for word in asked & text:
            counts[word] += 1
    rare = {word: _rarity(count, len(texts)) for word, count in counts.items() if count}
    unknown = sum(1 for count in counts.values() if not count) * _UNKNOWN * _rarity(1, len(texts))
    whole = _sum(rare.values())
    if not whole:
        return [0.0] * len(texts)
    return [_sum(rare[word] for word in asked & text) / (whole + unknown) for text in texts]


def most_like(*found: Mapping[str, float]) -> dict[str, float]:
    """By page, the best of several opinions."""
    best: dict[str, float] = {}
    for one in found:
        for page, value in one.items():
            best[page] = max(value, best.get(page, 0.0))
    return best


def _rarity(count: int, texts: int) -> float:
    return max(0.0, math.log((texts + 1) / (2 * count))) ** 2


def _half(lives: float) -> float:
    return float(0.5 ** min(lives, 1_000.0))


def _sum(values: Iterable[float]) -> float:
    return math.fsum(values)  # the same in whichever order a set is walked
