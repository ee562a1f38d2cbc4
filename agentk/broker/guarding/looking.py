"""Looks through texts for what tells of persons or is a secret, also where it is encoded or cut in two. Pure.

What it gets was written by strangers, and some of the patterns by people who did not think of them: it runs in a
process that is ended when it takes too long (`lookouts`).
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agentk.broker.guarding import pii, secretscan, spelling
from agentk.broker.guarding.pii import Found

_RUN = re.compile(  # in lines of one length, or in one
    r"[A-Za-z0-9+/]{60,76}(?:\s{1,2}[A-Za-z0-9+/]{1,76})+={0,2}|[A-Za-z0-9+/_\-]{16,}={0,2}"
)
_HEX_RUN = re.compile(r"(?:[0-9A-Fa-f]{2}[ :]?){12,}")
_PURE = re.compile(r"[A-Za-z0-9+/=]+")
_PICTURE = 64 * 1024  # letters: what is longer, and all base64, is looked at for what it encodes
_BREAK = "\n\x00\n"  # in nothing that is looked for
_TAIL = 80  # letters on each side of a border that may belong together
ENCODED = "ENCODED"

Find = Callable[[str], Iterator[Found]]


def look(texts: Sequence[str], how: Mapping[str, Any]) -> list[list[tuple[int, int, str]]]:
    """For each text what was found: not overlapping, in order. `how` says what to look for."""
    find = _finder(how)
    found = [_within(text, find) for text in texts]
    for at, one in _across(texts, found, how.get("across", ()), find):
        found[at].append(one)
        found[at].sort()
    return [[(one.start, one.end, one.kind) for one in spans] for spans in found]


def _finder(how: Mapping[str, Any]) -> Find:
    patterns = {str(name): re.compile(str(text)) for name, text in how.get("patterns", ())}
    if how["for"] == "secrets":
        entropy = bool(how.get("entropy"))
        return lambda text: secretscan.find(text, entropy, patterns)
    detect = tuple(how.get("detect", ()))
    return lambda text: pii.find(text, detect, patterns)


def _within(text: str, find: Find) -> list[Found]:
    if len(text) > _PICTURE and _PURE.fullmatch(text):
        return _apart(_encoded(text, find))
    plain = spelling.plain(text)
    found = [Found(*plain.span(one.start, one.end), one.kind) for one in find(plain.text)]
    if plain.text != text:  # what a person's own pattern says of the text as it is
        found += find(text)
    found += _encoded(text, find)
    return _apart(found)


def _encoded(text: str, find: Find) -> Iterator[Found]:
    """What is base64 or hex of something that would have been found."""
    for run, decode in ((_RUN, _of_base64), (_HEX_RUN, _of_hex)):
        for match in run.finditer(text):
            for inside in decode(match[0]):
                if inside and next(find(spelling.plain(inside).text), None) is not None:
                    yield Found(match.start(), match.end(), ENCODED)
                    break


def _of_base64(run: str) -> Iterator[str]:
    told = re.sub(r"\s", "", run).rstrip("=").translate(str.maketrans("-_", "+/"))
    for skip in range(4):  # a letter before it may not belong to it
        part = told[skip:]
        part = part[: len(part) - (len(part) % 4 == 1)]
        try:
            data = base64.b64decode(part + "=" * (-len(part) % 4))
        except (binascii.Error, ValueError):
            continue
        yield _as_text(data)


def _of_hex(run: str) -> Iterator[str]:
    told = re.sub(r"[ :]", "", run)
    yield _as_text(bytes.fromhex(told[: len(told) // 2 * 2]))


def _as_text(data: bytes) -> str:
    """ "" when it is none: pictures are not looked through."""
    text = data.decode("ascii", "ignore")
    return text if len(text) * 10 >= len(data) * 9 else ""


def _across(
    texts: Sequence[str], found: Sequence[Sequence[Found]], order: Sequence[int], find: Find
) -> Iterator[tuple[int, Found]]:
    """What begins in one text and ends in another that is read after it: each part is found for itself. Of what is
    long only both ends can be part of such a thing."""
    parts: list[tuple[int, int, int, int]] = []  # place in the joined text, which text, from where, to where
    told: list[str] = []
    size = 0
    for at in order:
        for begin, end in _ends(texts[at], found[at]):
            if begin:
                told.append(_BREAK)
                size += len(_BREAK)
            parts.append((size, at, begin, end))
            told.append(texts[at][begin:end])
            size += end - begin
        if found[at] and found[at][-1].end == len(texts[at]):
            told.append(_BREAK)
            size += len(_BREAK)
    joined = "".join(told)
    plain = spelling.plain(joined)
    for one in _apart(Found(*plain.span(f.start, f.end), f.kind) for f in find(plain.text)):
        held = [part for part in parts if part[0] < one.end and one.start < part[0] + part[3] - part[2]]
        if len({at for _, at, _, _ in held}) > 1:
            for place, at, begin, end in held:
                start, stop = max(one.start, place) - place, min(one.end, place + end - begin) - place
                yield at, Found(begin + start, begin + stop, one.kind)


def _ends(text: str, found: Sequence[Found]) -> Iterator[tuple[int, int]]:
    """What of a text may be part of something longer: between what was found, and of that the first and last."""
    begin = 0
    for one in (*found, Found(len(text), len(text), "")):
        if one.start - begin > 2 * _TAIL:
            yield begin, begin + _TAIL
            yield one.start - _TAIL, one.start
        elif one.start > begin:
            yield begin, one.start
        begin = one.end


def _apart(found: Any) -> list[Found]:
    """The longest of those that overlap, in order."""
    kept: list[Found] = []
    for one in sorted(found, key=lambda span: (span.start, -span.end)):
        if kept and one.start < kept[-1].end:
            if one.end > kept[-1].end:  # both: nothing of either stays
                kept[-1] = Found(kept[-1].start, one.end, kept[-1].kind)
        else:
            kept.append(one)
    return kept
