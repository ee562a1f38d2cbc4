"""What in a text tells of a person: emails, phones, cards, bank accounts, ids, and patterns of one's own. Pure.

What has check digits is only what they say it is. Every pattern here is linear; those that a person wrote may not be,
so this runs where it can be ended (`looking`).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

Check = Callable[[str], bool]


class Found(NamedTuple):
    start: int
    end: int
    kind: str


_EMAIL = re.compile(r"(?<![\w.+-])[\w.+\-]{1,64}\s?@\s?(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")
_CARD = re.compile(r"(?<![\d.])\d(?:[ \-./_]{0,2}\d){12,18}(?!\d)")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ \-]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])")
_PHONE = re.compile(
    r"(?<![\w.])(?:\+|00)[1-9](?:[ \-./()]{0,3}\d){6,14}(?!\d)"  # as the world writes it
    r"|(?<![\w.\-])\(?\d{3}\)?[ \-.]\d{3}[ \-.]\d{4}(?![\w\-])"  # as North America does
    r"|(?<![\w.\-])0\d{1,4}[ \-/]\d{2,4}(?:[ \-]\d{2,4}){1,3}(?![\w\-])"
)
# How numbers of cards begin, by how many digits they have.
_BRANDS = {15: re.compile("3[47]"), 16: re.compile("4|5[1-5]|2[2-7]|6011|65|35")}
_SEPARATORS = re.compile(r"[ \-./_]")


def _digits(text: str) -> list[int]:
    return [ord(one) - 48 for one in text if one.isdigit()]


def luhn(text: str) -> bool:
    digits = _digits(text)
    if len(set(digits)) == 1:
        return False  # all zeros fit, and are nobody's
    doubled = [2 * one - 9 * (one > 4) for one in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def iban(text: str) -> bool:
    plain = _SEPARATORS.sub("", text).upper()
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1


def _us(text: str) -> bool:
    """A social security number has no check digit: some were never given out."""
    area, group, serial = text[:3], text[4:6], text[7:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _spain(text: str) -> bool:
    plain = _SEPARATORS.sub("", text).upper().translate(str.maketrans("XYZ", "012"))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(plain[:-1]) % 23] == text[-1].upper()


def _france(text: str) -> bool:
    plain = _SEPARATORS.sub("", text).upper()
    number = plain[:13].replace("2A", "19").replace("2B", "18")
    return number.isdigit() and 97 - int(number) % 97 == int(plain[13:])


def _italy(text: str) -> bool:
    odd = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
                   [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8,
                    12, 14, 16, 10, 22, 25, 24, 23], strict=True))  # fmt: skip
    code = text.upper()
    even = sum(int(one) if one.isdigit() else ord(one) - 65 for one in code[1:15:2])
    return chr(65 + (even + sum(odd[one] for one in code[:15:2])) % 26) == code[15]


def _germany(text: str) -> bool:
    """The tax id, by ISO 7064."""
    digits, rest = _digits(text), 10
    for one in digits[:10]:
        total = (one + rest) % 10 or 10
        rest = total * 2 % 11
    return len(digits) == 11 and len(set(digits[:10])) >= 8 and (11 - rest) % 10 == digits[10]


def _netherlands(text: str) -> bool:
    digits = _digits(text)
    weights = (9, 8, 7, 6, 5, 4, 3, 2, -1)
    return any(digits) and sum(a * b for a, b in zip(digits, weights, strict=True)) % 11 == 0


_NATIONAL: tuple[tuple[re.Pattern[str], Check], ...] = (
    (re.compile(r"(?<![\w\-])\d{3}[- ]\d{2}[- ]\d{4}(?![\w\-])"), _us),
    (re.compile(r"(?<!\w)(?:\d{8}|[XYZxyz][- ]?\d{7})[- ]?[A-Za-z](?!\w)"), _spain),
    (re.compile(r"(?<!\w)[12] ?\d\d ?\d\d ?(?:\d\d|2[ABab]) ?\d{3} ?\d{3} ?\d\d(?!\w)"), _france),
    (re.compile(r"(?<!\w)[A-Za-z]{6}\d\d[A-Za-z]\d\d[A-Za-z]\d{3}[A-Za-z](?!\w)"), _italy),
    (re.compile(r"(?<![\w.])\d\d ?\d{3} ?\d{3} ?\d{3}(?![\w.])"), _germany),
    (re.compile(r"(?<![\w.])\d{9}(?![\w.])"), _netherlands),
)
_BUILT_IN: Mapping[str, tuple[str, tuple[tuple[re.Pattern[str], Check], ...]]] = {
    "email": ("EMAIL", ((_EMAIL, lambda text: True),)),
    "card": ("CARD", ((_CARD, luhn),)),
    "iban": ("IBAN", ((_IBAN, iban),)),
    "nationalId": ("ID", _NATIONAL),
    "phone": ("PHONE", ((_PHONE, lambda text: 7 <= len(_digits(text)) <= 15),)),
}


def find(text: str, detect: tuple[str, ...], patterns: Mapping[str, "re.Pattern[str]"]) -> Iterator[Found]:
    """All that fits, in no order and perhaps overlapping. `text` is plain (`spelling`)."""
    for kind, pattern in patterns.items():
        for match in pattern.finditer(text):
            if match.end() > match.start():
                yield Found(match.start(), match.end(), kind)
    for name, (kind, ways) in _BUILT_IN.items():
        if name in detect:
            for shape, check in ways:
                yield from _fitting(text, kind, shape, check)


def _fitting(text: str, kind: str, shape: "re.Pattern[str]", check: Check) -> Iterator[Found]:
    for match in shape.finditer(text):
        if kind == "IBAN":
            yield from _shortened(match, kind, check)
        elif kind == "CARD":
            yield from _inside(match, kind, check)
        elif check(match[0]):
            yield Found(match.start(), match.end(), kind)


def _shortened(match: "re.Match[str]", kind: str, check: Check) -> Iterator[Found]:
    """A word that follows may look as if it belonged to it."""
    ends = [match.end(), *(match.start() + at for at, one in enumerate(match[0]) if one in " -")]
    for end in sorted(ends, reverse=True):
        if check(match.string[match.start() : end]):
            yield Found(match.start(), end, kind)
            return


def _inside(match: "re.Match[str]", kind: str, check: Check) -> Iterator[Found]:
    """Digits before or behind a card's must not hide it."""
    if check(match[0]):
        yield Found(match.start(), match.end(), kind)
        return
    places = [at for at, one in enumerate(match[0]) if one.isdigit()]
    digits = "".join(match[0][at] for at in places)
    for first in range(len(places) - 14):
        for size in (16, 15):
            if first + size <= len(places) and _BRANDS[size].match(digits, first):
                start, end = places[first], places[first + size - 1] + 1
                if check(match[0][start:end]):
                    yield Found(match.start() + start, match.start() + end, kind)
                    return
