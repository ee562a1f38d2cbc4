"""Tools found by words: what a model asks for before it reads any schema. Pure."""

import re
from collections.abc import Iterable
from typing import NamedTuple

_WORD = re.compile(r"[^\W_]+")
_WORDS_MAX = 32
_LINE = 200
_SEARCHED = 512  # letters of a description: whoever writes more says it there
FEW = 64  # to search through more of them takes long enough for a thread


class Entry(NamedTuple):
    """What is known of one tool without its schema."""

    name: str  # as it is called
    tool: str  # name of the Tool that offers it
    description: str


def found(entries: Iterable[Entry], query: str) -> list[Entry]:
    """Those that have any of the words, the best first; all of them, by name, without words."""
    words = {word.lower() for word in _WORD.findall(query)[:_WORDS_MAX]}
    if not words:
        return sorted(entries)
    scored = [(_score(entry, words), entry) for entry in entries]
    return [entry for score, entry in sorted(scored, key=lambda one: (-one[0], one[1])) if score]


def line(text: str) -> str:
    """The first sentence or line of a description."""
    first = text.strip().partition("\n")[0].strip()
    if len(first) <= _LINE:
        return first
    return first[: _LINE - 1].rstrip() + "…"


def _score(entry: Entry, words: set[str]) -> int:
    named = {word.lower() for word in _WORD.findall(entry.name)}
    told = {word.lower() for word in _WORD.findall(entry.description[:_SEARCHED])}
    score = 0
    for word in words:
        if word in named:
            score += 8
        elif any(one.startswith(word) or word.startswith(one) for one in named if len(one) > 2):
            score += 4
        if word in told:
            score += 2
        elif len(word) > 3 and any(one.startswith(word[:-1]) for one in told):
            score += 1
    return score
