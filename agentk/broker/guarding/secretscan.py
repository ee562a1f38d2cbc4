"""What in a text looks like a key: the shapes that providers give theirs, and words too random for anything else. Pure.

Looked for as written, in hex and in base64. It guesses: a secret without a shape, or encrypted, passes. The first
defence is that an agent holds none.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping

from agentk.broker.guarding.pii import Found

KIND = "SECRET"
_SHAPES = re.compile(
    r"(?:"
    r"(?<![A-Z0-9])(?:AKIA|ASIA|AGPA|AIDA|AROA)[A-Z2-7]{16}(?![A-Z0-9])"
    r"|(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{30,255}|github_pat_[A-Za-z0-9_]{40,255}"
    r"|gl(?:pat|ptt|rt|dt)-[A-Za-z0-9_\-]{20,100}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,250}|xapp-\d-[A-Za-z0-9-]{20,250}"
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,255}|whsec_[A-Za-z0-9+/=]{24,100}"
    r"|sk-(?:ant-|proj-|svcacct-|or-v1-|admin-)?[A-Za-z0-9_\-]{20,255}"
    r"|AIza[A-Za-z0-9_\-]{35}|ya29\.[A-Za-z0-9_\-]{20,255}"
    r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_\-]{40,255}|hf_[A-Za-z0-9]{30,60}|dckr_pat_[A-Za-z0-9_\-]{20,60}"
    r"|SG\.[A-Za-z0-9_\-]{16,32}\.[A-Za-z0-9_\-]{32,64}|dop_v1_[a-f0-9]{64}|gsk_[A-Za-z0-9]{40,80}"
    r"|eyJ[A-Za-z0-9_\-]{8,2048}\.eyJ[A-Za-z0-9_\-]{8,4096}\.[A-Za-z0-9_\-]{8,2048}"
    r"|(?:postgres(?:ql)?|mysql|mongodb(?:\+srv)?|redis|amqps?|https?)://[^\s:/@]{1,100}:[^\s:/@]{3,200}@"
    r")"
)
_BLOCK_BEGINS = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_BLOCK_ENDS = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_NAMED = re.compile(
    r"(?i)(?:pass(?:word|wd|phrase)|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential)s?"
    r"[\w.\-]{0,40}[\"'\\]{0,4}\s{0,4}(?:=>|:=|[:=])\s{0,4}[\"'\\]{0,4}([^\s\"'\\,;<>{}()\[\]]{8,512})"
)
_WORD = re.compile(r"[A-Za-z0-9+/_\-]{24,512}={0,2}")
_HEX = re.compile(r"[0-9a-fA-F]{24,512}")
_NAMED_BITS, _WORD_BITS = 2.5, 4.3  # of a letter: English has some 4 in all, random base64 of 40 letters 4.6


def find(text: str, entropy: bool, patterns: Mapping[str, "re.Pattern[str]"]) -> Iterator[Found]:
    """All that looks like one, perhaps overlapping. `text` is plain (`spelling`)."""
    for pattern in patterns.values():
        for match in pattern.finditer(text):
            if match.end() > match.start():
                yield Found(match.start(), match.end(), KIND)
    for match in _SHAPES.finditer(text):
        yield Found(match.start(), match.end(), KIND)
    for match in _BLOCK_BEGINS.finditer(text):
        end = _BLOCK_ENDS.search(text, match.end())
        yield Found(match.start(), end.end() if end else len(text), KIND)
    if entropy:
        yield from _random(text)


def _random(text: str) -> Iterator[Found]:
    for match in _NAMED.finditer(text):
        value = match[1]
        if bits(value) >= _NAMED_BITS and not value.startswith(("$", "%", "<", "*")):
            yield Found(match.start(1), match.end(1), KIND)
    for match in _WORD.finditer(text):
        word = match[0]
        if _mixed(word) and bits(word) >= _WORD_BITS:
            yield Found(match.start(), match.end(), KIND)


def _mixed(word: str) -> bool:
    """Capitals, small letters and digits throughout, as no name and no path has them; hex is a hash more often."""
    if _HEX.fullmatch(word) or word.count("/") > 3 or word.count("-") > 4 or word.count("_") > 4:
        return False
    kinds = ("d" if one.isdigit() else "U" if one.isupper() else "l" for one in word if one.isalnum())
    told = "".join(kinds)
    changes = sum(a != b for a, b in itertools.pairwise(told))
    return {"d", "U", "l"} <= set(told) and changes * 4 >= len(told)


def bits(word: str) -> float:
    """Of information in one letter."""
    total = len(word)
    return -sum(n / total * math.log2(n / total) for n in Counter(word).values())
