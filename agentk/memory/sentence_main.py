"""The process that runs a sentence model: a line of texts in, a line of vectors out, until its input ends.

It holds nothing, opens nothing after its model, and ends with the daemon, whose pipe is its input. What it is given
was written by agents: a line has a bound, and so has its memory.
"""

import base64
import json
import resource
import sys
from array import array
from pathlib import Path

from agentk.memory import sentences

LINE_BYTES = 16 * 1024 * 1024
_ADDRESS_BYTES = 6 * 1024**3
_FILES = 32


def main(folder: str) -> int:
    try:
        model = sentences.Model(Path(folder))
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_BYTES, _ADDRESS_BYTES))
        resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    except (sentences.Unfit, OSError, ValueError, KeyError, TypeError) as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"[:500]}), flush=True)
        return 1
    print(json.dumps({"ready": True}), flush=True)
    for line in iter(lambda: sys.stdin.readline(LINE_BYTES), ""):
        made = model.embed([_clean(text) for text in json.loads(line)["texts"]])
        packed = [base64.b64encode(_floats(vector)).decode() for vector in made]
        print(json.dumps({"vectors": packed}), flush=True)
    return 0


def _clean(text: str) -> str:
    """Halves of surrogate pairs are no text to a tokenizer."""
    return text.encode("utf-8", "replace").decode()


def _floats(vector: list[float]) -> bytes:
    return array("f", vector).tobytes()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
