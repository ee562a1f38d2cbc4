"""Counts of a text: words, sentences, distinct words, and words a sentence."""

import json
import re
import sys
from typing import Any

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_END = re.compile(r"[.!?…]+(?=\s|$)")


def statistics(text: str) -> dict[str, Any]:
    words = [word.lower() for word in _WORD.findall(text)]
    sentences = len(_END.findall(text)) or (1 if words else 0)
    each = round(len(words) / sentences, 1) if sentences else 0.0
    return {
        "words": len(words),
        "sentences": sentences,
        "distinct": len(set(words)),
        "wordsPerSentence": each,
    }


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print(json.dumps(statistics(file.read())))
