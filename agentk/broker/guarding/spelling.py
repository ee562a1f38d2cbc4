"""One text as a reader understands it, however it is spelled, and where each letter of that came from. Pure.

Full-width and other look-alike letters, digits of any script, letters that cannot be seen, and letters written as
`%40`, `&#64;` or `\\u0040` become the plain ones that patterns are written for. Linear in the length of the text.
"""

import html
import re
import unicodedata
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

_ESCAPED = re.compile(
    r"%[0-9A-Fa-f]{2}|&#[0-9]{1,7};|&#[xX][0-9A-Fa-f]{1,6};|&[a-zA-Z]{2,10};|\\+u[0-9A-Fa-f]{4}|\\+x[0-9A-Fa-f]{2}"
)
# Letters of other scripts that look like ours; what NFKC does not know.
_ALIKE = str.maketrans(
    "аеорсухіјѕԁһԛԝАВЕКМНОРСТХІЈЅαοιρνΑΒΕΖΗΙΚΜΝΟΡΤΥΧ‐‑‒–—―−﹘⁃․‧∙·。",
    "aeopcyxijsdhqwABEKMHOPCTXIJSaoipvABEZHIKMNOPTYX---------.....",
)
# Nobody sees them, and they part what belongs together.
_UNSEEN = frozenset({"Cf", "Mn", "Me"})


@dataclass(frozen=True)
class Plain:
    text: str
    _begins: Sequence[int] | None = None  # of each letter, where it came from …
    _ends: Sequence[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where that part of the plain text is in the text as it was."""
        if self._begins is None or self._ends is None:
            return start, end
        return self._begins[start], self._ends[end - 1]


def plain(text: str) -> Plain:
    if text.isascii() and not any(mark in text for mark in "%&\\"):
        return Plain(text)
    letters: list[str] = []
    begins, ends = array("L"), array("L")
    done = 0
    for found in (*_ESCAPED.finditer(text), None):
        upto = len(text) if found is None else found.start()
        for at in range(done, upto):
            _add(text[at], at, at + 1, letters, begins, ends)
        if found is not None:
            done = found.end()
            for letter in _unescaped(found[0]):
                _add(letter, found.start(), done, letters, begins, ends)
    return Plain("".join(letters), begins, ends)


def _add(
    letter: str, begin: int, end: int, letters: list[str], begins: "array[int]", ends: "array[int]"
) -> None:
    told = letter if letter < "\x80" else _looked(letter)
    for one in told:
        letters.append(one)
        begins.append(begin)
        ends.append(end)


def _looked(letter: str) -> str:
    if unicodedata.category(letter) in _UNSEEN:
        return ""
    digit = unicodedata.decimal(letter, None)
    if digit is not None:
        return str(digit)
    return unicodedata.normalize("NFKC", letter).translate(_ALIKE)


def _unescaped(told: str) -> str:
    if told[0] == "%":
        code = int(told[1:], 16)
    elif told[0] == "\\":
        code = int(told.lstrip("\\")[1:], 16)
    else:
        found = html.unescape(told)
        return found if len(found) == 1 else told
    return chr(code) if code < 0x80 or told[0] == "\\" else told
