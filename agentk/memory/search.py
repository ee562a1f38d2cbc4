"""Search: what is near in meaning and what has the words, fused by reciprocal rank, within the rooms it is given.

Every step is bounded, whatever is asked and however much there is: so many words of a question, so many rows for each,
so many neighbours. What a query holds is text to be looked for and never syntax. Words of other rooms are not counted,
so nobody learns from an order what others keep.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentk.memory import keeping, vectors
from agentk.memory.driver import Conn, marks
from agentk.memory.keeping import NO_FILTER, Filter
from agentk.memory.pages import Page

QUERY_CHARS = 8192  # of a question: beyond, its beginning is asked
FOUND = 200  # most pages of one answer
_WORDS = 12  # of a question that are looked up; the longest say the most
_WORD_CHARS = 64
# Rows that are looked at for one word. A word that more pages have says little: those found serve, the newest first.
_ROWS = 2000
_NEIGHBOURS = 200
# What more than one page in four has, of so many at least, says nothing beside other words: "the", in any language.
_COMMON, _FEW = 4, 20
_K = 60  # of reciprocal rank fusion: how much more the first counts than the tenth
_SNIPPET = 200

# From the first letter to the last of what stands between spaces: read once from left to right, whatever it is.
_BETWEEN = re.compile(r"\w(?:\S*\w)?")


@dataclass(frozen=True)
class Asked:
    """`near`: the question as a vector, by the name of its embedder; none: by words alone."""

    query: str
    limit: int = 10
    near: Mapping[str, bytes] | None = None
    only: Filter = NO_FILTER
    at_least: float = -1.0  # of cosine similarity, when found by nothing but nearness
    briefly: bool = False  # pages as a list shows them


@dataclass(frozen=True)
class Hit:
    page: Page
    room: int
    score: float  # of the fusion: an order, no measure
    similarity: float | None  # cosine, where its vector was among the nearest
    by: tuple[str, ...]  # "vector", "words"


def search(conn: Conn, rooms: Sequence[int], asked: Asked) -> list[Hit]:
    """The best first. Equal ones: the newer first."""
    rooms = list(rooms)[: keeping.ROOMS]
    if not rooms:
        return []
    lists: list[tuple[str, list[int]]] = []
    near: dict[int, float] = {}
    shelves = vectors.shelves(conn, rooms)
    only = _only(rooms, asked.only)
    many = max(min(asked.limit, FOUND), 1) * 2
    for embedder, vector in (asked.near or {}).items():
        on = [shelf for shelf in shelves if shelf.embedder == embedder]
        found = vectors.nearest(conn, on, vector, min(many, _NEIGHBOURS), only)
        kept = [(number, 1 - far) for number, far in found if 1 - far >= asked.at_least]
        near.update(kept)
        lists.append(("vector", [number for number, _ in kept]))
    # Where only words match that every other page has, nearness knows better.
    common = not any(numbers for _, numbers in lists)
    lists.append(("words", by_words(conn, rooms, asked.query, many, asked.only, common)))
    scores, by = _fused(lists)
    best = sorted(scores, key=lambda number: (-scores[number], -number))[: min(asked.limit, FOUND)]
    return [
        Hit(page, room, scores[number], near.get(number), by[number])
        for number, (page, room) in zip(best, keeping.numbered(conn, best, asked.briefly), strict=True)
    ]


def by_words(
    conn: Conn,
    rooms: Sequence[int],
    query: str,
    limit: int,
    only: Filter | None = None,
    common: bool = True,
) -> list[int]:
    """Numbers of the pages that have words of the question, the rarest words first of all. `common`: when no other word
    is found, those count that many pages have."""
    asked = terms(query)
    if not asked:
        return []
    stems = " OR ".join(f'"{keeping.stem(room)}"' for room in rooms)
    pages = conn.execute(
        f"SELECT coalesce(sum(pages), 0) FROM rooms WHERE id IN ({marks(rooms)})", tuple(rooms)
    ).fetchone()[0]
    condition, values = "", tuple[Any, ...]()
    chosen = _only(rooms, only or NO_FILTER)
    if chosen is not None:
        condition, values = f" AND rowid IN ({chosen[0]})", tuple(chosen[1])
    scores: dict[int, float] = defaultdict(float)
    often: dict[int, float] = defaultdict(float)
    for term in asked:
        match = f"stem : ({stems}) AND {{name text}} : {term}"
        rows = conn.execute(
            f"SELECT rowid FROM words WHERE words MATCH ?{condition} ORDER BY rowid DESC LIMIT ?",
            (match, *values, _ROWS),
        ).fetchall()
        if rows:
            rare = math.log(1 + max(pages, len(rows)) / len(rows))
            many = len(rows) == _ROWS or len(rows) * _COMMON > pages
            into = often if many and pages >= _FEW else scores
            for (number,) in rows:
                into[int(number)] += rare
    if not scores and common:
        scores = often
    return sorted(scores, key=lambda number: (-scores[number], -number))[:limit]


def terms(query: str) -> list[str]:
    """The words of a question that are looked up, each as FTS5's string: nothing in it is an operator."""
    found = dict[str, None]()
    for word in _BETWEEN.findall(query[:QUERY_CHARS].replace("\0", " ")):
        found[word[:_WORD_CHARS].lower()] = None
    longest = sorted(found, key=len, reverse=True)[:_WORDS]
    quoted = [word.encode(errors="replace").decode().replace('"', '""') for word in longest]
    return [f'"{word}"' for word in quoted]


def snippet(page: Page, asked: Sequence[str]) -> str:
    """A few words of the page around the first of the question's (`terms`) that it has."""
    text = " ".join(page.text.split()) if len(page.text) < 100_000 else " ".join(page.text[:100_000].split())
    lower = text.lower()
    places = [lower.find(term.strip('"').replace('""', '"')) for term in asked]
    begin = max(0, min((place for place in places if place >= 0), default=0) - _SNIPPET // 4)
    cut = text[begin : begin + _SNIPPET]
    return f"{'…' if begin else ''}{cut}{'…' if begin + _SNIPPET < len(text) else ''}"


def _only(rooms: Sequence[int], only: Filter) -> tuple[str, list[Any]] | None:
    if not only.given:
        return None
    where, values = only.where()
    return f"SELECT number FROM pages WHERE room IN ({marks(rooms)}){where}", [*rooms, *values]


def _fused(lists: Sequence[tuple[str, Sequence[int]]]) -> tuple[dict[int, float], dict[int, tuple[str, ...]]]:
    """Reciprocal rank fusion: what stands high in one list, or in more than one, stands high."""
    scores: dict[int, float] = defaultdict(float)
    by: dict[int, tuple[str, ...]] = {}
    for name, numbers in lists:
        for rank, number in enumerate(numbers):
            scores[number] += 1 / (_K + rank + 1)
            by[number] = tuple(dict.fromkeys((*by.get(number, ()), name)))
    return scores, by
