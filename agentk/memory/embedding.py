"""Embeddings: texts as vectors. The builtin one needs nothing: it hashes words and parts of words. Pure.

It is lexical: it finds what shares words, or parts of them, and knows of no meaning. "car" is as far from "automobile"
as from "banana". A ModelRoute's embedding model knows better; this one is always there, for nothing.
"""

import math
import re
import zlib
from collections import Counter

from agentk.api import memoryspecs
from agentk.memory import vectors

DIMS = memoryspecs.BUILTIN_DIMS
READ = 16 * 1024  # characters of a text that are looked at: the rest is found by words alone

_WORD = re.compile(r"\w+")
_PART = 4  # characters of a part of a word
_LONG = 64  # characters of a word: what is longer is read as its parts
# A shared word says more than a shared part of one, and in scripts without spaces there are only parts.
_WHOLE_WEIGHT, _PART_WEIGHT = 1.0, 0.35


def name(dims: int = DIMS) -> str:
    """What it is called on a shelf."""
    return f"{memoryspecs.BUILTIN}/{dims}"


def hashed(text: str, dims: int = DIMS) -> bytes:
    """Its vector as it is kept; b"" for a text without words."""
    features = Counter[str]()
    for word in _WORD.findall(text[:READ].lower()):
        if len(word) <= _LONG:
            features[f"={word}"] += 1
        edged = f" {word} "
        for at in range(max(1, len(edged) - _PART + 1)):
            features[edged[at : at + _PART]] += 1
    if not features:
        return b""
    values = [0.0] * dims
    for feature, many in features.items():
        weight = (_WHOLE_WEIGHT if feature[0] == "=" else _PART_WEIGHT) * (1 + math.log(many))
        digest = zlib.crc32(feature.encode("utf-8", "replace"))
        values[digest % dims] += weight if digest >> 31 else -weight
    return vectors.packed(values)


def similarity(one: bytes, other: bytes) -> float:
    """Cosine of two kept vectors, -1 to 1; 0 where one has none or another length."""
    if not one or len(one) != len(other):
        return 0.0
    left, right = memoryview(one).cast("f"), memoryview(other).cast("f")
    return math.fsum(a * b for a, b in zip(left, right, strict=True))
