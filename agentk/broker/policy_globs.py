"""Globs of `*` (any letters, none too) and `?` (one letter), matched over the whole text in linear time. Pure.

Must never backtrack: patterns come from people and texts from guests. A text is read once, letter by letter, whatever
the pattern; what is remembered is one number with a bit for each letter of the pattern. Neither `.` nor `/` is special.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Glob:
    text: str
    _letters: dict[str, int] = field(default_factory=dict, compare=False, repr=False)
    _any: int = field(default=0, compare=False, repr=False)  # places a `?` leads to
    _loops: int = field(default=0, compare=False, repr=False)  # places with a `*`, where every letter stays
    _end: int = field(default=1, compare=False, repr=False)

    def matches(self, text: str) -> bool:
        """Whether the whole of `text` fits. Takes one step for each letter, at most."""
        letters, anything, loops, state = self._letters, self._any, self._loops, 1
        for letter in text:
            state = ((state << 1) & (letters.get(letter, 0) | anything)) | (state & loops)
            if not state:
                return False
        return bool(state & self._end)

    def covers(self, other: str) -> bool:
        """Whether this matches all that the glob `other` matches. May say no where yes is true, never the reverse.

        A `*` of the other stands for any text, so only places that every letter stays at are kept; a `?` for any
        letter, so only places that any letter leads to.
        """
        state = 1
        for letter in other:
            if letter == "*":
                state &= self._loops
            else:
                fits = self._any if letter == "?" else self._letters.get(letter, 0) | self._any
                state = ((state << 1) & fits) | (state & self._loops)
        return bool(state & self._end)


def covers(wide: str, narrow: str) -> bool:
    """Whether all that the glob `narrow` matches surely is matched by `wide`."""
    return glob(wide).covers(narrow)


def glob(text: str) -> Glob:
    """The pattern, ready to match. Any text is a pattern."""
    letters: dict[str, int] = {}
    anything = loops = 0
    place = 1  # the bit of the place reached so far
    for letter in text:
        if letter == "*":
            loops |= place
            continue
        place <<= 1
        if letter == "?":
            anything |= place
        else:
            letters[letter] = letters.get(letter, 0) | place
    return Glob(text, letters, anything, loops, place)


@dataclass(frozen=True)
class Globs:
    """A list of patterns; those without wildcards are looked up, not tried. An empty list matches nothing."""

    plain: frozenset[str]
    patterns: tuple[Glob, ...]

    def match(self, text: str) -> bool:
        """Whether any pattern fits. What a call does not have (an empty text) fits none, not even `*`."""
        return bool(text) and (text in self.plain or any(one.matches(text) for one in self.patterns))

    def __bool__(self) -> bool:
        return bool(self.plain or self.patterns)

    def __str__(self) -> str:
        return ", ".join(sorted([*self.plain, *(one.text for one in self.patterns)])) or "nothing"


def globs(texts: list[str]) -> Globs:
    wild = {text for text in texts if "*" in text or "?" in text}
    return Globs(frozenset(texts) - wild, tuple(glob(text) for text in sorted(wild)))
